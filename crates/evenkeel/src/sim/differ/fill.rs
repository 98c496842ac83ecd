//! Full buffers: their sizes are the kernel's business, but not what happens at their limits. One end writes until it is refused, the
//! other one reads, closes or resets, and both kernels must tell the same story.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

use fastrand::Rng;

use super::compare;
use super::program::Flags;
use super::side::Watched;
use crate::net::{Addr, ConnectOptions, ListenOptions, SocketOption};
use crate::sim::kernel::bits;
use crate::sys::{EpollEvent, EpollFlags, EpollOp, Fd, PollEntry, Real, alone, poll_bits};

/// What the two ends do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The writer writes until it is refused.
    Fill,
    /// The reader takes one byte.
    Nibble,
    /// The reader takes everything.
    Drain,
    EndWriting,
    CloseWriter,
    AbortWriter,
    CloseReader,
    AbortReader,
    EndReading,
    Write,
}

/// A story: what the ends are, and what they do.
#[derive(Debug)]
struct Story {
    tcp: bool,
    send_buffer: Option<usize>,
    recv_buffer: Option<usize>,
    piece: usize,
    steps: Vec<Step>,
}

fn story(seed: u64) -> Story {
    let mut dice = Rng::with_seed(seed ^ 0x6669_6c6c);
    let mut size = || (dice.u8(..8) != 0).then(|| 1 << dice.u32(12..17));
    let (send_buffer, recv_buffer) = (size(), size());
    let tcp = dice.u8(..3) != 0;
    let mut steps = Vec::new();
    for _ in 0..dice.usize(1..4) {
        steps.push(Step::Fill);
        for _ in 0..dice.usize(0..3) {
            steps.push(if dice.bool() { Step::Nibble } else { Step::Fill });
        }
        if dice.u8(..4) != 0 {
            steps.push(Step::Drain);
        }
    }
    use Step::{AbortReader, AbortWriter, CloseReader, CloseWriter, EndReading, EndWriting};
    let ends = [EndWriting, CloseWriter, AbortWriter, CloseReader, AbortReader, EndReading];
    steps.push(ends[dice.usize(..ends.len())]);
    steps.extend([Step::Write, Step::Drain, Step::Write, Step::Drain]);
    Story { tcp, send_buffer, recv_buffer, piece: dice.usize(2..40_000), steps }
}

/// Runs a story on both kernels. None if both tell the same.
pub(super) fn compare(seed: u64) -> io::Result<Option<String>> {
    let story = story(seed);
    let kernel = Ends::new(Real, &story)?.run(&story);
    let model = Ends::new(compare::model(seed), &story)?.run(&story);
    if kernel == model {
        return Ok(None);
    }
    let mut text = format!("fill, seed {seed}: {story:?}\n");
    for (step, (kernel, model)) in story.steps.iter().zip(kernel.iter().zip(&model)) {
        let differ = if kernel == model { "" } else { "   <-- differ" };
        text += &format!("  {step:?}{differ}\n    kernel: {kernel}\n    model:  {model}\n");
    }
    Ok(Some(text))
}

struct Ends<Y: Watched> {
    sys: Y,
    writer: Option<Fd>,
    reader: Option<Fd>,
    epoll: Fd,
    sent: usize,
    received: usize,
    /// The reader is not to receive any more.
    shut: bool,
    /// What the reader was ready for after the last step.
    seen: i16,
    piece: usize,
}

/// More than any buffers that are asked for here hold.
const MOST: usize = 64 << 20;

/// Milliseconds until bytes that are under way are given up: a sender asks again after a fifth of a second, then more slowly.
const PATIENCE: u32 = 5_000;

const WRITER: u64 = 1;
const READER: u64 = 2;

impl<Y: Watched> Ends<Y> {
    fn new(sys: Y, story: &Story) -> io::Result<Self> {
        let (writer, reader) = if story.tcp {
            let at = Addr::Ip(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
            let options = ListenOptions { recv_buffer: story.recv_buffer, ..Default::default() };
            let listener = sys.listen(&at, &options)?;
            let (writer, _) = sys.connect(&sys.local_addr(listener)?, &ConnectOptions::default())?;
            sys.settle();
            let (reader, _) = sys.accept(listener)?;
            sys.close(listener);
            (writer, reader)
        } else {
            sys.socket_pair()?
        };
        if let Some(size) = story.send_buffer {
            sys.set_option(writer, SocketOption::SendBuffer(size))?;
        }
        let epoll = sys.epoll_create()?;
        let flags = EpollFlags::from_bits_retain(bits::IN | bits::OUT | bits::RDHUP | bits::EDGE);
        sys.epoll_ctl(epoll, EpollOp::Add, writer, WRITER, flags)?;
        sys.epoll_ctl(epoll, EpollOp::Add, reader, READER, flags)?;
        Ok(Ends {
            sys,
            writer: Some(writer),
            reader: Some(reader),
            epoll,
            sent: 0,
            received: 0,
            shut: false,
            seen: 0,
            piece: story.piece,
        })
    }

    /// What happened at each step.
    fn run(mut self, story: &Story) -> Vec<String> {
        let mut told = vec![];
        for step in &story.steps {
            let doubted = story.tcp && *step == Step::AbortWriter && self.is_full();
            let mut line = self.step(*step);
            if doubted {
                // The reader may have had no memory for a packet before the reset, which it does not believe then until it has
                // read: the story ends here.
                told.push(line);
                break;
            }
            self.sys.settle();
            line += &self.state(*step);
            told.push(line);
        }
        for fd in [self.writer, self.reader].into_iter().flatten() {
            let _ = self.sys.set_option(fd, SocketOption::ResetOnClose);
            self.sys.close(fd);
        }
        self.sys.close(self.epoll);
        told
    }

    fn step(&mut self, step: Step) -> String {
        match step {
            Step::Fill => self.fill(),
            Step::Write => {
                let Some(fd) = self.writer else { return "gone".into() };
                let full = self.is_full();
                match self.sys.send(fd, &bytes(self.sent, 1)) {
                    Err(e) if e.kind() != io::ErrorKind::WouldBlock => format!("{:?}", e.kind()),
                    sent => {
                        self.sent += *sent.as_ref().unwrap_or(&0);
                        // A probe of the closed window takes bytes out of the queue, and its last packet has room then.
                        if full { "while full".into() } else { format!("{:?}", sent.map_err(|e| e.kind())) }
                    }
                }
            }
            Step::Nibble => self.read(1),
            Step::Drain => self.read(MOST),
            Step::EndWriting => self.writer.map_or("gone".into(), |fd| {
                format!("{:?}", self.sys.shutdown(fd, Shutdown::Write).map_err(|e| e.kind()))
            }),
            Step::EndReading => self.reader.map_or("gone".into(), |fd| {
                self.shut = true;
                format!("{:?}", self.sys.shutdown(fd, Shutdown::Read).map_err(|e| e.kind()))
            }),
            Step::CloseWriter | Step::AbortWriter => {
                let fd = self.writer.take();
                self.close(fd, step == Step::AbortWriter)
            }
            Step::CloseReader | Step::AbortReader => {
                let fd = self.reader.take();
                self.close(fd, step == Step::AbortReader)
            }
        }
    }

    fn close(&self, fd: Option<Fd>, reset: bool) -> String {
        let Some(fd) = fd else { return "gone".into() };
        if reset {
            let _ = self.sys.set_option(fd, SocketOption::ResetOnClose);
        }
        self.sys.close(fd);
        "closed".into()
    }

    fn fill(&mut self) -> String {
        let Some(fd) = self.writer else { return "gone".into() };
        let mut refused = 0;
        while self.sent < self.received + MOST {
            match self.sys.send(fd, &bytes(self.sent, self.piece)) {
                Ok(n) => (self.sent, refused) = (self.sent + n, 0),
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return format!("{:?}", e.kind()),
                // What is on its way may still make room, once it is acknowledged.
                Err(_) if refused < 2 => {
                    refused += 1;
                    self.rest(1);
                    let mut room = [PollEntry { fd, events: poll_bits::OUT, revents: 0 }];
                    // It takes any number.
                    let _ = self.sys.poll(&mut room, Some(self.sys.held_back()));
                }
                Err(_) => return "full".into(),
            }
        }
        "it never fills".into()
    }

    /// Reads at most so much, and for as long as more is known to come.
    fn read(&mut self, most: usize) -> String {
        let Some(fd) = self.reader else { return "gone".into() };
        let mut into = vec![0; most.min(1 << 16)];
        let (mut read, mut empty) = (0, 0);
        while read < most {
            self.sys.settle();
            match self.sys.recv(fd, &mut into) {
                // Who is shut hears of an end whenever there is nothing just now.
                Ok(0) if self.shut && self.received < self.sent && empty < PATIENCE => {
                    empty += 1;
                    self.rest(1);
                }
                Ok(0) => return format!("{} to the end", self.part()),
                Ok(n) if into[..n] != bytes(self.received, n) => return "other bytes".into(),
                Ok(n) => (self.received, read, empty) = (self.received + n, read + n, 0),
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => {
                    return format!("{}, then {:?}", self.part(), e.kind());
                }
                Err(_) if self.received < self.sent && empty < PATIENCE => {
                    empty += 1;
                    self.rest(1);
                }
                Err(_) => break,
            }
        }
        if most == 1 { "a byte".into() } else { self.part().into() }
    }

    fn part(&self) -> &'static str {
        // How much a reset destroys depends on the sizes of the buffers.
        if self.received == self.sent { "all" } else { "a part" }
    }

    /// Waits a few milliseconds at most, where anything could happen meanwhile.
    fn rest(&self, milliseconds: u32) {
        self.sys.settle();
        if !self.sys.held_back().is_zero() {
            for fd in [self.writer, self.reader].into_iter().flatten() {
                alone::acknowledge(fd);
            }
            let time = Duration::from_millis(milliseconds.into());
            if milliseconds > 0 {
                // Fails for nothing: it watches no descriptor.
                let _ = self.sys.poll(&mut [], Some(time));
            }
        }
    }

    /// Whether the writer must wait for room.
    fn is_full(&self) -> bool {
        const ANSWERS: i16 = poll_bits::OUT | poll_bits::ERR | poll_bits::HUP;
        self.writer.is_some_and(|fd| self.ready(fd) & ANSWERS == 0)
    }

    fn ready(&self, fd: Fd) -> i16 {
        let mut entry =
            [PollEntry { fd, events: poll_bits::IN | poll_bits::OUT | poll_bits::RDHUP, revents: 0 }];
        // It takes any number.
        let _ = self.sys.poll(&mut entry, Some(Duration::ZERO));
        entry[0].revents
    }

    /// What is ready, and what the edges tell.
    fn state(&mut self, step: Step) -> String {
        self.rest(1);
        let transfers = matches!(step, Step::Fill | Step::Nibble | Step::Drain | Step::Write);
        for _ in 0..if transfers { 0 } else { 60 } {
            // An end is news once more when it is acknowledged.
            if !self.writer.iter().chain(&self.reader).any(|fd| self.sys.is_under_way(*fd)) {
                break;
            }
            self.rest(1);
        }
        let mut text = String::new();
        let mut gained = false;
        for (name, fd) in [("writer", self.writer), ("reader", self.reader)] {
            let Some(fd) = fd else { continue };
            let ready = self.ready(fd);
            text += &format!("; {name} {}", Flags(ready as u16 as u32));
            if name == "reader" {
                gained = ready & !self.seen != 0;
                self.seen = ready;
            }
        }
        let mut events: Vec<EpollEvent> = Vec::with_capacity(8);
        let waited = self.sys.epoll_wait(self.epoll, &mut events, Some(Duration::ZERO));
        let tell = |event: &EpollEvent| {
            let EpollEvent { flags, data } = *event;
            (data.u64(), flags.bits())
        };
        let mut told: Vec<(u64, u32)> = events.iter().map(tell).collect();
        told.sort_unstable();
        // In how many parts bytes arrive depends on the sizes of the buffers, be it while others are read or because the end behind
        // them pushes them out.
        let arrive = transfers || matches!(step, Step::EndWriting);
        told.retain(|(who, _)| !arrive || gained || *who != READER);
        let told: Vec<String> = told.iter().map(|(who, mask)| format!("{who}: {}", Flags(*mask))).collect();
        text + &format!("; told {told:?} {}", if waited.is_ok() { "" } else { "and failed" })
    }
}

/// The bytes at a place of what is sent.
fn bytes(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| (at % 251) as u8).collect()
}
