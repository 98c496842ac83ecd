//! A connection changes its model: from callbacks to a stream and back, with everything that it holds.

use std::cell::RefCell;
use std::io::Write;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{ConnectOptions, Pool, Stream};
use evenkeel::sim::blocking;
use evenkeel::{Backend, Flow};

use crate::support::{Probe, Seen, Server, assert_same, exactly, pattern, read_all};

on_every_kernel! {
    i43_a_detached_connection_keeps_its_unread_bytes,
    i43_a_detached_connection_keeps_its_queued_writes,
    i43_corked_writes_go_with_a_detached_connection,
    i43_an_adopted_stream_delivers_its_unread_bytes_first,
    i43_an_adopted_stream_sends_what_it_had_queued_first,
    i43_bytes_that_arrive_at_every_moment_of_a_round_trip,
    i43_an_end_that_the_stream_has_read_is_heard_by_the_handler,
    i43_an_end_that_the_handler_has_heard_is_read_by_the_stream,
    i43_the_end_of_the_write_half_goes_with_a_detached_connection,
    i43_a_firehose_changes_hands,
    i43_a_full_read_before_a_detach_hides_nothing,
    i29_an_adopted_stream_that_is_paused_with_unread_bytes_does_not_spin,
    i43_a_resume_in_the_same_batch_keeps_the_order,
    ids_are_stale_after_a_detach,
    a_closing_connection_cannot_be_detached,
    a_descriptor_can_be_taken_out_and_put_back,
}

type Slot = Rc<RefCell<Option<Stream>>>;

/// A probe that becomes a stream, with the bytes of the call from `used` on.
fn becomes_a_stream(used: usize) -> (Probe, Slot) {
    let slot: Slot = Rc::default();
    let place = slot.clone();
    let probe = Probe::new().on_data(move |conn, bytes| {
        *place.borrow_mut() = conn.detach(&bytes[used.min(bytes.len())..]);
        assert_eq!(conn.write(b"never"), Flow::Closed);
        assert!(conn.detach(b"").is_none());
    });
    (probe, slot)
}

fn adopt(pool: &Pool<Probe>, stream: Stream, probe: Probe, unread: &[u8]) -> Rc<Seen> {
    let seen = probe.seen.clone();
    assert!(pool.adopt(stream, probe, unread).is_ok());
    seen
}

async fn read_some(stream: &mut Stream, len: usize) -> Vec<u8> {
    let mut all = vec![0; len];
    stream.read_exact(&mut all).await.unwrap();
    all
}

fn i43_a_detached_connection_keeps_its_unread_bytes(backend: Backend) {
    let mut s = Server::new(backend);
    let (probe, slot) = becomes_a_stream(4);
    let (mut peer, seen) = s.pair(probe);
    peer.write_all(b"GET /upgrade").unwrap();
    s.until("it was detached", || slot.borrow().is_some());
    peer.write_all(b" and more").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let mut stream = slot.take().unwrap();
    let all = s.events.block_on(async {
        let mut all = Vec::new();
        // In small pieces, lent ones and own ones.
        loop {
            let mut few = [0; 3];
            let n = stream.read(&mut few).await.unwrap();
            all.extend_from_slice(&few[..n]);
            match stream.read_with(|bytes, _| bytes.to_vec()).await.unwrap() {
                Some(bytes) => all.extend(bytes),
                None => return all,
            }
        }
    });
    assert_eq!(all.unwrap(), b"/upgrade and more");
    assert_eq!((seen.closed(), seen.dropped.get(), s.pool.len()), (false, true, 0));
}

fn i43_a_detached_connection_keeps_its_queued_writes(backend: Backend) {
    let mut s = Server::new(backend);
    let slot: Slot = Rc::default();
    let place = slot.clone();
    let (mut peer, _) = s.pair(Probe::new().on_data(move |conn, _| {
        conn.write(&pattern(9_000_000));
        *place.borrow_mut() = conn.detach(b"");
    }));
    peer.write_all(b"go").unwrap();
    s.until("it was detached", || slot.borrow().is_some());
    let mut stream = slot.take().unwrap();
    let reader = blocking::spawn(move || read_all(&mut peer));
    s.events
        .block_on(async move {
            stream.write_all(b"and then").await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .unwrap();
    s.turns(3);
    assert_same(&reader.join().unwrap().0, &[&pattern(9_000_000)[..], b"and then"].concat());
}

fn i43_corked_writes_go_with_a_detached_connection(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut other, _) = s.pair(Probe::echo());
    let slot: Slot = Rc::default();
    let place = slot.clone();
    let (mut peer, _) = s.pair(Probe::new().on_data(move |conn, _| {
        conn.write(b"101 ");
        conn.write(b"Switching ");
        let mut stream = conn.detach(b"").unwrap();
        stream.send(&evenkeel::Message::from("Protocols"));
        *place.borrow_mut() = Some(stream);
    }));
    other.write_all(b"ping").unwrap();
    peer.write_all(b"go").unwrap();
    assert_eq!(s.answer(&mut peer, 23), b"101 Switching Protocols");
    assert_eq!(exactly(&mut other, 4), b"ping");
    assert!(slot.take().is_some());
}

fn i43_an_adopted_stream_delivers_its_unread_bytes_first(backend: Backend) {
    let mut s = Server::new(backend);
    let (probe, slot) = becomes_a_stream(0);
    let (mut peer, _) = s.pair(probe);
    peer.write_all(b"one two ").unwrap();
    s.until("it was detached", || slot.borrow().is_some());
    peer.write_all(b"three ").unwrap();
    let mut stream = slot.take().unwrap();
    let used = s.events.block_on(read_some(&mut stream, 4)).unwrap();
    assert_eq!(used, b"one ");
    // Three sources of bytes: given back by the owner, unread in the stream, and still in the kernel.
    let seen = adopt(&s.pool, stream, Probe::echo(), b"zero ");
    assert!(!seen.opened.get(), "never inside the call");
    peer.write_all(b"four").unwrap();
    s.until("all was heard", || seen.text() == "zero two three four");
    assert_eq!(s.answer(&mut peer, 19), b"zero two three four");
}

fn i43_an_adopted_stream_sends_what_it_had_queued_first(backend: Backend) {
    let mut s = Server::new(backend);
    let (probe, slot) = becomes_a_stream(0);
    let (mut peer, _) = s.pair(probe);
    peer.write_all(b"x").unwrap();
    s.until("it was detached", || slot.borrow().is_some());
    let mut stream = slot.take().unwrap();
    // More than the kernel takes, in messages of less than a stream's own cap.
    let message = evenkeel::Message::from(pattern(300_000));
    let mut sent = 0;
    while stream.send(&message) == Flow::Go {
        sent += 1;
        s.turns(1);
    }
    sent += 1;
    let seen = adopt(
        &s.pool,
        stream,
        Probe::new().on_open(|conn| {
            conn.write(b"opened");
            conn.close();
        }),
        b"",
    );
    let reader = blocking::spawn(move || read_all(&mut peer));
    s.until("it is over", || seen.closed());
    assert_same(&reader.join().unwrap().0, &[message.repeat(sent), b"opened".to_vec()].concat());
    assert_eq!(seen.why(), "closed");
}

/// The peer's bytes are cut at every place, and one turn lies between any two steps, in every combination.
fn i43_bytes_that_arrive_at_every_moment_of_a_round_trip(backend: Backend) {
    let mut s = Server::new(backend);
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let sent = pattern(rng.usize(10..400));
        let mut cuts: Vec<_> = (0..6).map(|_| rng.usize(0..sent.len())).collect();
        cuts.extend([0, sent.len()]);
        cuts.sort_unstable();
        let mut pieces = cuts.windows(2).map(|w| w[0]..w[1]);
        let keep = rng.usize(0..5);
        let (probe, slot) = becomes_a_stream(keep);
        let (mut peer, seen) = s.pair(probe);
        let mut got = Vec::new();
        let mut step = |s: &mut Server, rng: &mut fastrand::Rng| {
            if let Some(piece) = pieces.next() {
                peer.write_all(&sent[piece]).unwrap();
            }
            s.turns(rng.usize(0..3));
        };
        while slot.borrow().is_none() {
            step(&mut s, &mut rng);
        }
        let mut stream = slot.take().unwrap();
        got.extend_from_slice(&seen.data.borrow()[..keep.min(seen.len())]);
        step(&mut s, &mut rng);
        if rng.bool() {
            let mut few = vec![0; rng.usize(1..20)];
            let read = evenkeel::time::timeout(Duration::ZERO, stream.read(&mut few));
            if let Ok(n) = s.events.block_on(read).unwrap() {
                got.extend_from_slice(&few[..n.unwrap()]);
            }
        }
        step(&mut s, &mut rng);
        let paused = rng.bool();
        let probe = if paused { Probe::new().on_open(|conn| conn.pause()) } else { Probe::new() };
        let back = adopt(&s.pool, stream, probe, b"");
        step(&mut s, &mut rng);
        s.until("it is open", || back.opened.get());
        step(&mut s, &mut rng);
        if paused {
            assert_eq!(back.len(), 0);
            s.h.resume(back.id()).unwrap();
        }
        (0..8).for_each(|_| step(&mut s, &mut rng));
        let want = sent.len() - got.len();
        s.until("all was heard", || back.len() >= want);
        got.extend_from_slice(&back.data.borrow());
        assert_same(&got, &sent);
    }
}

fn i43_an_end_that_the_stream_has_read_is_heard_by_the_handler(backend: Backend) {
    let mut s = Server::new(backend);
    let (probe, slot) = becomes_a_stream(0);
    let (mut peer, _) = s.pair(probe);
    peer.write_all(b"last").unwrap();
    s.until("it was detached", || slot.borrow().is_some());
    peer.shutdown(Shutdown::Write).unwrap();
    let mut stream = slot.take().unwrap();
    let read = s.events.block_on(async {
        let bytes = read_some(&mut stream, 4).await;
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        bytes
    });
    let seen = adopt(&s.pool, stream, Probe::new(), &read.unwrap());
    s.until("it heard everything", || seen.closed());
    assert_eq!((seen.text().as_str(), seen.eof.get()), ("last", 1));
}

fn i43_an_end_that_the_handler_has_heard_is_read_by_the_stream(backend: Backend) {
    let mut s = Server::new(backend);
    let slot: Slot = Rc::default();
    let place = slot.clone();
    let (peer, _) = s.pair(Probe::new().on_eof(move |conn| *place.borrow_mut() = conn.detach(b"tail")));
    peer.shutdown(Shutdown::Write).unwrap();
    s.until("it was detached", || slot.borrow().is_some());
    let mut stream = slot.take().unwrap();
    let (tail, end) = s
        .events
        .block_on(async { (read_some(&mut stream, 4).await, stream.read(&mut [0; 8]).await.unwrap()) })
        .unwrap();
    assert_eq!((&tail[..], end), (&b"tail"[..], 0));
}

fn i43_the_end_of_the_write_half_goes_with_a_detached_connection(backend: Backend) {
    let mut s = Server::new(backend);
    for queue in [0, 3_000_000] {
        let slot: Slot = Rc::default();
        let place = slot.clone();
        let (mut peer, _) = s.pair(Probe::new().on_data(move |conn, _| {
            conn.write(&pattern(queue));
            conn.shutdown_write();
            *place.borrow_mut() = conn.detach(b"");
        }));
        let got = s.serve(move |_| {
            peer.write_all(b"go").unwrap();
            let (all, end) = read_all(&mut peer);
            end.unwrap();
            all
        });
        assert_same(&got, &pattern(queue));
        assert!(slot.take().is_some());
    }
}

/// Its budget was used up and it waits for its next turn when it changes hands, twice.
fn i43_a_firehose_changes_hands(backend: Backend) {
    let mut s = Server::new(backend);
    let slot: Slot = Rc::default();
    let place = slot.clone();
    let (mut peer, seen) = s.pair(Probe::new().on_notify(move |conn| *place.borrow_mut() = conn.detach(b"")));
    let sent = pattern(4_000_000);
    let bytes = sent.clone();
    let thread = blocking::spawn(move || {
        peer.write_all(&bytes).unwrap();
        peer
    });
    s.until("it flows", || seen.len() > 100_000);
    s.h.notify(seen.id()).unwrap();
    s.until("it was detached", || slot.borrow().is_some());
    let back = adopt(&s.pool, slot.take().unwrap(), Probe::new(), b"");
    let left = sent.len() - seen.len();
    s.until("all was heard", || back.len() == left);
    assert_same(&[&seen.data.borrow()[..], &back.data.borrow()].concat(), &sent);
    drop(thread.join());
    s.until("the end was heard", || back.closed());
}

fn i43_a_full_read_before_a_detach_hides_nothing(backend: Backend) {
    let mut s = Server::new(backend);
    for extra in [0, 1, 70_000] {
        let (probe, slot) = becomes_a_stream(usize::MAX);
        let (mut peer, seen) = s.pair(probe);
        s.turns(2);
        let sent = pattern((64 << 10) + extra);
        peer.write_all(&sent).unwrap();
        s.until("it was detached", || slot.borrow().is_some());
        let mut stream = slot.take().unwrap();
        let left = sent.len() - seen.len();
        let rest = s.events.block_on(read_some(&mut stream, left)).unwrap();
        assert_same(&[&seen.data.borrow()[..], &rest].concat(), &sent);
    }
}

fn i29_an_adopted_stream_that_is_paused_with_unread_bytes_does_not_spin(backend: Backend) {
    let mut s = Server::new(backend);
    let (probe, slot) = becomes_a_stream(0);
    let (mut peer, _) = s.pair(probe);
    peer.write_all(b"unread").unwrap();
    s.until("it was detached", || slot.borrow().is_some());
    let seen = adopt(&s.pool, slot.take().unwrap(), Probe::new().on_open(|conn| conn.pause()), b"");
    peer.write_all(b" and more").unwrap();
    s.until("it is open", || seen.opened.get());
    let turns = s.turns_in(Duration::from_millis(50));
    assert!(turns < 20, "{turns} turns in silence");
    assert_eq!(seen.len(), 0);
    s.h.resume(seen.id()).unwrap();
    s.until("all was heard", || seen.text() == "unread and more");
}

/// Bytes of the kernel are in the same batch as the call that resumes a connection with unread ones.
fn i43_a_resume_in_the_same_batch_keeps_the_order(backend: Backend) {
    let mut s = Server::new(backend);
    for _ in 0..2 {
        let (probe, slot) = becomes_a_stream(0);
        let resumes = Rc::new(RefCell::new(None));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let target = resumes.clone();
                s.pair(Probe::new().on_data(move |conn, _| {
                    conn.handle().resume(target.borrow().unwrap()).unwrap();
                }))
            })
            .collect();
        let (mut peer, _) = s.pair(probe);
        peer.write_all(b"first ").unwrap();
        s.until("it was detached", || slot.borrow().is_some());
        let quiet = Probe::new().on_open(|conn| {
            conn.message_done();
            conn.pause();
        });
        let seen = adopt(&s.pool, slot.take().unwrap(), quiet, b"");
        s.until("it is open", || seen.opened.get());
        s.turns(5);
        *resumes.borrow_mut() = Some(seen.id());
        for (other, _) in &others {
            (&*other).write_all(b"go").unwrap();
        }
        peer.write_all(b"second").unwrap();
        s.until("all was heard", || seen.len() == 12);
        assert_eq!(seen.text(), "first second");
    }
}

fn ids_are_stale_after_a_detach(backend: Backend) {
    let mut s = Server::new(backend);
    let (probe, slot) = becomes_a_stream(0);
    let (mut peer, seen) = s.pair(probe);
    let old = seen.id();
    s.h.notify(old).unwrap();
    s.turns(2);
    peer.write_all(b"x").unwrap();
    s.until("it was detached", || slot.borrow().is_some());
    assert!(!s.h.is_open(old) && s.h.close(old).is_err() && s.h.notify(old).is_err());
    let back = adopt(&s.pool, slot.take().unwrap(), Probe::new(), b"");
    s.until("it is open", || back.opened.get());
    assert!(!s.h.is_open(old) && s.h.is_open(back.id()));
}

fn a_closing_connection_cannot_be_detached(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, bytes| {
        conn.close();
        assert!(conn.detach(bytes).is_none());
    }));
    peer.write_all(b"x").unwrap();
    s.until("it is over", || seen.closed());
    assert_eq!((seen.why(), s.h.stats().panics), ("closed", 0));
}

fn a_descriptor_can_be_taken_out_and_put_back(backend: Backend) {
    let mut s = Server::new(backend);
    let listener = blocking::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let sources = s.h.stats().sources;
    let fd = s
        .events
        .block_on(async {
            let mut stream = Stream::connect_with(at, &ConnectOptions::default()).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.into_fd().unwrap()
        })
        .unwrap();
    assert_eq!(s.h.stats().sources, sources, "the loop has forgotten it");
    let (mut peer, _) = listener.accept().unwrap();
    assert_eq!(exactly(&mut peer, 5), b"hello");
    let stream = s.events.block_on(async { Stream::from_fd(fd).unwrap() }).unwrap();
    let seen = adopt(&s.pool, stream, Probe::echo(), b"");
    peer.write_all(b"ping").unwrap();
    s.until("it was heard", || seen.len() == 4);
    assert_eq!(s.answer(&mut peer, 4), b"ping");
}
