//! Descriptors of every kind that can be waited for, each with its own idea of being ready.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use evenkeel::fd::{AsyncFd, Interest};
use evenkeel::pipe::Receiver;
use evenkeel::{Backend, EventLoop, spawn, time};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::inotify;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::asynchronous::once;
use crate::files::Folder;
use crate::standard_streams::terminal;
use crate::support::{PEER, connect, event_loop, unique, until};

on_every_backend! {
    an_epoll_of_others_is_watched,
    a_timer_of_the_kernel_is_watched,
    changes_of_a_folder_are_watched,
    a_listener_of_others_is_watched,
    a_process_is_watched,
    a_terminal_is_watched,
    i31_the_end_of_a_pipe_whose_copy_stays_open,
    i37_a_watch_begins_and_ends_in_every_kind_of_call,
    i01_room_comes_and_goes_on_a_full_pipe,
}

// It takes many descriptors.
in_processes! {
    i06_watches_end_each_other_in_one_batch,
}

fn block<R>(events: &mut EventLoop, body: impl Future<Output = R>) -> R {
    events.block_on(time::timeout(PEER, body)).unwrap().expect("it is told in time")
}

fn counter() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

fn add(counter: impl AsFd) {
    rustix::io::write(counter, &1u64.to_ne_bytes()).unwrap();
}

/// Another event loop's: it is ready when something in it is.
fn an_epoll_of_others_is_watched(backend: Backend) {
    let mut events = event_loop(backend);
    let (inner, counted) = (epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(), counter());
    epoll::add(&inner, &counted, epoll::EventData::new_u64(7), epoll::EventFlags::IN).unwrap();
    let (inner, again) = (inner, counted.try_clone().unwrap());
    block(&mut events, async {
        let inner = AsyncFd::with_interest(inner, Interest::READABLE).unwrap();
        for _ in 0..5 {
            assert!(once(inner.readable()).await.is_none());
            add(&again);
            let mut ready = inner.readable().await.unwrap();
            let mut list =
                [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 4];
            let n = epoll::wait(inner.get_ref(), list.as_mut_slice(), Some(&Timespec::default())).unwrap();
            assert_eq!((n, list[0].data.u64()), (1, 7));
            rustix::io::read(&again, &mut [0; 8]).unwrap();
            ready.clear();
        }
    });
}

fn a_timer_of_the_kernel_is_watched(backend: Backend) {
    let mut events = event_loop(backend);
    let fd = rustix::time::timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )
    .unwrap();
    let set = |first_ms: i64| {
        let first = Timespec { tv_sec: 0, tv_nsec: first_ms * 1_000_000 };
        let spec = Itimerspec { it_interval: Timespec::default(), it_value: first };
        rustix::time::timerfd_settime(&fd, TimerfdTimerFlags::empty(), &spec).unwrap();
    };
    let take = |fd: &&OwnedFd| -> io::Result<u64> {
        let mut count = [0; 8];
        rustix::io::read(fd, &mut count)?;
        Ok(u64::from_ne_bytes(count))
    };
    block(&mut events, async {
        let watched = AsyncFd::with_interest(&fd, Interest::READABLE).unwrap();
        for ms in [1, 5, 2] {
            assert!(once(watched.read_with(take)).await.is_none());
            set(ms);
            assert_eq!(watched.read_with(take).await.unwrap(), 1);
        }
        // One that is set anew before it was read is not ready any more, whatever was told.
        set(1);
        watched.readable().await.unwrap();
        set(3);
        assert_eq!(watched.read_with(take).await.unwrap(), 1);
    });
}

fn changes_of_a_folder_are_watched(backend: Backend) {
    let mut events = event_loop(backend);
    let folder = Folder::new();
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE;
    let probe = folder.path("x");
    inotify::add_watch(&fd, probe.parent().unwrap(), flags).unwrap();
    block(&mut events, async {
        let watched = AsyncFd::with_interest(fd, Interest::READABLE).unwrap();
        for round in 0..5 {
            let none = watched.read_with(|fd| Ok(rustix::io::read(fd, &mut [0; 1024])?));
            assert!(once(none).await.is_none());
            let path = folder.path(&format!("file-{round}"));
            evenkeel::fs::write(&path, "").await.unwrap();
            evenkeel::fs::remove_file(&path).await.unwrap();
            let mut names = 0;
            while names < 2 {
                let mut bytes = [0; 1024];
                let n = watched.read_with(|fd| Ok(rustix::io::read(fd, &mut bytes)?)).await.unwrap();
                let text = String::from_utf8_lossy(&bytes[..n]);
                names += text.matches(&format!("file-{round}")).count();
            }
        }
    });
}

fn a_listener_of_others_is_watched(backend: Backend) {
    let mut events = event_loop(backend);
    let (unix, tcp) =
        (std::env::temp_dir().join(unique("watched")), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let listener = UnixListener::bind(&unix).unwrap();
    listener.set_nonblocking(true).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let at = tcp.local_addr().unwrap();
    block(&mut events, async {
        let (listener, tcp) = (AsyncFd::new(listener).unwrap(), AsyncFd::new(tcp).unwrap());
        for _ in 0..5 {
            let none =
                (once(listener.read_with(|l| l.accept())).await, once(tcp.read_with(|l| l.accept())).await);
            assert!(none.0.is_none() && none.1.is_none());
            let mut peer = UnixStream::connect(&unix).unwrap();
            peer.write_all(b"x").unwrap();
            let (mut accepted, _) = listener.read_with(|l| l.accept()).await.unwrap();
            assert_eq!(accepted.read(&mut [0; 4]).unwrap(), 1);
            let peer = connect(at);
            let (_, from) = tcp.read_with(|l| l.accept()).await.unwrap();
            assert_eq!(from, peer.local_addr().unwrap());
            assert!(once(tcp.read_with(|l| l.accept())).await.is_none());
        }
    });
    std::fs::remove_file(&unix).unwrap();
}

/// By its descriptor, which is ready when it has ended.
fn a_process_is_watched(backend: Backend) {
    let mut events = event_loop(backend);
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let id = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    let fd = rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).unwrap();
    block(&mut events, async {
        let watched = AsyncFd::with_interest(fd, Interest::READABLE).unwrap();
        assert!(once(watched.readable()).await.is_none());
        time::sleep(Duration::from_millis(1)).await;
        assert!(once(watched.readable()).await.is_none(), "it runs");
        drop(child.stdin.take());
        watched.readable().await.unwrap();
        watched.readable().await.unwrap();
    });
    assert!(child.try_wait().unwrap().is_some_and(|status| status.success()));
}

/// It takes lines: what is written to its other end is there when the line is.
fn a_terminal_is_watched(backend: Backend) {
    let mut events = event_loop(backend);
    let (main, terminal) = terminal();
    rustix::io::ioctl_fionbio(&terminal, true).unwrap();
    block(&mut events, async {
        let terminal = AsyncFd::new(terminal).unwrap();
        let mut bytes = [0; 16];
        for _ in 0..3 {
            rustix::io::write(&main, b"half a").unwrap();
            time::sleep(Duration::from_millis(1)).await;
            assert!(once(terminal.read_with(|t| Ok(rustix::io::read(t, &mut bytes)?))).await.is_none());
            rustix::io::write(&main, b" line\n").unwrap();
            let n = terminal.read_with(|t| Ok(rustix::io::read(t, &mut bytes)?)).await.unwrap();
            assert_eq!(&bytes[..n], b"half a line\n");
        }
        terminal.writable().await.unwrap();
        drop(main);
        // An end or an error, and not a wait.
        let end = terminal.read_with(|t| Ok(rustix::io::read(t, &mut bytes)?)).await;
        assert!(!end.is_ok_and(|n| n > 0));
    });
}

/// The report of the end goes on for as long as somebody holds the pipe. It must reach nothing that came after the watch, be it
/// under the same number.
fn i31_the_end_of_a_pipe_whose_copy_stays_open(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    for _ in 0..5 {
        let (from, to) = rustix::pipe::pipe().unwrap();
        let copy = from.try_clone().unwrap();
        block(&mut events, async {
            let mut first = Receiver::from_fd(from).unwrap();
            assert!(once(first.read(&mut [0; 4])).await.is_none());
            drop(to);
            assert_eq!(first.read(&mut [0; 4]).await.unwrap(), 0);
            drop(first);
            let (mut sender, mut second) = evenkeel::pipe::pipe().unwrap();
            let waits = spawn(async move {
                let mut bytes = [0; 4];
                let n = second.read(&mut bytes).await.unwrap();
                assert_eq!(&bytes[..n], b"word", "the end of the one before");
                second.read(&mut bytes).await.unwrap()
            });
            let before = h.stats().turns;
            time::sleep(Duration::from_millis(10)).await;
            assert!(h.stats().turns - before < 20, "{} turns", h.stats().turns - before);
            assert!(!waits.is_finished());
            sender.write_all(b"word").await.unwrap();
            drop(sender);
            assert_eq!(waits.await.unwrap(), 0);
        });
        drop(copy);
    }
}

/// All are ready; the first that is served drops the others and begins to watch new descriptors.
fn i06_watches_end_each_other_in_one_batch(backend: Backend) {
    let mut events = event_loop(backend);
    let found = Rc::new(RefCell::new(Vec::<(OwnedFd, AsyncFd<OwnedFd>)>::new()));
    let tasks: Rc<RefCell<Vec<evenkeel::task::JoinHandle<()>>>> = Rc::default();
    let fds: Vec<_> = (0..50).map(|_| counter()).collect();
    let copies: Vec<_> = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
    block(&mut events, async {
        for fd in fds {
            let (list, new) = (tasks.clone(), found.clone());
            let task = spawn(async move {
                let watched = AsyncFd::new(fd).unwrap();
                watched.readable().await.unwrap();
                let others = list.take();
                others.iter().for_each(|task| task.abort());
                drop((others, watched));
                for _ in 0..50 {
                    let own = counter();
                    new.borrow_mut().push((own.try_clone().unwrap(), AsyncFd::new(own).unwrap()));
                }
            });
            tasks.borrow_mut().push(task);
        }
        time::sleep(Duration::from_millis(1)).await;
        copies.iter().for_each(add);
        while found.borrow().is_empty() {
            time::sleep(Duration::from_millis(1)).await;
        }
        time::sleep(Duration::from_millis(2)).await;
        for (fd, watched) in found.take() {
            assert!(once(watched.readable()).await.is_none(), "readiness of the one before");
            add(&fd);
            watched.readable().await.unwrap();
        }
    });
    drop(tasks);
    assert_eq!(events.handle().stats().panics, 0);
}

fn i37_a_watch_begins_and_ends_in_every_kind_of_call(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let heard = Rc::new(std::cell::Cell::new(0));
    let begin = |kept: bool| {
        let (heard, h) = (heard.clone(), h.clone());
        move || {
            let fd = counter();
            let copy = fd.try_clone().unwrap();
            let watched = AsyncFd::new(fd).unwrap();
            if !kept {
                return drop(watched);
            }
            h.spawn(async move {
                watched.readable().await.unwrap();
                heard.set(heard.get() + 1);
            })
            .detach();
            add(&copy);
        }
    };
    for kept in [true, false] {
        h.defer(begin(kept));
        h.after(Duration::from_millis(1), begin(kept));
        h.spawn({
            let begin = begin(kept);
            async move { begin() }
        })
        .detach();
        let begin = begin(kept);
        h.offload_then(|| (), move |_, _| begin()).unwrap();
    }
    until(&mut events, "all that were kept have heard", || heard.get() == 4);
    until(&mut events, "nothing is left", || h.stats().sources == 0);
    assert_eq!(h.stats().panics, 0);
}

fn i01_room_comes_and_goes_on_a_full_pipe(backend: Backend) {
    let mut events = event_loop(backend);
    let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
    block(&mut events, async {
        let to = AsyncFd::with_interest(to, Interest::WRITABLE).unwrap();
        let mut bytes = vec![0; 1 << 20];
        for _ in 0..20 {
            while rustix::io::write(to.get_ref(), &[7; 4096]).is_ok() {}
            assert!(once(to.write_with(|to| Ok(rustix::io::write(to, b"x")?))).await.is_none(), "it is full");
            // All of it is read, and at once filled by another, before the loop looks: it is not writable whatever was told.
            rustix::io::read(&from, &mut bytes).unwrap();
            while rustix::io::write(to.get_ref(), &[8; 4096]).is_ok() {}
            assert!(once(to.write_with(|to| Ok(rustix::io::write(to, b"x")?))).await.is_none());
            rustix::io::read(&from, &mut bytes).unwrap();
            let n = to.write_with(|to| Ok(rustix::io::write(to, b"x")?)).await.unwrap();
            assert_eq!(n, 1);
        }
        drop(from);
        let end = to.write_with(|to| Ok(rustix::io::write(to, b"x")?)).await.unwrap_err();
        assert_eq!(end.kind(), ErrorKind::BrokenPipe);
    });
}
