//! A world: hosts that run on virtual time, one turn of one loop after the other.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;

use super::chaos::Chaos;
use super::fault::Fault;
use super::kernel::{HostId, Kernel};
use super::net::{Network, nanos};
use super::place::{Inside, Place};
use super::report::{Failure, Report};
use super::sys::{LoopId, Sim};
use crate::backend::Backend;
use crate::event_loop::EventLoop;
use crate::task::JoinHandle;

/// What a host's program is: made anew each time that the host starts.
type Program = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<()>>>>>;

/// A host of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(pub(crate) HostId);

/// A running process: its loops, of which the first runs its program.
struct Process {
    loops: Vec<Looping>,
    main: JoinHandle<io::Result<()>>,
}

struct Looping {
    events: EventLoop,
    id: LoopId,
    /// Turns in which nothing happened, one after the other.
    idle_turns: u32,
}

struct Machine {
    name: String,
    id: HostId,
    program: Program,
    /// How many loops a process of it has.
    loops: usize,
    process: Option<Process>,
    /// The world's run is over when all of these have ended.
    is_client: bool,
    /// It starts again when its program fails.
    supervised: bool,
    ended: bool,
    /// When it is to start again, after it was killed.
    starts_at: Option<u64>,
}

/// A simulated world. See [the module](super) for what it is good for and how to use it.
pub struct World {
    sim: Rc<Sim>,
    machines: Vec<Machine>,
    seed: u64,
    backend: Backend,
    limit: u64,
    dice: Rng,
    pub(super) chaos: Chaos,
    failed: Rc<RefCell<Option<String>>>,
}

/// Turns without anything happening after which a loop is said to spin.
const SPINNING: u32 = 20_000;

impl World {
    /// A world without faults. Everything that happens by chance in it is decided by the seed.
    pub fn new(seed: u64) -> Self {
        Self::with_trace(seed, false)
    }

    pub(super) fn with_trace(seed: u64, verbose: bool) -> Self {
        let sim = Sim::new(Kernel::new(seed, Network::default(), verbose));
        World {
            sim,
            machines: Vec::new(),
            seed,
            backend: Backend::Sim,
            limit: nanos(Duration::from_secs(3600)),
            dice: Rng::with_seed(seed ^ 0x0077_6f72_6c64),
            chaos: Chaos::new(seed),
            failed: Rc::default(),
        }
    }

    /// What decides everything that happens by chance.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The kernel interface of loops that ask for none by name. Default: [`Backend::Sim`], which is the fastest. With another
    /// one, that one's driver runs over a simulated kernel.
    pub fn set_backend(&mut self, backend: Backend) {
        self.backend = backend;
    }

    /// How much virtual time [`run`](Self::run) may take. Default: an hour.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = nanos(limit);
    }

    /// How long packets take from one host to another.
    pub fn set_delay(&mut self, delay: std::ops::Range<Duration>) {
        let mut kernel = self.sim.kernel.borrow_mut();
        kernel.net.delay = nanos(delay.start)..nanos(delay.end);
    }

    /// How many bytes a socket takes for sending, and how many wait at most to be read.
    pub fn set_buffers(&mut self, send: usize, recv: usize) {
        let mut kernel = self.sim.kernel.borrow_mut();
        (kernel.net.send_buffer, kernel.net.recv_buffer) = (send.max(1), recv.max(1));
    }

    /// How many descriptors the processes of a host may have.
    pub fn set_descriptors(&mut self, host: Host, most: usize) {
        self.sim.kernel.borrow_mut().host(host.0).table.limit = most;
    }

    /// Adds a machine whose program serves others: it need not end. When it is killed it starts again, by the same function.
    pub fn host<F, Fut>(&mut self, name: &str, program: F) -> Host
    where
        F: Fn() -> Fut + 'static,
        Fut: Future<Output = io::Result<()>> + 'static,
    {
        self.add(name, program, false)
    }

    /// Adds a machine whose program is to end: [`run`](Self::run) waits for it, and fails if it fails.
    pub fn client<F, Fut>(&mut self, name: &str, program: F) -> Host
    where
        F: Fn() -> Fut + 'static,
        Fut: Future<Output = io::Result<()>> + 'static,
    {
        self.add(name, program, true)
    }

    fn add<F, Fut>(&mut self, name: &str, program: F, is_client: bool) -> Host
    where
        F: Fn() -> Fut + 'static,
        Fut: Future<Output = io::Result<()>> + 'static,
    {
        let id = self.sim.kernel.borrow_mut().add_host(name);
        let program: Program = Rc::new(move || Box::pin(program()));
        let name = name.to_owned();
        self.machines.push(Machine {
            name,
            id,
            program,
            loops: 1,
            process: None,
            is_client,
            supervised: false,
            ended: false,
            starts_at: Some(0),
        });
        Host(id)
    }

    /// Lets a host's program fail while faults strike, as programs do that find no free descriptor for their listener: it is
    /// started again a second later, as by a supervisor. That it panics fails the world all the same.
    pub fn supervise(&mut self, host: Host) {
        if let Some(machine) = self.machines.iter_mut().find(|machine| machine.id == host.0) {
            machine.supervised = true;
        }
    }

    /// How many loops the processes of a host have from their next start on. Default: one. The program runs on the first, and
    /// [`remotes`](super::remotes) leads to all.
    pub fn set_loops(&mut self, host: Host, loops: usize) {
        if let Some(machine) = self.machines.iter_mut().find(|machine| machine.id == host.0) {
            machine.loops = loops.max(1);
        }
    }

    /// The address of a host in the network that all of them share. Its name resolves to it.
    pub fn ip(&self, host: Host) -> std::net::IpAddr {
        self.sim.kernel.borrow().ip(host.0).into()
    }

    // ---- faults ----

    /// Lets a kind of fault strike in this share of all cases where it could: 0 is never, 1 always.
    pub fn set_fault(&mut self, fault: Fault, rate: f64) {
        self.sim.kernel.borrow_mut().faults.set_rate(fault, rate);
    }

    /// Lets the seed choose which of these faults strike, and how often, and how small the buffers of sockets are. Each kind
    /// is off in half of all worlds, since faults hide one another.
    pub fn swarm(&mut self, faults: &[Fault]) {
        self.swarm_more(faults);
        let kernel = &mut *self.sim.kernel.borrow_mut();
        kernel.rings.vary = true;
        kernel.net.every_arrival = self.dice.bool();
        if self.dice.bool() {
            kernel.net.send_buffer = self.dice.usize(1 << 10..64 << 10);
            kernel.net.recv_buffer = self.dice.usize(1 << 10..64 << 10);
            kernel.net.segment = self.dice.usize(1..4 << 10);
        }
    }

    /// As [`swarm`](Self::swarm), without a change of the buffers.
    pub fn swarm_more(&mut self, faults: &[Fault]) {
        for fault in faults {
            let rate =
                if self.dice.bool() { fault.usual_rate() * (0.2 + self.dice.f64() * 2.0) } else { 0.0 };
            self.set_fault(*fault, rate);
        }
    }

    /// No fault strikes any more and all hosts reach each other: what a program is to recover from is over.
    pub fn calm(&mut self) {
        let kernel = &mut *self.sim.kernel.borrow_mut();
        kernel.faults.switch(false);
        kernel.net.heal();
        kernel.log(format_args!("calm"));
    }

    /// Faults strike again.
    pub fn storm(&mut self) {
        self.sim.kernel.borrow_mut().faults.switch(true);
    }

    /// Keeps two hosts from reaching each other for a while. What they send arrives later; connecting is tried again.
    pub fn partition(&mut self, a: Host, b: Host, time: Duration) {
        let kernel = &mut *self.sim.kernel.borrow_mut();
        let until = kernel.now.saturating_add(nanos(time));
        kernel.net.cut(a.0, b.0, until);
        kernel.faults.hit(Fault::Partition);
        kernel.log(format_args!("{a:?} and {b:?} do not reach each other"));
    }

    /// Ends a host's process without warning. Its kernel closes its connections. A server starts again after `pause`.
    pub fn kill(&mut self, host: Host, pause: Duration) {
        let Some(at) = self.machines.iter().position(|machine| machine.id == host.0) else { return };
        let Some(process) = self.machines[at].process.take() else { return };
        let starts_at = {
            let kernel = &mut *self.sim.kernel.borrow_mut();
            kernel.faults.hit(Fault::Kill);
            kernel.kill(host.0);
            kernel.now.saturating_add(nanos(pause))
        };
        let machine = &mut self.machines[at];
        machine.starts_at = (!machine.is_client).then_some(starts_at);
        machine.ended = machine.is_client;
        // Its destructors run, and reach nothing.
        let inside = Inside::new(self.place(host.0));
        drop(process);
        drop(inside);
    }

    /// A host loses its power: as [`kill`](Self::kill), and of what its programs have written to its disk without syncing
    /// it, any part may be lost.
    pub fn crash(&mut self, host: Host, pause: Duration) {
        self.kill(host, pause);
        if let Err(e) = self.sim.crash_disk(host.0) {
            let what = format!("there is no memory for a simulated disk: {e}");
            self.failed.borrow_mut().get_or_insert(what);
        }
    }

    /// The machine sleeps: its clock goes on, and nothing else does.
    pub fn suspend(&mut self, time: Duration) {
        let kernel = &mut *self.sim.kernel.borrow_mut();
        kernel.log(format_args!("asleep for {time:?}"));
        kernel.faults.hit(Fault::Suspend);
        kernel.now = kernel.now.saturating_add(nanos(time));
        self.limit = self.limit.saturating_add(nanos(time));
    }

    /// Sets the wall clock forward or back, by seconds.
    pub fn jump_wall_clock(&mut self, seconds: i64) {
        let wall = &self.sim.wall;
        wall.set(wall.get().saturating_add(seconds).max(0));
        let kernel = &mut *self.sim.kernel.borrow_mut();
        kernel.faults.hit(Fault::WallClockJump);
        kernel.log(format_args!("the wall clock jumps by {seconds} s"));
    }

    /// Hosts that serve others, in the order in which they were added.
    pub(super) fn servers(&self) -> Vec<Host> {
        self.machines.iter().filter(|m| !m.is_client).map(|m| Host(m.id)).collect()
    }

    /// All hosts.
    pub(super) fn all(&self) -> Vec<Host> {
        self.machines.iter().map(|m| Host(m.id)).collect()
    }

    pub(super) fn sim(&self) -> &Rc<Sim> {
        &self.sim
    }

    // ---- running ----

    /// The time since the world began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.sim.kernel.borrow().now)
    }

    /// Runs until all clients have ended.
    ///
    /// # Errors
    /// If a program fails or panics, if something [fails](super::fail) the world, if nothing can happen any more although
    /// clients have not ended, if a loop spins, and when the [limit](Self::set_limit) is reached.
    pub fn run(&mut self) -> Result<(), Failure> {
        self.run_while(u64::MAX, |world| world.machines.iter().any(|m| m.is_client && !m.ended))
    }

    /// Runs for a length of virtual time, whoever ends or not.
    ///
    /// # Errors
    /// As for [`run`](Self::run), but that nothing may happen for a while.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        let until = self.sim.kernel.borrow().now.saturating_add(nanos(time));
        self.run_while(until, |_| true)
    }

    fn run_while(&mut self, until: u64, more: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        while more(self) {
            self.sim.settle();
            self.start_machines()?;
            let ran = self.take_turns()?;
            if let Some(what) = self.failed.borrow_mut().take() {
                return Err(self.failure(what));
            }
            let now = self.sim.kernel.borrow().now;
            if now >= until {
                return Ok(());
            }
            if now >= self.limit {
                let waiting = self.names(|m| m.is_client && !m.ended).join(", ");
                let what = format!("the limit of {:?} is reached; not ended: {waiting}", self.elapsed());
                return Err(self.failure(what));
            }
            let chaos = std::mem::take(&mut self.chaos);
            self.chaos = chaos.act(self, now);
            if !ran {
                self.pass_time(now, until)?;
            }
        }
        Ok(())
    }

    /// Nobody has anything to do: time goes on to when somebody has.
    fn pass_time(&mut self, now: u64, until: u64) -> Result<(), Failure> {
        let running = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let sleeping = running.flat_map(|process| &process.loops).filter_map(|l| self.sim.wakes_at(l.id));
        let starting = self.machines.iter().filter(|m| m.process.is_none()).filter_map(|m| m.starts_at);
        let kernel = self.sim.kernel.borrow().next_due();
        let next = sleeping.chain(starting).chain(kernel).chain((until != u64::MAX).then_some(until)).min();
        let Some(next) = next else {
            let waiting = self.names(|m| m.is_client && !m.ended).join(", ");
            let what = format!("nothing can happen any more, and these have not ended: {waiting} (I3)");
            return Err(self.failure(what));
        };
        // A quiet world does not outlive the chaos that is still to come.
        let next = self.chaos.next().map_or(next, |chaos| chaos.min(next));
        self.sim.advance(next.min(self.limit).max(now + 1));
        Ok(())
    }

    fn names(&self, which: impl Fn(&Machine) -> bool) -> Vec<&str> {
        self.machines.iter().filter(|m| which(m)).map(|m| m.name.as_str()).collect()
    }

    fn place(&self, host: HostId) -> Place {
        let failed = self.failed.clone();
        Place { sim: self.sim.clone(), host, backend: self.backend, stepped: true, alone: false, failed }
    }

    /// Starts what is to start by now.
    fn start_machines(&mut self) -> Result<(), Failure> {
        let now = self.sim.kernel.borrow().now;
        for at in 0..self.machines.len() {
            let machine = &self.machines[at];
            if machine.process.is_some() || machine.starts_at.is_none_or(|starts| starts > now) {
                continue;
            }
            let (host, program, name, count) =
                (machine.id, machine.program.clone(), machine.name.clone(), machine.loops);
            let _inside = Inside::new(self.place(host));
            let loops = match self.make_loops(count) {
                Ok(loops) => loops,
                // As a supervisor does whose program cannot start for want of something: later again.
                Err(e) if self.sim.kernel.borrow().faults.are_on() => {
                    self.sim.kernel.borrow_mut().log(format_args!("{name} cannot start: {e}"));
                    self.machines[at].starts_at = Some(now + 100_000_000);
                    continue;
                }
                Err(e) => return Err(self.failure(format!("{name} cannot start: {e}"))),
            };
            self.sim.kernel.borrow_mut().log(format_args!("{name} starts"));
            let remotes = loops.iter().map(|l| l.events.handle().remote()).collect();
            self.sim.remotes.borrow_mut().insert(host, remotes);
            let main = loops[0].events.handle().spawn(async move { program().await });
            let machine = &mut self.machines[at];
            machine.starts_at = None;
            machine.process = Some(Process { loops, main });
        }
        Ok(())
    }

    fn make_loops(&self, count: usize) -> io::Result<Vec<Looping>> {
        let make = |_| {
            let events = EventLoop::new()?;
            Ok(Looping { events, id: self.sim.last_loop(), idle_turns: 0 })
        };
        (0..count).map(make).collect()
    }

    /// Each loop that has something to do takes a turn, in an order by chance. False if there was none.
    fn take_turns(&mut self) -> Result<bool, Failure> {
        let mut order = Vec::new();
        for (at, machine) in self.machines.iter().enumerate() {
            let loops = machine.process.iter().flat_map(|process| &process.loops).enumerate();
            order.extend(
                loops
                    .filter(|(_, l)| l.events.is_owed_a_turn() || self.sim.may_run(l.id))
                    .map(|(which, _)| (at, which)),
            );
        }
        self.dice.shuffle(&mut order);
        for (at, which) in &order {
            let cost = self.dice.u64(1_000..20_000);
            self.sim.cost.set(cost);
            self.take_turn(*at, *which)?;
        }
        Ok(!order.is_empty())
    }

    fn take_turn(&mut self, at: usize, which: usize) -> Result<(), Failure> {
        let inside = Inside::new(self.place(self.machines[at].id));
        let machine = &mut self.machines[at];
        // It may have ended in the turn of another loop.
        let Some(process) = &mut machine.process else { return Ok(()) };
        let Some(looping) = process.loops.get_mut(which) else { return Ok(()) };
        let before = self.sim.kernel.borrow().trace.events();
        self.sim.wake_up(looping.id);
        let result = looping.events.step();
        let after = self.sim.kernel.borrow().trace.events();
        let idle = before == after && self.sim.may_run(looping.id);
        looping.idle_turns = if idle { looping.idle_turns + 1 } else { 0 };
        let (spins, panics) = (looping.idle_turns > SPINNING, looping.events.handle().stats().panics);
        let ended = process.main.is_finished();
        let name = machine.name.clone();
        drop(inside);
        if let Err(e) = result {
            return Err(self.failure(format!("a loop of {name} failed: {e} (I8)")));
        }
        if spins {
            return Err(
                self.failure(format!("a loop of {name} turns and turns, and nothing happens (I8, I29)"))
            );
        }
        if panics > 0 && !self.sim.kernel.borrow().panics_are_planned() {
            return Err(self.failure(format!("a handler, a task or a call of {name} panicked (I38)")));
        }
        if ended { self.end_machine(at) } else { Ok(()) }
    }

    /// A program has come to its end.
    fn end_machine(&mut self, at: usize) -> Result<(), Failure> {
        let Some(Process { mut loops, main }) = self.machines[at].process.take() else { return Ok(()) };
        let machine = &mut self.machines[at];
        let name = machine.name.clone();
        let inside = Inside::new(self.place(self.machines[at].id));
        let outcome = loops[0].events.take_output(main);
        // The loops' end closes what the program has left open.
        drop(loops);
        self.sim.settle();
        drop(inside);
        let machine = &mut self.machines[at];
        machine.ended = true;
        let host = machine.id;
        match outcome {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(e))) => {
                let mut kernel = self.sim.kernel.borrow_mut();
                if !self.machines[at].supervised || !kernel.faults.are_on() {
                    drop(kernel);
                    return Err(self.failure(format!("{name} failed: {e}")));
                }
                kernel.log(format_args!("{name} failed, and is to start again: {e}"));
                let machine = &mut self.machines[at];
                (machine.ended, machine.starts_at) = (false, Some(kernel.now + 1_000_000_000));
            }
            Some(Err(e)) => return Err(self.failure(format!("{name} panicked: {e}"))),
            None => return Err(self.failure(format!("{name} has no result"))),
        }
        let kernel = &mut *self.sim.kernel.borrow_mut();
        kernel.log(format_args!("{name} ends"));
        let left = kernel.host(host).table.used();
        if left > 0 {
            drop(name);
            let open: Vec<_> = kernel.host(host).table.open().map(|(fd, _)| fd).collect();
            *self.failed.borrow_mut() = Some(format!("descriptors were left open: {open:?} (I36)"));
        }
        Ok(())
    }

    fn failure(&self, what: String) -> Failure {
        Failure::new(what, self)
    }

    /// A failure of this world, for what a check finds out after its run.
    pub fn fail(&self, what: impl Into<String>) -> Failure {
        self.failure(what.into())
    }

    /// What has happened so far.
    pub fn report(&self) -> Report {
        Report::new(self)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for at in 0..self.machines.len() {
            let inside = Inside::new(self.place(self.machines[at].id));
            let process = self.machines[at].process.take();
            drop(process);
            drop(inside);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed)
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}
