//! Bytes in order, whatever their sizes, splits and ends; and fairness between those who send.

use std::cell::RefCell;
use std::io::{IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::Backend;
use evenkeel::net::{ListenOptions, Stream};
use evenkeel::sim::blocking::{self, TcpStream, UnixStream};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::support::{
    PEER, Probe, Server, assert_same, connect, exactly, no_limits, pattern, read_all, reset_on_close, unique,
    until,
};

on_every_kernel! {
    i05_bytes_arrive_in_order_whatever_their_sizes,
    i35_large_transfers_both_ways_at_once_stay_exact,
    i35_tiny_socket_buffers_keep_the_stream_exact,
    i30_an_end_that_is_queued_behind_data_is_heard_after_it,
    i30_an_end_with_data_is_heard_by_a_loop_that_was_asleep,
    i30_a_reset_behind_data_ends_the_connection,
    i24_a_firehose_keeps_nobody_waiting,
    i03_data_in_small_steps_never_stalls_a_sleeping_loop,
    i04_data_that_was_there_before_the_connection_was_accepted,
    i05_a_full_read_of_exactly_the_loops_memory,
    unix_streams_deliver_everything,
}

// The model has no urgent data, and no descriptors that travel.
on_every_backend! {
    i01_urgent_data_behind_a_short_read_hides_nothing,
    i01_urgent_data_between_bytes_that_are_all_there_hides_nothing,
    i29_urgent_data_does_not_spin_the_loop,
    i01_descriptors_on_a_unix_stream_hide_nothing,
}

fn i05_bytes_arrive_in_order_whatever_their_sizes(backend: Backend) {
    let mut s = Server::new(backend);
    for size in [1, 2, 1023, 4096, 65_535, 65_536, 65_537, 131_072, 1_000_003, 3_000_000] {
        let (mut peer, seen) = s.pair(Probe::new());
        let sent = pattern(size);
        let bytes = sent.clone();
        s.serve(move |_| {
            peer.write_all(&bytes).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            assert!(read_all(&mut peer).1.is_ok(), "closed without a reset");
        });
        s.until("on_close was heard", || seen.closed());
        assert_same(&seen.data.borrow(), &sent);
        assert_eq!((seen.eof.get(), seen.why()), (1, "closed"));
    }
}

fn i35_large_transfers_both_ways_at_once_stay_exact(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, _) = s.pair(Probe::echo());
    let got = s.serve(move |_| {
        let mut writer = peer.try_clone().unwrap();
        let thread = blocking::spawn(move || {
            let bytes = pattern(3_000_000);
            let mut rng = fastrand::Rng::with_seed(1);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let n = rng.usize(1..200_000).min(rest.len());
                writer.write_all(&rest[..n]).unwrap();
                rest = &rest[n..];
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let (all, end) = read_all(&mut peer);
        thread.join().unwrap();
        end.unwrap();
        all
    });
    assert_same(&got, &pattern(3_000_000));
}

fn i35_tiny_socket_buffers_keep_the_stream_exact(backend: Backend) {
    let mut options = ListenOptions::default();
    options.recv_buffer = Some(2048);
    options.send_buffer = Some(4096);
    let mut s = Server::with(backend, no_limits(), options);
    let (mut peer, _) = s.pair(Probe::echo());
    let got = s.serve(move |_| {
        let mut writer = peer.try_clone().unwrap();
        let thread = blocking::spawn(move || {
            for chunk in pattern(200_000).chunks(7_001) {
                writer.write_all(chunk).unwrap();
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let (all, end) = read_all(&mut peer);
        thread.join().unwrap();
        end.unwrap();
        all
    });
    assert_same(&got, &pattern(200_000));
}

fn i30_an_end_that_is_queued_behind_data_is_heard_after_it(backend: Backend) {
    let mut s = Server::new(backend);
    // The data and the end are there in one event, and the read of the data is short.
    let (mut peer, seen) = s.pair(Probe::new());
    s.turns(3);
    peer.write_all(b"last words").unwrap();
    drop(peer);
    s.until("the end was heard", || seen.closed());
    assert_eq!((seen.text().as_str(), seen.eof.get(), seen.why()), ("last words", 1, "closed"));

    // The end comes while the data is being delivered: after the event, before the next wait.
    let slot: Rc<RefCell<Option<TcpStream>>> = Rc::default();
    let place = slot.clone();
    let (mut peer, seen) = s.pair(Probe::new().on_data(move |_, _| {
        place.take().unwrap().shutdown(Shutdown::Write).unwrap();
    }));
    slot.replace(Some(peer.try_clone().unwrap()));
    s.turns(3);
    peer.write_all(b"last words").unwrap();
    s.until("the end was heard", || seen.closed());
    assert_eq!((seen.text().as_str(), seen.eof.get()), ("last words", 1));
}

fn i30_an_end_with_data_is_heard_by_a_loop_that_was_asleep(backend: Backend) {
    let mut s = Server::new(backend);
    for _ in 0..50 {
        let seen = s.expect(Probe::echo());
        let got = s.serve(|addr| {
            let mut peer = connect(addr);
            peer.write_all(b"question").unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            let (all, end) = read_all(&mut peer);
            end.unwrap();
            all
        });
        assert_eq!((&got[..], seen.eof.get()), (&b"question"[..], 1));
    }
}

fn i30_a_reset_behind_data_ends_the_connection(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    s.turns(3);
    peer.write_all(b"last words").unwrap();
    s.until("the data was heard", || seen.len() == 10);
    reset_on_close(&peer);
    drop(peer);
    s.until("the reset was heard", || seen.closed());
    assert_eq!(seen.error(), Some(std::io::ErrorKind::ConnectionReset));
    assert_eq!(seen.eof.get(), 0);
}

fn i01_urgent_data_behind_a_short_read_hides_nothing(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::echo());
    let got = s.serve(move |_| {
        // The urgent byte itself is not part of the stream, but it cuts reads in two.
        peer.write_all(b"abc").unwrap();
        socket2::SockRef::from(peer.std().unwrap()).send_out_of_band(b"!").unwrap();
        peer.write_all(b"def").unwrap();
        let first = exactly(&mut peer, 6);
        socket2::SockRef::from(peer.std().unwrap()).send_out_of_band(b"?").unwrap();
        peer.write_all(b"ghi").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let (rest, end) = read_all(&mut peer);
        end.unwrap();
        [first, rest].concat()
    });
    assert_eq!(got, b"abcdefghi");
    assert_eq!(seen.eof.get(), 1);
}

fn i01_urgent_data_between_bytes_that_are_all_there_hides_nothing(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    peer.write_all(b"abc").unwrap();
    socket2::SockRef::from(peer.std().unwrap()).send_out_of_band(b"!").unwrap();
    peer.write_all(b"def").unwrap();
    s.until("all was heard", || seen.text() == "abcdef");
}

fn i29_urgent_data_does_not_spin_the_loop(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    peer.write_all(b"abc").unwrap();
    socket2::SockRef::from(peer.std().unwrap()).send_out_of_band(b"!").unwrap();
    s.until("the data was heard", || seen.len() == 3);
    let turns = s.turns_in(Duration::from_millis(50));
    assert!(turns < 20, "{turns} turns in 50 ms of silence");
    peer.write_all(b"def").unwrap();
    s.until("the rest was heard", || seen.text() == "abcdef");
}

fn i01_descriptors_on_a_unix_stream_hide_nothing(backend: Backend) {
    let mut s = Server::new(backend);
    let (ours, peer) = UnixStream::pair().unwrap();
    let probe = Probe::new();
    let seen = probe.seen.clone();
    let stream = s.events.block_on(async { Stream::from_fd(ours.into_fd().unwrap()) }).unwrap().unwrap();
    assert!(s.pool.adopt(stream, probe, b"").is_ok());
    s.until("it is open", || seen.opened.get());
    let send = |bytes: &[u8], pass: bool| {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [peer.std().unwrap().as_fd()];
        assert!(!pass || control.push(SendAncillaryMessage::ScmRights(&fds)));
        let n = rustix::net::sendmsg(
            peer.std().unwrap(),
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
        assert_eq!(n, bytes.len());
    };
    for _ in 0..3 {
        send(b"one ", false);
        send(b"two ", true);
        send(b"three ", true);
        send(b"four.", false);
    }
    s.until("everything was heard", || seen.text() == "one two three four.".repeat(3));
}

/// One peer always has more to be read than a turn's budget; a hundred others are answered within two turns.
fn i24_a_firehose_keeps_nobody_waiting(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut hose, flood) = s.pair(Probe::new());
    let mut others: Vec<_> = (0..50).map(|_| s.pair(Probe::echo())).collect();
    s.turns(3);
    hose.set_nonblocking(true).unwrap();
    let more = vec![7; 1 << 20];
    let mut fill = move || while hose.write(&more).is_ok() {};
    for round in 0..20 {
        fill();
        let before = flood.len();
        others.iter_mut().for_each(|(peer, _)| peer.write_all(b"ping").unwrap());
        for _ in 0..2 {
            s.events.poll().unwrap();
            fill();
        }
        let late = others.iter().filter(|(_, seen)| seen.len() < 4 * (round + 1)).count();
        assert_eq!(late, 0, "pings that waited for more than two turns in round {round}");
        assert!(flood.len() > before, "the firehose is served too");
    }
    assert!(flood.len() > 2 << 20, "it was a firehose");
    for (peer, _) in &mut others {
        assert_eq!(exactly(peer, 80), b"ping".repeat(20));
    }
}

/// Each step waits for the answer to the one before, so one lost wake-up stops everything.
fn i03_data_in_small_steps_never_stalls_a_sleeping_loop(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, _) = s.pair(Probe::echo());
    s.serve(move |_| {
        let bytes = pattern(3000);
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..1000 {
            let most = if rng.u8(..) == 0 { 3000 } else { 16 };
            let n = rng.usize(1..=most);
            peer.write_all(&bytes[..n]).unwrap();
            assert_same(&exactly(&mut peer, n), &bytes[..n]);
        }
    });
}

fn i04_data_that_was_there_before_the_connection_was_accepted(backend: Backend) {
    let mut s = Server::new(backend);
    let seen = s.expect(Probe::echo());
    let mut peer = connect(s.addr);
    peer.write_all(b"early").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let got = s.serve(move |_| read_all(&mut peer).0);
    assert_eq!(got, b"early");
    assert_eq!((seen.eof.get(), seen.why()), (1, "closed"));
}

/// A read that fills the memory says nothing about what is left; each multiple is tried with and without an end.
fn i05_a_full_read_of_exactly_the_loops_memory(backend: Backend) {
    let mut s = Server::new(backend);
    for times in [1, 2, 8, 9] {
        let sent = pattern(times << 16);
        let (mut peer, seen) = s.pair(Probe::new());
        let bytes = sent.clone();
        let writer = blocking::spawn(move || {
            peer.write_all(&bytes).unwrap();
            peer
        });
        s.until("all was heard", || seen.len() == sent.len());
        let mut peer = writer.join().unwrap();
        assert_same(&seen.data.borrow(), &sent);
        peer.write_all(b"more").unwrap();
        s.until("more was heard", || seen.len() == sent.len() + 4);
        drop(peer);
        s.until("the end was heard", || seen.closed());
    }
}

fn unix_streams_deliver_everything(backend: Backend) {
    let mut s = Server::new(backend);
    let path = std::env::temp_dir().join(unique("unix"));
    let listener = s.pool.listen(&*path, &ListenOptions::default(), |_| Probe::echo()).unwrap();
    let at = path.clone();
    let got = s.serve(move |_| {
        let mut peer = UnixStream::connect(at).unwrap();
        peer.set_read_timeout(Some(PEER)).unwrap();
        let mut writer = peer.try_clone().unwrap();
        let thread = blocking::spawn(move || {
            writer.write_all(&pattern(700_000)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut all = Vec::new();
        std::io::Read::read_to_end(&mut peer, &mut all).unwrap();
        thread.join().unwrap();
        all
    });
    assert_same(&got, &pattern(700_000));
    assert!(s.h.close_listener(listener));
    until(&mut s.events, "the socket's file is gone", || {
        UnixStream::connect(&path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
    });
}
