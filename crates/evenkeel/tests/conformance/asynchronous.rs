//! Streams of tasks: reading, lent reading, writing, flushing, half-closing, and their two halves.

use std::cell::Cell;
use std::future::Future;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use evenkeel::net::{Stream, UnixStream};
use evenkeel::signal::{Signal, Signals};
use evenkeel::sim::blocking::{self, TcpListener, TcpStream};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, EventLoop, Flow, Message, task, time};

use crate::support::{
    PEER, assert_same, event_loop, exactly, pattern, read_all, read_now, reset_on_close, unique,
};

on_every_kernel! {
    i03_a_flood_that_a_task_reads_comes_to_its_end,
    i43_a_failed_write_leaves_what_was_received,
    i35_two_streams_of_one_loop_exchange_megabytes,
    i03_a_lent_answer_and_a_message_leave_while_the_peer_waits,
    flush_hands_everything_to_the_kernel,
    a_stream_is_drained_when_the_kernel_has_refused_nothing,
    i30_flush_and_shutdown_do_not_wait_for_what_is_not_queued,
    writes_come_after_the_answers_before_them,
    two_tasks_share_the_halves,
    halves_are_reunited_or_given_back,
    reading_and_writing_after_an_end,
    i31_a_reset_reaches_both_halves,
    i01_readiness_that_came_before_the_first_poll,
    i41_waiting_for_signals_again_and_again_keeps_one_waker,
    unix_streams_of_tasks,
    i24_a_task_that_never_has_to_wait_keeps_nobody_waiting,
}

/// A stream of the loop's and its raw peer.
pub fn pair(events: &mut EventLoop) -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let stream = events.block_on(Stream::connect(at)).unwrap().unwrap();
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(PEER)).unwrap();
    peer.set_write_timeout(Some(PEER)).unwrap();
    (stream, peer)
}

/// Polls once and drops the future: the operation is cancelled if it is not ready.
pub async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

pub async fn read_to_end(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.read_with(|bytes, _| bytes.to_vec()).await.unwrap() {
        all.extend(bytes);
    }
    all
}

/// Fills the kernel's buffers of a stream, and says with how much.
pub async fn fill(stream: &mut Stream) -> usize {
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
    let thread = blocking::spawn(move || {
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
fn a_stream_is_drained_when_the_kernel_has_refused_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let drained = async |stream: &mut Stream| std::future::poll_fn(|cx| stream.poll_drained(cx)).await;
    events
        .block_on(async {
            stream.write_all(b"small").await.unwrap();
            assert!(once(drained(&mut stream)).await.is_some(), "it leaves with the batch");
            time::sleep(Duration::from_millis(1)).await;
            assert_eq!(exactly(&mut peer, 5), b"small");
            // More than the kernel takes, as a message that the stream's queue holds.
            let piece = Message::from(pattern(64 << 10));
            let mut sent = 0;
            while once(stream.flush()).await.is_some() {
                stream.send(&piece);
                sent += piece.len();
            }
            assert!(once(drained(&mut stream)).await.is_none(), "the peer does not read");
            let reading = blocking::spawn(move || exactly(&mut peer, sent).len());
            drained(&mut stream).await.unwrap();
            assert_eq!(reading.join().unwrap(), sent);
        })
        .unwrap();
}

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

fn two_tasks_share_the_halves(backend: Backend) {
    let mut events = event_loop(backend);
    let (stream, mut peer) = pair(&mut events);
    let mut writer = peer.try_clone().unwrap();
    let thread = blocking::spawn(move || {
        let sender = blocking::spawn(move || {
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
            reset_on_close(&peer);
            drop(peer);
            // One of them hears of the reset; to the other it is an end or a broken pipe.
            let (read, write) = (reader.await.unwrap(), writer.await.unwrap());
            assert!(write.is_err(), "{read:?} {write:?}");
            assert!(!matches!(read, Ok(true)), "{read:?}");
        })
        .unwrap();
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
    let path = std::env::temp_dir().join(unique("tasks"));
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

/// It sends to itself, so each of its operations is ready at once.
fn i24_a_task_that_never_has_to_wait_keeps_nobody_waiting(backend: Backend) {
    const PATIENCE: u32 = 200_000;
    let mut events = event_loop(backend);
    let rounds = events
        .block_on(async {
            let (a, b) = blocking::UnixStream::pair().unwrap();
            let (mut a, mut b) = (
                Stream::from_fd(a.into_fd().unwrap()).unwrap(),
                Stream::from_fd(b.into_fd().unwrap()).unwrap(),
            );
            let over = Rc::new(Cell::new(false));
            let (greedy, friend) = (over.clone(), over.clone());
            let greedy = task::spawn(async move {
                let mut rounds = 0;
                while !greedy.get() && rounds < PATIENCE {
                    a.write_all(b"x").await.unwrap();
                    b.read_exact(&mut [0]).await.unwrap();
                    rounds += 1;
                }
                rounds
            });
            task::spawn(async move {
                // A timer and a socket, which the loop has to look at meanwhile.
                time::sleep(Duration::from_millis(1)).await;
                let (c, mut d) = blocking::UnixStream::pair().unwrap();
                let mut stream = Stream::from_fd(c.into_fd().unwrap()).unwrap();
                d.write_all(b"y").unwrap();
                stream.read_exact(&mut [0]).await.unwrap();
                friend.set(true);
            });
            greedy.await.unwrap()
        })
        .unwrap();
    assert!(rounds < PATIENCE, "nobody else had a turn");
}

/// More than all buffers of a loop hold, by reads of odd sizes, with a writer that stops now and then.
fn i03_a_flood_that_a_task_reads_comes_to_its_end(backend: Backend) {
    let len = if is_simulated() { 2 << 20 } else { 16 << 20 };
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    let sent = pattern(len);
    let bytes = sent.clone();
    let writer = blocking::spawn(move || {
        for piece in bytes.chunks(200_001) {
            peer.write_all(piece).unwrap();
            blocking::yield_now();
        }
        peer
    });
    let got = events
        .block_on(async {
            let (mut all, mut few) = (Vec::with_capacity(len), vec![0; 65_536]);
            while all.len() < len {
                match stream.read(&mut few).await.unwrap() {
                    0 => break,
                    n => all.extend_from_slice(&few[..n]),
                }
            }
            all
        })
        .unwrap();
    drop(writer.join().unwrap());
    assert_same(&got, &sent);
}

fn i43_a_failed_write_leaves_what_was_received(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    peer.write_all(b"0123456789").unwrap();
    events
        .block_on(async {
            let mut one = [0];
            stream.read_exact(&mut one).await.unwrap();
            // The rest has been received by the time that a timer fires.
            time::sleep(Duration::from_millis(2)).await;
            let large = Message::from(vec![1; 300 << 10]);
            let mut sent = 0;
            while stream.send(&large) != Flow::Closed {
                sent += 1;
                assert!(sent < 100, "there is no end of what a stream queues");
            }
            assert!(stream.flush().await.is_err());
            peer.write_all(b"abcdef").unwrap();
            let mut rest = [0; 15];
            stream.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"123456789abcdef");
        })
        .unwrap();
}
