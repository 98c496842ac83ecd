//! Random calls about datagrams, sequenced packets and pipes.

use super::generate::{Generator, Made};
use super::packets::{At, PacketOp, Sort};
use super::program::{Handle, Op};

impl PacketOp {
    /// The handles that a call gives names to.
    pub(super) fn makes(&self) -> Vec<(Handle, Sort)> {
        match self {
            PacketOp::Socket { sort, into } => vec![(*into, *sort)],
            PacketOp::Pair { sort, into } => vec![(into[0], *sort), (into[1], *sort)],
            PacketOp::Pipe { into } => vec![(into[0], Sort::Pipe), (into[1], Sort::Pipe)],
            _ => Vec::new(),
        }
    }
}

impl Generator {
    /// What the program is about: mostly of one sort, whose sockets meet then.
    pub(super) fn choose_sorts(&mut self) {
        use Sort::{Datagram, Pipe, Sequenced, Udp4, Udp6};
        let sorts: &[Sort] = match self.dice.u8(..12) {
            0..2 => &[Udp4],
            2 => &[Udp6],
            3 => &[Udp4, Udp6],
            4..7 => &[Datagram],
            7..9 => &[Sequenced],
            9 => &[Pipe],
            10 => &[Datagram, Sequenced],
            _ => &[Udp4, Udp6, Datagram, Sequenced, Pipe],
        };
        self.sorts = sorts.to_vec();
    }

    pub(super) fn pick_packet(&mut self) -> Option<Handle> {
        let sort = self.dice.choice(&self.sorts).copied()?;
        self.pick(Made::Packet(sort))
    }

    fn pick_sort(&mut self, is: impl Fn(Sort) -> bool) -> Option<Handle> {
        let sorts: Vec<Sort> = self.sorts.iter().copied().filter(|sort| is(*sort)).collect();
        let sort = self.dice.choice(sorts)?;
        self.pick(Made::Packet(sort))
    }

    /// Adds a call; a socket that is made is mostly bound at once, and may listen.
    pub(super) fn add_packet_call(&mut self, op: Op) {
        let made =
            if let Op::Packet(PacketOp::Socket { sort, into }) = op { Some((sort, into)) } else { None };
        self.add(op);
        let Some((sort, on)) = made.filter(|_| self.dice.u8(..4) != 0) else { return };
        let at = self.place(sort);
        self.add(Op::Packet(PacketOp::Bind { on, at }));
        if sort == Sort::Sequenced && self.dice.u8(..3) == 0 {
            let backlog = self.dice.i32(0..4);
            self.add(Op::Packet(PacketOp::Listen { on, backlog }));
        }
    }

    fn place(&mut self, sort: Sort) -> At {
        if sort.is_udp() {
            return if self.dice.u8(..5) == 0 { At::All } else { At::Loopback };
        }
        let number = self.dice.u8(..6);
        if self.dice.u8(..3) == 0 { At::File(number) } else { At::Abstract(number) }
    }

    fn make_packet(&mut self) -> Option<Op> {
        if !self.side.has_room(3) {
            return None;
        }
        let sort = self.dice.choice(&self.sorts).copied()?;
        let into = self.name();
        Some(Op::Packet(match sort {
            Sort::Pipe => PacketOp::Pipe { into: [into, self.name()] },
            Sort::Datagram | Sort::Sequenced if self.dice.u8(..3) == 0 => {
                PacketOp::Pair { sort, into: [into, self.name()] }
            }
            _ => PacketOp::Socket { sort, into },
        }))
    }

    /// A call about packets, or one that others have too.
    pub(super) fn packet_call(&mut self) -> Option<Op> {
        let open = self.side.sorts.keys().filter(|handle| self.side.is_open(**handle)).count();
        if self.dice.u8(..100) < [70, 60, 30, 20, 10, 5][open.min(5)] {
            return self.make_packet();
        }
        match self.dice.u8(..100) {
            0..8 => {
                let (on, to) = (self.pick_packet()?, self.pick_packet()?);
                Some(Op::Packet(PacketOp::Connect { on, to }))
            }
            8..12 => self.packet_set_up(),
            12..60 => self.packet_transfer(),
            60..80 => self.pipe_transfer(),
            80..84 => {
                let on = self.pick_packet()?;
                Some(Op::Packet(if self.dice.bool() {
                    PacketOp::Local { on }
                } else {
                    PacketOp::Peer { on }
                }))
            }
            84..87 => Some(Op::TakeError { on: self.pick_packet()? }),
            87..92 => {
                let from = self.pick_sort(|sort| sort == Sort::Sequenced)?;
                let room = self.side.has_room(1);
                room.then(|| Op::Accept { from, into: self.name() })
            }
            92..95 => Some(Op::Close { on: self.pick_packet()? }),
            _ => {
                use std::net::Shutdown::{Both, Read, Write};
                let on = self.pick_sort(Sort::is_unix)?;
                let how = *self.dice.choice(&[Read, Write, Both])?;
                (self.dice.u8(..3) == 0).then_some(Op::Shutdown { on, how })
            }
        }
    }

    fn packet_set_up(&mut self) -> Option<Op> {
        let on = self.pick_packet()?;
        let sort = self.side.sort(on)?;
        Some(Op::Packet(match self.dice.u8(..4) {
            0 => PacketOp::Listen { on, backlog: self.dice.i32(0..4) },
            1 => PacketOp::Bind { on, at: At::Like(self.pick_packet()?) },
            _ => PacketOp::Bind { on, at: self.place(sort) },
        }))
    }

    fn packet_transfer(&mut self) -> Option<Op> {
        let on = self.pick_sort(|sort| sort != Sort::Pipe)?;
        let tag = self.dice.u8(..);
        Some(match self.dice.u8(..20) {
            0..9 => {
                let bytes = self.bytes();
                let named = self.dice.bool();
                let to = if named { Some(self.pick_packet()?) } else { None };
                let bytes = if self.dice.u8(..60) == 0 { 65_600 } else { bytes };
                let fits = bytes > 65_507 && self.side.sort(on).is_some_and(Sort::is_udp);
                (fits || self.may_send(on, bytes)).then_some(())?;
                Op::Packet(PacketOp::Send { on, to, bytes, tag })
            }
            9..12 => Op::Recv { on, most: self.dice.usize(..200) },
            _ => {
                let most = if self.dice.bool() { 4000 } else { self.dice.usize(..100) };
                Op::Packet(PacketOp::Recv { on, most })
            }
        })
    }

    fn pipe_transfer(&mut self) -> Option<Op> {
        let on = self.pick_sort(|sort| sort == Sort::Pipe)?;
        let tag = self.dice.u8(..);
        // Pages are what it is about.
        let mut largest = *self.dice.choice(&[10, 5_000, 30_000, 100_000])?;
        if self.spliced.contains(&on) {
            // How many of a pipe's pieces are taken by what came from a socket is nothing to rely on: it stays far from full.
            largest = 100;
            self.may_send(on, largest).then_some(())?;
        }
        Some(Op::Packet(match self.dice.u8(..20) {
            0..8 => PacketOp::Write { on, parts: vec![self.dice.usize(..=largest)], tag },
            8 => {
                PacketOp::Write { on, parts: vec![self.dice.usize(..=largest), self.dice.usize(..100)], tag }
            }
            9..18 => PacketOp::Read { on, most: self.dice.usize(..=largest) },
            _ => {
                let stream = self.pick(Made::Stream)?;
                let (from, to) = if self.dice.bool() { (on, stream) } else { (stream, on) };
                if to == on {
                    let few = |end| self.side.pieces(end).is_some_and(|pieces| pieces < 4);
                    (few(from) && few(to) && !self.spliced.contains(&to)).then_some(())?;
                    self.spliced.push(to);
                }
                PacketOp::Splice { from, to, most: self.dice.usize(1..4_000) }
            }
        }))
    }
}
