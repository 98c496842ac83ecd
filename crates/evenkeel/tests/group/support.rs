//! The harness: groups that nothing else in the process disturbs, and raw peers.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel::group::{Group, GroupBuilder, GroupListener, Share};
use evenkeel::net::{Limits, ListenOptions};
use evenkeel::{Backend, CloseReason, Conn, ConnId, EventLoop, Flow, Handle, Handler, Remote};

/// Longer than any step takes on a busy machine; reached only by what hangs.
pub const LONG: Duration = Duration::from_secs(30);

pub const SHARES: [Share; 3] = [Share::ReusePort, Share::Acceptor, Share::Shared];

/// One test at a time: descriptors are the process's, and a loop with select has room for those below 1,024.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes of each body `fn name(backend: Backend)` one test for each backend.
macro_rules! on_every_backend {
    ($($name:ident,)*) => { $(
        mod $name {
            use evenkeel::Backend;
            #[test]
            fn on_every_backend() {
                let _alone = crate::support::alone();
                for backend in Backend::ALL {
                    eprintln!("on {backend}");
                    super::$name(*backend);
                }
            }
        }
    )* };
}

const CHILD: &str = "EVENKEEL_GROUP_CHILD";

/// Runs the test of this path again, alone in a process: for what is the process's, such as its limits.
pub fn in_process(test: &str, body: fn()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let _alone = alone();
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "{test}: {}\n{out}\n{err}", child.status);
    assert!(out.contains("1 passed"), "{test} did not run in its process:\n{out}");
}

/// Options for a group, whose loops have descriptor tables of their own if `EVENKEEL_TEST_TABLES=private` says so.
pub fn builder() -> GroupBuilder {
    if !private_tables() {
        return Group::builder();
    }
    // SAFETY: what tests open on a loop's thread they leave to this crate.
    unsafe { Group::builder().private_descriptors() }
}

pub fn private_tables() -> bool {
    std::env::var_os("EVENKEEL_TEST_TABLES").is_some_and(|tables| tables == "private")
}

pub fn group_on(backend: Backend, loops: usize) -> Group {
    let each = EventLoop::builder().backend(backend).on_fallback(|_| ());
    builder().loops(loops).event_loop(each).build(|_, _| Ok(())).unwrap()
}

pub fn group(loops: usize) -> Group {
    builder().loops(loops).build(|_, _| Ok(())).unwrap()
}

/// What has become of the handlers of a test.
#[derive(Debug, Default)]
pub struct Seen {
    pub closed: AtomicUsize,
    pub loop_ended: AtomicUsize,
}

/// Sends back what it gets.
#[derive(Default)]
pub struct Echo {
    pub seen: Arc<Seen>,
}

impl Handler for Echo {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        if conn.write(bytes) == Flow::Hold {
            conn.pause();
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        conn.resume();
    }

    fn on_close(&mut self, _: ConnId, reason: &CloseReason) {
        self.seen.closed.fetch_add(1, Ordering::Relaxed);
        if matches!(reason, CloseReason::LoopEnded) {
            self.seen.loop_ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub fn echo(group: &Group, share: Share) -> GroupListener {
    echo_within(group, share, &Limits::default())
}

pub fn echo_within(group: &Group, share: Share, limits: &Limits) -> GroupListener {
    group.listen("127.0.0.1:0", &ListenOptions::default(), limits, share, |_, _| Echo::default()).unwrap()
}

pub fn tcp(listener: &GroupListener) -> SocketAddr {
    listener.addr().socket_addr().unwrap()
}

pub fn connect(to: SocketAddr) -> TcpStream {
    let peer = TcpStream::connect(to).unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    peer
}

/// The bytes of one peer and round: every one tells whose and which it is.
pub fn labelled(peer: usize, round: usize) -> Vec<u8> {
    let label = |at: usize| (peer.wrapping_mul(31) ^ round.wrapping_mul(7) ^ at ^ (at >> 8)) as u8;
    (0..1500 + peer).map(label).collect()
}

pub fn ping(peer: &mut TcpStream) -> io::Result<()> {
    peer.write_all(b"ping")?;
    let mut pong = [0; 4];
    peer.read_exact(&mut pong)?;
    assert_eq!(&pong, b"ping");
    Ok(())
}

/// Whether the other side has ended the connection without an answer.
pub fn is_turned_away(peer: &mut TcpStream) -> bool {
    match peer.read(&mut [0; 1]) {
        Ok(n) => n == 0,
        Err(e) => {
            assert!(e.kind() == io::ErrorKind::ConnectionReset, "{e}");
            true
        }
    }
}

/// Holds a loop up until the answer is dropped, and fills its mailbox. Not before the loop is held up: what holds it up
/// would leave room in the mailbox when it is taken out.
pub fn fill_mailbox(remote: &Remote) -> Sender<()> {
    let (release, wait) = channel::<()>();
    let (begins, begun) = channel();
    let holds_up = move |_: &Handle| {
        begins.send(()).unwrap();
        _ = wait.recv();
    };
    remote.run(holds_up).unwrap();
    begun.recv().unwrap();
    while remote.run(|_| ()).is_ok() {}
    release
}

/// Returns when each loop has done all that had come to it before. Twice, because sources are released at the end of a turn,
/// and the first answer may be of the turn that closes them.
pub fn settle(group: &Group) {
    for index in (0..group.len()).chain(0..group.len()) {
        group.spawn_on(index, || async {}).unwrap().wait().unwrap();
    }
}

pub fn connections(listener: &GroupListener) -> Vec<usize> {
    listener.counts().iter().map(|counts| counts.connections).collect()
}

/// Joins a group that was made to end, and asserts that each loop ended well.
pub fn join(group: Group) {
    group.stop(LONG).unwrap();
    for end in group.join() {
        end.unwrap();
    }
}

/// Waits for a group that ends by itself, and asserts that each loop ended well.
pub fn ends(group: Group) {
    let (done, wait) = channel();
    std::thread::spawn(move || done.send(group.join()));
    let ends = wait.recv_timeout(LONG).expect("the group ends by itself");
    assert!(ends.iter().all(Result::is_ok), "{ends:?}");
}

/// The number of threads whose names begin so.
pub fn threads(named: &str) -> usize {
    let name = |task: io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("comm"));
    // A thread may end while it is looked at.
    let names = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| name(task).ok());
    names.filter(|name| name.starts_with(named)).count()
}

/// Asserts that no thread's name begins so. The kernel lists a thread for a moment after it has told those who join it.
pub fn no_threads(named: &str) {
    let since = Instant::now();
    while threads(named) > 0 {
        assert!(since.elapsed() < LONG, "threads are left");
        std::thread::yield_now();
    }
}

/// The descriptors in the table of this thread and of all that share it.
pub fn descriptors() -> usize {
    fs::read_dir("/proc/thread-self/fd").unwrap().count()
}

/// A group whose loops have tables of their own.
pub fn private_on(backend: Backend, loops: usize) -> Group {
    let each = EventLoop::builder().backend(backend).on_fallback(|_| ());
    // SAFETY: what these tests open on a loop's thread stays there, but for what they hand over.
    let builder = unsafe { Group::builder().private_descriptors() };
    builder.loops(loops).event_loop(each).build(|_, _| Ok(())).unwrap()
}

/// Runs a call on a loop's thread and waits for what it returns.
pub fn on<T: Send + 'static>(
    group: &Group,
    index: usize,
    call: impl FnOnce(&Handle) -> T + Send + 'static,
) -> T {
    group.spawn_on(index, move || async move { call(&Handle::current()) }).unwrap().wait().unwrap()
}

/// What the numbers of this thread's table refer to.
pub fn table() -> HashMap<RawFd, String> {
    let entries = fs::read_dir("/proc/thread-self/fd").unwrap().filter_map(Result::ok);
    let named = entries.filter_map(|entry| {
        let to = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, to.display().to_string()))
    });
    named.filter(|(_, to)| !to.starts_with("/proc")).collect()
}
