//! Streams of tasks: every operation, cancelled and tried again, loses nothing.

use std::future::Future;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use evenkeel::net::{Stream, UnixStream};
use evenkeel::signal::{Signal, Signals};
use evenkeel::{Backend, EventLoop, Flow, Message, task, time};

use crate::support::{PEER, assert_same, event_loop, exactly, pattern, read_all, read_now, until};

on_every_backend! {
    i35_two_streams_of_one_loop_exchange_megabytes,
    i03_a_lent_answer_and_a_message_leave_while_the_peer_waits,
    flush_hands_everything_to_the_kernel,
    i30_flush_and_shutdown_do_not_wait_for_what_is_not_queued,
    writes_come_after_the_answers_before_them,
    cancelled_reads_lose_nothing,
    cancelled_writes_write_nothing,
    a_cancelled_flush_or_shutdown_can_be_tried_again,
    two_tasks_share_the_halves,
    halves_are_reunited_or_given_back,
    a_dropped_stream_flushes_what_it_has_queued,
    i30_a_dropped_stream_waits_for_a_peer_that_is_still_sending,
    a_stream_dropped_while_the_peer_resets,
    an_aborted_stream_resets,
    i41_a_stream_that_queues_without_waiting_is_ended,
    reading_and_writing_after_an_end,
    i31_a_reset_reaches_both_halves,
    streams_outlive_their_loop,
    i01_readiness_that_came_before_the_first_poll,
    i41_waiting_for_signals_again_and_again_keeps_one_waker,
    unix_streams_of_tasks,
}

/// A stream of the loop's and its raw peer.
fn pair(events: &mut EventLoop) -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let stream = events.block_on(Stream::connect(at)).unwrap().unwrap();
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(PEER)).unwrap();
    peer.set_write_timeout(Some(PEER)).unwrap();
    (stream, peer)
}

/// Polls once and drops the future: the operation is cancelled if it is not ready.
async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn read_to_end(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.read_with(|bytes, _| bytes.to_vec()).await.unwrap() {
        all.extend(bytes);
    }
    all
}

/// Fills the kernel's buffers of a stream, and says with how much.
async fn fill(stream: &mut Stream) -> usize {
    let (mut all, bytes) = (0, [7; 100_000]);
    while let Some(n) = once(stream.write(&bytes)).await {
        all += n.unwrap();
    }
    all
}

fn i35_two_streams_of_one_loop_exchange_megabytes(backend: Backend) {
    let mut events = event_loop(backend);
    let got = events.block_on(async {
        let mut listener = evenkeel::net::Listener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let client = evenkeel::spawn(async move {
            let (mut read, mut write) = Stream::connect(at).await.unwrap().into_split();
            let writer = evenkeel::spawn(async move {
                write.write_all(&pattern(3_000_000)).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut all = vec![0; 3_000_000];
            let mut at = 0;
            while at < all.len() {
                let most = (at + 1 + at % 90_000).min(all.len());
                at += read.read(&mut all[at..most]).await.unwrap();
            }
            writer.await.unwrap();
            all
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.read_with(|bytes, reply| reply.write(bytes)).await.unwrap().is_some() {
            stream.flush().await.unwrap();
        }
        client.await.unwrap()
    });
    assert_same(&got.unwrap(), &pattern(3_000_000));
}

/// A small answer, then a large shared message: they leave together, the task waits for both, and nothing else
/// wakes the loop.
fn i03_a_lent_answer_and_a_message_leave_while_the_peer_waits(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let thread = std::thread::spawn(move || {
        for _ in 0..5 {
            peer.write_all(b"go").unwrap();
            exactly(&mut peer, 5 + 2000);
            assert_eq!(exactly(&mut peer, 4), b"done");
        }
    });
    events
        .block_on(async {
            let message = Message::from(pattern(2000));
            while let Some(flow) = stream
                .read_with(|_, reply| {
                    reply.write(b"small");
                    reply.send(&message)
                })
                .await
                .unwrap()
            {
                assert_eq!(flow, Flow::Go);
                stream.flush().await.unwrap();
                stream.write_all(b"done").await.unwrap();
            }
        })
        .unwrap();
    thread.join().unwrap();
}

fn flush_hands_everything_to_the_kernel(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    peer.write_all(b"go").unwrap();
    let there = events.block_on(async {
        stream
            .read_with(|_, reply| {
                reply.write(b"answer ");
                reply.send(&Message::from(pattern(2000)));
            })
            .await
            .unwrap();
        stream.flush().await.unwrap();
        let there = read_now(&mut peer).len();
        stream.send(&Message::from("one more"));
        stream.flush().await.unwrap();
        (there, read_now(&mut peer))
    });
    assert_eq!(there.unwrap(), (2007, b"one more".to_vec()));
}

/// The kernel's buffer is full and the peer has ended its half: there is nothing in the queue to wait for.
fn i30_flush_and_shutdown_do_not_wait_for_what_is_not_queued(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    peer.shutdown(Shutdown::Write).unwrap();
    let sent = events
        .block_on(async {
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
            let sent = fill(&mut stream).await;
            time::sleep(Duration::from_millis(2)).await;
            time::timeout(PEER / 4, stream.flush()).await.expect("flush waits in vain").unwrap();
            time::timeout(PEER / 4, stream.shutdown()).await.expect("shutdown waits in vain").unwrap();
            sent
        })
        .unwrap();
    let (got, end) = read_all(&mut peer);
    assert_eq!(got.len(), sent);
    end.unwrap();
}

fn writes_come_after_the_answers_before_them(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    peer.write_all(b"go").unwrap();
    events
        .block_on(async {
            stream.read_with(|_, reply| reply.write(b"1 ")).await.unwrap();
            stream.write_all(b"2 ").await.unwrap();
            stream.send(&Message::from("3 "));
            stream.write_all(b"4 ").await.unwrap();
            stream.send(&Message::from(pattern(5000)));
            stream.send(&Message::from("5 "));
            stream.write_all(b"6").await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.write(b"7").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        })
        .unwrap();
    assert_same(&read_all(&mut peer).0, &[&b"1 2 3 4 "[..], &pattern(5000), b"5 6"].concat());
}

fn cancelled_reads_lose_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let sent = pattern(500_000);
    let bytes = sent.clone();
    let thread = std::thread::spawn(move || {
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
    let thread = std::thread::spawn(move || read_all(&mut peer).0);
    let sent = pattern(8_000_000);
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
    let thread = std::thread::spawn(move || read_all(&mut peer));
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

fn two_tasks_share_the_halves(backend: Backend) {
    let mut events = event_loop(backend);
    let (stream, mut peer) = pair(&mut events);
    let mut writer = peer.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        let sender = std::thread::spawn(move || {
            writer.write_all(&pattern(2_000_000)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let all = read_all(&mut peer).0;
        sender.join().unwrap();
        all
    });
    let got = events.block_on(async {
        let (mut read, mut write) = stream.into_split();
        let reader = evenkeel::spawn(async move {
            let (mut all, mut few) = (Vec::new(), vec![0; 40_000]);
            loop {
                match read.read(&mut few).await.unwrap() {
                    0 => return all,
                    n => all.extend_from_slice(&few[..n]),
                }
            }
        });
        let writer = evenkeel::spawn(async move {
            write.write_all(&pattern(2_000_001)).await.unwrap();
            write.shutdown().await.unwrap();
        });
        writer.await.unwrap();
        reader.await.unwrap()
    });
    assert_same(&got.unwrap(), &pattern(2_000_000));
    assert_same(&thread.join().unwrap(), &pattern(2_000_001));
}

fn halves_are_reunited_or_given_back(backend: Backend) {
    let mut events = event_loop(backend);
    let ((a, mut peer), (b, _other)) = (pair(&mut events), pair(&mut events));
    let (a_read, a_write) = a.into_split();
    let (b_read, b_write) = b.into_split();
    let (a_read, b_write) = a_read.reunite(b_write).unwrap_err();
    assert!(b_read.reunite(b_write).is_ok());
    let mut a = a_read.reunite(a_write).unwrap();
    events.block_on(async { a.write_all(b"whole").await.unwrap() }).unwrap();
    assert_eq!(exactly(&mut peer, 5), b"whole");
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
    let thread = std::thread::spawn(move || read_all(&mut peer));
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
    peer.write_all(&pattern(500_000)).unwrap();
    events.block_on(async { stream.write_all(b"enough, thank you").await.unwrap() }).unwrap();
    drop(stream);
    let thread = std::thread::spawn(move || {
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
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
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
            drop(stream);
        })
        .unwrap();
    let thread = std::thread::spawn(move || read_all(&mut peer));
    let h = events.handle();
    until(&mut events, "it is released", || h.stats().sources == 0);
    let (got, end) = thread.join().unwrap();
    let message = pattern(10_000);
    got.chunks(10_000).for_each(|chunk| assert_same(chunk, &message[..chunk.len()]));
    assert!(end.is_err(), "a stream with a gap does not end as a whole one does");
}

fn reading_and_writing_after_an_end(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    peer.write_all(b"last").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    events
        .block_on(async {
            assert_eq!(read_to_end(&mut stream).await, b"last");
            for _ in 0..3 {
                assert_eq!(stream.read(&mut [0; 4]).await.unwrap(), 0);
                assert!(stream.read_with(|_, _| ()).await.unwrap().is_none());
            }
            assert_eq!(stream.read_exact(&mut [0; 4]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
            assert_eq!(stream.read(&mut []).await.unwrap(), 0);
            assert_eq!(stream.write(&[]).await.unwrap(), 0);
            stream.write_all(b"still here").await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .unwrap();
    assert_eq!(read_all(&mut peer).0, b"still here");
}

fn i31_a_reset_reaches_both_halves(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, peer) = pair(&mut events);
    events
        .block_on(async move {
            fill(&mut stream).await;
            let (mut read, mut write) = stream.into_split();
            let reader = evenkeel::spawn(async move { read.read(&mut [0; 8]).await.map(|n| n > 0) });
            let writer = evenkeel::spawn(async move { write.write_all(b"x").await });
            time::sleep(Duration::from_millis(2)).await;
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            drop(peer);
            // One of them hears of the reset; to the other it is an end or a broken pipe.
            let (read, write) = (reader.await.unwrap(), writer.await.unwrap());
            assert!(write.is_err(), "{read:?} {write:?}");
            assert!(!matches!(read, Ok(true)), "{read:?}");
        })
        .unwrap();
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

fn i01_readiness_that_came_before_the_first_poll(backend: Backend) {
    let mut events = event_loop(backend);
    for _ in 0..20 {
        let (mut stream, mut peer) = pair(&mut events);
        peer.write_all(b"early").unwrap();
        (0..4).for_each(|_| events.poll().unwrap());
        peer.shutdown(Shutdown::Write).unwrap();
        (0..2).for_each(|_| events.poll().unwrap());
        assert_eq!(events.block_on(read_to_end(&mut stream)).unwrap(), b"early");
    }
}

/// A task that waits for signals among other things polls again and again.
fn i41_waiting_for_signals_again_and_again_keeps_one_waker(backend: Backend) {
    struct Counted(AtomicUsize);
    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let events = event_loop(backend);
    let mut signals = Signals::new_on(&events.handle(), &[Signal::User2]).unwrap();
    let count = Arc::new(Counted(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    for _ in 0..1000 {
        assert!(signals.poll_recv(&mut Context::from_waker(&waker)).is_pending());
    }
    assert!(Arc::strong_count(&count) <= 4, "{} wakers are kept", Arc::strong_count(&count));
}

fn unix_streams_of_tasks(backend: Backend) {
    let mut events = event_loop(backend);
    let path = std::env::temp_dir().join(format!("evenkeel-tasks-{}-{backend}", std::process::id()));
    let at = path.clone();
    let got = events.block_on(async move {
        let mut listener = evenkeel::net::UnixListener::bind(&*at).unwrap();
        let client = evenkeel::spawn(async move {
            let mut stream = UnixStream::connect(&*at).await.unwrap();
            stream.write_all(&pattern(900_000)).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = [0; 4];
            stream.read_exact(&mut rest).await.unwrap();
            rest
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        let all = read_to_end(&mut stream).await;
        stream.write_all(b"done").await.unwrap();
        (all, client.await.unwrap())
    });
    let (all, rest) = got.unwrap();
    assert_same(&all, &pattern(900_000));
    assert_eq!(&rest, b"done");
}
