//! Pausing and resuming; and that nothing which nobody wants to read keeps the loop busy.

use std::io::Write;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::Backend;
use evenkeel::net::Stream;
use evenkeel::sim::blocking::{self, TcpStream};
use evenkeel::sim::is_simulated;

use crate::support::{Probe, Server, assert_same, connect, pattern, reset_on_close};

on_every_kernel! {
    i06_nothing_is_delivered_after_a_pause,
    i06_nothing_is_delivered_after_another_handlers_pause_in_the_same_batch,
    a_pause_in_on_open_holds_what_is_there_already,
    a_pause_taken_back_in_the_same_call_loses_nothing,
    i01_data_goes_on_after_a_resume,
    i01_a_resume_wakes_a_sleeping_loop,
    i29_a_paused_connection_with_data_does_not_spin,
    i29_a_paused_connection_with_an_end_does_not_spin,
    i31_a_paused_connection_with_a_reset_does_not_spin,
    i29_a_half_closed_connection_does_not_spin,
    i31_a_connection_whose_peer_is_gone_does_not_spin,
    i29_a_stream_that_nobody_reads_does_not_spin,
    i31_a_stream_that_was_reset_and_that_nobody_reads_does_not_spin,
}

/// Turns that a quiet loop may take in [`QUIET`]: its sleep's own, and stray ones.
const FEW: u64 = 20;
const QUIET: Duration = Duration::from_millis(50);

fn assert_quiet(s: &mut Server) {
    let turns = s.turns_in(QUIET);
    assert!(turns < FEW, "{turns} turns in {QUIET:?} of silence");
}

fn reset(peer: TcpStream) {
    reset_on_close(&peer);
}

fn i06_nothing_is_delivered_after_a_pause(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| conn.pause()));
    let sent = pattern(300_000);
    let bytes = sent.clone();
    let writer = blocking::spawn(move || {
        peer.write_all(&bytes).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        peer
    });
    let mut calls = 0;
    while seen.len() < sent.len() {
        s.until("the next call", || seen.chunks.get() > calls);
        calls += 1;
        s.turns(5);
        assert_eq!(seen.chunks.get(), calls, "on_data came while paused");
        assert_eq!(seen.eof.get(), 0, "on_eof came while paused");
        s.h.resume(seen.id()).unwrap();
    }
    assert_same(&seen.data.borrow(), &sent);
    s.until("the end", || seen.closed());
    drop(writer.join());
}

fn i06_nothing_is_delivered_after_another_handlers_pause_in_the_same_batch(backend: Backend) {
    let mut s = Server::new(backend);
    let all: Rc<std::cell::RefCell<Vec<_>>> = Rc::default();
    let mut peers = Vec::new();
    for _ in 0..8 {
        let ids = all.clone();
        let pauses_others = Probe::new().on_data(move |conn, _| {
            for id in ids.borrow().iter().filter(|id| **id != conn.id()) {
                conn.handle().pause(*id).unwrap();
            }
        });
        let (peer, seen) = s.pair(pauses_others);
        all.borrow_mut().push(seen.id());
        peers.push((peer, seen));
    }
    s.turns(3);
    peers.iter_mut().for_each(|(peer, _)| peer.write_all(b"now").unwrap());
    s.turns(6);
    let heard = peers.iter().filter(|(_, seen)| seen.len() > 0).count();
    assert_eq!(heard, 1, "the first one paused the others");
    for (_, seen) in &peers {
        s.h.resume(seen.id()).unwrap();
    }
    // Each that is served pauses the others again, so they are resumed until all have been served.
    let h = s.h.clone();
    s.until("everybody was heard", || {
        peers.iter().for_each(|(_, seen)| h.resume(seen.id()).unwrap());
        peers.iter().all(|(_, seen)| seen.len() == 3)
    });
}

fn a_pause_in_on_open_holds_what_is_there_already(backend: Backend) {
    let mut s = Server::new(backend);
    let seen = s.expect(Probe::new().on_open(|conn| conn.pause()));
    let mut peer = connect(s.addr);
    peer.write_all(b"early").unwrap();
    s.until("it is open", || seen.opened.get());
    s.turns(10);
    assert_eq!(seen.len(), 0);
    s.h.resume(seen.id()).unwrap();
    s.until("it was heard", || seen.text() == "early");
}

fn a_pause_taken_back_in_the_same_call_loses_nothing(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| {
        conn.pause();
        conn.resume();
    }));
    let seen_there = seen.clone();
    let thread = blocking::spawn(move || {
        peer.write_all(&pattern(1_000_000)).unwrap();
        peer
    });
    s.until("all was heard", || seen_there.len() == 1_000_000);
    assert_same(&seen.data.borrow(), &pattern(1_000_000));
    drop(thread.join());
    s.until("the end was heard", || seen.closed());
}

fn i01_data_goes_on_after_a_resume(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    let mut expected = Vec::new();
    // Data that comes before the pause is known to the loop, between pause and resume, and after.
    for round in 0..60u32 {
        let text = format!("{round};");
        expected.extend_from_slice(text.as_bytes());
        if round % 3 == 0 {
            peer.write_all(text.as_bytes()).unwrap();
        }
        if round % 5 == 0 {
            s.turns(1);
        }
        s.h.pause(seen.id()).unwrap();
        if round % 3 == 1 {
            peer.write_all(text.as_bytes()).unwrap();
        }
        let before = seen.len();
        s.turns(round as usize % 4);
        assert_eq!(seen.len(), before, "delivered while paused");
        s.h.resume(seen.id()).unwrap();
        if round % 3 == 2 {
            peer.write_all(text.as_bytes()).unwrap();
        }
        if round % 7 == 0 {
            s.until("all so far was heard", || *seen.data.borrow() == expected);
        }
    }
    s.until("all was heard", || *seen.data.borrow() == expected);
}

fn i01_a_resume_wakes_a_sleeping_loop(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::echo());
    let id = seen.id();
    s.h.pause(id).unwrap();
    peer.write_all(b"ping").unwrap();
    s.turns(5);
    let (remote, mut reader) = (s.h.remote(), peer.try_clone().unwrap());
    let got = s.serve(move |_| {
        remote.run(move |h| h.resume(id).unwrap()).unwrap();
        crate::support::exactly(&mut reader, 4)
    });
    assert_eq!(got, b"ping");
}

fn i29_a_paused_connection_with_data_does_not_spin(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    s.h.pause(seen.id()).unwrap();
    peer.write_all(&pattern(10_000)).unwrap();
    assert_quiet(&mut s);
    peer.write_all(b"more").unwrap();
    assert_quiet(&mut s);
    s.h.resume(seen.id()).unwrap();
    s.until("all was heard", || seen.len() == 10_004);
    assert_quiet(&mut s);
}

fn i29_a_paused_connection_with_an_end_does_not_spin(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    s.h.pause(seen.id()).unwrap();
    peer.write_all(b"last").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_quiet(&mut s);
    drop(peer);
    assert_quiet(&mut s);
    assert_eq!((seen.len(), seen.eof.get()), (0, 0));
    s.h.resume(seen.id()).unwrap();
    s.until("the end was heard", || seen.closed());
    assert_eq!((seen.text().as_str(), seen.eof.get()), ("last", 1));
}

fn i31_a_paused_connection_with_a_reset_does_not_spin(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    s.h.pause(seen.id()).unwrap();
    peer.write_all(b"lost").unwrap();
    s.turns(3);
    reset(peer);
    assert_quiet(&mut s);
    if !seen.closed() {
        s.h.resume(seen.id()).unwrap();
    }
    s.until("the reset was heard", || seen.closed());
    assert_eq!(seen.error(), Some(std::io::ErrorKind::ConnectionReset));
}

fn i29_a_half_closed_connection_does_not_spin(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().deaf_to_eof());
    peer.shutdown(Shutdown::Write).unwrap();
    s.until("the end was heard", || seen.eof.get() == 1);
    assert_quiet(&mut s);
    // It can still be written to, more than the kernel takes at once.
    let bytes = pattern(if is_simulated() { 900_000 } else { 8_000_000 });
    s.h.write(seen.id(), &bytes).unwrap();
    assert_quiet(&mut s);
    let id = seen.id();
    let thread = blocking::spawn(move || crate::support::read_all(&mut peer));
    let h = s.h.clone();
    s.until("all was sent", || h.queued(id) == Ok(0));
    assert_quiet(&mut s);
    s.h.close(id).unwrap();
    s.until("it is closed", || seen.closed());
    let (got, end) = thread.join().unwrap();
    assert_same(&got, &bytes);
    assert!(end.is_ok());
}

fn i31_a_connection_whose_peer_is_gone_does_not_spin(backend: Backend) {
    let mut s = Server::new(backend);
    let (peer, seen) = s.pair(Probe::new().deaf_to_eof());
    drop(peer);
    s.until("the end was heard", || seen.eof.get() == 1);
    assert_quiet(&mut s);
    // The first write is answered by a reset; a later one, or the reset itself, ends the connection.
    let h = s.h.clone();
    s.until("it is over", || h.write(seen.id(), b"anybody there?").is_err());
    assert_quiet(&mut s);
    assert_eq!(seen.why(), "error");
}

fn i29_a_stream_that_nobody_reads_does_not_spin(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut ours, mut peer) = blocking::UnixStream::pair().unwrap();
    let mut stream = s
        .events
        .block_on(async { Stream::from_fd(peer.try_clone().unwrap().into_fd().unwrap()) })
        .unwrap()
        .unwrap();
    ours.write_all(b"unread").unwrap();
    assert_quiet(&mut s);
    ours.write_all(b" and more").unwrap();
    assert_quiet(&mut s);
    drop(ours);
    assert_quiet(&mut s);
    let mut all = vec![0; 64];
    let n = s.events.block_on(stream.read(&mut all)).unwrap().unwrap();
    assert_eq!(&all[..n], b"unread and more");
    assert_eq!(s.events.block_on(stream.read(&mut all)).unwrap().unwrap(), 0);
    assert_quiet(&mut s);
    peer.write_all(b"").unwrap();
}

fn i31_a_stream_that_was_reset_and_that_nobody_reads_does_not_spin(backend: Backend) {
    let mut s = Server::new(backend);
    let listener = blocking::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut stream = s.events.block_on(Stream::connect(at)).unwrap().unwrap();
    let (peer, _) = listener.accept().unwrap();
    assert_quiet(&mut s);
    reset(peer);
    assert_quiet(&mut s);
    let error = s.events.block_on(stream.read(&mut [0; 8])).unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_quiet(&mut s);
}
