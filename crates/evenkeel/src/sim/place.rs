//! Where code runs: in which simulated host of which world, if in one.
//!
//! A loop that is made there is one of that host's: whatever backend is asked for runs over the simulated kernel.

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::blocking;
use super::driver::SimDriver;
use super::kernel::HostId;
use super::machine::Machine;
use super::sys::{Sim, SimSys};
use crate::backend::{Backend, Driver};
use crate::choice::{self, Started};
use crate::proactor::probe;
use crate::reactor::{Epoll, EpollLevel, Poll, Readiness, Select};
use crate::stand_in::StandIn;

thread_local! {
    /// The innermost last.
    static HERE: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

/// A host that code runs in.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) sim: Rc<Sim>,
    pub(crate) host: HostId,
    /// What runs if nothing is asked for by name.
    pub(crate) backend: Backend,
    /// The world takes the turns of loops that are made here; else they wait in their own calls.
    pub(crate) stepped: bool,
    /// Whether it is the only one of its world, whose loops all wait in their own calls.
    pub(crate) alone: bool,
    /// Where code says that the world has failed.
    pub(crate) failed: Rc<RefCell<Option<String>>>,
}

/// The host that this thread's code runs in now.
pub(crate) fn here() -> Option<Place> {
    HERE.try_with(|places| places.borrow().last().cloned()).ok().flatten()
}

/// Code runs in a host for as long as this lives.
pub(crate) struct Inside(());

impl Inside {
    pub(crate) fn new(place: Place) -> Self {
        HERE.with(|places| places.borrow_mut().push(place));
        Inside(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let last = HERE.with(|places| places.borrow_mut().pop());
        drop(last);
    }
}

/// Makes the driver of a loop of the current host; none where there is no host.
pub(crate) fn start(asked: Backend) -> Option<io::Result<Started>> {
    if blocking::is_helper() {
        let what = "a loop of a simulated world is made on the world's own thread";
        return Some(Err(io::Error::new(io::ErrorKind::Unsupported, what)));
    }
    here().map(|place| place.start(asked))
}

/// The machine that this thread's code runs in now, if it is none but a host of a world.
pub(crate) fn machine() -> Option<Arc<dyn StandIn>> {
    let Place { sim, host, .. } = here()?;
    let kernel = sim.kernel.borrow();
    Some(Machine::new(kernel.doorbell.clone(), host, kernel.hosts[host.0 as usize].life))
}

/// A place of which is known without keeping its world.
#[derive(Clone)]
pub(crate) struct Remembered {
    sim: Weak<Sim>,
    backend: Backend,
    alone: bool,
    failed: Rc<RefCell<Option<String>>>,
}

impl Remembered {
    /// The place of this thread's code, if it is in this host.
    pub(crate) fn here(of: HostId) -> Option<Self> {
        let Place { sim, host, backend, alone, failed, .. } = here()?;
        (host == of).then(|| Remembered { sim: Rc::downgrade(&sim), backend, alone, failed })
    }

    /// Another thread of that host's process: its loops wait in their own calls.
    pub(crate) fn enter(self, host: HostId) -> Option<Inside> {
        let Remembered { sim, backend, alone, failed } = self;
        Some(Inside::new(Place { sim: sim.upgrade()?, host, backend, stepped: false, alone, failed }))
    }
}

impl Place {
    /// The kernel of this host, for a new loop.
    fn sys(&self, stepped: bool) -> SimSys {
        let id = self.sim.add_loop(self.host, stepped);
        SimSys::new(self.sim.clone(), self.host, id)
    }

    fn start(&self, asked: Backend) -> io::Result<Started> {
        let backend = if asked == Backend::Auto { self.backend } else { asked };
        if backend == Backend::IoUring {
            return self.start_ring();
        }
        let sys = self.sys(self.stepped);
        let driver: Box<dyn Driver> = match backend {
            Backend::Select => Box::new(Readiness::<Select, _>::new(sys)?),
            Backend::Poll => Box::new(Readiness::<Poll, _>::new(sys)?),
            Backend::EpollLevel => Box::new(Readiness::<EpollLevel, _>::new(sys)?),
            Backend::Epoll | Backend::IoUring => Box::new(Readiness::<Epoll, _>::new(sys)?),
            Backend::Sim | Backend::Auto => Box::new(SimDriver::new(sys)?),
        };
        Ok(Started { backend, driver, fallback: None })
    }

    /// Each loop's kernel is asked what its rings can do, since hosts have several. That takes its time, as it would on a thread.
    /// Faults wait meanwhile: what is asked is what the kernel can do, and epoll would run for want of an answer.
    fn start_ring(&self) -> io::Result<Started> {
        let faults_were_on = self.switch_faults(false);
        let found = probe(&self.sys(false), "").map_err(Into::into);
        self.switch_faults(faults_were_on);
        choice::start_over(self.sys(self.stepped), Backend::IoUring, found)
    }

    /// Whether faults could strike before.
    fn switch_faults(&self, on: bool) -> bool {
        let faults = &mut self.sim.kernel.borrow_mut().faults;
        let before = faults.are_on();
        faults.switch(on);
        before
    }
}
