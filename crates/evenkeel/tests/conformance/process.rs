//! What belongs to the process: descriptors and their limit, signals, children. Each test has one to itself.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use evenkeel::net::unix::{FdStream, Seqpacket};
use evenkeel::net::{ConnectOptions, ListenOptions, Listener, Stream};
use evenkeel::signal::{Signal, Signals};
use evenkeel::{Backend, Message, time};
use rustix::process::{Resource, Rlimit, getpid, getrlimit, kill_process, setrlimit};

use crate::support::{
    Probe, Server, connect, descriptors, event_loop, no_limits, pattern, read_all, reset_on_close, until,
};

in_processes! {
    i27_running_out_of_descriptors_is_calm_and_passes,
    i27_a_task_that_accepts_is_calm_too,
    i36_no_descriptor_is_left_behind,
    i36_failures_leave_no_descriptor_behind,
    i34_no_descriptor_reaches_a_child,
    i33_no_write_raises_sigpipe,
    signals_are_counted,
    descriptors_past_the_limit_of_select,
}

/// Sets the limit of descriptors so that `more` can still be opened.
fn leave(more: u64) -> Rlimit {
    let old = getrlimit(Resource::Nofile);
    let highest = rustix::io::dup(io::stdin()).unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(highest + more), maximum: old.maximum }).unwrap();
    old
}

/// Opens descriptors until only `more` can still be opened. Called with a limit that is set already, since an
/// io_uring holds on to the one that it met when it was asked to accept.
fn occupy_all_but(more: usize) -> Vec<OwnedFd> {
    let mut taken: Vec<_> = std::iter::from_fn(|| rustix::io::dup(io::stdin()).ok()).collect();
    taken.truncate(taken.len() - more);
    taken
}

fn i27_running_out_of_descriptors_is_calm_and_passes(backend: Backend) {
    assert_prompt(backend, run_out);
}

fn run_out(backend: Backend) -> Duration {
    let old = leave(300);
    let mut s = Server::new(backend);
    let (mut friend, _) = s.pair(Probe::echo());
    // Raw peers first, so that their descriptors are not what runs out.
    let mut crowd: Vec<_> = (0..100).map(|_| connect(s.addr)).collect();
    let taken = occupy_all_but(5);
    let before = s.h.stats();
    let turns = s.turns_in(Duration::from_millis(500));
    let now = s.h.stats();
    let attempts = now.accept_errors - before.accept_errors + now.shed - before.shed;
    assert!(now.accept_errors > before.accept_errors && now.shed > before.shed, "{now:?}");
    assert!(attempts <= 150 && turns <= 150, "{attempts} attempts and {turns} turns in half a second");
    // Those who are in go on, and those who are shed are told.
    friend.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut friend, 4), b"ping");
    let shed = crowd.iter_mut().map(|peer| {
        peer.set_nonblocking(true).unwrap();
        peer.read(&mut [0; 8]).is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
    });
    assert_eq!(shed.filter(|reset| *reset).count() as u64, now.shed - before.shed);
    // Descriptors are there again.
    drop(taken);
    setrlimit(Resource::Nofile, old).unwrap();
    crowd.clear();
    let mut late = connect(s.addr);
    s.turns(1);
    let (since, h) = (s.h.now(), s.h.clone());
    s.until("it accepts again", || h.stats().accepted > now.accepted);
    let took = s.h.now() - since;
    late.write_all(b"hello").unwrap();
    late.shutdown(Shutdown::Write).unwrap();
    let _ = s.serve(move |_| read_all(&mut late));
    took
}

/// Recovery takes less than 100 ms. The machine itself may stop for a while, so a late one is tried again.
fn assert_prompt(backend: Backend, run_out_and_recover: fn(Backend) -> Duration) {
    let mut times = Vec::new();
    while times.last().is_none_or(|took| *took >= Duration::from_millis(100)) {
        assert!(times.len() < 5, "it took {times:?} to recover");
        times.push(run_out_and_recover(backend));
    }
}

fn i27_a_task_that_accepts_is_calm_too(backend: Backend) {
    assert_prompt(backend, run_out_in_a_task);
}

fn run_out_in_a_task(backend: Backend) -> Duration {
    let old = leave(300);
    let mut events = event_loop(backend);
    let h = events.handle();
    let (at, task) = events
        .block_on(async {
            let mut listener = Listener::bind("127.0.0.1:0").unwrap();
            let at = listener.local_addr().unwrap().socket_addr().unwrap();
            let task = evenkeel::spawn(async move {
                let mut kept = Vec::new();
                loop {
                    kept.push(listener.accept().await.unwrap());
                }
            });
            (at, task)
        })
        .unwrap();
    let task: evenkeel::task::JoinHandle<()> = task;
    let crowd: Vec<_> = (0..60).map(|_| connect(at)).collect();
    let taken = occupy_all_but(5);
    let turns = h.stats().turns;
    events.block_on(async { time::sleep(Duration::from_millis(300)).await }).unwrap();
    let (stats, turns) = (h.stats(), h.stats().turns - turns);
    assert!(stats.accept_errors > 0 && stats.shed > 0 && !task.is_finished());
    assert!(stats.accept_errors + stats.shed <= 100 && turns <= 100, "{stats:?}, {turns} turns");
    drop(taken);
    setrlimit(Resource::Nofile, old).unwrap();
    drop(crowd);
    let accepted = h.stats().accepted;
    let _late = connect(at);
    events.poll().unwrap();
    let since = h.now();
    until(&mut events, "it accepts again", || h.stats().accepted > accepted);
    task.abort();
    h.now() - since
}

/// Everything that opens and closes descriptors, in one life of a loop.
fn busy_life(backend: Backend) {
    let mut s = Server::new(backend);
    let path = std::env::temp_dir().join(format!("evenkeel-life-{}-{backend}", std::process::id()));
    let mut all = Vec::new();
    for i in 0..12 {
        let (mut peer, seen) = s.pair(Probe::echo());
        peer.write_all(b"hello").unwrap();
        s.turns(2);
        let id = seen.id();
        match i % 6 {
            0 => drop(peer),
            1 => s.h.close(id).unwrap(),
            2 => s.h.abort(id).unwrap(),
            3 => drop(s.h.write(id, &pattern(9_000_000))),
            4 => reset_on_close(&peer),
            _ => all.push(peer),
        }
    }
    s.pool.listen(&*path, &ListenOptions::default(), |_| Probe::new()).unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    s.pool.connect(at, &ConnectOptions::default(), Probe::new()).unwrap();
    s.pool.connect(&*path, &ConnectOptions::default(), Probe::new()).unwrap();
    let kept = s
        .events
        .block_on(async {
            let mut listener = Listener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let dropped = Stream::connect(addr).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let mut kept = Stream::connect(at).await.unwrap();
            kept.send(&Message::from("queued"));
            let taken: OwnedFd = Stream::connect(at).await.unwrap().into_fd().unwrap();
            evenkeel::spawn(async move {
                let mut signals = Signals::new(&[Signal::User1]).unwrap();
                let _held = (listener, accepted);
                signals.recv().await;
            })
            .detach();
            drop((dropped, taken));
            kept
        })
        .unwrap();
    let remote = s.h.remote();
    s.turns(3);
    // The loop ends with all this open, and a stream and a handle of another thread outlive it.
    drop(s);
    drop((kept, remote));
}

fn i36_no_descriptor_is_left_behind(backend: Backend) {
    // Signals keep a descriptor of the process's own for good, once.
    busy_life(backend);
    let before = descriptors();
    for _ in 0..3 {
        busy_life(backend);
    }
    assert_eq!(descriptors(), before);
}

fn i36_failures_leave_no_descriptor_behind(backend: Backend) {
    let before = descriptors();
    {
        let mut s = Server::new(backend);
        let open = descriptors();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for _ in 0..5 {
            assert!(s.pool.listen(s.addr, &ListenOptions::default(), |_| Probe::new()).is_err());
            assert!(
                s.pool.listen("unix:/no/such/folder/x", &ListenOptions::default(), |_| Probe::new()).is_err()
            );
            assert!(s.pool.connect("unix:/no/such/file", &ConnectOptions::default(), Probe::new()).is_err());
            let mut options = ConnectOptions::default();
            options.bind = Some("192.0.2.1:0".parse().unwrap());
            assert!(s.pool.connect(closed, &options, Probe::new()).is_err());
            let seen = {
                let probe = Probe::new();
                let seen = probe.seen.clone();
                let _ = s.pool.connect(closed, &ConnectOptions::default(), probe);
                seen
            };
            s.until("it was refused", || seen.closed() || seen.dropped.get());
            assert!(s.events.block_on(Stream::connect(closed)).unwrap().is_err());
            let cancelled = time_out_a_connect(&mut s);
            assert!(cancelled.is_err());
        }
        s.turns(3);
        assert_eq!(descriptors(), open);
        // With no descriptor left, everything fails and nothing is lost.
        let old = leave(0);
        for _ in 0..3 {
            assert!(s.pool.connect(closed, &ConnectOptions::default(), Probe::new()).is_err());
            assert!(s.pool.listen("127.0.0.1:0", &ListenOptions::default(), |_| Probe::new()).is_err());
            assert!(evenkeel::EventLoop::builder().backend(backend).build().is_err());
        }
        for more in 1..6 {
            setrlimit(Resource::Nofile, old).unwrap();
            let _ = leave(more);
            drop(evenkeel::EventLoop::builder().backend(backend).build());
        }
        setrlimit(Resource::Nofile, old).unwrap();
        assert_eq!(descriptors(), open);
    }
    assert_eq!(descriptors(), before);
}

fn time_out_a_connect(s: &mut Server) -> Result<(), time::Elapsed> {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let at = full.local_addr().unwrap().as_socket().unwrap();
    let _fill: Vec<_> = (0..3)
        .map(|_| {
            let one = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            one.set_nonblocking(true).unwrap();
            let _ = one.connect(&at.into());
            one
        })
        .collect();
    let connecting = time::timeout;
    s.events
        .block_on(async move { connecting(Duration::from_millis(2), Stream::connect(at)).await.map(drop) })
        .unwrap()
}

fn i34_no_descriptor_reaches_a_child(backend: Backend) {
    let of_a_child = || Command::new("ls").arg("/proc/self/fd").output().unwrap().stdout;
    // What this process itself was given, and the folder that the child reads.
    let given = of_a_child();
    let mut s = Server::new(backend);
    let path = std::env::temp_dir().join(format!("evenkeel-child-{}-{backend}", std::process::id()));
    s.pool.listen(&*path, &ListenOptions::default(), |_| Probe::new()).unwrap();
    let (_peer, _seen) = s.pair(Probe::new());
    s.pool.connect(s.addr, &ConnectOptions::default(), Probe::new()).unwrap();
    let at = s.addr;
    let _signals = Signals::new_on(&s.h, &[Signal::User1]).unwrap();
    let _stream = s.events.block_on(Stream::connect(at)).unwrap().unwrap();
    s.turns(5);
    assert_eq!(String::from_utf8(of_a_child()), String::from_utf8(given));
}

async fn messages_to_nobody() {
    let pipe = |result: io::Result<usize>| assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let (ours, theirs) = Seqpacket::pair().unwrap();
    drop(theirs);
    pipe(ours.send(b"x").await);
    pipe(ours.send_with_fds(b"x", &[io::stdin().as_fd()]).await);
    let (ours, theirs) = FdStream::pair().unwrap();
    drop(theirs);
    pipe(ours.write(b"x").await);
    pipe(ours.send_with_fds(b"x", &[io::stdin().as_fd()]).await);
}

/// All ways of writing meet a peer that is gone, and the process is one that SIGPIPE would end.
fn i33_no_write_raises_sigpipe(backend: Backend) {
    // SAFETY: sets a disposition to its default; no other thread of this process uses it.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    assert_ne!(before, libc::SIG_ERR);
    let mut s = Server::new(backend);
    for way in 0..6 {
        let (peer, seen) = s.pair(Probe::new().deaf_to_eof());
        let id = seen.id();
        s.turns(2);
        if way == 5 {
            // There is a queue when the reset comes.
            s.h.write(id, &pattern(9_000_000)).unwrap();
            s.turns(1);
        }
        if way == 4 {
            drop(peer);
            let _ = s.turns_in(Duration::from_millis(2));
        } else {
            reset_on_close(&peer);
            drop(peer);
        }
        for _ in 0..50 {
            let _ = match way {
                0 => s.h.write(id, b"small"),
                1 => s.h.write(id, &pattern(100_000)),
                2 => s.h.send(id, &Message::from(pattern(100_000))),
                3 => s.h.write(id, b"a").and_then(|_| s.h.send(id, &Message::from(pattern(2000)))),
                _ => s.h.write(id, b"small"),
            };
            s.turns(1);
        }
        s.until("it is over", || seen.closed());
    }
    s.events.block_on(messages_to_nobody()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut stream = s.events.block_on(Stream::connect(at)).unwrap().unwrap();
    let (peer, _) = listener.accept().unwrap();
    reset_on_close(&peer.into());
    s.events
        .block_on(async {
            while stream.write(b"small").await.is_ok() {}
            assert!(stream.write(b"again").await.is_err());
            stream.send(&Message::from(pattern(5000)));
            stream.send(&Message::from(pattern(5000)));
            let _ = stream.flush().await;
            let _ = stream.shutdown().await;
        })
        .unwrap();
    s.turns(3);
}

fn signals_are_counted(backend: Backend) {
    let mut events = event_loop(backend);
    let mut signals = Signals::new_on(&events.handle(), &[Signal::User1, Signal::User2]).unwrap();
    let mut beside = Signals::new_on(&events.handle(), &[Signal::User1]).unwrap();
    let send = |signal| kill_process(getpid(), signal).unwrap();
    // Two are one to the kernel while the first is on its way, so that one's arrival is waited for.
    for _ in 0..2 {
        send(rustix::process::Signal::USR1);
        assert_eq!(events.block_on(beside.recv()).unwrap(), Signal::User1);
    }
    // Two have come that this one has not been asked for.
    let two = events.block_on(async { (signals.recv().await, signals.recv().await) }).unwrap();
    assert_eq!(two, (Signal::User1, Signal::User1));
    let none = events.block_on(time::timeout(Duration::from_millis(5), signals.recv()));
    assert!(none.unwrap().is_err(), "each is told once");
    for _ in 0..20 {
        let later = std::thread::spawn(move || send(rustix::process::Signal::USR2));
        assert_eq!(events.block_on(signals.recv()).unwrap(), Signal::User2);
        later.join().unwrap();
    }
    // Another loop hears of it too, and a child gets the default back.
    let mut other = event_loop(backend);
    let mut elsewhere = Signals::new_on(&other.handle(), &[Signal::User1]).unwrap();
    send(rustix::process::Signal::USR1);
    assert_eq!(other.block_on(elsewhere.recv()).unwrap(), Signal::User1);
    assert_eq!(events.block_on(signals.recv()).unwrap(), Signal::User1);
    let child = Command::new("sh").args(["-c", "kill -USR1 $$; sleep 5"]).arg0("sh").status().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child), Some(libc::SIGUSR1));
}

fn descriptors_past_the_limit_of_select(backend: Backend) {
    let mut s = Server::new(backend);
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: old.maximum, maximum: old.maximum }).unwrap();
    let (mut friend, _) = s.pair(Probe::echo());
    // From here on every number is past 1,023.
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut filler = Vec::new();
    while filler.last().is_none_or(|last: &OwnedFd| last.as_raw_fd() < 1024) {
        filler.push(rustix::io::dup(&null).unwrap());
    }
    let open = descriptors();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let probe = Probe::new();
    let listened = s.pool.listen("127.0.0.1:0", &ListenOptions::default(), |_| Probe::new());
    let connected = s.pool.connect(at, &ConnectOptions::default(), probe);
    let stream = s.events.block_on(Stream::connect(at)).unwrap();
    let mut late = connect(s.addr);
    let seen = s.expect(Probe::echo());
    late.write_all(b"ping").unwrap();
    if backend == Backend::Select {
        for error in [listened.unwrap_err(), connected.unwrap_err(), stream.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("past the 1,023 that select can watch"), "{error}");
        }
        s.until("the late one was refused", || seen.closed());
        assert_eq!(seen.error(), Some(ErrorKind::Unsupported));
        assert!(s.h.stats().accept_errors > 0);
    } else {
        assert!(listened.is_ok() && connected.is_ok() && stream.is_ok());
        s.until("the late one was heard", || seen.len() == 4);
        assert_eq!(s.answer(&mut late, 4), b"ping");
        s.h.close_listener(listened.unwrap());
        s.h.abort(connected.unwrap()).unwrap();
        drop(stream);
    }
    drop((late, listener));
    let pool = s.pool.clone();
    s.until("only the first one is left", || pool.len() == 1);
    s.turns(3);
    assert_eq!(descriptors(), open);
    friend.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut friend, 4), b"ping");
    drop(Server::with_limits(Backend::Poll, no_limits()));
}
