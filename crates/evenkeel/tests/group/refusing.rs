//! Loops with descriptor tables of their own at their limits, and where such tables are refused.

use std::cell::RefCell;
use std::ffi::c_ulong;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use evenkeel::group::{Group, GroupListener, Share};
use evenkeel::net::{Limits, ListenOptions};
use evenkeel::{Backend, Conn, Descriptors, EventLoop, Handler, RemoteError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::*;

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
    in_process("refusing::each_loop_has_a_limit_of_its_own", || {
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
    in_process("refusing::what_arrives_where_no_number_is_free_is_refused_and_counted", || {
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
    let test = "refusing::where_it_is_refused_loops_share_a_table_and_it_is_said_once";
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
