//! The usual case of each operation has a short way through the runtime; here is what happens where it leaves that
//! way, on every backend.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use evenkeel::net::{Limits, ListenOptions, TcpListener, TcpStream};
use evenkeel::{Backend, CloseReason, Conn, ConnId, EventLoop, Handler, Message};

/// Runs a test on a loop of each backend.
fn on_all<F: Future<Output = ()>>(test: impl Fn(evenkeel::Handle) -> F) {
    for backend in Backend::ALL {
        let mut events = EventLoop::builder().backend(*backend).build().unwrap();
        let handle = events.handle();
        events.block_on(test(handle)).unwrap();
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (server, client)
}

/// Bytes that differ from place to place, so that a lost, doubled or swapped piece shows.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|i| (i * 31 + (i >> 8) * 7) as u8).collect()
}

#[test]
fn the_answer_of_a_lent_read_goes_before_later_writes() {
    on_all(|_| async {
        let (mut server, mut client) = pair().await;
        let task = evenkeel::spawn(async move {
            for _ in 0..50 {
                server.read_with(|bytes, reply| reply.write(bytes)).await.unwrap().unwrap();
                server.write_all(b"-after").await.unwrap();
            }
        });
        for i in 0..50u8 {
            client.write_all(&[i; 3]).await.unwrap();
            let mut got = [0; 9];
            client.read_exact(&mut got).await.unwrap();
            assert_eq!((&got[..3], &got[3..]), (&[i; 3][..], &b"-after"[..]));
        }
        task.await.unwrap();
    });
}

#[test]
fn i03_two_tasks_of_one_stream_are_both_woken() {
    const BULK: usize = 6 << 20;
    on_all(|_| async {
        let (server, mut client) = pair().await;
        let (mut reader, mut writer) = server.into_split();
        // Fills the kernel's buffers, so that this task waits while the other one keeps reading.
        let writing = evenkeel::spawn(async move {
            writer.write_all(&pattern(0, BULK)).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let reading = evenkeel::spawn(async move {
            let (mut buffer, mut sum) = ([0; 100], 0);
            loop {
                match reader.read(&mut buffer).await.unwrap() {
                    0 => return sum,
                    n => sum += n,
                }
            }
        });
        for _ in 0..200 {
            client.write_all(&[1; 1000]).await.unwrap();
            evenkeel::task::yield_now().await;
        }
        let mut got = Vec::new();
        while let Some(()) = client.read_with(|bytes, _| got.extend_from_slice(bytes)).await.unwrap() {}
        assert!(got == pattern(0, BULK));
        client.shutdown().await.unwrap();
        assert_eq!(reading.await.unwrap(), 200_000);
        writing.await.unwrap();
    });
}

struct Mixed {
    total: Rc<Cell<usize>>,
}

impl Handler for Mixed {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        for _ in bytes {
            let mut at = self.total.get();
            for (i, len) in [10, 700, 1, 20_000, 300, 5000].into_iter().enumerate() {
                let piece = pattern(at, len);
                if i % 2 == 0 {
                    conn.write(&piece);
                } else {
                    conn.send(&Message::from(piece));
                }
                at += len;
            }
            self.total.set(at);
        }
    }
}

#[test]
fn bytes_and_shared_messages_keep_their_order_when_the_kernel_is_full() {
    on_all(|handle| async move {
        let mut limits = Limits::default();
        (limits.max_queue_bytes, limits.max_queue_messages) = (usize::MAX, usize::MAX);
        let (pool, total) = (handle.pool(limits), Rc::new(Cell::new(0)));
        let count = total.clone();
        let make = move |_: &_| Mixed { total: count.clone() };
        let listener = pool.listen("127.0.0.1:0", &ListenOptions::default(), make).unwrap();
        let mut client = TcpStream::connect(handle.listener_addr(listener).unwrap()).await.unwrap();
        for _ in 0..30 {
            client.write_all(&[0; 10]).await.unwrap();
            evenkeel::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        while let Some(()) = client.read_with(|bytes, _| got.extend_from_slice(bytes)).await.unwrap() {}
        assert_eq!(got.len(), 300 * 26_011);
        assert!(got == pattern(0, total.get()));
    });
}

struct Count(AtomicUsize, Waker);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.wake_by_ref();
    }
}

#[test]
fn a_waker_that_is_not_a_tasks_is_called() {
    on_all(|_| async {
        let (mut server, mut client) = pair().await;
        let mut count: Option<Arc<Count>> = None;
        let mut buffer = [0; 10];
        {
            let mut read = pin!(server.read(&mut buffer));
            let mut sent = false;
            let n = poll_fn(|cx| {
                let count =
                    count.get_or_insert_with(|| Arc::new(Count(AtomicUsize::new(0), cx.waker().clone())));
                let waker = Waker::from(count.clone());
                let polled = read.as_mut().poll(&mut Context::from_waker(&waker));
                if !sent {
                    sent = true;
                    assert!(polled.is_pending());
                    let mut write = pin!(client.write_all(b"hello"));
                    assert!(write.as_mut().poll(cx).is_ready());
                }
                polled
            })
            .await;
            assert_eq!(n.unwrap(), 5);
        }
        assert!(count.unwrap().0.load(Ordering::Relaxed) > 0);
        assert_eq!(&buffer[..5], b"hello");
    });
}

/// Uses the loop when the last waker of it is dropped.
struct Defer;

impl Wake for Defer {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Defer {
    fn drop(&mut self) {
        evenkeel::Handle::current().defer(|| ());
    }
}

#[test]
fn a_waker_whose_drop_uses_the_loop_finds_it_usable() {
    on_all(|_| async {
        let (mut server, mut client) = pair().await;
        let mut buffer = [0; 10];
        for _ in 0..2 {
            let waker = Waker::from(Arc::new(Defer));
            assert!(pin!(server.read(&mut buffer)).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read(&mut buffer).await.unwrap(), 1);
    });
}

struct Fragile {
    ends: Rc<RefCell<Vec<String>>>,
}

impl Handler for Fragile {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        assert!(bytes != b"break", "as asked");
        conn.write(bytes);
    }

    fn on_close(&mut self, _: ConnId, reason: &CloseReason) {
        self.ends.borrow_mut().push(reason.name().to_owned());
    }
}

#[test]
fn a_panic_in_a_handler_ends_its_connection_and_no_other() {
    on_all(|handle| async move {
        let ends = Rc::new(RefCell::new(Vec::new()));
        let seen = ends.clone();
        let listener = handle.listen("127.0.0.1:0", move |_| Fragile { ends: seen.clone() }).unwrap();
        let addr = handle.listener_addr(listener).unwrap();
        let mut broken = TcpStream::connect(addr.clone()).await.unwrap();
        let mut whole = TcpStream::connect(addr).await.unwrap();
        for _ in 0..3 {
            for client in [&mut broken, &mut whole] {
                client.write_all(b"hi").await.unwrap();
                client.read_exact(&mut [0; 2]).await.unwrap();
            }
        }
        broken.write_all(b"break").await.unwrap();
        assert!(broken.read(&mut [0; 2]).await.is_err(), "it is reset");
        whole.write_all(b"hi").await.unwrap();
        whole.read_exact(&mut [0; 2]).await.unwrap();
        assert_eq!(*ends.borrow(), ["handler panicked"]);
        assert_eq!(handle.stats().panics, 1);
        assert_eq!(handle.stats().bytes_in, handle.stats().bytes_out);
    });
}

#[test]
fn a_read_that_fills_the_buffer_leaves_the_rest_readable() {
    on_all(|_| async {
        let (mut server, mut client) = pair().await;
        client.write_all(&pattern(0, 1000)).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut got, mut buffer) = (Vec::new(), [0; 10]);
        loop {
            let n = server.read(&mut buffer).await.unwrap();
            got.extend_from_slice(&buffer[..n]);
            if n == 0 {
                break;
            }
        }
        assert!(got == pattern(0, 1000));
        assert_eq!(server.read(&mut buffer).await.unwrap(), 0, "the end repeats itself");
    });
}

#[test]
fn i18_timers_fire_when_others_before_them_were_cancelled() {
    on_all(|handle| async move {
        use std::time::{Duration, Instant};
        for _ in 0..5 {
            let start = Instant::now();
            let sooner = handle.after(Duration::from_millis(1), || panic!("it was cancelled"));
            let sleep = evenkeel::time::sleep(Duration::from_millis(4));
            assert!(handle.cancel(sooner));
            sleep.await;
            assert!(start.elapsed() >= Duration::from_millis(4));
        }
        let fired = Rc::new(Cell::new(false));
        let mark = fired.clone();
        handle.after(Duration::ZERO, move || mark.set(true));
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if fired.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(handle.stats().panics, 0);
    });
}
