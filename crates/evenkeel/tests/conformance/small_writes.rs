//! Very many pieces: small writes, shared messages of a byte, and gathered writes with more pieces than one call takes.

use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;

use evenkeel::net::ListenOptions;
use evenkeel::sim::blocking;
use evenkeel::{Backend, Flow, Message, task};

use crate::asynchronous::pair;
use crate::support::{
    Probe, Server, assert_same, event_loop, exactly, no_limits, pattern, read_all, read_now,
};

on_every_kernel! {
    i35_ten_thousand_small_writes_and_a_close,
    i35_more_pieces_are_queued_than_one_call_takes,
    i35_a_gathered_write_has_more_pieces_than_one_call_takes,
    i05_pieces_of_nothing_between_pieces_of_something,
    i41_small_pieces_count_for_what_they_cost,
    writes_of_many_connections_in_one_batch_do_not_mix,
}

/// From within a call and from outside, all before anything was read; nothing may be lost by the close that follows.
fn i35_ten_thousand_small_writes_and_a_close(backend: Backend) {
    const COUNT: usize = 10_000;
    let sent: Rc<[u8]> = pattern(COUNT).into();
    for shared in [false, true] {
        for inside in [false, true] {
            let mut s = Server::new(backend);
            let bytes = sent.clone();
            let (mut peer, seen) = s.pair(Probe::new().on_notify(move |conn| {
                for byte in bytes.iter() {
                    if shared {
                        conn.send(&Message::from(&[*byte][..]));
                    } else {
                        conn.write(&[*byte]);
                    }
                }
                conn.close();
            }));
            let (h, id) = (s.h.clone(), seen.id());
            if inside {
                h.notify(id).unwrap();
            } else {
                for byte in sent.iter() {
                    let flow =
                        if shared { h.send(id, &Message::from(&[*byte][..])) } else { h.write(id, &[*byte]) };
                    assert_ne!(flow, Ok(Flow::Closed));
                }
                h.close(id).unwrap();
            }
            s.until("it is closed", || seen.closed());
            let (got, end) = read_all(&mut peer);
            end.unwrap();
            assert_same(&got, &sent);
            assert_eq!(seen.why(), "closed");
        }
    }
}

/// The kernel is full, so that each piece waits in the queue by itself, and they leave by as few calls as they can.
fn i35_more_pieces_are_queued_than_one_call_takes(backend: Backend) {
    let mut options = ListenOptions::default();
    options.send_buffer = Some(8 << 10);
    let mut s = Server::with(backend, no_limits(), options);
    let (mut peer, seen) = s.pair(Probe::new());
    let first = pattern(4_000_000);
    s.h.write(seen.id(), &first).unwrap();
    s.turns(2);
    assert!(s.h.queued(seen.id()).unwrap() > 0);
    let mut wanted = first;
    for i in 0..5000_usize {
        let piece = &i.to_le_bytes()[..1 + i % 3];
        wanted.extend_from_slice(piece);
        if i % 7 == 0 {
            s.h.write(seen.id(), piece).unwrap();
        } else {
            s.h.send(seen.id(), &Message::from(piece)).unwrap();
        }
    }
    s.turns(1);
    let before = s.h.stats().sends;
    s.h.close(seen.id()).unwrap();
    let len = wanted.len();
    let reader = blocking::spawn(move || {
        let got = exactly(&mut peer, len);
        (got, read_all(&mut peer))
    });
    s.until("it is closed", || seen.closed());
    let (got, (rest, end)) = reader.join().unwrap();
    end.unwrap();
    assert_same(&got, &wanted);
    assert_eq!((rest.len(), seen.why()), (0, "closed"));
    assert!(s.h.stats().sends - before < 4000, "{} sends", s.h.stats().sends - before);
}

fn i35_a_gathered_write_has_more_pieces_than_one_call_takes(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let sent = pattern(3000 * 5);
    let bytes = sent.clone();
    let reader = blocking::spawn(move || {
        let got = exactly(&mut peer, 3000 * 5);
        (got, peer)
    });
    events
        .block_on(async {
            let mut at = 0;
            while at < bytes.len() {
                let pieces: Vec<_> = bytes[at..].chunks(5).map(IoSlice::new).collect();
                let n = stream.write_vectored(&pieces).await.unwrap();
                assert!(n > 0 && n <= bytes.len() - at);
                at += n;
            }
            assert_eq!(stream.write_vectored(&[]).await.unwrap(), 0);
            let nothing = vec![IoSlice::new(&[]); 2000];
            assert_eq!(stream.write_vectored(&nothing).await.unwrap(), 0);
            stream.flush().await.unwrap();
        })
        .unwrap();
    let (got, peer) = reader.join().unwrap();
    assert_same(&got, &sent);
    drop(peer);
    let (mut to, mut from) = events.block_on(async { evenkeel::pipe::pipe() }).unwrap().unwrap();
    let got = events.block_on(async {
        let reader = evenkeel::spawn(async move {
            let mut got = vec![0; 3000 * 5];
            from.read_exact(&mut got).await.unwrap();
            got
        });
        let mut at = 0;
        while at < sent.len() {
            let pieces: Vec<_> = sent[at..].chunks(5).map(IoSlice::new).collect();
            at += to.write_vectored(&pieces).await.unwrap();
        }
        reader.await.unwrap()
    });
    assert_same(&got.unwrap(), &sent);
}

/// An empty piece is no end, no error, and nothing that waits.
fn i05_pieces_of_nothing_between_pieces_of_something(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    events
        .block_on(async {
            for round in 0..20_u8 {
                let (one, two) = ([round], [round, round]);
                let pieces = [&[][..], &one, &[], &[], &two, &[]].map(IoSlice::new);
                assert_eq!(stream.write_vectored(&pieces).await.unwrap(), 3, "there is room for all");
                assert_eq!(stream.write(&[]).await.unwrap(), 0);
                stream.write_all(&[]).await.unwrap();
                assert_eq!(stream.send(&Message::from("")), Flow::Go);
                stream.flush().await.unwrap();
                task::yield_now().await;
            }
            stream.shutdown().await.unwrap();
            let refused = stream.write(&[1]).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
        })
        .unwrap();
    let want: Vec<u8> = (0..20).flat_map(|round| [round; 3]).collect();
    assert_eq!(read_all(&mut peer).0, want);
}

/// A queue of single bytes holds fewer bytes than its limit, because each of them costs more than a byte.
fn i41_small_pieces_count_for_what_they_cost(backend: Backend) {
    let mut limits = no_limits();
    limits.max_queue_bytes = 1 << 20;
    let mut s = Server::with_limits(backend, limits);
    let (_peer, seen) = s.pair(Probe::new());
    let big = Message::from(pattern(64 << 10));
    let h = s.h.clone();
    let mut most = 0;
    // Up to half of the limit, and then by single bytes.
    while most < 512 << 10 {
        h.send(seen.id(), &big).unwrap();
        s.turns(1);
        most = h.queued(seen.id()).unwrap();
    }
    let byte = Message::from("x");
    let mut pieces: usize = 0;
    while h.send(seen.id(), &byte).is_ok_and(|flow| flow != Flow::Closed) {
        pieces += 1;
        assert!(pieces < 1 << 19, "more pieces than the limit has bytes left");
    }
    s.until("it is closed", || seen.closed());
    assert_eq!(seen.why(), "queue full");
    assert!(pieces > 1000, "{pieces} pieces");
}

fn writes_of_many_connections_in_one_batch_do_not_mix(backend: Backend) {
    let mut s = Server::new(backend);
    let mut all: Vec<_> = (0..24).map(|_| s.pair(Probe::new())).collect();
    let ids: Vec<_> = all.iter().map(|(_, seen)| seen.id()).collect();
    let mut wanted: Vec<Vec<u8>> = vec![Vec::new(); all.len()];
    let mut rng = fastrand::Rng::with_seed(40);
    for _ in 0..30 {
        // Each in turn and now and then one again, pieces of all sizes around the border of what is copied.
        for _ in 0..200 {
            let to = rng.usize(..ids.len());
            let size = [1, 10, 300, 2047, 2048, 2049, 5000][rng.usize(..7)];
            let piece = vec![rng.u8(..); size];
            wanted[to].extend_from_slice(&piece);
            if rng.bool() {
                s.h.write(ids[to], &piece).unwrap();
            } else {
                s.h.send(ids[to], &Message::from(piece)).unwrap();
            }
        }
        s.turns(1);
    }
    let mut got: Vec<Vec<u8>> = vec![Vec::new(); all.len()];
    s.until("all has come", || {
        for ((peer, _), got) in all.iter_mut().zip(&mut got) {
            got.extend(read_now(peer));
        }
        got.iter().zip(&wanted).all(|(got, want)| got.len() >= want.len())
    });
    for (got, want) in got.iter().zip(&wanted) {
        assert_same(got, want);
    }
}
