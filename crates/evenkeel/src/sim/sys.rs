//! The seam below the drivers, answered by the model: a driver's own code runs over it unchanged.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::epoll::EventData;
use rustix::io::Errno;

use super::blocking::Waiting;
use super::disk::Disk;
use super::fault::Fault;
use super::kernel::{HostId, Kernel, Kind, ObjectId, bits};
use super::machine::{self, Machine};
use super::net::nanos;
use crate::net::{Addr, ConnectOptions, ListenOptions, SocketOption};
use crate::remote::Remote;
use crate::stand_in::StandIn;
use crate::sys::ring::RingParams;
use crate::sys::{
    EpollEvent, EpollFlags, EpollOp, Fd, FdSetElement, Listening, PollEntry, SocketFile, Sys, WakeFn,
};

/// A world, as its kernels and loops share it.
pub(crate) struct Sim {
    pub(crate) kernel: RefCell<Kernel>,
    /// What the virtual clock's zero is on the real one. Only differences are ever looked at.
    base: Instant,
    sleepers: RefCell<Vec<Sleeper>>,
    /// Calls of other threads that wait for something.
    pub(super) waiting: RefCell<Vec<Waiting>>,
    pub(super) disks: RefCell<BTreeMap<HostId, Disk>>,
    /// The mailboxes of each host's loops.
    pub(crate) remotes: RefCell<BTreeMap<HostId, Vec<Remote>>>,
    /// What the wall clock shows at the virtual clock's zero, in seconds since 1970.
    pub(crate) wall: Cell<i64>,
    /// What a wait costs, in nanoseconds.
    pub(crate) cost: Cell<u64>,
    /// What another call costs: it is paid with the next wait, since nothing may happen during a call.
    pub(super) cost_of_call: Cell<u64>,
    owed: Cell<u64>,
}

/// A loop of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopId(usize);

/// What a loop waits for.
pub(crate) enum Waited {
    Epoll(Fd),
    Poll(Vec<PollEntry>),
    Select(i32, Box<[[FdSetElement; 16]; 3]>),
    /// So many completions.
    Ring(Fd, u32),
    /// Any change of what this loop watches.
    News(usize),
}

struct Sleeper {
    host: HostId,
    /// The world takes its turns; else it waits in its own call until time has moved on.
    stepped: bool,
    sleep: Option<(Waited, Option<u64>)>,
}

impl Sim {
    pub(crate) fn new(kernel: Kernel) -> Rc<Self> {
        let world = kernel.doorbell.clone();
        let sim = Rc::new(Sim {
            kernel: RefCell::new(kernel),
            base: Instant::now(),
            sleepers: RefCell::default(),
            waiting: RefCell::default(),
            disks: RefCell::default(),
            remotes: RefCell::default(),
            // The first of January 2030: no world depends on the day it runs.
            wall: Cell::new(1_893_456_000),
            cost: Cell::new(0),
            cost_of_call: Cell::new(0),
            owed: Cell::new(0),
        });
        machine::register(world, &sim);
        sim
    }

    /// A host loses its power: of what its disk was not made to keep, any part may be gone.
    ///
    /// # Errors
    /// The real kernel's, if it refuses memory.
    pub(crate) fn crash_disk(&self, host: HostId) -> io::Result<()> {
        let kernel = &mut *self.kernel.borrow_mut();
        match self.disks.borrow_mut().get_mut(&host) {
            Some(disk) => disk.crash(kernel.faults.dice(Fault::Kill)),
            None => Ok(()),
        }
    }

    /// What the wall clock shows.
    pub(crate) fn wall_clock(&self) -> SystemTime {
        let start = u64::try_from(self.wall.get()).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(start) + Duration::from_nanos(self.kernel.borrow().now)
    }

    /// The clock of all hosts.
    pub(crate) fn clock(&self) -> Instant {
        self.base + Duration::from_nanos(self.kernel.borrow().now)
    }

    pub(crate) fn add_loop(&self, host: HostId, stepped: bool) -> LoopId {
        let mut sleepers = self.sleepers.borrow_mut();
        sleepers.push(Sleeper { host, stepped, sleep: None });
        LoopId(sleepers.len() - 1)
    }

    /// The loop that was added last.
    pub(crate) fn last_loop(&self) -> LoopId {
        LoopId(self.sleepers.borrow().len() - 1)
    }

    /// Lets happen what is due.
    pub(crate) fn settle(&self) {
        loop {
            let calls = self.kernel.borrow_mut().settle();
            if calls.is_empty() && !self.answer_threads() {
                return;
            }
            calls.into_iter().for_each(|call| call());
        }
    }

    /// Moves the clock, past nothing that is due before.
    pub(crate) fn advance(&self, to: u64) {
        loop {
            self.settle();
            let next = self.next_due().map_or(to, |due| due.min(to));
            let mut kernel = self.kernel.borrow_mut();
            if next > kernel.now {
                kernel.now = next;
            }
            drop(kernel);
            if next >= to && self.next_due().is_none_or(|due| due > to) {
                return;
            }
        }
    }

    /// A loop that never sleeps makes time pass as well, by a little. Not while a thread of the world does something: how many
    /// turns that takes is chance.
    fn pay(&self) {
        let (now, others) = {
            let kernel = self.kernel.borrow();
            (kernel.now, kernel.doorbell.lock().running)
        };
        let cost = self.cost.get().saturating_add(self.owed.take());
        self.advance(if others == 0 { now.saturating_add(cost) } else { now });
    }

    fn is_ready(&self, host: HostId, waited: &Waited) -> bool {
        let kernel = &mut *self.kernel.borrow_mut();
        match waited {
            Waited::Epoll(ep) => kernel.epoll_has(host, *ep),
            Waited::Poll(entries) => kernel.poll(host, &mut entries.clone()) > 0,
            Waited::News(reader) => kernel.has_news(*reader),
            Waited::Select(bound, sets) => kernel.select(host, *bound, &mut sets.clone()) != Ok(0),
            Waited::Ring(ring, wait) => kernel.ring_has(host, *ring, *wait),
        }
    }

    /// Whether a loop would find something, or its time is over. One that does not sleep always would.
    pub(crate) fn may_run(&self, id: LoopId) -> bool {
        let sleepers = self.sleepers.borrow();
        let sleeper = &sleepers[id.0];
        let Some((waited, until)) = &sleeper.sleep else { return true };
        let now = self.kernel.borrow().now;
        until.is_some_and(|until| until <= now) || self.is_ready(sleeper.host, waited)
    }

    /// When a sleeping loop's time is over.
    pub(crate) fn wakes_at(&self, id: LoopId) -> Option<u64> {
        self.sleepers.borrow()[id.0].sleep.as_ref().and_then(|(_, until)| *until)
    }

    /// A loop takes a turn.
    pub(crate) fn wake_up(&self, id: LoopId) {
        let sleeper = &mut self.sleepers.borrow_mut()[id.0];
        if let Some((Waited::Epoll(ep), _)) = sleeper.sleep.take() {
            self.kernel.borrow_mut().epoll_sleeps(sleeper.host, ep, false);
        }
    }

    /// A wait that found nothing. False: the loop sleeps from now on, and its call is over; else it has slept.
    fn sleep(&self, id: LoopId, waited: Waited, timeout: Option<u64>) -> bool {
        let (host, stepped) = {
            let sleepers = self.sleepers.borrow();
            (sleepers[id.0].host, sleepers[id.0].stepped)
        };
        let until = timeout.map(|timeout| self.kernel.borrow_mut().deadline(timeout));
        if let Waited::Epoll(ep) = &waited {
            self.kernel.borrow_mut().epoll_sleeps(host, *ep, true);
        }
        if stepped {
            self.sleepers.borrow_mut()[id.0].sleep = Some((waited, until));
            return false;
        }
        loop {
            self.settle();
            let now = self.kernel.borrow().now;
            if until.is_some_and(|until| until <= now) || self.is_ready(host, &waited) {
                if let Waited::Epoll(ep) = &waited {
                    self.kernel.borrow_mut().epoll_sleeps(host, *ep, false);
                }
                return true;
            }
            self.pass_time(until);
        }
    }
}

impl Kernel {
    /// When a wait ends that may take so long. Kernels are a little early or late at times.
    fn deadline(&mut self, timeout: u64) -> u64 {
        let until = self.now.saturating_add(timeout);
        if !self.strikes(Fault::TimerSlack) {
            return until;
        }
        let dice = self.faults.dice(Fault::TimerSlack);
        if dice.bool() {
            until.saturating_sub(dice.u64(..1_000_000)).max(self.now)
        } else {
            until.saturating_add(dice.u64(..50_000_000))
        }
    }

    /// Whether panics are among what is to happen.
    pub(crate) fn panics_are_planned(&self) -> bool {
        self.faults.rate(Fault::Panic) > 0.0
    }

    /// Whether a call is interrupted before it has done anything.
    fn interrupted(&mut self) -> Result<(), Errno> {
        if self.strikes(Fault::Interrupted) { Err(Errno::INTR) } else { Ok(()) }
    }
}

/// The kernel of one host, for one of its loops.
#[derive(Clone)]
pub(crate) struct SimSys {
    pub(crate) sim: Rc<Sim>,
    pub(crate) host: HostId,
    pub(crate) id: LoopId,
    /// Which of the host's processes, one after the other, this is a loop of.
    life: u32,
}

/// Waits take whole milliseconds, rounded up, as real ones are made to.
fn round_up(timeout: Duration) -> u64 {
    nanos(timeout).div_ceil(1_000_000).saturating_mul(1_000_000)
}

pub(super) fn unsupported<T>(what: &str) -> io::Result<T> {
    let text = format!("the simulated kernel has no {what}");
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

impl SimSys {
    pub(crate) fn new(sim: Rc<Sim>, host: HostId, id: LoopId) -> Self {
        let life = sim.kernel.borrow_mut().host(host).life;
        SimSys { sim, host, id, life }
    }

    /// Whether its process has been killed: what is left of it reaches nothing any more.
    fn is_dead(&self, kernel: &Kernel) -> bool {
        kernel.hosts[self.host.0 as usize].life != self.life
    }

    pub(super) fn call<T>(
        &self,
        call: impl FnOnce(&mut Kernel, HostId) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let kernel = &mut self.sim.kernel.borrow_mut();
        if self.is_dead(kernel) {
            return Err(Errno::BADF.into());
        }
        self.sim.owed.set(self.sim.owed.get().saturating_add(self.sim.cost_of_call.get()));
        kernel.acting = Some(self.host);
        let answer = call(kernel, self.host);
        kernel.acting = None;
        Ok(answer?)
    }

    /// The number by which the model knows this loop.
    pub(super) fn reader(&self) -> usize {
        self.id.0
    }

    /// Hears of every change of a descriptor's object from now on.
    pub(super) fn watch(&self, fd: Fd) -> io::Result<ObjectId> {
        self.call(|kernel, host| kernel.watch(host, fd, self.id.0))
    }

    pub(super) fn unwatch(&self, id: ObjectId) {
        self.sim.kernel.borrow_mut().unwatch(id, self.id.0);
    }

    /// What a ticket stands for.
    fn ticketed(&self, ticket: BorrowedFd<'_>) -> io::Result<ObjectId> {
        let known = self.sim.kernel.borrow().ticketed(ticket);
        known.or_else(|_| unsupported("descriptors of the real one"))
    }

    /// What a descriptor refers to.
    pub(super) fn object(&self, fd: Fd) -> io::Result<ObjectId> {
        self.call(|kernel, host| kernel.lookup(host, fd))
    }

    /// Has an object looked at in the next wait.
    pub(super) fn look_again(&self, fd: Fd) {
        // Fails only for a process that was killed.
        let _ = self.call(|kernel, host| {
            let id = kernel.lookup(host, fd)?;
            kernel.tell_loop(self.id.0, id);
            Ok(())
        });
    }

    /// What an object is ready for.
    pub(super) fn mask(&self, id: ObjectId) -> u32 {
        self.sim.kernel.borrow().mask(id)
    }

    /// A call that a signal may interrupt.
    pub(super) fn slow<T>(
        &self,
        call: impl FnOnce(&mut Kernel, HostId) -> Result<T, Errno>,
    ) -> io::Result<T> {
        self.call(|kernel, host| {
            kernel.interrupted()?;
            call(kernel, host)
        })
    }

    /// A wait: collects, and sleeps if there is nothing and it may. Under a world that takes the loop's turns, the sleep is
    /// noted, and the call ends as if its time were over.
    pub(super) fn wait<T>(
        &self,
        timeout: Option<Duration>,
        waited: impl FnOnce() -> Waited,
        mut collect: impl FnMut(&mut Kernel, HostId) -> Result<Option<T>, Errno>,
    ) -> io::Result<Option<T>> {
        self.sim.pay();
        self.sim.kernel.borrow_mut().waits += 1;
        if let Some(found) = self.slow(&mut collect)? {
            return Ok(Some(found));
        }
        let timeout = timeout.map(round_up);
        if timeout == Some(0) || self.sim.kernel.borrow_mut().strikes(Fault::SpuriousWake) {
            return Ok(None);
        }
        if self.sim.sleep(self.id, waited(), timeout) { self.call(collect) } else { Ok(None) }
    }
}

impl Sys for SimSys {
    fn clock(&self) -> Instant {
        self.sim.clock()
    }

    fn stand_in(&self) -> Option<Arc<dyn StandIn>> {
        let world = self.sim.kernel.borrow().doorbell.clone();
        Some(Machine::new(world, self.host, self.life))
    }

    fn listen(&self, at: &Addr, options: &ListenOptions) -> io::Result<Fd> {
        self.call(|kernel, host| kernel.listen(host, at, options))
    }

    fn connect(&self, to: &Addr, options: &ConnectOptions) -> io::Result<(Fd, bool)> {
        self.call(|kernel, host| kernel.connect(host, to, options))
    }

    fn accept(&self, listener: Fd) -> io::Result<(Fd, Addr)> {
        self.slow(|kernel, host| kernel.accept(host, listener))
    }

    fn recv(&self, fd: Fd, into: &mut [u8]) -> io::Result<usize> {
        self.slow(|kernel, host| kernel.recv(host, fd, into))
    }

    fn send(&self, fd: Fd, from: &[u8]) -> io::Result<usize> {
        self.slow(|kernel, host| kernel.send(host, fd, &[from]))
    }

    fn send_vectored(&self, fd: Fd, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let parts: Vec<&[u8]> = from.iter().map(|part| &**part).collect();
        self.slow(|kernel, host| kernel.send(host, fd, &parts))
    }

    fn send_file(&self, fd: Fd, file: BorrowedFd<'_>, at: &mut u64, most: usize) -> io::Result<usize> {
        // Files are memory of this process, whatever the host.
        let mut piece = vec![0; most.min(64 << 10)];
        let there = rustix::io::pread(file, &mut piece, *at)?;
        if there == 0 {
            return Ok(0);
        }
        let sent = self.send(fd, &piece[..there])?;
        *at += sent as u64;
        Ok(sent)
    }

    fn shutdown(&self, fd: Fd, how: Shutdown) -> io::Result<()> {
        let (read, write) = (how != Shutdown::Write, how != Shutdown::Read);
        self.call(|kernel, host| kernel.shutdown(host, fd, read, write))
    }

    fn close(&self, fd: Fd) {
        let kernel = &mut self.sim.kernel.borrow_mut();
        if !self.is_dead(kernel) {
            kernel.check_buffers(self.host, fd);
            assert!(
                !kernel.is_in_flight(self.host, fd),
                "{fd} was closed while a request on it is in flight (I11)"
            );
            let closed = kernel.close(self.host, fd);
            assert!(closed.is_ok(), "descriptor {fd} was closed that is not open: {closed:?}");
        }
    }

    fn take_error(&self, fd: Fd) -> io::Result<Option<io::Error>> {
        Ok(self.call(|kernel, host| kernel.take_error(host, fd))?.map(Into::into))
    }

    fn set_option(&self, fd: Fd, option: SocketOption) -> io::Result<()> {
        self.call(|kernel, host| kernel.set_option(host, fd, option))
    }

    fn local_addr(&self, fd: Fd) -> io::Result<Addr> {
        self.call(|kernel, host| kernel.address(host, fd, false))
    }

    fn peer_addr(&self, fd: Fd) -> io::Result<Addr> {
        self.call(|kernel, host| kernel.address(host, fd, true))
    }

    fn import(&self, ticket: OwnedFd) -> io::Result<Fd> {
        self.ticketed(ticket.as_fd())?;
        self.call(|kernel, host| kernel.redeem(host, ticket))
    }

    fn duplicate(&self, ticket: BorrowedFd<'_>) -> io::Result<Fd> {
        let id = self.ticketed(ticket)?;
        self.call(|kernel, host| {
            kernel.has_number(host)?;
            kernel.assign(host, id)
        })
    }

    fn is_pollable(&self, _: Fd) -> io::Result<bool> {
        Ok(true)
    }

    fn export(&self, fd: Fd) -> io::Result<OwnedFd> {
        self.call(|kernel, host| {
            let ticket = kernel.ticket(host, fd)?;
            kernel.close(host, fd)?;
            Ok(ticket)
        })
    }

    fn spare(&self) -> io::Result<Fd> {
        self.call(|kernel, host| kernel.open(host, Kind::Spare))
    }

    fn copy(&self, fd: Fd) -> io::Result<OwnedFd> {
        self.call(|kernel, host| kernel.ticket(host, fd))
    }

    fn listening(&self, ticket: BorrowedFd<'_>) -> io::Result<Listening> {
        let id = self.ticketed(ticket)?;
        match self.sim.kernel.borrow().objects.get(id).map(|object| &object.kind) {
            Some(Kind::Listener(listener)) => {
                Ok(Listening { addr: listener.addr.clone(), reuse_port: listener.reuse_port })
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no socket that listens")),
        }
    }

    fn socket_file(&self, path: &Path) -> Option<SocketFile> {
        let kernel = self.sim.kernel.borrow();
        let inode = kernel.hosts[self.host.0 as usize].socket_files.get(path)?.0;
        Some(SocketFile { device: u64::from(self.host.0), inode })
    }

    fn remove_socket_file(&self, path: &Path, only: Option<SocketFile>) {
        let there = self.socket_file(path);
        let is_it = there.is_some_and(|there| only.is_none_or(|only| only == there));
        if is_it && !self.is_dead(&self.sim.kernel.borrow()) {
            self.sim.kernel.borrow_mut().host(self.host).socket_files.remove(path);
        }
    }

    fn wake_pair(&self) -> io::Result<(Fd, WakeFn)> {
        self.call(|kernel, host| kernel.bell(host))
    }

    fn end_wakes(&self, fd: Fd) {
        self.close(fd);
    }

    fn clear_wake(&self, fd: Fd) {
        // Fails only for a process that was killed, whose wakes nobody waits for.
        let _ = self.call(|kernel, host| {
            kernel.clear_bell(host, fd);
            Ok(())
        });
    }

    fn epoll_create(&self) -> io::Result<Fd> {
        self.call(|kernel, host| kernel.epoll_create(host))
    }

    fn epoll_ctl(&self, ep: Fd, op: EpollOp, fd: Fd, data: u64, flags: EpollFlags) -> io::Result<()> {
        self.call(|kernel, host| kernel.epoll_ctl(host, ep, op, fd, data, flags.bits()))
    }

    fn epoll_wait(&self, ep: Fd, events: &mut Vec<EpollEvent>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let most = events.capacity();
        let found = self.wait(
            timeout,
            || Waited::Epoll(ep),
            |kernel, host| {
                let reports = kernel.epoll_collect(host, ep, most)?;
                Ok((!reports.is_empty()).then_some(reports))
            },
        )?;
        events.extend(found.into_iter().flatten().map(|report| EpollEvent {
            flags: EpollFlags::from_bits_retain(report.mask & !bits::ONESHOT),
            data: EventData::new_u64(report.data),
        }));
        Ok(())
    }

    fn poll(&self, entries: &mut [PollEntry], timeout: Option<Duration>) -> io::Result<usize> {
        let asked = entries.to_vec();
        let found = self.wait(
            timeout,
            || Waited::Poll(asked),
            |kernel, host| {
                let found = kernel.poll_with_faults(host, entries);
                Ok((found > 0).then_some(found))
            },
        )?;
        Ok(found.unwrap_or(0))
    }

    fn select(
        &self,
        bound: i32,
        sets: &mut [[FdSetElement; 16]; 3],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let asked = *sets;
        let found = self.wait(
            timeout,
            || Waited::Select(bound, Box::new(asked)),
            |kernel, host| {
                *sets = asked;
                let found = kernel.select(host, bound, sets)?;
                Ok((found > 0).then_some(found))
            },
        )?;
        Ok(found.unwrap_or(0))
    }

    fn splice(&self, from: Fd, to: Fd, most: usize) -> io::Result<usize> {
        self.slow(|kernel, host| kernel.splice(host, from, to, most))
    }

    fn pipe(&self) -> io::Result<(Fd, Fd)> {
        self.call(|kernel, host| kernel.pipe(host))
    }

    fn read(&self, fd: Fd, into: &mut [u8]) -> io::Result<usize> {
        self.slow(|kernel, host| kernel.pipe_read(host, fd, into))
    }

    fn write(&self, fd: Fd, from: &[u8]) -> io::Result<usize> {
        self.slow(|kernel, host| kernel.pipe_write(host, fd, &[from]))
    }

    fn write_vectored(&self, fd: Fd, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let parts: Vec<&[u8]> = from.iter().map(|part| &**part).collect();
        self.slow(|kernel, host| kernel.pipe_write(host, fd, &parts))
    }

    fn pidfd(&self, _: u32) -> io::Result<Fd> {
        unsupported("child processes")
    }

    fn signal(&self, _: Fd, _: i32) -> io::Result<()> {
        unsupported("child processes")
    }

    fn socket_pair(&self) -> io::Result<(Fd, Fd)> {
        self.call(|kernel, host| kernel.socket_pair(host))
    }

    fn ring_setup(&self, entries: u32, params: &mut RingParams) -> io::Result<Fd> {
        self.call(|kernel, host| kernel.ring_setup(host, entries, params))
    }

    fn ring_map(&self, ring: Fd, offset: u64, bytes: usize) -> io::Result<NonNull<u8>> {
        self.call(|kernel, host| kernel.ring_map(host, ring, offset, bytes))
    }

    fn ring_provide(&self, ring: Fd, entries: NonNull<u8>, count: u16, incremental: bool) -> io::Result<()> {
        self.call(|kernel, host| kernel.ring_provide(host, ring, entries, count, incremental))
    }

    fn ring_operations(&self, ring: Fd) -> io::Result<u128> {
        self.call(|kernel, host| kernel.ring_operations(host, ring))
    }

    fn ring_threads(&self, _: Fd, _: u32) -> io::Result<()> {
        // What blocks on files is not the ring's to do here.
        Ok(())
    }

    fn skip_turn(&self) {
        self.sim.pay();
        self.sim.kernel.borrow_mut().waits += 1;
    }

    fn ring_enter(
        &self,
        ring: Fd,
        submit: u32,
        wait: u32,
        events: bool,
        timeout: Option<Duration>,
    ) -> io::Result<u32> {
        let taken = self.call(|kernel, host| kernel.ring_submit(host, ring, submit))?;
        // It does not wait if it has not taken all.
        if !events || taken < submit {
            if self.sim.kernel.borrow_mut().ring_has_some(self.host, ring) {
                // They are taken in this turn, and found in the next.
                self.sim.wake_up(self.id);
            }
            return Ok(taken);
        }
        if taken > 0 {
            self.sim.kernel.borrow_mut().ring_work(self.host, ring, wait);
        }
        // What the loop has waited for before, in the same turn, is over.
        self.sim.wake_up(self.id);
        let waited = self.wait(
            timeout,
            || Waited::Ring(ring, wait),
            |kernel, host| Ok(kernel.ring_collect(host, ring, wait)?.then_some(())),
        );
        // What was taken, or has come, is told before what ended the wait.
        let some = taken > 0 || self.sim.kernel.borrow_mut().ring_has_some(self.host, ring);
        match waited {
            Ok(None) if !some => Err(io::ErrorKind::TimedOut.into()),
            Err(e) if !some => Err(e),
            _ => Ok(taken),
        }
    }

    fn map(&self, bytes: usize) -> io::Result<NonNull<u8>> {
        self.call(|kernel, _| kernel.map(bytes))
    }

    fn unmap(&self, at: NonNull<u8>, _: usize) {
        self.sim.kernel.borrow_mut().unmap(at);
    }
}
