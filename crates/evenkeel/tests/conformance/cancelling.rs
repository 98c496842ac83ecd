//! Futures and streams that are dropped before their time: nothing is lost, doubled or left behind.

use std::future::Future;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use evenkeel::sim::{blocking, is_simulated};
use evenkeel::{Backend, Flow, Message, task, time};

use crate::asynchronous::{fill, once, pair};
use crate::support::{assert_same, event_loop, pattern, read_all, reset_on_close, until};

on_every_kernel! {
    cancelled_reads_lose_nothing,
    cancelled_writes_write_nothing,
    a_cancelled_flush_or_shutdown_can_be_tried_again,
    a_dropped_stream_flushes_what_it_has_queued,
    i30_a_dropped_stream_waits_for_a_peer_that_is_still_sending,
    a_stream_dropped_while_the_peer_resets,
    an_aborted_stream_resets,
    i41_a_stream_that_queues_without_waiting_is_ended,
    streams_outlive_their_loop,
}

fn cancelled_reads_lose_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let sent = pattern(500_000);
    let bytes = sent.clone();
    let thread = blocking::spawn(move || {
        for chunk in bytes.chunks(3001) {
            peer.write_all(chunk).unwrap();
        }
    });
    let got = events.block_on(async {
        let mut rng = fastrand::Rng::with_seed(35);
        let (mut all, mut few) = (Vec::new(), vec![0; 5000]);
        loop {
            let most = rng.usize(1..5000);
            let step = match rng.u8(..3) {
                0 => once(stream.read(&mut few[..most])).await.map(|n| few[..n.unwrap()].to_vec()),
                1 => once(stream.read_with(|bytes, _| bytes.to_vec()))
                    .await
                    .map(|b| b.unwrap().unwrap_or_default()),
                _ => {
                    let (mut half, _) = stream.split();
                    once(half.read(&mut few[..most])).await.map(|n| few[..n.unwrap()].to_vec())
                }
            };
            match step {
                Some(bytes) if bytes.is_empty() => return all,
                Some(bytes) => all.extend(bytes),
                // Cancelled: the loop must go on for more to come.
                None => task::yield_now().await,
            }
        }
    });
    thread.join().unwrap();
    assert_same(&got.unwrap(), &sent);
}

fn cancelled_writes_write_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let thread = blocking::spawn(move || read_all(&mut peer).0);
    let sent = pattern(if is_simulated() { 2_000_000 } else { 8_000_000 });
    events
        .block_on(async {
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let most = rest.len().min(300_000);
                match once(stream.write(&rest[..most])).await {
                    Some(n) => rest = &rest[n.unwrap()..],
                    None => task::yield_now().await,
                }
            }
            stream.shutdown().await.unwrap();
        })
        .unwrap();
    assert_same(&thread.join().unwrap(), &sent);
}

fn a_cancelled_flush_or_shutdown_can_be_tried_again(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let sent = events
        .block_on(async {
            let filled = fill(&mut stream).await;
            stream.send(&Message::from(pattern(50_000)));
            assert!(once(stream.flush()).await.is_none());
            assert!(once(stream.shutdown()).await.is_none());
            filled
        })
        .unwrap();
    let thread = blocking::spawn(move || read_all(&mut peer));
    events
        .block_on(async {
            while once(stream.flush()).await.is_none() {
                time::sleep(Duration::from_millis(1)).await;
            }
            once(stream.shutdown()).await.expect("nothing is queued").unwrap();
            stream.shutdown().await.unwrap();
        })
        .unwrap();
    let (got, end) = thread.join().unwrap();
    end.unwrap();
    assert_eq!(got.len(), sent + 50_000);
    assert_same(&got[sent..], &pattern(50_000));
}

fn a_dropped_stream_flushes_what_it_has_queued(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let sources = events.handle().stats().sources;
    let filled = events
        .block_on(async move {
            let filled = fill(&mut stream).await;
            stream.send(&Message::from(pattern(400_000)));
            filled
        })
        .unwrap();
    let thread = blocking::spawn(move || read_all(&mut peer));
    let h = events.handle();
    until(&mut events, "it is released", || h.stats().sources == sources - 1);
    let (got, end) = thread.join().unwrap();
    end.unwrap();
    assert_eq!(got.len(), filled + 400_000);
    assert_same(&got[filled..], &pattern(400_000));
    // What was only lent an answer, as well.
    let (mut stream, mut peer) = pair(&mut events);
    peer.write_all(b"go").unwrap();
    events.block_on(async move { drop(stream.read_with(|_, reply| reply.write(b"bye")).await) }).unwrap();
    events.poll().unwrap();
    assert_eq!(read_all(&mut peer).0, b"bye");
}

/// Closing a socket with unread bytes resets the connection, and a reset can destroy what was just sent.
fn i30_a_dropped_stream_waits_for_a_peer_that_is_still_sending(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let h = events.handle();
    let (sources, started) = (h.stats().sources, h.now());
    // As much as the kernel's buffers hold.
    let len = if is_simulated() { 300_000 } else { 500_000 };
    peer.write_all(&pattern(len)).unwrap();
    events.block_on(async { stream.write_all(b"enough, thank you").await.unwrap() }).unwrap();
    drop(stream);
    let thread = blocking::spawn(move || {
        peer.write_all(&pattern(500_000)).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        read_all(&mut peer)
    });
    until(&mut events, "it is released", || h.stats().sources == sources - 1);
    let (got, end) = thread.join().unwrap();
    assert!(end.is_ok(), "the peer was not reset: {end:?}");
    assert_eq!(got, b"enough, thank you");
    assert!(
        h.now() - started < Duration::from_secs(4),
        "released by the peer's end, not by the deadline of 5 s"
    );
}

fn a_stream_dropped_while_the_peer_resets(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let sources = h.stats().sources;
    let started = h.now();
    for queued in [0, 400_000] {
        let (mut stream, peer) = pair(&mut events);
        events
            .block_on(async {
                fill(&mut stream).await;
                stream.send(&Message::from(pattern(queued)));
            })
            .unwrap();
        reset_on_close(&peer);
        drop(stream);
        drop(peer);
        until(&mut events, "it is released", || h.stats().sources == sources);
    }
    assert!(h.now() - started < Duration::from_secs(4), "released by the reset, not by the deadline of 5 s");
}

fn an_aborted_stream_resets(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    events
        .block_on(async move {
            stream.send(&Message::from("never sent"));
            stream.abort();
        })
        .unwrap();
    events.poll().unwrap();
    let (got, end) = read_all(&mut peer);
    assert_eq!((got, end.unwrap_err().kind()), (vec![], ErrorKind::ConnectionReset));
}

fn i41_a_stream_that_queues_without_waiting_is_ended(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    events
        .block_on(async move {
            let (message, mut held, mut taken) = (Message::from(pattern(10_000)), false, 0);
            loop {
                match stream.send(&message) {
                    Flow::Go => assert!(!held, "Hold is answered until it is flushed"),
                    Flow::Hold => held = true,
                    Flow::Closed => break,
                }
                taken += 10_000;
                task::yield_now().await;
            }
            assert!(held && taken < 64 << 20, "{taken} bytes were taken");
            assert_eq!(stream.flush().await.unwrap_err().kind(), ErrorKind::QuotaExceeded);
            // Bytes are missing from here on, so nothing more may be sent.
            assert_eq!(stream.send(&message), Flow::Closed);
            assert_eq!(stream.write(b"after a gap").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(stream.shutdown().await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            drop(stream);
        })
        .unwrap();
    let thread = blocking::spawn(move || read_all(&mut peer));
    let h = events.handle();
    until(&mut events, "it is released", || h.stats().sources == 0);
    let (got, end) = thread.join().unwrap();
    let message = pattern(10_000);
    got.chunks(10_000).for_each(|chunk| assert_same(chunk, &message[..chunk.len()]));
    assert!(end.is_err(), "a stream with a gap does not end as a whole one does");
}

fn streams_outlive_their_loop(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    drop(events);
    assert!(read_all(&mut peer).0.is_empty());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(pin!(stream.read(&mut [0; 4])).poll(&mut cx), Poll::Ready(Err(_))));
    assert!(matches!(pin!(stream.write(b"x")).poll(&mut cx), Poll::Ready(Err(_))));
    assert_eq!(stream.send(&Message::from("x")), Flow::Closed);
    assert!(stream.peer_addr().is_err());
    assert!(stream.into_fd().is_err());
}
