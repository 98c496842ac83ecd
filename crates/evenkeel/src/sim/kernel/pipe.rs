//! Pipes, in the pieces that Linux keeps: sixteen of at most a page, of which only the last one grows. So there may be no
//! room although few bytes wait.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::{HostId, Kernel, Kind, Object, ObjectId, bits};
use crate::sim::fault::Fault;
use crate::sys::Fd;

const PAGE: usize = 4096;
const PIECES: usize = 16;

/// What one write, or more, has put into a page.
#[derive(Debug)]
struct Piece {
    bytes: VecDeque<u8>,
    /// As far as the page is used, by bytes that were read already too.
    end: usize,
    /// Moved here from a socket, so that it does not grow.
    spliced: bool,
}

/// One end. The reading one has what is in the pipe, and leaves it to the other one.
#[derive(Debug)]
pub(crate) struct Pipe {
    writes: bool,
    other: Option<ObjectId>,
    pieces: VecDeque<Piece>,
}

impl Pipe {
    fn new(writes: bool) -> Self {
        Pipe { writes, other: None, pieces: VecDeque::new() }
    }

    fn is_full(&self) -> bool {
        self.pieces.len() >= PIECES
    }

    /// Puts in what there is room for.
    fn put(&mut self, mut from: &[u8], spliced: bool) -> usize {
        let before = from.len();
        let odd = from.len() % PAGE;
        if let Some(last) = self.pieces.back_mut().filter(|_| odd > 0 && !spliced)
            && !last.spliced
            && last.end + odd <= PAGE
        {
            // As Linux: what makes up no whole page goes to the last piece if it fits.
            last.bytes.extend(&from[..odd]);
            last.end += odd;
            from = &from[odd..];
        }
        while !from.is_empty() && !self.is_full() {
            let (page, rest) = from.split_at(from.len().min(PAGE));
            self.pieces.push_back(Piece { bytes: page.iter().copied().collect(), end: page.len(), spliced });
            from = rest;
        }
        before - from.len()
    }

    fn take(&mut self, into: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(piece) = self.pieces.front_mut().filter(|_| done < into.len()) {
            let n = piece.bytes.len().min(into.len() - done);
            for (to, byte) in into[done..done + n].iter_mut().zip(piece.bytes.drain(..n)) {
                *to = byte;
            }
            done += n;
            if piece.bytes.is_empty() {
                self.pieces.pop_front();
            }
        }
        done
    }
}

impl Kernel {
    pub(crate) fn pipe(&mut self, host: HostId) -> Result<(Fd, Fd), Errno> {
        self.has_number(host)?;
        let ends = [false, true].map(|writes| self.objects.insert(host, Kind::Pipe(Pipe::new(writes))));
        for (end, other) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            if let Some(pipe) = self.pipe_end(end) {
                pipe.other = Some(other);
            }
        }
        let read = self.assign(host, ends[0])?;
        match self.assign(host, ends[1]) {
            Ok(write) => Ok((read, write)),
            Err(e) => {
                self.end(ends[1]);
                self.close(host, read)?;
                Err(e)
            }
        }
    }

    fn pipe_end(&mut self, id: ObjectId) -> Option<&mut Pipe> {
        match self.objects.get_mut(id) {
            Some(Object { kind: Kind::Pipe(pipe), .. }) => Some(pipe),
            _ => None,
        }
    }

    /// The end that has the bytes; none if it is closed.
    fn reading_end(&self, pipe: &Pipe) -> Option<&Pipe> {
        match &self.objects.get(pipe.other?)?.kind {
            Kind::Pipe(other) => Some(other),
            _ => None,
        }
    }

    /// Pieces in the pipe that a descriptor is an end of, or on their way through a Unix socket. None for anything else.
    pub(crate) fn pieces(&self, host: HostId, fd: Fd) -> Option<usize> {
        match &self.object(host, fd).ok()?.kind {
            Kind::Pipe(pipe) if pipe.writes => Some(self.reading_end(pipe).unwrap_or(pipe).pieces.len()),
            Kind::Pipe(pipe) => Some(pipe.pieces.len()),
            Kind::Stream(stream) if stream.unix => Some(stream.pieces()),
            _ => None,
        }
    }

    /// Bytes in a pipe, as both ends tell.
    pub(super) fn pipe_unread(&self, pipe: &Pipe) -> usize {
        let reading = if pipe.writes { self.reading_end(pipe).unwrap_or(pipe) } else { pipe };
        reading.pieces.iter().map(|piece| piece.bytes.len()).sum()
    }

    pub(super) fn pipe_mask(&self, pipe: &Pipe) -> u32 {
        let other = self.reading_end(pipe);
        match (pipe.writes, other) {
            (true, None) if pipe.is_full() => bits::ERR,
            (true, None) => bits::OUT | bits::ERR,
            (true, Some(reader)) => {
                if reader.is_full() {
                    0
                } else {
                    bits::OUT
                }
            }
            (false, writer) => {
                let there = if pipe.pieces.is_empty() { 0 } else { bits::IN };
                there | if writer.is_none() { bits::HUP } else { 0 }
            }
        }
    }

    fn pipe_of(&mut self, host: HostId, fd: Fd, writes: bool) -> Result<(ObjectId, &mut Pipe), Errno> {
        let id = self.lookup(host, fd)?;
        let pipe = self.pipe_end(id).ok_or(Errno::INVAL)?;
        if pipe.writes == writes { Ok((id, pipe)) } else { Err(Errno::BADF) }
    }

    pub(crate) fn pipe_read(&mut self, host: HostId, fd: Fd, into: &mut [u8]) -> Result<usize, Errno> {
        let (id, pipe) = self.pipe_of(host, fd, false)?;
        if into.is_empty() {
            return Ok(0);
        }
        let (full, writer) = (pipe.is_full(), pipe.other);
        if pipe.pieces.is_empty() {
            let ended = writer.is_none_or(|writer| self.objects.get(writer).is_none());
            return if ended { Ok(0) } else { Err(Errno::AGAIN) };
        }
        if self.strikes(Fault::WouldBlock) {
            self.notify_soon(id, bits::IN);
            return Err(Errno::AGAIN);
        }
        let mut most = into.len();
        if most > 1 && self.strikes(Fault::ShortRead) {
            most = self.faults.dice(Fault::ShortRead).usize(1..most);
            self.notify_soon(id, bits::IN);
        }
        let Some(pipe) = self.pipe_end(id) else { return Err(Errno::BADF) };
        let n = pipe.take(&mut into[..most]);
        let has_room = full && !pipe.is_full();
        self.log(format_args!("read {fd}: {n}"));
        if let Some(writer) = writer.filter(|_| has_room) {
            self.notify(writer, bits::OUT);
        }
        Ok(n)
    }

    pub(crate) fn pipe_write(&mut self, host: HostId, fd: Fd, from: &[&[u8]]) -> Result<usize, Errno> {
        let from = from.concat();
        self.pipe_put(host, fd, &from, false)
    }

    fn pipe_put(&mut self, host: HostId, fd: Fd, from: &[u8], spliced: bool) -> Result<usize, Errno> {
        let (id, pipe) = self.pipe_of(host, fd, true)?;
        let reader = pipe.other.filter(|reader| self.objects.get(*reader).is_some());
        if from.is_empty() {
            return Ok(0);
        }
        let reader = reader.ok_or(Errno::PIPE)?;
        let mut most = from.len();
        // What a pipe takes in one piece is not cut.
        if !spliced && self.strikes(Fault::WouldBlock) {
            self.notify_soon(id, bits::OUT);
            return Err(Errno::AGAIN);
        }
        if !spliced && most > PAGE && self.strikes(Fault::ShortWrite) {
            most = self.faults.dice(Fault::ShortWrite).usize(1..most);
            self.notify_soon(id, bits::OUT);
        }
        let n = self.pipe_end(reader).map_or(0, |reader| reader.put(&from[..most], spliced));
        if n == 0 {
            // It tells all the same, of what has been there.
            if !spliced {
                self.notify(reader, bits::IN);
            }
            return Err(Errno::AGAIN);
        }
        self.log(format_args!("write {fd}: {n} of {}", from.len()));
        self.notify(reader, if spliced { bits::STATE } else { bits::IN });
        Ok(n)
    }

    /// Moves bytes from a socket into a pipe, or from a pipe into a socket.
    pub(crate) fn splice(&mut self, host: HostId, from: Fd, to: Fd, most: usize) -> Result<usize, Errno> {
        let is_pipe =
            |kernel: &Self, fd| Ok::<_, Errno>(matches!(kernel.object(host, fd)?.kind, Kind::Pipe(_)));
        match (is_pipe(self, from)?, is_pipe(self, to)?) {
            (false, true) => {
                let (_, end) = self.pipe_of(host, to, true)?;
                let reader = end.other.ok_or(Errno::PIPE)?;
                let pieces = self.pipe_end(reader).ok_or(Errno::PIPE)?.pieces.len();
                let room = PIECES.saturating_sub(pieces) * PAGE;
                if room == 0 {
                    return Err(Errno::AGAIN);
                }
                let mut memory = vec![0; most.min(room)];
                let n = self.recv(host, from, &mut memory)?;
                if n == 0 { Ok(0) } else { self.pipe_put(host, to, &memory[..n], true) }
            }
            (true, false) => {
                self.pipe_of(host, from, false)?;
                // What takes no pages is told before it is known whether there are any.
                if let Kind::Spare | Kind::Epoll(_) | Kind::Bell(_) | Kind::Ring(_) =
                    self.object(host, to)?.kind
                {
                    return Err(Errno::INVAL);
                }
                let (id, pipe) = self.pipe_of(host, from, false)?;
                let bytes: Vec<u8> =
                    pipe.pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).take(most).collect();
                let (pieces, writer) = (pipe.pieces.len(), pipe.other);
                if bytes.is_empty() {
                    let ended = writer.is_none_or(|writer| self.objects.get(writer).is_none());
                    return if ended { Ok(0) } else { Err(Errno::AGAIN) };
                }
                let n = self.send(host, to, &[&bytes])?;
                let mut sent = vec![0; n];
                let Some(pipe) = self.pipe_end(id) else { return Err(Errno::BADF) };
                pipe.take(&mut sent);
                // Unlike a read, it tells of every piece that has gone.
                let gone = pipe.pieces.len() < pieces;
                if let Some(writer) = writer.filter(|_| gone) {
                    self.notify(writer, bits::STATE);
                }
                Ok(n)
            }
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn close_pipe(&mut self, pipe: Pipe) {
        if let Some(other) = pipe.other {
            // What was not read stays in the pipe, and nobody will empty it.
            if let Some(end) = self.pipe_end(other).filter(|_| !pipe.writes) {
                end.pieces = pipe.pieces;
            }
            self.notify(other, bits::STATE);
        }
    }
}
