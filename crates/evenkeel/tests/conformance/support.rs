//! The harness: bodies on every backend, a server on a free port, and raw peers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use evenkeel::net::{Limits, ListenOptions, ListenerId, Pool, SocketOption};
use evenkeel::sim::blocking::{self, StdStream, Stream, TcpStream};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, EventLoop, Handle, Remote, time};

pub use crate::probe::{Probe, Seen};

/// Longer than any step takes on a machine that is busy with other things; reached only by what hangs.
pub const WATCHDOG: Duration = Duration::from_secs(40);
/// How long a raw peer waits for bytes: less than the watchdog, so that the message names the peer's step.
pub const PEER: Duration = Duration::from_secs(20);

/// Makes of each body `fn name(backend: Backend)` one test for each backend, `name::select` to `name::io_uring`. With
/// `EVENKEEL_TEST_LOOPS` it runs on so many loops side by side. For what only the running kernel has; the rest takes
/// `on_every_kernel`.
macro_rules! on_every_backend {
    ($($name:ident,)*) => { each_backend! { side_by_side: $($name,)* } };
}

/// As `on_every_backend`, and each again over the simulated kernel, in `simulated`: the drivers of all backends over the model
/// of their system calls, and the model of the contract.
macro_rules! on_every_kernel {
    ($($name:ident,)*) => {
        on_every_backend! { $($name,)* }
        in_a_world! { $($name,)* }
    };
}

macro_rules! in_a_world {
    ($($name:ident,)*) => {
        mod simulated {
            $( mod $name {
                use super::super::$name as body;
                use crate::support::simulated;
                use evenkeel::Backend;

                tests_of! { simulated }

                #[test]
                fn sim() {
                    simulated(Backend::Sim, concat!(module_path!(), "::sim"), body);
                }
            } )*
        }
    };
}

/// As `on_every_backend`, each in a process of its own and once: for what is the process's, such as its descriptors. The
/// module's name is what a pass over several loops leaves out.
macro_rules! in_processes {
    ($($name:ident,)*) => {
        mod alone {
            use super::*;
            each_backend! { in_process: $($name,)* }
        }
    };
}

/// Over the simulated kernel, in `hosts::simulated`: for bodies that take a process of their own elsewhere, since a host's
/// descriptors are its own.
macro_rules! in_hosts {
    ($($name:ident,)*) => {
        mod hosts {
            use super::*;
            in_a_world! { $($name,)* }
        }
    };
}

macro_rules! each_backend {
    ($how:ident: $($name:ident,)*) => { $(
        mod $name {
            use crate::support::$how;
            use super::$name as body;
            use evenkeel::Backend;
            tests_of! { $how }
        }
    )* };
}

macro_rules! tests_of {
    ($how:ident) => {
        #[test]
        fn select() {
            $how(Backend::Select, concat!(module_path!(), "::select"), body);
        }
        #[test]
        fn poll() {
            $how(Backend::Poll, concat!(module_path!(), "::poll"), body);
        }
        #[test]
        fn epoll_lt() {
            $how(Backend::EpollLevel, concat!(module_path!(), "::epoll_lt"), body);
        }
        #[test]
        fn epoll() {
            $how(Backend::Epoll, concat!(module_path!(), "::epoll"), body);
        }
        #[test]
        fn io_uring() {
            $how(Backend::IoUring, concat!(module_path!(), "::io_uring"), body);
        }
    };
}

/// The macros above name each backend; this keeps them whole when one is added.
#[test]
fn the_table_of_backends_is_the_one_that_the_macros_know() {
    let names: Vec<_> = Backend::ALL.iter().map(|b| b.name()).collect();
    assert_eq!(names, ["select", "poll", "epoll-lt", "epoll", "io_uring"]);
}

/// The page of scenarios names bodies; this keeps it true when they are renamed.
#[test]
fn the_scenarios_name_bodies_that_there_are() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let page = std::fs::read_to_string(folder.join("SCENARIOS.md")).unwrap();
    let named: Vec<_> = page.split('`').filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() > 200, "{}", named.len());
    for (module, body) in named {
        let source = std::fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap_or_default();
        assert!(source.contains(&format!("fn {body}(")), "there is no {module}::{body}");
    }
}

/// Runs a body on as many threads at once as `EVENKEEL_TEST_LOOPS` says, each with loops of its own: nothing of a loop may
/// depend on there being no other.
pub fn side_by_side(backend: Backend, path: &str, body: fn(Backend)) {
    let loops = match std::env::var(LOOPS) {
        Ok(number) => number.parse().expect("EVENKEEL_TEST_LOOPS is a number"),
        Err(_) => 1,
    };
    really(loops, backend, path, body);
}

/// Runs a body over the simulated kernel, in a world of its own.
pub fn simulated(backend: Backend, path: &str, body: fn(Backend)) {
    let seed = std::env::var("EVENKEEL_SIM_SEED")
        .map_or(1, |seed| seed.parse().expect("EVENKEEL_SIM_SEED is a number"));
    run(1, path, move || blocking::alone(seed, backend, || body(backend)));
}

const LOOPS: &str = "EVENKEEL_TEST_LOOPS";

/// Runs a body on threads of its own, and fails if one hangs or a handler's contract was broken.
fn run(times: usize, path: &str, body: impl Fn() + Clone + Send + 'static) {
    let deadline = Instant::now() + WATCHDOG;
    let start = |_| {
        let (done, wait) = channel();
        let body = body.clone();
        let run = move || {
            body();
            let broken = BROKEN.take();
            assert!(broken.is_empty(), "the contract with a handler was broken: {broken:#?}");
            let _ = done.send(());
        };
        (std::thread::Builder::new().name(path.to_owned()).spawn(run).unwrap(), wait)
    };
    let threads: Vec<_> = (0..times).map(start).collect();
    for (thread, wait) in threads {
        match wait.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => panic!("{path} hangs"),
            _ => {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

/// A body over the running kernel. The numbers that `select` can watch would not do for several at once.
fn really(times: usize, backend: Backend, path: &str, body: fn(Backend)) {
    run(times, path, move || {
        if private_tables() || times > 1 && backend == Backend::Select {
            leave_table();
        }
        body(backend);
    });
}

/// Whether the tests are to run on threads with descriptor tables of their own: `EVENKEEL_TEST_TABLES=private`.
pub fn private_tables() -> bool {
    std::env::var_os("EVENKEEL_TEST_TABLES").is_some_and(|tables| tables == "private")
}

/// Gives the thread a descriptor table of its own, which the threads that it starts will have too.
pub fn leave_table() {
    // SAFETY: the body of a test uses what it, or a thread that it has started, has opened since.
    let events = unsafe { EventLoop::builder().private_descriptors() }.build().unwrap();
    assert!(matches!(events.handle().descriptors(), evenkeel::Descriptors::Private));
}

/// A name that no other body has, be it the same one on another loop.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("evenkeel-{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

const CHILD: &str = "EVENKEEL_CONFORMANCE_CHILD";

/// Runs this one test again, alone in a process.
pub fn in_process(backend: Backend, path: &str, body: fn(Backend)) {
    if std::env::var_os(CHILD).is_some() {
        return really(1, backend, path, body);
    }
    let test = path.split_once("::").map_or(path, |(_crate, test)| test);
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "{path}: {}\n{out}\n{err}", child.status);
    assert!(out.contains("1 passed"), "{path} did not run in its process:\n{out}");
}

thread_local! {
    /// What handlers noticed that must never be; asserts in them would be caught by the loop.
    static BROKEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

pub fn broken(what: String) {
    BROKEN.with_borrow_mut(|all| all.push(what));
}

/// Limits without time in them, so that nothing but what the test does wakes the loop.
pub fn no_limits() -> Limits {
    let mut limits = Limits::default();
    limits.idle_timeout = None;
    limits.message_deadline = None;
    limits.min_rate = 0;
    limits.max_queue_age = None;
    limits.max_queue_bytes = 64 << 20;
    limits.max_queue_messages = 1 << 20;
    limits.close_deadline = PEER;
    limits
}

pub fn event_loop(backend: Backend) -> EventLoop {
    EventLoop::builder().backend(backend).build().unwrap()
}

/// What runs here if this one is asked for: where io_uring is refused, epoll does. For bodies that expect of a backend more
/// than its contract.
pub fn runs(backend: Backend) -> Backend {
    EventLoop::builder().backend(backend).on_fallback(|_| {}).build().unwrap().handle().backend()
}

/// A loop that listens on a free port and hands each newcomer the next probe of a queue.
pub struct Server {
    pub events: EventLoop,
    pub h: Handle,
    pub pool: Pool<Probe>,
    pub listener: ListenerId,
    pub addr: SocketAddr,
    probes: Rc<RefCell<VecDeque<Probe>>>,
}

impl Server {
    pub fn new(backend: Backend) -> Self {
        Self::with(backend, no_limits(), ListenOptions::default())
    }

    pub fn with_limits(backend: Backend, limits: Limits) -> Self {
        Self::with(backend, limits, ListenOptions::default())
    }

    pub fn with(backend: Backend, limits: Limits, options: ListenOptions) -> Self {
        let events = event_loop(backend);
        let h = events.handle();
        let pool = h.pool(limits);
        let probes: Rc<RefCell<VecDeque<Probe>>> = Rc::default();
        let queue = probes.clone();
        // A newcomer without a probe of its own is one that the test does not look at.
        let make = move |_: &_| queue.borrow_mut().pop_front().unwrap_or_default();
        let listener = pool.listen("127.0.0.1:0", &options, make).unwrap();
        let addr = h.listener_addr(listener).unwrap().socket_addr().unwrap();
        Server { events, h, pool, listener, addr, probes }
    }

    /// The next newcomer gets this probe.
    pub fn expect(&self, probe: Probe) -> Rc<Seen> {
        let seen = probe.seen.clone();
        self.probes.borrow_mut().push_back(probe);
        seen
    }

    /// Connects a raw peer, and waits until its handler has heard `on_open`.
    pub fn pair(&mut self, probe: Probe) -> (TcpStream, Rc<Seen>) {
        let seen = self.expect(probe);
        let peer = connect(self.addr);
        self.until("the connection is open", || seen.opened.get());
        (peer, seen)
    }

    /// Runs the loop until the condition holds. It is looked at after each turn or millisecond.
    #[track_caller]
    pub fn until(&mut self, what: &str, condition: impl FnMut() -> bool) {
        until(&mut self.events, what, condition);
    }

    /// Runs the loop freely, without any timer of the test's, until the peer's code on another thread has ended.
    #[track_caller]
    pub fn serve<R: Send + 'static>(&mut self, peer: impl FnOnce(SocketAddr) -> R + Send + 'static) -> R {
        let addr = self.addr;
        serve(&mut self.events, move |_| peer(addr))
    }

    /// One turn without waiting, `n` times.
    pub fn turns(&mut self, n: usize) {
        (0..n).for_each(|_| self.events.poll().unwrap());
    }

    /// Runs the loop until so many bytes have come to a peer. How many turns that takes is the kernel's business: under load,
    /// what was sent arrives a little later even within one machine.
    #[track_caller]
    pub fn answer<S: StdStream>(&mut self, peer: &mut Stream<S>, len: usize) -> Vec<u8> {
        let mut got = vec![0; len];
        let mut at = 0;
        peer.set_nonblocking(true).unwrap();
        self.until("the peer has its answer", || {
            while at < len {
                match peer.read(&mut got[at..]) {
                    Ok(0) => panic!("the answer ends after {at} of {len} bytes"),
                    Ok(n) => at += n,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                    Err(e) => panic!("the peer's read failed: {e}"),
                }
            }
            true
        });
        peer.set_nonblocking(false).unwrap();
        got
    }

    /// Lets the loop live for a while of its own time and returns how many turns it took, the end's included.
    pub fn turns_in(&mut self, time: Duration) -> u64 {
        let before = self.h.stats().turns;
        self.events.block_on(async move { time::sleep(time).await }).unwrap();
        self.h.stats().turns - before
    }
}

#[track_caller]
pub fn until(events: &mut EventLoop, what: &str, mut condition: impl FnMut() -> bool) {
    let started = blocking::now();
    for _ in 0..50 {
        if condition() {
            return;
        }
        events.poll().unwrap();
    }
    while !condition() {
        assert!(blocking::now() - started < PEER, "waited in vain until {what}");
        events.block_on(async { time::sleep(Duration::from_millis(1)).await }).unwrap();
    }
}

/// Runs a loop freely until the code on another thread has ended, however it ends.
#[track_caller]
pub fn serve<R: Send + 'static>(
    events: &mut EventLoop,
    peer: impl FnOnce(Remote) -> R + Send + 'static,
) -> R {
    struct Stop(Remote);
    impl Drop for Stop {
        fn drop(&mut self) {
            let _ = self.0.run(|h| h.stop());
        }
    }
    let remote = events.handle().remote();
    let thread = blocking::spawn(move || {
        let stop = Stop(remote);
        peer(stop.0.clone())
    });
    events.run().unwrap();
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A raw peer that does not wait for ever.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let peer = TcpStream::connect(addr).unwrap();
    peer.set_read_timeout(Some(PEER)).unwrap();
    peer.set_write_timeout(Some(PEER)).unwrap();
    peer.set_nodelay(true).unwrap();
    peer
}

/// Closing it will reset the connection.
pub fn reset_on_close<S: StdStream>(peer: &Stream<S>) {
    peer.set_option(SocketOption::ResetOnClose).unwrap();
}

/// Reads what is there now, without waiting.
pub fn read_now<S: StdStream>(peer: &mut Stream<S>) -> Vec<u8> {
    peer.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    match peer.read_to_end(&mut all) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
        Err(e) => panic!("the peer's read failed: {e}"),
    }
    peer.set_nonblocking(false).unwrap();
    all
}

/// Reads to the end, and says how it ended.
pub fn read_all(peer: &mut impl Read) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    let end = peer.read_to_end(&mut all).map(|_| ());
    (all, end)
}

pub fn exactly(peer: &mut impl Read, len: usize) -> Vec<u8> {
    let mut all = vec![0; len];
    peer.read_exact(&mut all).unwrap();
    all
}

/// Bytes in which any loss, doubling or swap shows.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(len as u64);
    let mut all = Vec::with_capacity(len + 8);
    while all.len() < len {
        all.extend_from_slice(&rng.u64(..).to_le_bytes());
    }
    all.truncate(len);
    all
}

/// Reads a whole pattern and says where it differs, not how.
#[track_caller]
pub fn assert_same(got: &[u8], want: &[u8]) {
    if got != want {
        let at = got.iter().zip(want).position(|(a, b)| a != b);
        panic!("{} bytes came and {} were sent; the first difference is at {at:?}", got.len(), want.len());
    }
}

/// The descriptors that this process has open, in the table of this thread; in a world, those of its host.
pub fn descriptors() -> Vec<String> {
    if is_simulated() {
        return blocking::descriptors();
    }
    let mut all: Vec<_> = std::fs::read_dir("/proc/thread-self/fd")
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let to = std::fs::read_link(entry.path()).ok()?;
            // The directory that is being read is itself one.
            (!to.starts_with("/proc")).then(|| format!("{} {}", entry.file_name().display(), to.display()))
        })
        .collect();
    all.sort();
    all
}
