//! Random programs. A program is made while it runs on the model, so that most of its calls meet what is there.

use std::io;
use std::net::Shutdown;
use std::path::Path;

use fastrand::Rng;

use super::compare;
use super::packets::Sort;
use super::program::{Handle, MOST_ACCEPTED, NEVER, Op, Place, Setting, Target};
use super::rings::Ask;
use super::side::{Answer, Side, Watched};
use crate::sim::kernel::bits;
use crate::sim::sys::SimSys;
use crate::sys::EpollOp;

/// What a handle was made as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    Listener,
    Stream,
    Epoll,
    Bell,
    Spare,
    /// A socket for packets, or an end of a pipe.
    Packet(Sort),
}

pub(super) struct Generator {
    pub(super) dice: Rng,
    pub(super) side: Side<SimSys>,
    program: Vec<Op>,
    made: Vec<(Handle, Made)>,
    next: Handle,
    /// What was sent by each handle, in calls and bytes: buffers stay far from full.
    sent: Vec<(Handle, usize, usize)>,
    /// An io_uring, and what was asked of it.
    ring: Option<Handle>,
    asked: Vec<Handle>,
    /// An epoll that watches everything and is asked after every call.
    spectator: Option<Handle>,
    /// The sorts of packets that it is about; none if it is about streams.
    pub(super) sorts: Vec<Sort>,
    /// Pipes into which something was spliced.
    pub(super) spliced: Vec<Handle>,
}

/// Most that is sent by one handle, in calls and in bytes.
const MOST_SENT: (usize, usize) = (16, 12 << 10);

/// All that an epoll can be told to report of a change.
pub(super) const EVERYTHING: u32 = bits::IN | bits::PRI | bits::OUT | bits::RDHUP | bits::EDGE;

/// The program of a seed.
pub(super) fn program(seed: u64, folder: &Path) -> io::Result<Vec<Op>> {
    let mut dice = Rng::with_seed(seed);
    let watched = dice.bool();
    let ring = dice.u8(..3) == 0;
    Ok(Generator::new(seed, dice, folder)?.generate(watched, ring).program)
}

/// The program of a seed about datagrams, sequenced packets and pipes.
pub(super) fn packet_program(seed: u64, folder: &Path) -> io::Result<Vec<Op>> {
    let mut dice = Rng::with_seed(seed ^ 0x7061_636b);
    let (watched, ring) = (dice.bool(), dice.u8(..3) == 0);
    let mut generator = Generator::new(seed, dice, folder)?;
    generator.choose_sorts();
    Ok(generator.generate(watched, ring).program)
}

/// The program of a seed, and the epoll that watches everything in it.
pub(super) fn watched_program(seed: u64, folder: &Path) -> io::Result<(Vec<Op>, Handle)> {
    let generated = Generator::new(seed, Rng::with_seed(seed), folder)?.generate(true, false);
    Ok((generated.program, generated.spectator.unwrap_or_default()))
}

impl Generator {
    fn new(seed: u64, dice: Rng, folder: &Path) -> io::Result<Self> {
        Ok(Generator {
            side: Side::new(compare::model(seed), folder.to_owned())?,
            dice,
            program: Vec::new(),
            made: Vec::new(),
            next: 0,
            sent: Vec::new(),
            spectator: None,
            ring: None,
            asked: Vec::new(),
            sorts: Vec::new(),
            spliced: Vec::new(),
        })
    }

    fn generate(mut self, watched: bool, ring: bool) -> Self {
        let length = self.dice.usize(1..=200);
        if ring {
            let into = self.name();
            let incremental = self.dice.bool();
            self.add(Op::Ring { into, incremental });
            self.ring = Some(into);
        }
        if watched {
            let into = self.name();
            self.add(Op::Epoll { into });
            self.spectator = Some(into);
        }
        while self.program.len() < length {
            if self.sorts.is_empty() || self.dice.u8(..4) == 0 {
                self.step();
            } else if let Some(op) = self.packet_call() {
                self.add_packet_call(op);
            }
        }
        self
    }

    pub(super) fn name(&mut self) -> Handle {
        self.next += 1;
        self.next - 1
    }

    /// Adds a call, and what the spectator does about it.
    pub(super) fn add(&mut self, op: Op) -> bool {
        let answer = self.side.run(&op);
        self.side.sys.settle();
        let made: Vec<(Handle, Made)> = match (&op, &answer) {
            (_, Answer::Failed(_) | Answer::Skipped) => Vec::new(),
            (Op::Listen { into, .. } | Op::ListenAgain { into, .. }, _) => vec![(*into, Made::Listener)],
            (Op::Accept { into, .. }, _) if self.side.sort(*into).is_some() => {
                vec![(*into, Made::Packet(Sort::Sequenced))]
            }
            (Op::Connect { into, .. } | Op::Accept { into, .. }, _) => vec![(*into, Made::Stream)],
            (Op::Pair { into }, _) => vec![(into[0], Made::Stream), (into[1], Made::Stream)],
            (Op::Packet(op), _) => op.makes().into_iter().map(|(h, sort)| (h, Made::Packet(sort))).collect(),
            (Op::Spare { into }, _) => vec![(*into, Made::Spare)],
            (Op::Bell { into }, _) => vec![(*into, Made::Bell)],
            (Op::Epoll { into }, _) => vec![(*into, Made::Epoll)],
            (Op::Ask { into, .. } | Op::Turn { into, .. }, _) => (0..MOST_ACCEPTED)
                .map(|n| (into + n, Made::Stream))
                .filter(|(handle, _)| self.side.is_open(*handle))
                .collect(),
            _ => Vec::new(),
        };
        let waits = matches!(op, Op::Wait { .. });
        self.program.push(op);
        self.made.extend(&made);
        let Some(epoll) = self.spectator.filter(|epoll| self.side.is_open(*epoll)) else {
            return answer != Answer::Skipped;
        };
        for (on, made) in made {
            if made != Made::Epoll {
                let op = Op::Ctl { epoll, op: EpollOp::Add, on, flags: EVERYTHING };
                self.side.run(&op);
                self.program.push(op);
            }
        }
        if !waits {
            let op = Op::Wait { epoll, most: 64 };
            self.side.run(&op);
            self.program.push(op);
        }
        answer != Answer::Skipped
    }

    /// One of a kind; mostly one that is open.
    pub(super) fn pick(&mut self, made: Made) -> Option<Handle> {
        let dead = self.dice.u8(..20) == 0;
        let of_kind = self.made.iter().filter(|(_, as_what)| *as_what == made).map(|(handle, _)| *handle);
        let all: Vec<Handle> = of_kind.filter(|handle| dead || self.side.is_open(*handle)).collect();
        self.dice.choice(all)
    }

    /// Anything.
    fn pick_any(&mut self) -> Option<Handle> {
        if self.dice.u8(..25) == 0 {
            return Some(NEVER);
        }
        if !self.sorts.is_empty() && self.dice.u8(..4) != 0 {
            return self.pick_packet();
        }
        let kinds = [Made::Stream, Made::Stream, Made::Stream, Made::Listener, Made::Bell, Made::Spare];
        let kind = *self.dice.choice(&kinds)?;
        self.pick(kind)
    }

    /// A stream; rarely something else, to which the call must not be made.
    fn pick_stream(&mut self) -> Option<Handle> {
        if self.dice.u8(..30) == 0 { self.pick_any() } else { self.pick(Made::Stream) }
    }

    fn step(&mut self) {
        let streams = self.made.iter().filter(|(h, m)| *m == Made::Stream && self.side.is_open(*h)).count();
        // A world of a few ends, in which things happen.
        let begin = match streams {
            0..2 if !self.sorts.is_empty() => 20,
            0..2 => 60,
            2..8 => 20,
            _ => 3,
        };
        let op = match self.dice.u8(..100) {
            n if n < begin => self.begin(),
            _ if self.ring.is_some() && self.dice.u8(..3) == 0 => self.ring(),
            _ => match self.dice.u8(..100) {
                0..50 => self.transfer(),
                50..62 => self.close(),
                62..66 => self.ask(),
                66..86 => self.epoll(),
                86..92 => self.poll(),
                92..97 => self.wake(),
                _ => self.make(),
            },
        };
        let Some(op) = op else { return };
        let connects = if let Op::Connect { to: Target::Listener(at), .. } = op { Some(at) } else { None };
        self.add(op);
        // Mostly accepted at once: one that waits acknowledges late, and takes the comparison's time.
        if let Some(from) = connects
            && self.dice.u8(..8) != 0
        {
            let into = self.name();
            self.add(Op::Accept { from, into });
        }
    }

    fn begin(&mut self) -> Option<Op> {
        if !self.side.has_room(3) {
            return None;
        }
        let into = self.name();
        Some(match self.dice.u8(..20) {
            0..4 => Op::Pair { into: [into, self.name()] },
            4..7 => self.listen(into),
            7 => Op::ListenAgain { at: self.pick(Made::Listener)?, into },
            8 => Op::Unlink { at: self.pick(Made::Listener)? },
            9 if self.dice.bool() => Op::Connect { to: Target::Nobody, into },
            9 => Op::Connect { to: Target::NoFile, into },
            10..15 => Op::Connect { to: Target::Listener(self.pick(Made::Listener)?), into },
            _ => Op::Accept { from: self.pick(Made::Listener)?, into },
        })
    }

    fn listen(&mut self, into: Handle) -> Op {
        let backlog = if self.dice.u8(..8) == 0 { self.dice.u32(1..3) } else { 64 };
        let at = match self.dice.u8(..5) {
            0..2 => Place::Tcp4,
            2 => Place::Tcp6,
            _ => Place::Unix(self.dice.u8(..3)),
        };
        Op::Listen { at, backlog, into }
    }

    pub(super) fn bytes(&mut self) -> usize {
        match self.dice.u8(..10) {
            0 => 0,
            1 => 1,
            2..8 => self.dice.usize(1..100),
            _ => self.dice.usize(1..3000),
        }
    }

    /// Notes that so much is sent, unless it would be too much.
    pub(super) fn may_send(&mut self, on: Handle, bytes: usize) -> bool {
        let at = match self.sent.iter().position(|sent| sent.0 == on) {
            Some(at) => at,
            None => {
                self.sent.push((on, 0, 0));
                self.sent.len() - 1
            }
        };
        let sent = &mut self.sent[at];
        if sent.1 == MOST_SENT.0 || sent.2 + bytes > MOST_SENT.1 {
            return false;
        }
        (sent.1, sent.2) = (sent.1 + 1, sent.2 + bytes);
        true
    }

    fn transfer(&mut self) -> Option<Op> {
        let on = self.pick_stream()?;
        let tag = self.dice.u8(..);
        match self.dice.u8(..10) {
            0..4 => {
                let bytes = self.bytes();
                self.may_send(on, bytes).then_some(Op::Send { on, bytes, tag })
            }
            4 => {
                let parts: Vec<usize> = (0..self.dice.usize(1..4)).map(|_| self.dice.usize(..200)).collect();
                self.may_send(on, parts.iter().sum()).then_some(Op::SendVectored { on, parts, tag })
            }
            5 => Some(Op::Recv { on, most: self.dice.usize(..50) }),
            _ => Some(Op::Recv { on, most: 16 << 10 }),
        }
    }

    fn close(&mut self) -> Option<Op> {
        Some(match self.dice.u8(..10) {
            0..6 => {
                let how =
                    *self.dice.choice(&[Shutdown::Read, Shutdown::Write, Shutdown::Write, Shutdown::Both])?;
                Op::Shutdown { on: self.pick_stream()?, how }
            }
            6..8 => Op::Close { on: self.pick_stream()? },
            8 => Op::Abort { on: self.pick_stream()? },
            _ => Op::Close { on: self.pick_any()? },
        })
    }

    fn ask(&mut self) -> Option<Op> {
        let on = self.pick_any()?;
        Some(match self.dice.u8(..5) {
            0..2 => Op::TakeError { on },
            2 => Op::LocalAddr { on },
            3 => Op::PeerAddr { on },
            _ => {
                let settings = [
                    Setting::NoDelay(true),
                    Setting::KeepAlive(true),
                    Setting::KeepAlive(false),
                    Setting::ResetOnClose,
                ];
                Op::Set { on, setting: *self.dice.choice(&settings)? }
            }
        })
    }

    fn ring(&mut self) -> Option<Op> {
        let ring = self.ring?;
        // All that waits to be accepted may be, at once.
        if !self.side.has_room(20) {
            return None;
        }
        let into = self.name();
        self.next += MOST_ACCEPTED;
        if self.dice.bool() {
            return Some(Op::Turn { ring, into });
        }
        let (multishot, tag) = (self.dice.bool(), self.dice.u8(..));
        let (on, ask) = match self.dice.u8(..10) {
            0..3 => (self.pick_stream()?, Ask::Receive { multishot }),
            3 => (self.pick(Made::Listener)?, Ask::Accept { multishot }),
            4 => (self.pick_any()?, Ask::Accept { multishot }),
            5..7 => {
                let events = *self.dice.choice(&[0, 1, 2, 3, 4, 5, 0x2001, 0x2000])?;
                (self.pick_any()?, Ask::Poll { events, multishot })
            }
            7 => {
                let (on, bytes) = (self.pick_stream()?, self.bytes());
                (self.may_send(on, bytes).then_some(on)?, Ask::Send { bytes, tag })
            }
            8 => (NEVER, Ask::Cancel { of: self.dice.choice(&self.asked).copied()? }),
            _ => (self.pick_any()?, Ask::CancelAll),
        };
        self.asked.push(into);
        Some(Op::Ask { ring, ask, on, into })
    }

    fn flags(&mut self) -> u32 {
        let mut flags = 0;
        for (bit, chance) in
            [(bits::IN, 8), (bits::OUT, 6), (bits::RDHUP, 4), (bits::PRI, 2), (bits::EDGE, 5)]
        {
            if self.dice.u8(..10) < chance {
                flags |= bit;
            }
        }
        match self.dice.u8(..10) {
            0 | 1 => flags | bits::ONESHOT,
            2 => flags & (bits::IN | bits::OUT | bits::EDGE) | bits::EXCLUSIVE,
            3 if self.dice.u8(..5) == 0 => flags | bits::EXCLUSIVE,
            _ => flags,
        }
    }

    fn epoll(&mut self) -> Option<Op> {
        let epolls = self.made.iter().filter(|(h, m)| *m == Made::Epoll && self.side.is_open(*h)).count();
        if epolls < 1 + usize::from(self.spectator.is_some()) {
            return self.side.has_room(1).then(|| Op::Epoll { into: self.name() });
        }
        let epoll = if self.dice.u8(..50) == 0 { self.pick_any()? } else { self.pick(Made::Epoll)? };
        if self.dice.u8(..10) < 5 {
            let most = if self.dice.bool() { 64 } else { self.dice.usize(1..4) };
            return Some(Op::Wait { epoll, most });
        }
        let op = *self.dice.choice(&[EpollOp::Add, EpollOp::Add, EpollOp::Modify, EpollOp::Delete])?;
        let on = if self.dice.u8(..50) == 0 { epoll } else { self.pick_any()? };
        // One inside another is not modelled.
        let owner = self.side.owner(on).unwrap_or(on);
        let nested = owner != epoll && self.made.contains(&(owner, Made::Epoll));
        let flags = self.flags();
        (!nested).then_some(Op::Ctl { epoll, op, on, flags })
    }

    fn poll(&mut self) -> Option<Op> {
        let several = self.dice.usize(1..6);
        if self.dice.bool() {
            let mut on = Vec::new();
            for _ in 0..several {
                on.push((self.pick_any()?, *self.dice.choice(&[0, 1, 4, 5, 0x2000, 0x2001, 2, 7])?));
            }
            return Some(Op::Poll { on });
        }
        let mut on = Vec::new();
        for _ in 0..several {
            on.push((self.pick_any()?, self.dice.u8(..8)));
        }
        Some(Op::Select { on })
    }

    fn wake(&mut self) -> Option<Op> {
        let on = self.pick(Made::Bell)?;
        Some(if self.dice.bool() { Op::Wake { on } } else { Op::ClearWake { on } })
    }

    fn make(&mut self) -> Option<Op> {
        if !self.side.has_room(1) {
            return None;
        }
        let into = self.name();
        Some(match self.dice.u8(..4) {
            0 => Op::Spare { into },
            1 => Op::Epoll { into },
            _ => Op::Bell { into },
        })
    }
}
