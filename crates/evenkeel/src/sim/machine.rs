//! What a simulated host is beside its kernel: threads that are events, a resolver that knows the world's hosts, and a disk.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::disk::Disk;
use super::fault::Fault;
use super::kernel::{Doorbell, Event, HostId, Kernel};
use super::net::nanos;
use super::place::Remembered;
use super::sys::Sim;
use crate::dns::Resolver;
use crate::event_loop;
use crate::fs::{FileDone, FileOp};
use crate::pool::{FILES, NAMES};
use crate::stand_in::{Call, StandIn};

/// Threads of a program's own work, if it does not say: the same on whatever machine the world runs.
const PROCESSORS: usize = 4;

thread_local! {
    /// The worlds of this thread. Whoever must be `Send` knows its world by the doorbell and finds it here.
    static WORLDS: RefCell<Vec<(Arc<Doorbell>, Weak<Sim>)>> = const { RefCell::new(Vec::new()) };
}

/// Makes a world known to its thread.
pub(super) fn register(world: Arc<Doorbell>, sim: &Rc<Sim>) {
    WORLDS.with_borrow_mut(|worlds| {
        worlds.retain(|(_, sim)| sim.strong_count() > 0);
        worlds.push((world, Rc::downgrade(sim)));
    });
}

fn find(world: &Arc<Doorbell>) -> Option<Rc<Sim>> {
    let found = |worlds: &RefCell<Vec<(Arc<Doorbell>, Weak<Sim>)>>| {
        let worlds = worlds.borrow();
        worlds.iter().find(|(bell, _)| Arc::ptr_eq(bell, world)).and_then(|(_, sim)| sim.upgrade())
    };
    WORLDS.try_with(found).ok().flatten()
}

/// A host, for one of its processes.
#[derive(Clone)]
pub(crate) struct Machine {
    world: Arc<Doorbell>,
    host: HostId,
    /// Which of its processes, one after the other.
    life: u32,
}

impl Machine {
    pub(super) fn new(world: Arc<Doorbell>, host: HostId, life: u32) -> Arc<Self> {
        Arc::new(Machine { world, host, life })
    }

    /// Whether its process has been killed.
    fn is_over(&self, kernel: &Kernel) -> bool {
        kernel.hosts[self.host.0 as usize].life != self.life
    }

    fn sim(&self) -> io::Result<Rc<Sim>> {
        find(&self.world).ok_or_else(|| {
            let what = "a simulated host belongs to the thread of its world, while that lives";
            io::Error::new(io::ErrorKind::Unsupported, what)
        })
    }
}

impl StandIn for Machine {
    fn check(&self) -> io::Result<()> {
        if self.is_over(&self.sim()?.kernel.borrow()) {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the simulated process has ended"));
        }
        Ok(())
    }

    fn start_thread(&self, lane: &'static str, begin: Call) -> io::Result<()> {
        let sim = self.sim()?;
        let mut kernel = sim.kernel.borrow_mut();
        if kernel.strikes(Fault::ThreadStartFails) {
            return Err(Errno::AGAIN.into());
        }
        let takes = kernel.dice.u64(20_000..200_000);
        kernel.log(format_args!("a thread of {lane} is started"));
        drop(kernel);
        self.after(Duration::from_nanos(takes), begin);
        Ok(())
    }

    fn processors(&self) -> usize {
        PROCESSORS
    }

    fn job_takes(&self, lane: &'static str) -> (Duration, Duration) {
        let Ok(sim) = self.sim() else { return (Duration::ZERO, Duration::ZERO) };
        let (before, then) = sim.kernel.borrow_mut().job_takes(lane);
        (Duration::from_nanos(before), Duration::from_nanos(then))
    }

    fn after(&self, time: Duration, call: Call) {
        // Whoever calls has checked, on this thread; a world that is ending does nothing more.
        let Ok(sim) = self.sim() else { return };
        let (machine, place) = (self.clone(), Remembered::here(self.host));
        let call = move || {
            let _inside = place.and_then(|place| place.enter(machine.host));
            // What a killed process had begun is dropped.
            let call = machine.check().is_ok().then_some(call);
            event_loop::outside(|| call.map(|call| call()));
        };
        sim.kernel.borrow_mut().after(nanos(time), Event::Call(Box::new(call)));
    }

    fn clock(&self) -> Option<Instant> {
        self.sim().ok().map(|sim| sim.clock())
    }

    fn pass(&self, until: Option<Instant>, over: &mut dyn FnMut() -> bool) {
        let Ok(sim) = self.sim() else { return };
        loop {
            sim.settle();
            let left = until.map(|until| nanos(until.saturating_duration_since(sim.clock())));
            if over() || left == Some(0) {
                return;
            }
            let kernel = sim.kernel.borrow();
            let end = left.map(|left| kernel.now.saturating_add(left));
            let Some(next) = kernel.next_due().into_iter().chain(end).min() else { return };
            drop(kernel);
            sim.advance(next);
        }
    }

    fn resolver(&self) -> Arc<dyn Resolver> {
        Arc::new(Names(self.clone()))
    }

    fn file(&self, op: FileOp) -> FileDone {
        let sim = self.sim()?;
        let now = sim.wall_clock();
        let mut disks = sim.disks.borrow_mut();
        let disk = disks.entry(self.host).or_insert_with(|| Disk::new(self.host));
        disk.perform(&mut sim.kernel.borrow_mut(), now, op)
    }
}

impl Kernel {
    /// How long a job takes until its code runs, and from then on, in nanoseconds.
    fn job_takes(&mut self, lane: &'static str) -> (u64, u64) {
        let mut takes = self.dice.u64(10_000..1_000_000);
        let mut late = |kernel: &mut Self, fault, most| {
            if kernel.strikes(fault) {
                takes += kernel.faults.dice(fault).u64(10_000_000..most);
            }
        };
        late(self, Fault::PoolDelay, 10_000_000_000);
        // Name servers and disks are slow in their own ways.
        if lane == NAMES {
            late(self, Fault::Names, 20_000_000_000);
        } else if lane == FILES {
            late(self, Fault::Disk, 3_000_000_000);
        }
        // Mostly the code runs as soon as it may; whoever takes a job back may also come before it.
        let before = if self.dice.u8(..4) > 0 { 0 } else { self.dice.u64(..takes) };
        (before, takes - before)
    }

    /// What a name means to a host.
    fn resolve(&mut self, from: HostId, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let known = self
            .hosts
            .iter()
            .position(|host| host.name.eq_ignore_ascii_case(name))
            .map(|at| HostId(at as u32));
        let mut found: Vec<SocketAddr> = match known {
            Some(host) => vec![(self.ip(host), port).into()],
            None if name == "localhost" => vec![([127, 0, 0, 1], port).into()],
            None => Vec::new(),
        };
        let asks = self.hosts[from.0 as usize].name.clone();
        self.log(format_args!("{asks} looks up {name}"));
        if !self.strikes(Fault::Names) {
            if found.is_empty() {
                return Err(io::Error::other("no host has this name"));
            }
            return Ok(found);
        }
        let nobody = SocketAddr::from(([10, 255, 255, 254], port));
        let dice = self.faults.dice(Fault::Names);
        match dice.u8(..5) {
            0 => Err(io::Error::other("no host has this name")),
            1 => Err(io::Error::other("the name server failed")),
            2 => Ok(Vec::new()),
            // The name meant another machine, or will.
            3 => {
                found.insert(0, nobody);
                Ok(found)
            }
            _ => {
                // A server that listens at IPv4 only has an address of the other family.
                let other = known.map(|host| SocketAddr::from((self.ip6(host), port)));
                found.splice(0..0, other);
                Ok(found)
            }
        }
    }
}

/// The resolver of a host.
struct Names(Machine);

impl Resolver for Names {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let sim = self.0.sim()?;
        sim.kernel.borrow_mut().resolve(self.0.host, host, port)
    }
}

#[cfg(test)]
mod tests;
