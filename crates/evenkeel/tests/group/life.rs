//! How groups begin and end.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use evenkeel::group::{Group, GroupListener, LoopIndex};
use evenkeel::net::{Limits, ListenOptions};
use evenkeel::{Backend, EventLoop, Handle, Remote, RemoteError};

use crate::support::*;

on_every_backend! {
    stopping_ends_open_connections,
    nothing_is_left_of_a_group_that_was_dropped,
    nothing_is_left_of_a_group_that_was_not_built,
}

fn stopping_ends_open_connections(backend: Backend) {
    for share in SHARES {
        let group = group_on(backend, 2);
        let seen: Arc<Seen> = Arc::default();
        let handlers = seen.clone();
        let make = move |_: &_, _| Echo { seen: handlers.clone() };
        let (options, limits) = (ListenOptions::default(), Limits::default());
        let listener = group.listen("127.0.0.1:0", &options, &limits, share, make).unwrap();
        let mut peers: Vec<_> = (0..50).map(|_| connect(tcp(&listener))).collect();
        peers.iter_mut().for_each(|peer| ping(peer).unwrap());
        let remotes = group.remotes().to_vec();
        join(group);
        assert_eq!(seen.closed.load(Ordering::Relaxed), 50);
        assert_eq!(seen.loop_ended.load(Ordering::Relaxed), 50);
        assert!(peers.iter_mut().all(is_turned_away));
        assert_eq!(connections(&listener), [0, 0]);
        let ended = |remote: &Remote| remote.run(|_| ()) == Err(RemoteError::LoopEnded);
        assert!(remotes.iter().all(ended));
    }
}

fn nothing_is_left_of_a_group_that_was_dropped(backend: Backend) {
    let build = |name: &str| {
        let each = EventLoop::builder().backend(backend).on_fallback(|_| ());
        builder().name(name).loops(3).event_loop(each).build(|_, _| Ok(())).unwrap()
    };
    // What the process keeps from its first group is no leak.
    drop(build("first"));
    let before = descriptors();
    let group = build("left");
    assert_eq!(threads("left-"), 3);
    let listeners: Vec<GroupListener> = SHARES.iter().map(|share| echo(&group, *share)).collect();
    let mut peers = Vec::new();
    for listener in &listeners {
        peers.extend((0..20).map(|_| connect(tcp(listener))));
    }
    peers.iter_mut().for_each(|peer| ping(peer).unwrap());
    drop(group);
    // A remote keeps what wakes its loop, though there is nothing to be woken any more.
    drop((peers, listeners));
    // Fewer, if something of an earlier test was still being closed at first.
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
    no_threads("left-");
}

fn nothing_is_left_of_a_group_that_was_not_built(backend: Backend) {
    let build = |setup: fn(&Handle, LoopIndex) -> io::Result<()>| {
        let each = EventLoop::builder().backend(backend).on_fallback(|_| ());
        builder().name("unbuilt").loops(4).event_loop(each).build(setup)
    };
    drop(build(|_, _| Ok(())).unwrap());
    let before = descriptors();
    let error = build(|_, index| if index == 2 { Err(io::Error::other("no such thing")) } else { Ok(()) });
    let error = error.unwrap_err();
    assert_eq!((error.index(), error.to_string()), (Some(2), "loop 2: no such thing".to_owned()));
    assert!(error.io_error().is_some() && !error.is_panic());
    // Fewer, if something of an earlier test was still being closed at first.
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
    no_threads("unbuilt-");

    let error = build(|_, index| {
        assert_ne!(index, 3, "not this one");
        Ok(())
    });
    let error = error.unwrap_err();
    assert!(error.is_panic() && error.index() == Some(3), "{error}");
    assert!(error.to_string().contains("not this one"), "{error}");
    let payload = error.into_panic().unwrap().downcast::<String>().unwrap();
    assert!(payload.contains("not this one"));
    // Fewer, if something of an earlier test was still being closed at first.
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
    no_threads("unbuilt-");
}

#[test]
fn setup_runs_on_each_loop_before_the_group_is_built() {
    let _alone = alone();
    let calls: Arc<[AtomicUsize; 3]> = Arc::default();
    let count = calls.clone();
    let setup = move |handle: &Handle, index: LoopIndex| {
        count[index].fetch_add(1, Ordering::Relaxed);
        // The loop is the current one.
        let count = count.clone();
        evenkeel::spawn(async move { count[index].fetch_add(10, Ordering::Relaxed) }).detach();
        assert_eq!(handle.backend(), Handle::current().backend());
        Ok(())
    };
    let group = builder().loops(3).build(setup).unwrap();
    let called = || calls.iter().map(|calls| calls.load(Ordering::Relaxed)).collect::<Vec<_>>();
    assert!(called().iter().all(|calls| calls % 10 == 1));
    settle(&group);
    assert_eq!(called(), [11; 3], "and what it spawned runs");
    join(group);
}

#[test]
fn the_end_of_one_loop_is_the_end_of_all() {
    let _alone = alone();
    let group = group(3);
    group.remote(1).run(|handle| handle.stop()).unwrap();
    ends(group);
    let group = self::group(3);
    group.remote(2).stop();
    ends(group);
    let group = builder().loops(2).build(|handle, _| {
        handle.stop();
        Ok(())
    });
    ends(group.unwrap());
}

#[test]
fn what_cannot_be_built_says_why() {
    let _alone = alone();
    let group = builder().loops(2).name("panics\0").build(|_, _| Ok(()));
    assert_eq!(io::Error::from(group.unwrap_err()).kind(), io::ErrorKind::InvalidInput);
    let group = builder().loops(0).build(|_, _| Ok(()));
    let error = group.unwrap_err();
    assert_eq!((error.index(), io::Error::from(error).kind()), (None, io::ErrorKind::InvalidInput));
    let failed = builder().loops(2).build(|_, _| std::panic::panic_any(7_u32)).unwrap_err();
    assert_eq!(failed.index(), Some(0));
    assert_eq!(failed.into_panic().unwrap().downcast_ref(), Some(&7_u32));
}

#[test]
fn a_group_may_be_dropped_by_one_of_its_loops() {
    let _alone = alone();
    let group = builder().name("own").loops(2).build(|_, _| Ok(())).unwrap();
    let (first, second) = (group.remote(0), group.remote(1));
    let answer = first.spawn(move || async move { drop(group) }).unwrap();
    answer.wait().unwrap();
    assert_eq!(second.run(|_| ()), Err(RemoteError::LoopEnded), "the others have ended when it is dropped");
}

#[test]
fn a_loop_does_not_join_its_own_group() {
    let _alone = alone();
    let group = group(2);
    let first = group.remote(0);
    let joins = move || async move { catch_unwind(AssertUnwindSafe(|| group.join())).is_err() };
    assert!(first.spawn(joins).unwrap().wait().unwrap());
}

#[test]
fn a_stop_finds_room_in_a_full_mailbox() {
    let _alone = alone();
    let group = group(2);
    let release = fill_mailbox(&group.remote(1));
    assert_eq!(group.broadcast(|_, _| ()), [Ok(()), Err(RemoteError::Full)]);
    assert_eq!(group.stop(std::time::Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(release);
    join(group);
}

#[test]
fn threads_have_names_and_processors() {
    let _alone = alone();
    let status = |field: &str| {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(group_of_default().len(), processors);
    let group = builder().loops(3).name("pin").pinned(true).build(|_, _| Ok(())).unwrap();
    for index in 0..3 {
        let look = move || async move { (status("Name"), status("Cpus_allowed_list")) };
        let (name, allowed) = group.spawn_on(index, look).unwrap().wait().unwrap();
        assert_eq!(name, format!("pin-{index}"));
        allowed.parse::<usize>().expect("one processor");
    }
    join(group);
}

fn group_of_default() -> Group {
    builder().build(|_, _| Ok(())).unwrap()
}

#[test]
fn a_group_and_what_it_gives_out_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Group>();
    shared::<GroupListener>();
    shared::<evenkeel::group::GroupError>();
    shared::<evenkeel::task::Answer<Vec<u8>>>();
}
