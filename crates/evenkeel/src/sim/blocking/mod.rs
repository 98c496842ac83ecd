//! Blocking sockets and threads in a world of one host: for tests that drive a loop themselves.
//!
//! A [`World`](super::World) runs programs. Most tests of a handler are no programs: they make a loop, connect a plain socket to
//! it, and let the loop take a turn now and then. [`alone`] runs such a test over the simulated kernel, on virtual time: loops
//! that are made in it wait in their own calls, and the sockets of this module are the peers. Outside of a world these sockets
//! are those of the standard library, so that one test does for both kernels.
//!
//! ```
//! use std::io::{Read, Write};
//!
//! use evenkeel::net::{Limits, ListenOptions};
//! use evenkeel::sim::blocking::{TcpStream, alone, spawn};
//! use evenkeel::{Backend, Conn, EventLoop, Handler};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
//!         conn.write(bytes);
//!     }
//! }
//!
//! fn an_echo_comes_back() {
//!     let mut events = EventLoop::new().unwrap();
//!     let h = events.handle();
//!     let listener = h.pool(Limits::default()).listen("127.0.0.1:0", &ListenOptions::default(), |_: &_| Echo).unwrap();
//!     let address = h.listener_addr(listener).unwrap().socket_addr().unwrap();
//!     let remote = h.remote();
//!     let peer = spawn(move || {
//!         let mut peer = TcpStream::connect(address).unwrap();
//!         peer.write_all(b"hello").unwrap();
//!         let mut answer = [0; 5];
//!         peer.read_exact(&mut answer).unwrap();
//!         remote.run(|h| h.stop()).unwrap();
//!         answer
//!     });
//!     events.run().unwrap();
//!     assert_eq!(&peer.join().unwrap(), b"hello");
//! }
//!
//! // The running kernel, the model of a contract, and the driver of epoll over the model of its system calls.
//! an_echo_comes_back();
//! alone(1, Backend::Sim, an_echo_comes_back);
//! alone(1, Backend::Epoll, an_echo_comes_back);
//! ```
//!
//! # Time
//!
//! Time passes while a loop sleeps, or a socket or a thread of this module is waited for, and then at once; and by a
//! little with each turn of a loop, and with each call that it makes. A thread that was started by [`spawn`] belongs to the world:
//! while it does something, time stands still, so that no deadline depends on how fast the machine is.
//! What such a thread waits for outside of the world, a channel for instance, it has to wait for in [`aside`]. The thread that runs the
//! world must not wait for another one in any way but [`JoinHandle::join`] and [`until`]: nobody else answers it.
//!
//! Threads take turns as the system has them; a test that starts some is not the same twice, unlike a [`World`](super::World).

mod socket;
mod stream;
mod tcp;
mod thread;
mod udp;
mod unix;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::kernel::{Call, Doings, Doorbell, HostId, Kernel};
use super::net::{Network, nanos};
use super::place::{Inside, Place, here};
use super::sys::Sim;
use crate::backend::Backend;

pub use stream::{StdStream, Stream};
pub use tcp::{TcpListener, TcpStream};
pub(super) use thread::is_helper;
pub use thread::{JoinHandle, aside, sleep, spawn, until, yield_now};
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};

/// What a loop's turn takes, in nanoseconds.
const TURN: u64 = 20_000;
/// And a call in it.
const CALL: u64 = 1_000;

/// Runs code in a world of one host, on this thread. Loops that it makes and that ask for no other backend get this one, over the
/// simulated kernel; without faults, and without delays.
///
/// # Panics
/// If the code does, in a world already, and if the code leaves a descriptor open.
pub fn alone<R>(seed: u64, backend: Backend, code: impl FnOnce() -> R) -> R {
    assert!(here().is_none(), "a world cannot be made in a world");
    let sim = Sim::new(Kernel::new(seed, Network::immediate(), false));
    sim.cost.set(TURN);
    sim.cost_of_call.set(CALL);
    let host = sim.kernel.borrow_mut().add_host("host");
    let failed = Rc::default();
    let place =
        Place { sim: sim.clone(), host, backend, stepped: false, alone: true, failed: Rc::clone(&failed) };
    let over = Over(sim.clone());
    let result = {
        let _inside = Inside::new(place);
        code()
    };
    sim.settle();
    drop(over);
    if let Some(what) = failed.take() {
        panic!("{what}");
    }
    let open = list(&sim, host);
    assert!(open.is_empty(), "descriptors were left open: {open:?}");
    result
}

/// Threads that are left hear that their world has ended.
struct Over(Rc<Sim>);

impl Drop for Over {
    fn drop(&mut self) {
        let doorbell = self.0.kernel.borrow().doorbell.clone();
        let mut lost = self.0.waiting.take().len();
        doorbell.ring(|outside| {
            outside.over = true;
            lost += outside.calls.len();
            outside.calls.clear();
        });
        self.0.kernel.borrow_mut().log(format_args!("the world ends, {lost} calls of threads with it"));
    }
}

/// The clock of the world, or outside of one the system's monotonic one.
///
/// # Panics
/// On another thread than the world's.
pub fn now() -> Instant {
    match thread::desk() {
        Some(desk) => desk.sim().expect("the clock belongs to the thread of its world").clock(),
        None => Instant::now(),
    }
}

/// The descriptors of the world that are open, by number and kind.
///
/// # Panics
/// Outside of a world.
pub fn descriptors() -> Vec<String> {
    let place = here().expect("this is for code that runs in a simulated host");
    list(&place.sim, place.host)
}

fn list(sim: &Sim, host: HostId) -> Vec<String> {
    sim.settle();
    let kernel = sim.kernel.borrow();
    let open = kernel.hosts[host.0 as usize].table.open();
    open.map(|(fd, id)| {
        format!("{fd} {}", kernel.objects.get(id).map_or("nothing", |object| object.kind.name()))
    })
    .collect()
}

/// A call of another thread, and until when it waits.
pub(crate) struct Waiting {
    call: Call,
    until: Option<u64>,
}

impl Sim {
    /// Tries what other threads wait for. Whether that has changed anything, be it that a part of a call was done.
    pub(super) fn answer_threads(&self) -> bool {
        let doorbell = self.kernel.borrow().doorbell.clone();
        let new = std::mem::take(&mut doorbell.lock().calls);
        let now = self.kernel.borrow().now;
        let mut waiting = self.waiting.take();
        waiting.extend(new.into_iter().map(|call| {
            let until = call.patience.map(|patience| now.saturating_add(patience));
            Waiting { call, until }
        }));
        if waiting.is_empty() {
            return false;
        }
        let (before, changes) = (waiting.len(), self.kernel.borrow().changes);
        waiting.retain_mut(|waiting| {
            let last = waiting.until.is_some_and(|until| until <= now);
            let counted = usize::from(waiting.call.counted);
            // It runs from when it has its answer, and must not be overtaken by time before.
            doorbell.lock().running += counted;
            let answered = (waiting.call.attempt)(&mut self.kernel.borrow_mut(), last);
            if !answered {
                doorbell.lock().running -= counted;
            }
            !answered
        });
        let changed = waiting.len() < before || self.kernel.borrow().changes > changes;
        self.waiting.replace(waiting);
        changed
    }

    /// When the next thing happens, be it that a thread has waited long enough.
    pub(super) fn next_due(&self) -> Option<u64> {
        let ends = self.waiting.borrow().iter().filter_map(|waiting| waiting.until).min();
        self.kernel.borrow().next_due().into_iter().chain(ends).min()
    }

    /// Nothing more happens now: lets other threads go on, or time pass until the next thing happens, at most until then.
    pub(super) fn pass_time(&self, until: Option<u64>) {
        let (doorbell, now) = {
            let kernel = self.kernel.borrow();
            (kernel.doorbell.clone(), kernel.now)
        };
        let next = self.next_due().into_iter().chain(until).min();
        match (next, doorbell.state()) {
            (_, Doings::News) => {}
            (Some(next), Doings::Nothing) => self.advance(next.max(now)),
            // What wakes it comes from another thread.
            _ => doorbell.wait(),
        }
    }
}

/// How code of a thread reaches its world.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    doorbell: Arc<Doorbell>,
    host: HostId,
}

impl Desk {
    /// The world, on its own thread.
    fn sim(&self) -> Option<Rc<Sim>> {
        let place = here()?;
        let is_it = Arc::ptr_eq(&place.sim.kernel.borrow().doorbell, &self.doorbell);
        is_it.then_some(place.sim)
    }

    /// Makes a call until it does not say that it would block, or for so long.
    fn call<T: Send + 'static>(
        &self,
        patience: Option<Duration>,
        mut call: impl FnMut(&mut Kernel, HostId, bool) -> Result<T, Errno> + Send + 'static,
    ) -> io::Result<T> {
        let (host, patience) = (self.host, patience.map(nanos));
        let Some(sim) = self.sim() else { return self.send_call(patience, call) };
        let begun = sim.kernel.borrow().now;
        let until = patience.map(|patience| begun.saturating_add(patience));
        loop {
            sim.settle();
            let last = until.is_some_and(|until| until <= sim.kernel.borrow().now);
            let answer = call(&mut sim.kernel.borrow_mut(), host, last);
            match answer {
                Err(Errno::AGAIN) if !last => sim.pass_time(until),
                answer => {
                    sim.settle();
                    return Ok(answer?);
                }
            }
        }
    }

    /// Has the world's thread make the call.
    fn send_call<T: Send + 'static>(
        &self,
        patience: Option<u64>,
        mut call: impl FnMut(&mut Kernel, HostId, bool) -> Result<T, Errno> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, wait) = std::sync::mpsc::channel();
        let host = self.host;
        let attempt = move |kernel: &mut Kernel, last| match call(kernel, host, last) {
            Err(Errno::AGAIN) if !last => false,
            result => {
                // Its thread waits for it.
                let _ = answer.send(result);
                true
            }
        };
        let counted = thread::belongs_to(self);
        let call = Call { attempt: Box::new(attempt), patience, counted };
        self.doorbell.ring(|outside| {
            outside.running -= usize::from(counted);
            outside.stirred = true;
            if !outside.over {
                outside.calls.push(call);
            }
        });
        match wait.recv() {
            Ok(result) => Ok(result?),
            // The world has ended, and the call with it: nobody has counted the thread as running again.
            Err(_) => {
                self.doorbell.ring(|outside| outside.running += usize::from(counted));
                Err(io::Error::new(io::ErrorKind::NotConnected, "the simulated world has ended"))
            }
        }
    }
}
