//! Child processes. Each test has a process to itself, since children, dispositions and descriptors are the process's.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{ListenOptions, Stream};
use evenkeel::process::{Child, Command, Stdio};
use evenkeel::signal::{Signal, Signals};
use evenkeel::{Backend, EventLoop, time};
use rustix::process::{Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, setrlimit, waitid};

use crate::support::{Probe, Server, assert_same, descriptors, event_loop, pattern, until};

in_processes! {
    a_child_gets_its_input_and_answers,
    everything_about_a_command_reaches_the_child,
    output_is_collected_and_bounded,
    what_cannot_be_started_is_an_error,
    waiting_is_cancel_safe_and_costs_nothing,
    signals_reach_the_child_and_nobody_else,
    a_dropped_child_is_killed_if_that_was_asked,
    i36_a_dropped_child_is_taken_by_the_loop,
    i36_children_leave_no_descriptor_behind,
    i36_a_child_that_cannot_be_watched_does_not_stay,
    i34_a_child_has_its_standard_streams_and_nothing_else,
    i33_a_child_gets_sigpipe_back,
    many_children_end_at_once,
    the_end_is_told_to_a_callback,
    a_status_that_is_lost_is_an_error,
}

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn run<R>(events: &mut EventLoop, body: impl AsyncFnOnce() -> io::Result<R>) -> R {
    events.block_on(body()).unwrap().unwrap()
}

/// Whether this process has a child, running or not.
fn has_children() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !waitid(WaitId::All, options).is_err_and(|e| e == rustix::io::Errno::CHILD)
}

/// Makes this process one that SIGPIPE would end.
pub fn let_sigpipe_end_us() {
    // SAFETY: sets a disposition to its default; no other thread of this process uses it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

fn exists(id: u32) -> bool {
    Path::new(&format!("/proc/{id}")).exists()
}

fn a_child_gets_its_input_and_answers(backend: Backend) {
    let mut events = event_loop(backend);
    let sent = pattern(1_000_000);
    let back = run(&mut events, async || {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (mut to, bytes) = (child.stdin.take().unwrap(), sent.clone());
        let sending = evenkeel::spawn(async move { to.write_all(&bytes).await });
        let mut back = Vec::new();
        child.stdout.as_mut().unwrap().read_to_end(&mut back).await?;
        sending.await.unwrap()?;
        assert!(child.wait().await?.success());
        Ok(back)
    });
    assert_same(&back, &sent);
    // One that reads to the end ends because waiting closes its input.
    let status = run(&mut events, async || sh("cat; exit 3").stdin(Stdio::piped()).status().await);
    assert_eq!(status.code(), Some(3));
    assert!(!has_children());
}

fn everything_about_a_command_reaches_the_child(backend: Backend) {
    let mut events = event_loop(backend);
    let out = run(&mut events, async || {
        let mut command = sh(r#"echo "$A,$B,$C,$1,$2"; pwd; echo bad >&2; exit 5"#);
        command.args(["name", "one"]).arg("two").env("A", "a").envs([("B", "b"), ("C", "c")]);
        command.env_remove("C").current_dir("/").output().await
    });
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "a,b,,one,two\n/\n");
    assert_eq!((out.stderr, out.status.code()), (b"bad\n".to_vec(), Some(5)));
    let bare =
        run(&mut events, async || Command::new("/usr/bin/env").env_clear().env("X", "y").output().await);
    assert_eq!(bare.stdout, b"X=y\n");
}

fn output_is_collected_and_bounded(backend: Backend) {
    let mut events = event_loop(backend);
    // More than pipes hold, on both streams, so that neither may wait for the other.
    let both = "i=0; while [ $i -lt 3000 ]; do echo $i-0123456789012345678901234567890123456789; \
                echo $i-0123456789012345678901234567890123456789 >&2; i=$((i+1)); done";
    let out = run(&mut events, async || sh(both).output().await);
    assert!(out.stdout.len() > 100_000 && out.stdout == out.stderr && out.status.success());
    let at_the_limit = run(&mut events, async || sh("printf 12345").output_limit(5).output().await);
    assert_eq!(at_the_limit.stdout, b"12345");
    let error = events.block_on(async { sh("exec yes").output_limit(100_000).output().await }).unwrap();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert!(!has_children(), "it was killed, and its status was taken");
}

fn what_cannot_be_started_is_an_error(backend: Backend) {
    let mut events = event_loop(backend);
    let before = descriptors();
    let spawn = |events: &mut EventLoop, command: &mut Command| {
        let error = events.block_on(async { command.stdout(Stdio::piped()).spawn().map(drop) }).unwrap();
        error.unwrap_err().kind()
    };
    assert_eq!(spawn(&mut events, &mut Command::new("/no/such/program")), ErrorKind::NotFound);
    assert_eq!(spawn(&mut events, &mut Command::new("/etc/passwd")), ErrorKind::PermissionDenied);
    assert_eq!(spawn(&mut events, sh("true").current_dir("/no/such/folder")), ErrorKind::NotFound);
    assert_eq!(spawn(&mut events, sh("true").arg("zero\0byte")), ErrorKind::InvalidInput);
    assert_eq!(descriptors(), before);
    assert!(!has_children());
}

fn waiting_is_cancel_safe_and_costs_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let mut child = run(&mut events, async || sh("read x; exit 4").stdin(Stdio::piped()).spawn());
    let mut input = child.stdin.take();
    assert_eq!(child.try_wait().unwrap(), None);
    let turns = h.stats().turns;
    for _ in 0..3 {
        let waited = events.block_on(time::timeout(Duration::from_millis(5), child.wait()));
        assert!(waited.unwrap().is_err());
    }
    assert!(h.stats().turns - turns < 40, "{} turns", h.stats().turns - turns);
    drop(input.take());
    for _ in 0..2 {
        assert_eq!(run(&mut events, async || child.wait().await).code(), Some(4));
    }
    assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(4));
    // One that ended long before anybody waits.
    let mut child = run(&mut events, async || sh("exit 6").spawn());
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::All, options).unwrap();
    assert_eq!(run(&mut events, async || child.wait().await).code(), Some(6));
}

fn signals_reach_the_child_and_nobody_else(backend: Backend) {
    let mut events = event_loop(backend);
    let trap = "trap 'exit 7' USR1; echo ready; while :; do read x; done";
    let mut child = run(&mut events, async || {
        let mut child = sh(trap).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).await?;
        Ok(child)
    });
    let input = child.stdin.take();
    child.signal(Signal::User1).unwrap();
    assert_eq!(run(&mut events, async || child.wait().await).code(), Some(7));
    drop(input);
    let late = child.signal(Signal::User1).unwrap_err();
    assert_eq!(late.raw_os_error(), Some(libc::ESRCH));
    child.kill().unwrap();
    let mut child = run(&mut events, async || sh("exec sleep 1000").spawn());
    assert_eq!(child.signal(Signal::RealTime(200)).unwrap_err().kind(), ErrorKind::InvalidInput);
    child.signal(Signal::Stop).unwrap();
    child.signal(Signal::Continue).unwrap();
    assert_eq!(child.try_wait().unwrap(), None, "a stop is no end");
    child.kill().unwrap();
    assert_eq!(run(&mut events, async || child.wait().await).signal(), Some(libc::SIGKILL));
}

fn a_dropped_child_is_killed_if_that_was_asked(backend: Backend) {
    let mut events = event_loop(backend);
    let spawn = async |kill| sh("exec sleep 1000").kill_on_drop(kill).spawn();
    let mut child = run(&mut events, async || spawn(true).await);
    let (killed, left) = (child.id(), run(&mut events, async || spawn(false).await));
    assert_eq!(child.try_wait().unwrap(), None);
    drop(child);
    until(&mut events, "it is gone", || !exists(killed));
    let id = left.id();
    drop(left);
    assert!(exists(id));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(id as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    until(&mut events, "that one is gone too", || !exists(id));
    assert!(!has_children());
}

fn i36_a_dropped_child_is_taken_by_the_loop(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let mut child = run(&mut events, async || sh("read x").stdin(Stdio::piped()).spawn());
    let (id, input) = (child.id(), child.stdin.take());
    drop(child);
    events.poll().unwrap();
    assert!(exists(id));
    drop(input);
    until(&mut events, "its status is taken", || !exists(id));
    until(&mut events, "nothing is left of it", || h.stats().sources == 0 && h.stats().tasks == 0);
    // A loop that ends, and with it a task that waits.
    let child = run(&mut events, async || sh("read x").stdin(Stdio::piped()).spawn());
    let mut held = Some(child);
    let input = held.as_mut().unwrap().stdin.take();
    let child: Child = held.take().unwrap();
    let id = child.id();
    events
        .handle()
        .spawn(async move { drop((child, time::sleep(Duration::from_secs(1000)).await)) })
        .detach();
    events.poll().unwrap();
    drop(events);
    assert!(exists(id), "it runs on");
    drop(input);
    waitid(WaitId::All, WaitIdOptions::EXITED).unwrap();
    assert!(!has_children());
}

fn i36_children_leave_no_descriptor_behind(backend: Backend) {
    let live = || {
        let mut events = event_loop(backend);
        run(&mut events, async || {
            sh("true").status().await?;
            sh("echo; echo >&2").output().await?;
            let piped = |command: &mut Command| {
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
            };
            drop(piped(&mut sh("cat"))?);
            let mut child = piped(&mut sh("cat"))?;
            drop(child.stdin.take());
            child.wait().await?;
            drop(piped(sh("exec sleep 1000").kill_on_drop(true))?);
            Ok(())
        });
        until(&mut events, "all have ended", || !has_children());
    };
    live();
    let before = descriptors();
    (0..3).for_each(|_| live());
    assert_eq!(descriptors(), before);
}

fn i36_a_child_that_cannot_be_watched_does_not_stay(backend: Backend) {
    let mut events = event_loop(backend);
    let before = descriptors();
    let old = getrlimit(Resource::Nofile);
    let (mut failed, mut spawned) = (0, 0);
    for more in 0..16 {
        let highest = std::os::fd::AsRawFd::as_raw_fd(&rustix::io::dup(io::stdin()).unwrap()) as u64;
        let limit = Rlimit { current: Some(highest + more), maximum: old.maximum };
        setrlimit(Resource::Nofile, limit).unwrap();
        let child = events.block_on(async {
            sh("exec sleep 1000").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()
        });
        setrlimit(Resource::Nofile, old).unwrap();
        match child.unwrap() {
            Ok(child) => {
                spawned += 1;
                drop(child);
                until(&mut events, "it is gone", || !has_children());
            }
            Err(_) => failed += 1,
        }
        assert!(!has_children(), "with {more} descriptors to spare");
        until(&mut events, "its pipes are closed", || descriptors() == before);
    }
    assert!(failed > 3 && spawned > 3, "{failed} failed, {spawned} were started");
}

fn i34_a_child_has_its_standard_streams_and_nothing_else(backend: Backend) {
    let of_a_child = || {
        let mut ls = std::process::Command::new("ls");
        ls.arg("/proc/self/fd").stdin(Stdio::null()).output().unwrap().stdout
    };
    // What this process itself was given, and the folder that the child reads.
    let given = of_a_child();
    let mut s = Server::new(backend);
    let path = std::env::temp_dir().join(format!("evenkeel-only-{}-{backend}", std::process::id()));
    s.pool.listen(&*path, &ListenOptions::default(), |_| Probe::new()).unwrap();
    let (_peer, _seen) = s.pair(Probe::new());
    let _signals = Signals::new_on(&s.h, &[Signal::User1]).unwrap();
    let at = s.addr;
    let (_kept, out) = s
        .events
        .block_on(async {
            let stream = Stream::connect(at).await.unwrap();
            let pipe = evenkeel::pipe::pipe().unwrap();
            let file = evenkeel::fs::File::open("/etc/passwd").await.unwrap();
            let standard = (evenkeel::stdio::stdin().unwrap(), evenkeel::stdio::stdout().unwrap());
            let other = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let out = Command::new("ls").arg("/proc/self/fd").output().await.unwrap();
            ((stream, pipe, file, standard, other), out)
        })
        .unwrap();
    assert_eq!(String::from_utf8(out.stdout), String::from_utf8(given));
}

/// Whether SIGPIPE is in a set of a status file of the kernel.
fn has_sigpipe(status: &str, set: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':')).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & 1 << (libc::SIGPIPE - 1) != 0
}

fn i33_a_child_gets_sigpipe_back(backend: Backend) {
    let here = || has_sigpipe(&std::fs::read_to_string("/proc/thread-self/status").unwrap(), "SigBlk");
    assert!(!here());
    let mut events = event_loop(backend);
    let (mut blocked, mut status) = (false, String::new());
    for _ in 0..2 {
        let out = run(&mut events, async || {
            let out = Command::new("cat").arg("/proc/self/status").output().await?;
            blocked = here();
            Ok(out)
        });
        status = String::from_utf8(out.stdout).unwrap();
        assert!(blocked, "the loop's thread blocks it while it runs");
        assert!(!here(), "and no longer");
    }
    for set in ["SigBlk", "SigIgn", "SigCgt"] {
        assert!(!has_sigpipe(&status, set), "{set}: {status}");
    }
    // A thread of the loop's own blocks it too.
    let of_a_thread = run(&mut events, async || evenkeel::fs::read("/proc/thread-self/status").await);
    assert!(has_sigpipe(std::str::from_utf8(&of_a_thread).unwrap(), "SigBlk"));
}

fn many_children_end_at_once(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    // Whoever listens for SIGCHLD takes nothing away.
    let heard = Rc::new(Cell::new(0));
    let count = heard.clone();
    let _guard = h.on_signal(&[Signal::Child], move |_, _| count.set(count.get() + 1)).unwrap();
    let codes = run(&mut events, async || {
        let tasks: Vec<_> = (0..40)
            .map(|i| evenkeel::spawn(async move { sh(&format!("exit {i}")).status().await.unwrap().code() }))
            .collect();
        let mut codes = Vec::new();
        for task in tasks {
            codes.push(task.await.unwrap().unwrap());
        }
        Ok(codes)
    });
    assert_eq!(codes, Vec::from_iter(0..40));
    assert!(heard.get() > 0 && !has_children());
    assert_eq!(h.stats().sources, 0);
}

fn the_end_is_told_to_a_callback(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let told: Rc<RefCell<Vec<Option<i32>>>> = Rc::default();
    for (i, script) in ["exit 3", "cat", "exec sleep 1000"].into_iter().enumerate() {
        let told = told.clone();
        let child = run(&mut events, async || sh(script).stdin(Stdio::piped()).kill_on_drop(true).spawn());
        if i == 2 {
            child.signal(Signal::Terminate).unwrap();
        }
        child.on_exit(move |_, status| {
            told.borrow_mut().push(status.unwrap().code());
            assert_ne!(i, 0, "this one panics");
        });
    }
    until(&mut events, "all have ended", || told.borrow().len() == 3);
    told.borrow_mut().sort();
    assert_eq!(*told.borrow(), [None, Some(0), Some(3)]);
    events.poll().unwrap();
    assert_eq!(h.stats().panics, 1);
    let child = run(&mut events, async || sh("exec sleep 1000").spawn());
    let id = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    let dropped = Rc::new(());
    let held = dropped.clone();
    child.on_exit(move |_, _| drop(held));
    drop(events);
    assert_eq!(Rc::strong_count(&dropped), 1, "what the loop does not call it drops");
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
}

fn a_status_that_is_lost_is_an_error(backend: Backend) {
    let mut events = event_loop(backend);
    // SAFETY: sets a disposition that nothing else in this process cares for.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let mut child = run(&mut events, async || sh("read x").stdin(Stdio::piped()).spawn());
    let result = events.block_on(child.wait()).unwrap();
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECHILD));
    // Or it has ended before anybody could watch it.
    for _ in 0..20 {
        let result = events.block_on(async { sh("exit 3").spawn()?.wait().await }).unwrap();
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
    // And nothing hangs or spins for one that is dropped.
    drop(run(&mut events, async || sh("read x").stdin(Stdio::piped()).spawn()));
    let h = events.handle();
    until(&mut events, "it is forgotten", || h.stats().sources == 0);
}
