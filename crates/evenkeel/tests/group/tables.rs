//! Loops with descriptor tables of their own. With `EVENKEEL_TEST_TABLES=private` all other tests run in this mode too.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_ulong;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use evenkeel::group::{Group, GroupListener, Share};
use evenkeel::net::{Limits, ListenOptions, Stream};
use evenkeel::signal::{Signal, Signals};
use evenkeel::{Backend, Conn, Descriptors, EventLoop, Handle, Handler, Remote, RemoteError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::*;

fn private_on(backend: Backend, loops: usize) -> Group {
    let each = EventLoop::builder().backend(backend).on_fallback(|_| ());
    // SAFETY: what these tests open on a loop's thread stays there, but for what they hand over.
    let builder = unsafe { Group::builder().private_descriptors() };
    builder.loops(loops).event_loop(each).build(|_, _| Ok(())).unwrap()
}

/// Runs a call on a loop's thread and waits for what it returns.
fn on<T: Send + 'static>(group: &Group, index: usize, call: impl FnOnce(&Handle) -> T + Send + 'static) -> T {
    group.spawn_on(index, move || async move { call(&Handle::current()) }).unwrap().wait().unwrap()
}

/// What the numbers of this thread's table refer to.
fn table() -> HashMap<RawFd, String> {
    let entries = fs::read_dir("/proc/thread-self/fd").unwrap().filter_map(Result::ok);
    let named = entries.filter_map(|entry| {
        let to = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, to.display().to_string()))
    });
    named.filter(|(_, to)| !to.starts_with("/proc")).collect()
}

/// A table but for what only takes up a number.
fn used() -> HashMap<RawFd, String> {
    table().into_iter().filter(|(_, to)| to != "/").collect()
}

on_every_backend! {
    a_number_means_something_else_on_each_loop,
    i02_a_wake_arrives_from_any_table,
    i36_a_private_table_has_what_the_loop_uses_and_nothing_more,
    i43_connections_change_loops_with_data_in_flight,
    a_peer_sees_the_close_at_once,
    signals_reach_loops_in_every_table,
}

fn a_number_means_something_else_on_each_loop(backend: Backend) {
    let group = private_on(backend, 2);
    let open = |name: &'static str| {
        move |handle: &Handle| {
            assert!(matches!(handle.descriptors(), Descriptors::Private));
            let path = std::env::temp_dir().join(format!("evenkeel-tables-{name}-{}", std::process::id()));
            let file = fs::File::create(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let number = file.as_raw_fd();
            let is = fs::read_link(format!("/proc/thread-self/fd/{number}")).unwrap();
            (number, is.display().to_string())
        }
    };
    let (first, is_first) = on(&group, 0, open("one"));
    let (second, is_second) = on(&group, 1, open("two"));
    assert_eq!(first, second, "both tables have the same numbers free");
    assert!(is_first.contains("one") && is_second.contains("two"));
    join(group);
}

fn i02_a_wake_arrives_from_any_table(backend: Backend) {
    let group = private_on(backend, 2);
    let shared = group_on(backend, 1);
    let remotes = [group.remote(0), group.remote(1), shared.remote(0)];
    // Each sleeps when it is woken: it answers only what comes, and nobody sends before the last answer.
    let from_here = |remotes: &[Remote; 3]| {
        for round in 0..50 {
            for remote in remotes {
                assert_eq!(remote.spawn(move || async move { round }).unwrap().wait().unwrap(), round);
            }
        }
    };
    from_here(&remotes);
    // A thread that a private loop has started has its table, and nobody knows.
    let (done, wait) = channel();
    let to = remotes.clone();
    group
        .remote(1)
        .run(move |_| {
            drop(thread::spawn(move || {
                for round in 0..50 {
                    for remote in &to {
                        assert_eq!(
                            remote.spawn(move || async move { round }).unwrap().wait().unwrap(),
                            round
                        );
                    }
                }
                done.send(()).unwrap();
            }))
        })
        .unwrap();
    wait.recv_timeout(LONG).unwrap();
    // From loop to loop, across tables, and to oneself.
    let hops = AtomicU64::new(0);
    let (done, wait) = channel();
    hop(remotes, Arc::new(hops), done);
    wait.recv_timeout(LONG).unwrap();
    join(shared);
    join(group);
}

fn hop(remotes: [Remote; 3], hops: Arc<AtomicU64>, done: Sender<()>) {
    let at = hops.fetch_add(1, Ordering::Relaxed);
    if at == 600 {
        return done.send(()).unwrap();
    }
    let next = remotes[(at as usize * 7 + at as usize / 5) % 3].clone();
    next.run(move |_| hop(remotes, hops, done)).unwrap();
}

fn i36_a_private_table_has_what_the_loop_uses_and_nothing_more(backend: Backend) {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let before = descriptors();
    let group = private_on(backend, 2);
    assert_eq!(descriptors(), before + 2, "of the sockets that the loops were made with, the ways to them");
    let number = held.as_raw_fd();
    let (is, error) = on(&group, 0, move |_| {
        // SAFETY: a number that is taken, for the length of one call that the kernel refuses.
        let taken = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        (table().remove(&number), rustix::io::write(taken, b"x").unwrap_err())
    });
    assert_eq!((is.as_deref(), error), (Some("/"), rustix::io::Errno::BADF), "taken, and refuses everything");
    let empty = on(&group, 1, |_| used());
    assert!(empty.len() < 12, "{empty:?}");
    for share in SHARES {
        let listener = echo(&group, share);
        let mut peers: Vec<_> = (0..20).map(|_| connect(tcp(&listener))).collect();
        peers.iter_mut().for_each(|peer| ping(peer).unwrap());
        drop(peers);
        listener.close().unwrap();
        settle(&group);
        while group.counts().iter().any(|counts| counts.connections > 0) {
            settle(&group);
        }
        settle(&group);
        assert_eq!(on(&group, 1, |_| used()), empty, "{share:?}");
    }
    join(group);
    assert_eq!(descriptors(), before);
}

/// Counts what it gets, answers it, and changes loops after every so many bytes.
fn echo_and_move(remotes: Arc<[Remote]>, at: usize, mut stream: Stream, mut left: usize) {
    Handle::current()
        .spawn(async move {
            let mut buffer = [0; 512];
            for _ in 0..5 {
                let most = left.min(buffer.len());
                let n = if most == 0 { 0 } else { stream.read(&mut buffer[..most]).await.unwrap() };
                if n == 0 {
                    assert_eq!(left, 0);
                    return;
                }
                left -= n;
                stream.write_all(&buffer[..n]).await.unwrap();
            }
            stream.flush().await.unwrap();
            let parts = stream.into_parts().unwrap();
            // What was received ahead goes along: it is answered first.
            let (unread, to) = (parts.unread, (at + 1) % remotes.len());
            let others = remotes.clone();
            let arrive = move |handle: &Handle, fd: io::Result<OwnedFd>| {
                handle
                    .spawn(async move {
                        let mut stream = Stream::from_fd(fd.unwrap()).unwrap();
                        stream.write_all(&unread).await.unwrap();
                        echo_and_move(others, to, stream, left - unread.len());
                    })
                    .detach();
            };
            Handle::current().hand_over(&remotes[to], parts.fd, arrive).unwrap();
        })
        .detach();
}

fn i43_connections_change_loops_with_data_in_flight(backend: Backend) {
    const PEERS: usize = 100;
    const BYTES: usize = 20_000;
    let group = private_on(backend, 4);
    let remotes: Arc<[Remote]> = group.remotes().into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let others = remotes.clone();
    group
        .remote(0)
        .run(move |handle| {
            handle
                .spawn(async move {
                    // Opened here, in the loop's own table.
                    for _ in 0..PEERS {
                        let stream = Stream::connect(addr).await.unwrap();
                        echo_and_move(others.clone(), 0, stream, BYTES);
                    }
                })
                .detach();
        })
        .unwrap();
    let streams: Vec<_> = (0..PEERS).map(|_| listener.accept().unwrap().0).collect();
    let peers = streams.into_iter().enumerate().map(|(peer, mut stream)| {
        thread::spawn(move || {
            stream.set_read_timeout(Some(LONG)).unwrap();
            let sent: Vec<u8> = (0..BYTES).map(|at| ((peer * 31) ^ at ^ (at >> 8)) as u8).collect();
            let mut writer = stream.try_clone().unwrap();
            let writes = sent.clone();
            let writing = thread::spawn(move || writer.write_all(&writes).unwrap());
            let mut back = vec![0; BYTES];
            stream.read_exact(&mut back).unwrap();
            writing.join().unwrap();
            assert!(back == sent, "peer {peer}");
        })
    });
    let peers: Vec<_> = peers.collect();
    peers.into_iter().for_each(|peer| peer.join().unwrap());
    join(group);
}

fn a_peer_sees_the_close_at_once(backend: Backend) {
    // Open in the table that the loops leave: closing it here must be enough.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    far.set_read_timeout(Some(LONG)).unwrap();
    let group = private_on(backend, 3);
    drop(near);
    assert_eq!(far.read(&mut [0; 1]).unwrap(), 0, "no copy holds it open");
    drop(listener);
    // And what was handed over: neither the loop that accepted it nor anybody else still has it.
    let listener = echo(&group, Share::Acceptor);
    let mut peers: Vec<_> = (0..6).map(|_| connect(tcp(&listener))).collect();
    for peer in &mut peers {
        ping(peer).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    }
    join(group);
}

fn signals_reach_loops_in_every_table(backend: Backend) {
    let group = private_on(backend, 2);
    let heard = |index| {
        let (listens, ready) = channel();
        let answer = group.spawn_on(index, move || async move {
            let mut signals = Signals::new(&[Signal::User2]).unwrap();
            listens.send(()).unwrap();
            signals.recv().await
        });
        ready.recv().unwrap();
        answer.unwrap()
    };
    let answers = [heard(0), heard(1)];
    let here = rustix::process::getpid();
    // On whatever thread the kernel lets it arrive.
    rustix::process::kill_process(here, rustix::process::Signal::USR2).unwrap();
    for answer in answers {
        assert_eq!(answer.wait().unwrap(), Signal::User2);
    }
    join(group);
}

#[test]
fn a_thread_that_blocks_all_signals_can_be_woken() {
    let _alone = alone();
    // SAFETY: a set on the stack; the mask is this thread's, and is set back below.
    let before = unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    };
    let group = private_on(Backend::Auto, 2);
    for round in 0..20 {
        assert_eq!(on(&group, round % 2, move |_| round), round);
    }
    join(group);
    // SAFETY: the set of above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
}

#[test]
fn i43_a_thousand_connections_are_handed_over() {
    let _alone = alone();
    for backend in [Backend::Epoll, Backend::IoUring] {
        let group = private_on(backend, 4);
        let listener = echo(&group, Share::Acceptor);
        // Held up, so that more wait for them than a socket has room for.
        let mut releases: Vec<_> = (1..4).map(|index| hold_up(&group.remote(index))).collect();
        let mut peers: Vec<_> = (0..1000).map(|_| connect(tcp(&listener))).collect();
        for (peer, stream) in peers.iter_mut().enumerate() {
            stream.write_all(&labelled(peer, 0)).unwrap();
        }
        while connections(&listener).iter().sum::<usize>() < 1000 {
            thread::yield_now();
        }
        releases.clear();
        for (peer, stream) in peers.iter_mut().enumerate() {
            let sent = labelled(peer, 0);
            let mut back = vec![0; sent.len()];
            stream.read_exact(&mut back).unwrap();
            assert!(back == sent, "peer {peer}");
        }
        assert_eq!(connections(&listener), [250; 4]);
        assert!(listener.counts().iter().all(|counts| counts.refused == 0));
        join(group);
    }
}

fn hold_up(remote: &Remote) -> Sender<()> {
    let (release, wait) = channel::<()>();
    let (begins, begun) = channel();
    remote
        .run(move |_| {
            begins.send(()).unwrap();
            _ = wait.recv();
        })
        .unwrap();
    begun.recv().unwrap();
    release
}

#[test]
fn connections_that_wait_for_a_loop_that_ends_are_reset_and_counted() {
    let _alone = alone();
    let group = private_on(Backend::Auto, 2);
    let listener = echo(&group, Share::Acceptor);
    let release = hold_up(&group.remote(1));
    let mut peers: Vec<_> = (0..2000).map(|_| connect(tcp(&listener))).collect();
    while connections(&listener) != [1000; 2] {
        thread::yield_now();
    }
    // Some are in the socket by now, and some still on the accepting loop.
    let stopping = group.remote(1);
    stopping.stop();
    group.remote(0).stop();
    drop(release);
    for peer in &mut peers {
        assert!(is_turned_away(peer));
    }
    ends(group);
    let counts = listener.counts();
    assert_eq!(counts.iter().map(|of| of.connections).sum::<usize>(), 0, "{counts:?}");
    assert_eq!(counts.iter().map(|of| of.accepted + of.refused).sum::<u64>(), 2000, "{counts:?}");
}

struct Quiet;
impl Handler for Quiet {
    fn on_data(&mut self, _: &mut Conn<'_>, _: &[u8]) {}
}

/// The connections that a group in this process serves, all at once.
fn hold(listener: &GroupListener, count: usize) -> Vec<TcpStream> {
    let mut peers: Vec<_> = (0..count).map(|_| connect(tcp(listener))).collect();
    peers.iter_mut().for_each(|peer| ping(peer).unwrap());
    peers
}

#[test]
fn each_loop_has_a_limit_of_its_own() {
    in_process("tables::each_loop_has_a_limit_of_its_own", || {
        let groups = [Backend::Epoll, Backend::IoUring].map(|backend| (private_on(backend, 4), backend));
        for (group, backend) in groups {
            let (listener, old) = (echo(&group, Share::Acceptor), getrlimit(Resource::Nofile));
            // The clients' table is this thread's, which holds half of them before the limit falls.
            let most = old.maximum.unwrap_or(1 << 20);
            setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..old }).unwrap();
            let sockets: Vec<_> = (0..600)
                .map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap())
                .collect();
            setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..old }).unwrap();
            let to = socket2::SockAddr::from(tcp(&listener));
            // One after the other: the accepting loop has each for a moment.
            let connected = sockets.into_iter().map(|socket| {
                socket.connect(&to).unwrap();
                socket.set_read_timeout(Some(LONG)).unwrap();
                let mut peer = TcpStream::from(socket);
                ping(&mut peer).unwrap_or_else(|error| panic!("{backend}: {error}, {:?}", listener.counts()));
                peer
            });
            let peers: Vec<_> = connected.collect();
            assert_eq!(connections(&listener), [150; 4], "{backend}: 600 in tables of 200");
            drop(peers);
            join(group);
            setrlimit(Resource::Nofile, old).unwrap();
        }
    });
}

#[test]
fn what_arrives_where_no_number_is_free_is_refused_and_counted() {
    in_process("tables::what_arrives_where_no_number_is_free_is_refused_and_counted", || {
        let group = private_on(Backend::Auto, 2);
        let (listener, old) = (echo(&group, Share::Acceptor), getrlimit(Resource::Nofile));
        let held = hold(&listener, 2);
        setrlimit(Resource::Nofile, Rlimit { current: Some(300), ..old }).unwrap();
        thread_local!(static TAKEN: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) });
        on(&group, 1, |_| {
            let all = std::iter::from_fn(|| rustix::io::dup(io::stdin()).ok());
            TAKEN.with_borrow_mut(|taken| taken.extend(all));
        });
        let mut own = connect(tcp(&listener));
        ping(&mut own).unwrap();
        assert!(is_turned_away(&mut connect(tcp(&listener))));
        // The kernel has closed it before the loop knows.
        settle(&group);
        let counts = listener.counts();
        assert_eq!((counts[0].refused, counts[1].refused, counts[1].connections), (0, 1, 1));
        on(&group, 1, |_| TAKEN.with_borrow_mut(Vec::clear));
        ping(&mut connect(tcp(&listener))).unwrap();
        drop(held);
        join(group);
    });
}

#[test]
fn a_kept_descriptor_is_there_and_others_are_not() {
    let _alone = alone();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (number, other) = (theirs.as_raw_fd(), ours.as_raw_fd());
    // SAFETY: what is kept is used below as what it is, and nothing else crosses.
    let builder = unsafe { Group::builder().private_descriptors() };
    let group =
        builder.event_loop(EventLoop::builder().keep_descriptor(&theirs)).loops(1).build(|_, _| Ok(()));
    let group = group.unwrap();
    drop(theirs);
    let gone = on(&group, 0, move |_| {
        // SAFETY: kept by this table, and used by nobody else in it; closed at the end of this call.
        let kept = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) };
        UnixStream::from(kept).write_all(b"kept").unwrap();
        table().remove(&other)
    });
    assert_eq!(gone.as_deref(), Some("/"));
    let mut all = String::new();
    ours.read_to_string(&mut all).unwrap();
    assert_eq!(all, "kept", "and then both copies are closed");
    join(group);
}

#[test]
fn files_and_their_threads_are_in_the_loops_table() {
    let _alone = alone();
    for backend in Backend::ALL {
        let group = private_on(*backend, 2);
        let path = std::env::temp_dir().join(format!("evenkeel-tables-files-{}", std::process::id()));
        let writes = |text: &'static str| {
            let path = path.with_extension(text);
            move || async move {
                evenkeel::fs::write(&path, text).await?;
                let back = evenkeel::fs::read(&path).await?;
                evenkeel::fs::remove_file(&path).await?;
                io::Result::Ok(back)
            }
        };
        for round in 0..20 {
            let text = ["one", "two"][round % 2];
            let back = group.spawn_on(round % 2, writes(text)).unwrap().wait().unwrap().unwrap();
            assert_eq!(back, text.as_bytes(), "{backend}");
        }
        join(group);
    }
}

#[test]
fn loops_of_different_groups_have_no_way() {
    let _alone = alone();
    let (one, two) = (private_on(Backend::Auto, 1), private_on(Backend::Auto, 1));
    let to = two.remote(0);
    let error = on(&one, 0, move |handle| {
        let fd = UnixStream::pair().unwrap().0;
        handle.hand_over(&to, fd.into(), |_, _| unreachable!("it has no way")).unwrap_err()
    });
    assert_eq!(error, RemoteError::NoWay);
    join(one);
    join(two);
}

#[test]
fn a_thread_with_a_loop_keeps_its_table() {
    let _alone = alone();
    thread::spawn(|| {
        let first = EventLoop::new().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        // SAFETY: it is refused.
        let builder = unsafe { EventLoop::builder().private_descriptors() };
        let tell = move |why: &evenkeel::DescriptorsRefused| tell.lock().unwrap().push(why.to_string());
        let second = builder.on_descriptors_refused(tell).build().unwrap();
        let handle = second.handle();
        let Descriptors::Refused(why) = handle.descriptors() else { panic!("{:?}", handle.descriptors()) };
        assert_eq!(why.reason().kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(*told.lock().unwrap(), [why.to_string()]);
        drop((first, second));
    })
    .join()
    .unwrap();
}

/// Refuses `unshare` to the calling thread and those that it starts.
fn refuse_unshare(errno: i32) {
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_unshare as u32, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    let (on, none): (c_ulong, c_ulong) = (1, 0);
    // SAFETY: the filter outlives the second call, and both only restrict who calls them.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, none, none, none) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, c_ulong::from(libc::SECCOMP_MODE_FILTER), &raw const filter)
                == 0
    };
    assert!(set, "{}", io::Error::last_os_error());
}

const REFUSING: &str = "EVENKEEL_TABLES_REFUSING";

/// Under the filter: all of it works in the shared table.
fn refused() {
    refuse_unshare(libc::EPERM);
    for backend in Backend::ALL {
        let group = private_on(*backend, 3);
        for index in 0..3 {
            let kind = on(&group, index, |handle| match handle.descriptors() {
                Descriptors::Refused(why) => why.reason().kind(),
                other => panic!("{other:?}"),
            });
            assert_eq!(kind, io::ErrorKind::PermissionDenied);
        }
        for share in SHARES {
            let listener = echo(&group, share);
            drop(hold(&listener, 30));
        }
        join(group);
    }
}

#[test]
fn where_it_is_refused_loops_share_a_table_and_it_is_said_once() {
    let test = "tables::where_it_is_refused_loops_share_a_table_and_it_is_said_once";
    if std::env::var_os(REFUSING).is_some() {
        return refused();
    }
    let _alone = alone();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(REFUSING, "1");
    let child = child.env_remove("EVENKEEL_TEST_TABLES").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && out.contains("1 passed"), "{out}\n{err}");
    let told: Vec<_> = err.lines().filter(|line| line.contains("share one descriptor table")).collect();
    assert_eq!(told.len(), 1, "{err}");
    assert!(told[0].contains("CLONE_FILES") && told[0].contains("os error 1"), "{told:?}");
}

#[test]
fn a_group_without_the_option_works_beside_one_with_it() {
    let _alone = alone();
    let private = private_on(Backend::Auto, 2);
    let limits = Limits::default();
    let plain = Group::builder().loops(3).build(|_, _| Ok(())).unwrap();
    for share in SHARES {
        let listener = plain
            .listen("127.0.0.1:0", &ListenOptions::default(), &limits, share, |_, _| Echo::default())
            .unwrap();
        drop(hold(&listener, 30));
        let quiet = |_: &_, _| Quiet;
        plain
            .listen("127.0.0.1:0", &ListenOptions::default(), &limits, share, quiet)
            .unwrap()
            .close()
            .unwrap();
    }
    join(plain);
    join(private);
}
