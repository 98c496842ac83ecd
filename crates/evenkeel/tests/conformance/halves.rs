//! The two halves of a stream end by themselves.

use std::io::Write;
use std::net::Shutdown;

use evenkeel::sim::blocking;
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, Flow};

use crate::support::{Probe, Server, assert_same, exactly, pattern, read_all};

on_every_kernel! {
    i30_writing_goes_on_after_the_peers_end,
    reading_goes_on_after_the_end_of_the_write_half,
    the_write_half_ends_after_what_is_queued,
    a_connection_whose_both_halves_have_ended_is_over,
    close_after_the_end_of_the_write_half,
    nothing_is_written_after_the_end_of_the_write_half,
}

fn i30_writing_goes_on_after_the_peers_end(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(
        Probe::new()
            .on_eof(|conn| {
                conn.write(b"first ");
                conn.notify_after(std::time::Duration::from_millis(5));
            })
            .on_notify(|conn| {
                conn.write(&pattern(2_000_000));
                conn.close();
            }),
    );
    let got = s.serve(move |_| {
        peer.shutdown(Shutdown::Write).unwrap();
        let (all, end) = read_all(&mut peer);
        end.unwrap();
        all
    });
    assert_same(&got, &[&b"first "[..], &pattern(2_000_000)].concat());
    s.until("it is over", || seen.closed());
    assert_eq!((seen.why(), seen.eof.get()), ("closed", 1));
}

fn reading_goes_on_after_the_end_of_the_write_half(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_open(|conn| {
        conn.write(b"all I have to say");
        conn.shutdown_write();
    }));
    s.serve(move |_| {
        let (all, end) = read_all(&mut peer);
        assert_eq!(all, b"all I have to say");
        end.unwrap();
        peer.write_all(&pattern(1_000_000)).unwrap();
    });
    s.until("all was heard", || seen.closed());
    assert_same(&seen.data.borrow(), &pattern(1_000_000));
    assert_eq!((seen.why(), seen.eof.get()), ("closed", 1));
}

fn the_write_half_ends_after_what_is_queued(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| {
        conn.write(&pattern(5_000_000));
        conn.shutdown_write();
    }));
    let got = s.serve(move |_| {
        peer.write_all(b"go").unwrap();
        let first = exactly(&mut peer, 10);
        let (rest, end) = read_all(&mut peer);
        end.unwrap();
        [first, rest].concat()
    });
    assert_same(&got, &pattern(5_000_000));
    s.until("it is over", || seen.closed());
    assert_eq!(seen.why(), "closed");
}

/// In either order, with and without a queue; no handler says `close`.
fn a_connection_whose_both_halves_have_ended_is_over(backend: Backend) {
    let mut s = Server::new(backend);
    for queue in [0, 10, if is_simulated() { 900_000 } else { 4_000_000 }] {
        for ours_first in [true, false] {
            let mut probe = Probe::new().deaf_to_eof();
            if !ours_first {
                probe = probe.on_eof(move |conn| {
                    conn.write(&pattern(queue));
                    conn.shutdown_write();
                });
            }
            let (mut peer, seen) = s.pair(probe.on_notify(move |conn| {
                conn.write(&pattern(queue));
                conn.shutdown_write();
            }));
            if ours_first {
                s.h.notify(seen.id()).unwrap();
                s.turns(3);
            }
            peer.shutdown(Shutdown::Write).unwrap();
            let reader = blocking::spawn(move || read_all(&mut peer));
            s.until("it is over", || seen.closed());
            let (got, end) = reader.join().unwrap();
            assert_same(&got, &pattern(queue));
            assert!(end.is_ok());
            assert_eq!(
                (seen.why(), seen.eof.get()),
                ("closed", 1),
                "queue {queue}, ours first: {ours_first}"
            );
        }
    }
}

fn close_after_the_end_of_the_write_half(backend: Backend) {
    let mut s = Server::new(backend);
    for queue in [0, 3_000_000] {
        let (mut peer, seen) = s.pair(Probe::new().on_data(move |conn, _| {
            conn.write(&pattern(queue));
            conn.shutdown_write();
            conn.close();
        }));
        let got = s.serve(move |_| {
            peer.write_all(b"go").unwrap();
            let (all, end) = read_all(&mut peer);
            end.unwrap();
            all
        });
        assert_same(&got, &pattern(queue));
        s.until("it is over", || seen.closed());
        assert_eq!(seen.why(), "closed");
    }
}

fn nothing_is_written_after_the_end_of_the_write_half(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| {
        assert_eq!(conn.write(b"last"), Flow::Go);
        conn.shutdown_write();
        assert_eq!(conn.write(b"never"), Flow::Closed);
        assert_eq!(conn.send(&b"never"[..].into()), Flow::Closed);
    }));
    peer.write_all(b"go").unwrap();
    s.until("it was asked", || seen.chunks.get() == 1);
    s.turns(2);
    assert_eq!(s.h.write(seen.id(), b"never"), Ok(Flow::Closed));
    assert_eq!(read_all(&mut peer).0, b"last");
    drop(peer);
    s.until("it is over", || seen.closed());
    assert_eq!(s.h.stats().panics, 0);
}
