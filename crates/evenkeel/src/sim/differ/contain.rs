//! Whatever faults strike, each answer of the model must be one that a kernel could give at some time: the same programs run under
//! faults and delays, and what must hold always is checked.
//!
//! - What is read is what was written, in order and without gaps, and nothing is lost without an error.
//! - A pending error is told once.
//! - Numbers are the lowest that are free.
//! - A wait reports what it watches, of that what was asked for, each at most once, and nothing that was closed.
//! - Who reads when told, until refused, or until a read of a TCP stream comes out short, gets everything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Shutdown;
use std::path::Path;

use fastrand::Rng;

use super::generate;
use super::program::{Flags, Handle, Op};
use super::side::{Answer, Side, pattern};
use crate::sim::fault::Fault;
use crate::sim::kernel::{Kernel, bits};
use crate::sim::net::Network;
use crate::sim::sys::{Sim, SimSys};
use crate::sys::{EpollOp, Fd, poll_bits};

/// What an epoll was asked to watch.
struct Watch {
    /// What its reports carry.
    data: Handle,
    number: Fd,
    flags: u32,
    armed: bool,
}

/// One end as its calls have shown it.
#[derive(Default)]
struct End {
    peer: Option<Handle>,
    tcp: bool,
    sent: Vec<u8>,
    received: usize,
    /// An error was told, so bytes may be lost.
    broken: bool,
    /// It is not to receive any more, and not to send: TCP answers what still comes with a reset, and who sent that need not hear of it.
    shut: (bool, bool),
}

struct Run {
    side: Side<SimSys>,
    dice: Rng,
    ends: BTreeMap<Handle, End>,
    /// By epoll and by what is watched.
    watched: BTreeMap<(Handle, Handle), Watch>,
    spectator: Option<Handle>,
}

/// Runs the program of a seed under faults. The number of calls, and what was wrong with one of them.
pub(super) fn run(seed: u64, folder: &Path) -> io::Result<(u64, Option<String>)> {
    let (program, spectator) = generate::watched_program(seed, folder)?;
    let mut run = Run {
        side: Side::new(faulty(seed), folder.to_owned())?,
        dice: Rng::with_seed(seed ^ 0x636f_6e74),
        ends: BTreeMap::new(),
        watched: BTreeMap::new(),
        spectator: Some(spectator),
    };
    for (at, op) in program.iter().enumerate() {
        // The spectator, which the first call makes, must be there.
        run.side.sys.sim.kernel.borrow_mut().faults.switch(at > 0);
        if let Err(wrong) = run.step(op) {
            return Ok((at as u64, Some(run.describe(seed, &wrong))));
        }
    }
    let wrong = run.calm_down().err();
    Ok((program.len() as u64, wrong.map(|wrong| run.describe(seed, &format!("in the end {wrong}")))))
}

/// A kernel with delays, and with a choice of faults that is not on yet.
fn faulty(seed: u64) -> SimSys {
    let mut dice = Rng::with_seed(seed ^ 0x666c_7479);
    let net = if dice.bool() { Network::default() } else { Network::immediate() };
    let mut kernel = Kernel::new(seed, net, false);
    for fault in Fault::ALL {
        // Somebody between the two ends closes both: what they write to each other may be lost without an error.
        if dice.bool() && *fault != Fault::EarlyEnd {
            kernel.faults.set_rate(*fault, dice.f64() * 0.2);
        }
    }
    kernel.faults.switch(false);
    let host = kernel.add_host("faulty");
    let sim = Sim::new(kernel);
    let id = sim.add_loop(host, false);
    SimSys::new(sim, host, id)
}

type Checked = Result<(), String>;

fn check(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

/// Whether it is an error that breaks a connection, and is told once.
fn is_pending_error(failure: &str) -> bool {
    ["ECONNRESET", "EPIPE", "ETIMEDOUT", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"].contains(&failure)
}

impl Run {
    fn step(&mut self, op: &Op) -> Checked {
        // The spectator watches as it began to.
        if let Op::Ctl { epoll, op: what, flags, .. } = op
            && Some(*epoll) == self.spectator
            && (*what != EpollOp::Add || *flags != generate::EVERYTHING)
        {
            return Ok(());
        }
        let dice = &mut self.dice;
        let time = if dice.bool() { 0 } else { dice.u64(..3_000_000) };
        self.pass(time);
        let open: BTreeSet<Fd> = self.side.live.keys().copied().collect();
        let owner = if let Op::Ctl { on, .. } = op { self.side.owner(*on) } else { None };
        self.side.sys.sim.kernel.borrow_mut().log(format_args!("{op}"));
        let answer = self.side.run(op);
        self.numbers(&open, &answer)?;
        self.note(op, &answer, owner)?;
        match (op, &answer) {
            (Op::Wait { epoll, most }, Answer::Reports(reports)) => self.reports(*epoll, *most, reports),
            (Op::Recv { on, .. }, _) => self.drain(*on, 0),
            (Op::Poll { on }, Answer::Ready(found, masks)) => {
                const ALWAYS: i16 = poll_bits::ERR | poll_bits::HUP | poll_bits::NVAL;
                let extra = on.iter().zip(masks).any(|((_, asked), got)| got & !(asked | ALWAYS) != 0);
                check(!extra, || format!("poll reported what was not asked for: {masks:?}"))?;
                let ready = masks.iter().filter(|mask| **mask != 0).count();
                check(*found == ready, || format!("poll counted {found} of {ready}"))
            }
            _ => Ok(()),
        }
    }

    fn pass(&self, time: u64) {
        let now = self.side.sys.sim.kernel.borrow().now;
        self.side.sys.sim.advance(now + time);
    }

    fn describe(&self, seed: u64, wrong: &str) -> String {
        let kernel = self.side.sys.sim.kernel.borrow();
        let lines: String = kernel.trace.tail().map(|line| format!("{line}\n")).collect();
        format!("containment, seed {seed}: {wrong}\n{lines}")
    }

    /// New numbers are the lowest that were free.
    fn numbers(&self, open: &BTreeSet<Fd>, answer: &Answer) -> Checked {
        let mut free = (0..).filter(|number| !open.contains(number));
        let given: &[Fd] = match answer {
            Answer::Number(number) => &[*number],
            Answer::Connected { number, .. } | Answer::Accepted { number, .. } => &[*number],
            Answer::Pair(a, b) => &[*a, *b],
            _ => &[],
        };
        let lowest: Vec<Fd> = free.by_ref().take(given.len()).collect();
        check(given == lowest, || format!("the numbers {given:?} were given, {lowest:?} were free"))
    }

    /// Keeps the books.
    fn note(&mut self, op: &Op, answer: &Answer, owner: Option<Handle>) -> Checked {
        match (op, answer) {
            (Op::Pair { into: [a, b] }, Answer::Pair(..)) => {
                self.ends.insert(*a, End { peer: Some(*b), ..End::default() });
                self.ends.insert(*b, End { peer: Some(*a), ..End::default() });
            }
            (Op::Connect { into, .. }, Answer::Connected { already, .. }) => {
                self.ends.insert(*into, End { tcp: !already, ..End::default() });
            }
            (Op::Accept { into, .. }, Answer::Accepted { from, .. }) => {
                let client = if let super::side::Whence::Of(client, _) = from { Some(*client) } else { None };
                self.ends.insert(*into, End { peer: client, tcp: client.is_some(), ..End::default() });
                if let Some(client) = client.and_then(|client| self.ends.get_mut(&client)) {
                    client.peer = Some(*into);
                }
            }
            (Op::Shutdown { on, how }, _) => {
                if let Some(end) = self.end(*on) {
                    end.shut.0 |= *how != Shutdown::Write;
                    end.shut.1 |= *how != Shutdown::Read;
                }
            }
            (Op::Send { on, bytes, tag }, Answer::Sent(n)) => self.sent(*on, &pattern(*tag, *bytes), *n)?,
            (Op::SendVectored { on, parts, tag }, Answer::Sent(n)) => {
                let all: Vec<u8> = parts.iter().flat_map(|bytes| pattern(*tag, *bytes)).collect();
                self.sent(*on, &all, *n)?;
            }
            (Op::Recv { on, .. }, Answer::Received(bytes)) => self.received(*on, bytes)?,
            (Op::TakeError { on }, Answer::Pending(Some(error))) => {
                self.break_up(*on);
                let again = self.side.run(op);
                check(again == Answer::Pending(None), || format!("{error} was told again: {again:?}"))?;
            }
            (
                Op::Send { on, .. } | Op::SendVectored { on, .. } | Op::Recv { on, .. },
                Answer::Failed(error),
            ) if is_pending_error(error) => {
                self.break_up(*on);
                let taken = self.side.run(&Op::TakeError { on: *on });
                // One end of a Unix socket that is shut says so, and keeps its error for a reader. A number that was closed may be
                // any socket's by now.
                let unix = self.ends.get(on).is_none_or(|end| !end.tcp);
                let kept = unix && error == "EPIPE";
                check(taken == Answer::Pending(None) || kept, || {
                    format!("{error} was told and is pending still: {taken:?}")
                })?;
            }
            (Op::Close { on } | Op::Abort { on }, Answer::Done) => {
                self.watched.retain(|(epoll, object), _| object != on && epoll != on);
            }
            (Op::Ctl { epoll, op, on, flags }, Answer::Done) => {
                let (Some(epoll), Some(object)) = (self.side.owner(*epoll), owner) else { return Ok(()) };
                let number = self.side.live.iter().find(|(_, handle)| **handle == object);
                let watch = Watch {
                    data: *on,
                    number: number.map_or(-1, |(number, _)| *number),
                    flags: *flags,
                    armed: true,
                };
                match op {
                    EpollOp::Delete => drop(self.watched.remove(&(epoll, object))),
                    _ => drop(self.watched.insert((epoll, object), watch)),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whose number a handle means now.
    fn end(&mut self, on: Handle) -> Option<&mut End> {
        let owner = self.side.owner(on)?;
        self.ends.get_mut(&owner)
    }

    fn break_up(&mut self, on: Handle) {
        let Some(end) = self.end(on) else { return };
        end.broken = true;
        if let Some(peer) = end.peer.and_then(|peer| self.ends.get_mut(&peer)) {
            peer.broken = true;
        }
    }

    fn sent(&mut self, on: Handle, bytes: &[u8], n: usize) -> Checked {
        check(n <= bytes.len(), || format!("{n} of {} bytes were sent", bytes.len()))?;
        if let Some(end) = self.end(on) {
            end.sent.extend(&bytes[..n]);
        }
        Ok(())
    }

    fn received(&mut self, on: Handle, bytes: &[u8]) -> Checked {
        let Some(peer) = self.end(on).and_then(|end| end.peer) else { return Ok(()) };
        let Some(from) = self.end(on).map(|end| end.received) else { return Ok(()) };
        let expected = self.ends.get(&peer).and_then(|peer| peer.sent.get(from..from + bytes.len()));
        check(expected == Some(bytes), || format!("h{on} read other bytes than were sent, at {from}"))?;
        if let Some(end) = self.end(on) {
            end.received += bytes.len();
        }
        Ok(())
    }

    /// Reads as the runtime does, after a report with this mask.
    fn drain(&mut self, on: Handle, mask: u32) -> Checked {
        const SCRATCH: usize = 64 << 10;
        loop {
            let op = Op::Recv { on, most: SCRATCH };
            let answer = self.side.run(&op);
            self.note(&op, &answer, None)?;
            let tcp = self.end(on).is_some_and(|end| end.tcp);
            let over = mask & (bits::RDHUP | bits::HUP | bits::ERR) != 0;
            match answer {
                Answer::Received(bytes) if bytes.is_empty() => return Ok(()),
                Answer::Received(bytes) if tcp && !over && bytes.len() < SCRATCH => return Ok(()),
                Answer::Failed(error) if error != "EINTR" => return Ok(()),
                Answer::Skipped => return Ok(()),
                _ => {}
            }
        }
    }

    fn reports(&mut self, epoll: Handle, most: usize, reports: &[(Handle, Flags)]) -> Checked {
        check(reports.len() <= most, || format!("{} reports, of {most} asked for", reports.len()))?;
        let mut seen = BTreeSet::new();
        let Some(epoll) = self.side.owner(epoll) else { return Ok(()) };
        for (data, Flags(mask)) in reports {
            let mut of_data =
                self.watched.iter_mut().filter(|((ep, _), watch)| *ep == epoll && watch.data == *data);
            let Some((_, watch)) = of_data.next() else {
                return Err(format!("h{data} was reported, which is not watched"));
            };
            // Two may be known by one handle whose number was given again.
            if of_data.next().is_some() {
                continue;
            }
            check(seen.insert(watch.number), || format!("h{data} was reported twice"))?;
            let asked = watch.flags | bits::ALWAYS;
            check(mask & !asked == 0 && *mask != 0, || format!("h{data}: {} was reported", Flags(*mask)))?;
            check(watch.armed, || format!("h{data} was reported again, which was asked for once"))?;
            watch.armed = watch.flags & bits::ONESHOT == 0;
        }
        if Some(epoll) == self.spectator {
            for (data, Flags(mask)) in reports {
                self.drain(*data, *mask)?;
            }
        }
        Ok(())
    }

    /// Without faults, and given time, everything arrives, and whoever watches is told of it.
    fn calm_down(&mut self) -> Checked {
        self.side.sys.sim.kernel.borrow_mut().faults.switch(false);
        let Some(epoll) = self.spectator else { return Ok(()) };
        for _ in 0..100 {
            self.pass(10_000_000_000);
            let answer = self.side.run(&Op::Wait { epoll, most: 64 });
            let Answer::Reports(reports) = answer else { return Err(format!("the wait gave {answer:?}")) };
            self.reports(epoll, 64, &reports)?;
            if reports.is_empty() && self.side.sys.sim.kernel.borrow().next_due().is_none() {
                break;
            }
        }
        for (handle, end) in &self.ends {
            let Some(peer) = end.peer.and_then(|peer| Some((peer, self.ends.get(&peer)?))) else { continue };
            let both = [*handle, peer.0]
                .iter()
                .all(|end| self.side.is_open(*end) && self.watched.contains_key(&(epoll, *end)));
            let whole = both && !end.broken && !peer.1.broken && end.shut != (true, true);
            check(!whole || end.received == peer.1.sent.len(), || {
                format!("h{handle} read {} of {} bytes", end.received, peer.1.sent.len())
            })?;
        }
        Ok(())
    }
}
