//! Who owns memory, bytes and descriptors while the kernel works: what is written may be overwritten at once, what
//! came reaches its own connection and no other, and numbers are free again only when nothing is in flight.

use std::cell::RefCell;
use std::future::Future;
use std::io::{Read, Write};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use evenkeel::net::{ListenOptions, Stream};
use evenkeel::sim::blocking::{self, TcpStream};
use evenkeel::{Backend, Message, task};

use crate::asynchronous::{once, pair, read_to_end};
use crate::support::{Probe, Server, assert_same, event_loop, exactly, no_limits, pattern, read_all, until};

on_every_kernel! {
    i09_a_handlers_memory_is_its_own_again_after_each_write,
    i09_a_tasks_memory_is_its_own_again_after_each_write,
    i09_echoed_bytes_are_sent_before_their_memory_is_used_again,
    i09_reads_dropped_after_any_poll_lose_nothing,
    i09_writes_dropped_after_any_poll_write_nothing_more,
    i43_an_echo_that_is_followed_by_a_change_of_owner_is_sent,
    i43_a_task_that_echoes_and_hands_over_is_heard,
    i11_a_pause_while_the_peer_reads_nothing_is_taken_back,
    i11_a_stream_that_is_flooded_both_ways_goes_on,
    i41_a_task_that_does_not_read_stops_its_peer_and_nobody_else,
    i41_a_paused_handler_stops_its_peer_and_nobody_else,
    i43_a_flooded_connection_changes_its_owner_again_and_again,
    i43_parts_of_a_flooded_stream_hold_all_of_its_bytes,
}

/// Sizes on both sides of each border between ways to send.
const SIZES: [usize; 9] = [64, 2047, 2048, 4096, 16_383, 16_384, 65_536, 300_000, 1 << 20];

/// What [`SIZES`] send, all together.
fn all_sizes() -> Vec<u8> {
    SIZES.iter().flat_map(|size| pattern(size * 3)).collect()
}

/// Reads a little, and then all.
fn read_slowly(peer: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    for len in [1, 10, 100, 1000] {
        all.extend(exactly(peer, len));
    }
    let (rest, end) = read_all(peer);
    end.unwrap();
    all.extend(rest);
    all
}

fn i09_a_handlers_memory_is_its_own_again_after_each_write(backend: Backend) {
    let mut s = Server::new(backend);
    let (peer, seen) = s.pair(Probe::new().on_data(|conn, _| {
        for size in SIZES {
            let all = pattern(size * 3);
            let mut memory = vec![0; size];
            for piece in all.chunks(size) {
                memory.copy_from_slice(piece);
                conn.write(&memory);
                memory.fill(0xdd);
            }
        }
        conn.close();
    }));
    let got = s.serve(move |_| {
        let mut peer = peer;
        peer.write_all(b"go").unwrap();
        read_slowly(&mut peer)
    });
    assert_same(&got, &all_sizes());
    s.until("it is closed", || seen.closed());
}

fn i09_a_tasks_memory_is_its_own_again_after_each_write(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let thread = blocking::spawn(move || read_slowly(&mut peer));
    events
        .block_on(async move {
            for size in SIZES {
                let all = pattern(size * 3);
                let mut memory = vec![0; size];
                for (i, piece) in all.chunks(size).enumerate() {
                    memory.copy_from_slice(piece);
                    match i {
                        0 => stream.write_all(&memory).await.unwrap(),
                        1 => {
                            let mut sent = 0;
                            while sent < size {
                                sent += stream.write(&memory[sent..]).await.unwrap();
                                memory[..sent].fill(0xdd);
                            }
                        }
                        _ => {
                            stream.send(&Message::from(memory.clone()));
                            memory.fill(0xdd);
                            stream.flush().await.unwrap();
                        }
                    }
                    memory.fill(0xdd);
                }
            }
            stream.shutdown().await.unwrap();
            read_to_end(&mut stream).await;
        })
        .unwrap();
    assert_same(&thread.join().unwrap(), &all_sizes());
}

/// Bytes that are written back lie where the kernel has put them, and it puts others there afterwards.
fn i09_echoed_bytes_are_sent_before_their_memory_is_used_again(backend: Backend) {
    let mut s = Server::new(backend);
    let pairs: Vec<_> = (0..8).map(|_| s.pair(Probe::echo())).collect();
    let peers: Vec<_> = pairs.iter().map(|(peer, _)| peer.try_clone().unwrap()).collect();
    s.serve(move |_| {
        let threads: Vec<_> = (0u8..)
            .zip(peers)
            .map(|(label, mut peer)| {
                blocking::spawn(move || {
                    let mut writer = peer.try_clone().unwrap();
                    let writing = blocking::spawn(move || {
                        for len in [100, 3000, 20_000, 60_000].into_iter().cycle().take(20) {
                            writer.write_all(&vec![label; len]).unwrap();
                        }
                    });
                    let got = exactly(&mut peer, 5 * (100 + 3000 + 20_000 + 60_000));
                    assert!(got.iter().all(|byte| *byte == label), "bytes of another connection came");
                    writing.join().unwrap();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Polls at most `polls` times, and then drops the future.
async fn polled<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), polls);
    std::future::poll_fn(|cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn i09_reads_dropped_after_any_poll_lose_nothing(backend: Backend) {
    for polls in 1..4 {
        let mut events = event_loop(backend);
        let (mut stream, mut peer) = pair(&mut events);
        let sent = pattern(600_000);
        let bytes = sent.clone();
        let thread = blocking::spawn(move || {
            let mut rest = &bytes[..];
            for len in [1, 700, 5000, 70_000].into_iter().cycle() {
                let (piece, after) = rest.split_at(len.min(rest.len()));
                peer.write_all(piece).unwrap();
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
        });
        let read = async {
            let (mut all, mut memory, mut i) = (Vec::new(), vec![0; 9000], 0);
            loop {
                i += 1;
                let step = if i % 2 == 0 {
                    let most = 1 + i * 37 % 9000;
                    polled(polls, stream.read(&mut memory[..most]))
                        .await
                        .map(|n| memory[..n.unwrap()].to_vec())
                } else {
                    let lent = polled(polls, stream.read_with(|bytes, _| bytes.to_vec())).await;
                    lent.map(|bytes| bytes.unwrap().unwrap_or_default())
                };
                // Another's memory now.
                memory.fill(0xdd);
                match step {
                    Some(bytes) if bytes.is_empty() => return all,
                    Some(bytes) => all.extend(bytes),
                    None => task::yield_now().await,
                }
            }
        };
        let got = events.block_on(read).unwrap();
        thread.join().unwrap();
        assert_same(&got, &sent);
    }
}

fn i09_writes_dropped_after_any_poll_write_nothing_more(backend: Backend) {
    let (sent, tail) = (pattern(6_000_000), pattern(5_000_000));
    for polls in 1..5 {
        let mut events = event_loop(backend);
        let (mut stream, mut peer) = pair(&mut events);
        let thread = blocking::spawn(move || read_slowly(&mut peer));
        let written = events
            .block_on(async {
                let mut written = 0;
                while written < sent.len() {
                    let most = (sent.len() - written).min(300_000);
                    let mut memory = sent[written..written + most].to_vec();
                    if let Some(n) = polled(polls, stream.write(&memory)).await {
                        written += n.unwrap();
                    } else {
                        task::yield_now().await;
                    }
                    memory.fill(0xdd);
                    let _ = polled(polls, stream.flush()).await;
                }
                // Nobody knows how much of this was written, but it is in order, and what follows comes after it.
                let whole = polled(polls, stream.write_all(&tail)).await.is_some();
                stream.write_all(b"the end").await.unwrap();
                stream.shutdown().await.unwrap();
                read_to_end(&mut stream).await;
                whole
            })
            .unwrap();
        let got = thread.join().unwrap();
        let (first, rest) = got.split_at(sent.len());
        assert_same(first, &sent);
        let (begun, end) = rest.split_at(rest.len() - 7);
        assert_same(begun, &tail[..begun.len()]);
        assert_eq!(end, b"the end");
        assert!(!written || begun.len() == tail.len());
    }
}

fn i43_an_echo_that_is_followed_by_a_change_of_owner_is_sent(backend: Backend) {
    for len in [100, 5000, 30_000] {
        let mut s = Server::new(backend);
        let place: Rc<RefCell<Option<Stream>>> = Rc::default();
        let into = place.clone();
        let probe = Probe::new().on_data(move |conn, bytes| {
            conn.write(bytes);
            *into.borrow_mut() = conn.detach(b"");
        });
        let (mut peer, seen) = s.pair(probe);
        peer.write_all(&pattern(len)).unwrap();
        s.until("it was passed on", || place.borrow().is_some());
        let first = seen.len();
        let mut stream = place.take().unwrap();
        let rest = len - first;
        s.events
            .block_on(async move {
                let mut more = vec![0; rest];
                stream.read_exact(&mut more).await.unwrap();
                stream.write_all(&more).await.unwrap();
                stream.write_all(b"after").await.unwrap();
                stream.shutdown().await.unwrap();
                drop(stream);
                task::yield_now().await;
            })
            .unwrap();
        s.turns(3);
        let got = exactly(&mut peer, len + 5);
        assert_same(&got, &[&pattern(len)[..], b"after"].concat());
    }
}

fn i43_a_task_that_echoes_and_hands_over_is_heard(backend: Backend) {
    for len in [100, 5000, 30_000] {
        let mut s = Server::new(backend);
        let (mut stream, mut peer) = pair(&mut s.events);
        peer.write_all(&pattern(len)).unwrap();
        let pool = s.pool.clone();
        let probe = Probe::echo();
        let seen = probe.seen.clone();
        s.events
            .block_on(async move {
                let echoed = stream.read_with(|bytes, reply| {
                    reply.write(bytes);
                    bytes.len()
                });
                echoed.await.unwrap().unwrap();
                let _ = pool.adopt(stream, probe, b"");
            })
            .unwrap();
        s.until("the handler has it", || seen.opened.get());
        let h = s.h.clone();
        s.until("all was sent back", || h.stats().bytes_out as usize == len);
        assert_same(&exactly(&mut peer, len), &pattern(len));
        peer.write_all(b"more").unwrap();
        assert_eq!(s.answer(&mut peer, 4), b"more");
    }
}

/// Stopping to receive must not stop waiting for room, nor the other way round.
fn i11_a_pause_while_the_peer_reads_nothing_is_taken_back(backend: Backend) {
    const MUCH: usize = 3_000_000;
    let mut options = ListenOptions::default();
    options.send_buffer = Some(16 << 10);
    let mut s = Server::with(backend, no_limits(), options);
    let mut pairs: Vec<_> = (0..12).map(|_| s.pair(Probe::new())).collect();
    let much = pattern(MUCH);
    for round in 0..4 {
        for (peer, seen) in &mut pairs {
            s.h.write(seen.id(), &much[..if round == 0 { MUCH } else { 1 }]).unwrap();
            s.h.pause(seen.id()).unwrap();
            peer.write_all(b"one").unwrap();
        }
        s.turns(3);
        for (peer, seen) in &mut pairs {
            s.h.resume(seen.id()).unwrap();
            peer.write_all(b"two").unwrap();
        }
        let expected = (round + 1) * 6;
        s.until("all was heard", || pairs.iter().all(|(_, seen)| seen.len() == expected));
    }
    pairs.truncate(4);
    for (mut peer, seen) in pairs {
        let thread = blocking::spawn(move || (exactly(&mut peer, MUCH + 3), peer));
        let h = s.h.clone();
        s.until("all was sent", || h.queued(seen.id()) == Ok(0));
        let (got, peer) = thread.join().unwrap();
        assert_same(&got[..MUCH], &much);
        s.h.close(seen.id()).unwrap();
        drop(peer);
        s.until("it is closed", || seen.closed());
    }
    let pool = s.pool.clone();
    s.until("the others, whose peers are gone, as well", || pool.is_empty());
}

/// Much comes, nothing is read, and nothing can be sent: each of the two ends by itself.
fn i11_a_stream_that_is_flooded_both_ways_goes_on(backend: Backend) {
    const MUCH: usize = 8_000_000;
    let mut events = event_loop(backend);
    let all = Arc::new(pattern(MUCH));
    for _ in 0..4 {
        let (mut stream, mut peer) = pair(&mut events);
        let (mut writer, bytes) = (peer.try_clone().unwrap(), all.clone());
        let writing = blocking::spawn(move || writer.write_all(&bytes).unwrap());
        let mut sent = 0;
        // As much as the kernel takes while nobody reads.
        while let Some(n) = events.block_on(once(stream.write(&all[sent..]))).unwrap() {
            sent += n.unwrap();
            (0..3).for_each(|_| events.poll().unwrap());
        }
        let reading = blocking::spawn(move || exactly(&mut peer, MUCH));
        let (mut half, mut other) = stream.split();
        let write = async {
            other.write_all(&all[sent..]).await.unwrap();
            other.flush().await.unwrap();
        };
        let read = async {
            let (mut got, mut at) = (vec![0; MUCH], 0);
            while at < MUCH {
                at += half.read(&mut got[at..]).await.unwrap();
            }
            got
        };
        let ((), got) = events.block_on(join(write, read)).unwrap();
        assert_same(&got, &all);
        drop(stream);
        let h = events.handle();
        until(&mut events, "it is released", || h.stats().sources == 0);
        writing.join().unwrap();
        assert_same(&reading.join().unwrap(), &all);
    }
}

async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut left, mut right) = (None, None);
    std::future::poll_fn(|cx| {
        if left.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            left = Some(output);
        }
        if right.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            right = Some(output);
        }
        if left.is_some() && right.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (left.unwrap(), right.unwrap())
}

/// Writes without waiting, with turns between, until nothing is taken any more; returns how much was.
fn flood(s: &mut Server, peer: &mut TcpStream) -> usize {
    const ENOUGH: usize = 64 << 20;
    let (bytes, mut sent, mut refusals) = (pattern(1 << 20), 0, 0);
    peer.set_nonblocking(true).unwrap();
    while refusals < 50 && sent < ENOUGH {
        match peer.write(&bytes[sent % bytes.len()..]) {
            Ok(n) => (sent, refusals) = (sent + n, 0),
            Err(_) => {
                refusals += 1;
                s.turns(2);
            }
        }
    }
    peer.set_nonblocking(false).unwrap();
    assert!(sent < ENOUGH, "nothing stops the peer of a connection that is not read");
    sent
}

/// `sent` bytes as [`flood`] sends them.
fn flooded(sent: usize) -> Vec<u8> {
    pattern(1 << 20).iter().copied().cycle().take(sent).collect()
}

fn i41_a_task_that_does_not_read_stops_its_peer_and_nobody_else(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut friend, _) = s.pair(Probe::echo());
    let (mut stream, mut peer) = pair(&mut s.events);
    assert!(s.events.block_on(once(stream.read(&mut [0; 1]))).unwrap().is_none());
    let sent = flood(&mut s, &mut peer);
    friend.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut friend, 4), b"ping");
    assert!(s.turns_in(std::time::Duration::from_millis(30)) < 20, "a stopped stream is quiet");
    let mut got = vec![0; sent];
    s.events.block_on(stream.read_exact(&mut got)).unwrap().unwrap();
    assert_same(&got, &flooded(sent));
    // It goes on as if nothing had been.
    peer.write_all(b"again").unwrap();
    let mut again = [0; 5];
    s.events.block_on(stream.read_exact(&mut again)).unwrap().unwrap();
    assert_eq!(&again, b"again");
}

fn i41_a_paused_handler_stops_its_peer_and_nobody_else(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut friend, _) = s.pair(Probe::echo());
    let (mut peer, seen) = s.pair(Probe::new());
    s.h.pause(seen.id()).unwrap();
    let sent = flood(&mut s, &mut peer);
    assert_eq!(seen.len(), 0);
    friend.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut friend, 4), b"ping");
    assert!(s.turns_in(std::time::Duration::from_millis(30)) < 20, "a paused connection is quiet");
    s.h.resume(seen.id()).unwrap();
    s.until("all was heard", || seen.len() == sent);
    assert_same(&seen.data.borrow(), &flooded(sent));
    peer.write_all(b"again").unwrap();
    s.until("it goes on", || seen.len() == sent + 5);
}

/// A handler takes a few calls and passes the stream on, and a task reads a little and gives it back, each with half of
/// its last bytes, while more are on their way.
fn i43_a_flooded_connection_changes_its_owner_again_and_again(backend: Backend) {
    const MUCH: usize = 6_000_000;
    let mut s = Server::new(backend);
    let (mut stream, mut peer) = pair(&mut s.events);
    let writing = blocking::spawn(move || {
        peer.write_all(&pattern(MUCH)).unwrap();
        peer
    });
    let got: Rc<RefCell<Vec<u8>>> = Rc::default();
    for round in 0.. {
        let lent = s.events.block_on(stream.read_with(|bytes, _| bytes.to_vec())).unwrap();
        let lent = lent.unwrap().expect("the peer has not ended");
        let (ours, theirs) = lent.split_at(lent.len() / 2);
        got.borrow_mut().extend(ours);
        let place: Rc<RefCell<Option<Stream>>> = Rc::default();
        let (into, all, mut calls) = (place.clone(), got.clone(), 0);
        let probe = Probe::new().on_data(move |conn, bytes| {
            calls += 1;
            let last = calls > round % 4 && all.borrow().len() + bytes.len() < MUCH;
            let (ours, theirs) = bytes.split_at(if last { bytes.len() / 2 } else { bytes.len() });
            all.borrow_mut().extend(ours);
            if last {
                *into.borrow_mut() = conn.detach(theirs);
            }
        });
        assert!(s.pool.adopt(stream, probe, theirs).is_ok());
        s.until("it is passed on, or complete", || place.borrow().is_some() || got.borrow().len() == MUCH);
        match place.take() {
            Some(next) => stream = next,
            None => break,
        }
    }
    assert_same(&got.borrow(), &pattern(MUCH));
    drop(writing.join().unwrap());
}

fn i43_parts_of_a_flooded_stream_hold_all_of_its_bytes(backend: Backend) {
    const MUCH: usize = 3_000_000;
    let all: Arc<[u8]> = pattern(MUCH).into();
    for turns in 0..8 {
        let mut s = Server::new(backend);
        let (mut stream, mut peer) = pair(&mut s.events);
        let (begun, wait) = std::sync::mpsc::channel();
        let bytes = all.clone();
        let writing = blocking::spawn(move || {
            peer.write_all(&bytes[..50_000]).unwrap();
            begun.send(()).unwrap();
            peer.write_all(&bytes[50_000..]).unwrap();
        });
        blocking::until(|| wait.try_recv().ok());
        let mut got = vec![0; 10_000];
        s.events.block_on(stream.read_exact(&mut got)).unwrap().unwrap();
        s.turns(turns);
        let sources = s.h.stats().sources;
        let parts = s.events.block_on(async { stream.into_parts() }).unwrap().unwrap();
        assert_eq!(s.h.stats().sources, sources - 1);
        got.extend(&parts.unread);
        // The loop has nothing to do with it any more.
        s.turns(3);
        let mut raw = TcpStream::from_fd(parts.fd).unwrap();
        raw.set_nonblocking(false).unwrap();
        raw.read_to_end(&mut got).unwrap();
        assert_same(&got, &all);
        writing.join().unwrap();
    }
}
