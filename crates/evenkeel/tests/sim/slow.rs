//! Slow readers and late ends: what waits for them has caps and deadlines, and nothing that was promised is lost on them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use evenkeel::net::{Limits, ListenOptions, Stream};
use evenkeel::sim::{self, Failure, World};
use evenkeel::{Backend, CloseReason, Conn, ConnId, Flow, Handle, Handler, time};

use crate::streams::KERNEL;

fn byte(at: usize) -> u8 {
    (at * 7 + at / 251) as u8
}

pub(crate) fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(byte).collect()
}

/// Limits by which nothing ends but what a world looks at.
pub(crate) fn patient() -> Limits {
    let mut limits = Limits::default();
    (limits.idle_timeout, limits.message_deadline, limits.max_queue_age) = (None, None, None);
    limits
}

/// What a server tells the world: when, and why, connections ended.
pub(crate) type Ends = Rc<RefCell<Vec<(Duration, String)>>>;

/// Runs until so much time has passed, and then ends the world's client.
async fn hold_open(server: SocketAddr, request: &[u8], time: Duration) -> io::Result<()> {
    time::sleep(Duration::from_millis(1)).await;
    let mut stream = Stream::connect(server).await?;
    stream.write_all(request).await?;
    time::sleep(time).await;
    drop(stream);
    Ok(())
}

/// Talks, whoever listens.
struct Talker {
    cap: usize,
    ends: Ends,
}

impl Handler for Talker {
    fn on_data(&mut self, conn: &mut Conn<'_>, _: &[u8]) {
        conn.notify_after(Duration::ZERO);
    }

    fn on_notify(&mut self, conn: &mut Conn<'_>) {
        // The write that goes beyond the cap ends the connection, and nothing waits any more.
        if conn.write(&bytes(1_000)) != Flow::Closed && conn.queued() > self.cap {
            sim::fail(format!("{} bytes are queued, of at most {} (I41)", conn.queued(), self.cap));
        }
        conn.notify_after(Duration::from_millis(if self.cap > 500_000 { 50 } else { 1 }));
    }

    fn on_close(&mut self, _: ConnId, reason: &CloseReason) {
        self.ends.borrow_mut().push((sim::elapsed(), reason.name().to_owned()));
    }
}

/// Nobody reads: the one is closed by its queue's length, the other by its age.
fn i41_i47_queues_have_caps(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    world.set_buffers(4 << 10, 4 << 10);
    let ends: Ends = Rc::default();
    let of_server = ends.clone();
    let server = world.host("server", move || {
        let ends = of_server.clone();
        async move {
            let handle = Handle::current();
            let (mut short, mut young) = (patient(), patient());
            short.max_queue_bytes = 50_000;
            young.max_queue_age = Some(Duration::from_secs(2));
            for (port, cap, limits) in [(7000, 50_000, short), (7001, 1 << 20, young)] {
                let ends = ends.clone();
                let make = move |_: &_| Talker { cap, ends: ends.clone() };
                handle.pool(limits).listen(("0.0.0.0", port), &ListenOptions::default(), make)?;
            }
            std::future::pending().await
        }
    });
    let ip = world.ip(server);
    for port in [7000, 7001] {
        world.client(&format!("reads nothing of {port}"), move || {
            hold_open(SocketAddr::new(ip, port), b"go on", Duration::from_secs(8))
        });
    }
    world.run()?;
    let mut reasons: Vec<_> = ends.borrow().iter().map(|(_, reason)| reason.clone()).collect();
    reasons.sort_unstable();
    let mut expected = [CloseReason::QueueFull.name(), CloseReason::QueueStalled.name()];
    expected.sort_unstable();
    if reasons != expected {
        return Err(world.fail(format!("{reasons:?} instead of {expected:?} (I41, I47)")));
    }
    Ok(())
}

/// Answers at length and closes.
struct Answer {
    ends: Ends,
}

impl Handler for Answer {
    fn on_data(&mut self, conn: &mut Conn<'_>, _: &[u8]) {
        conn.write(&bytes(LONG));
        conn.close();
    }

    fn on_close(&mut self, _: ConnId, reason: &CloseReason) {
        self.ends.borrow_mut().push((sim::elapsed(), reason.name().to_owned()));
    }
}

const LONG: usize = 30_000;

async fn answer(ends: Ends) -> io::Result<()> {
    let make = move |_: &_| Answer { ends: ends.clone() };
    Handle::current().pool(patient()).listen("0.0.0.0:7000", &ListenOptions::default(), make)?;
    std::future::pending().await
}

/// A peer that takes nothing does not keep what is closing for ever.
fn i28_a_close_ends_in_its_time(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    world.set_buffers(4 << 10, 4 << 10);
    let ends: Ends = Rc::default();
    let of_server = ends.clone();
    let server = world.host("server", move || answer(of_server.clone()));
    let address = SocketAddr::new(world.ip(server), 7000);
    world.client("reads nothing", move || hold_open(address, b"what?", Duration::from_secs(20)));
    world.run()?;
    let ends = ends.borrow();
    if ends.len() != 1 || ends[0].0 > Duration::from_secs(10) {
        return Err(world.fail(format!("a close is to take five seconds at most: {ends:?} (I28)")));
    }
    Ok(())
}

/// Who has said too much gets the answer all the same, if it was all said before.
fn i30_unread_bytes_do_not_destroy_the_answer(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    // It is all there when the server closes, which no call denies.
    world.set_fault(sim::Fault::ShortWrite, 0.0);
    world.set_fault(sim::Fault::WouldBlock, 0.0);
    world.set_buffers(16 << 10, 16 << 10);
    let server = world.host("server", || answer(Rc::default()));
    let address = SocketAddr::new(world.ip(server), 7000);
    for i in 0..3 {
        world.client(&format!("client {i}"), move || async move {
            time::sleep(Duration::from_millis(1)).await;
            let mut stream = Stream::connect(address).await?;
            stream.write_all(&bytes(2_000)).await?;
            let (mut got, mut buffer) = (Vec::new(), [0; 700]);
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(n) => got.extend_from_slice(&buffer[..n]),
                    Err(e) => {
                        sim::fail(format!("{e} after {} bytes of the answer (I30)", got.len()));
                        break;
                    }
                }
                time::sleep(Duration::from_micros(sim::random(300))).await;
            }
            if got != bytes(LONG) {
                sim::fail(format!("{} of {LONG} bytes of the answer came (I30)", got.len()));
            }
            Ok(())
        });
    }
    world.run()
}

/// Says all it has to say at once, and lets its peer come to an end.
struct LastWord(Ends);

impl Handler for LastWord {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        conn.write(&bytes(LONG));
        conn.close_lingering();
    }

    fn on_data(&mut self, _: &mut Conn<'_>, _: &[u8]) {}

    fn on_close(&mut self, _: ConnId, reason: &CloseReason) {
        self.0.borrow_mut().push((sim::elapsed(), reason.name().to_owned()));
    }
}

async fn last_word(ends: Ends, close_deadline: Duration) -> io::Result<()> {
    let make = move |_: &_| LastWord(ends.clone());
    let mut limits = patient();
    limits.close_deadline = close_deadline;
    Handle::current().pool(limits).listen("0.0.0.0:7000", &ListenOptions::default(), make)?;
    std::future::pending().await
}

/// Who goes on sending after the server has closed gets the answer all the same, if it lingers.
fn i30_what_comes_after_a_lingering_close_destroys_nothing(
    world: &mut World,
    backend: Backend,
) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    // The kernel takes the whole answer, and the client has most of it still to come when the server closes.
    world.set_buffers(64 << 10, 4 << 10);
    let ends: Ends = Rc::default();
    let of_server = ends.clone();
    let server = world.host("server", move || last_word(of_server.clone(), Duration::from_secs(60)));
    let address = SocketAddr::new(world.ip(server), 7000);
    world.client("goes on sending", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        let mut stream = Stream::connect(address).await?;
        let (mut got, mut buffer) = (Vec::new(), [0; 700]);
        loop {
            time::sleep(Duration::from_millis(5)).await;
            let said = stream.write_all(&bytes(100)).await;
            match stream.read(&mut buffer).await {
                Ok(0) => break,
                Ok(n) => got.extend_from_slice(&buffer[..n]),
                Err(e) => {
                    sim::fail(format!("{e} ({said:?}) after {} bytes of the answer (I30)", got.len()));
                    break;
                }
            }
        }
        if got != bytes(LONG) {
            sim::fail(format!("{} of {LONG} bytes of the answer came (I30)", got.len()));
        }
        drop(stream);
        // A network that stands still does so for five seconds at most.
        time::sleep(Duration::from_secs(10)).await;
        Ok(())
    });
    world.run()?;
    if ends.borrow().len() != 1 {
        return Err(world.fail(format!("it is to end with its client: {ends:?} (I28)")));
    }
    Ok(())
}

/// Who never stops sending is listened to for 16 MiB, which take no time here.
fn i28_a_lingering_close_ends_for_who_never_stops(
    world: &mut World,
    backend: Backend,
) -> Result<(), Failure> {
    world.set_backend(backend);
    world.set_delay(Duration::from_micros(10)..Duration::from_micros(20));
    world.set_buffers(1 << 20, 1 << 20);
    let ends: Ends = Rc::default();
    let of_server = ends.clone();
    let server = world.host("server", move || last_word(of_server.clone(), Duration::from_secs(60)));
    let address = SocketAddr::new(world.ip(server), 7000);
    world.client("never stops", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        let mut stream = Stream::connect(address).await?;
        let piece = bytes(256 << 10);
        while stream.write_all(&piece).await.is_ok() {}
        Ok(())
    });
    world.run()?;
    if ends.borrow().len() != 1 || ends.borrow()[0].0 > Duration::from_secs(4) {
        return Err(world.fail(format!("a peer has its part, and no more: {ends:?} (I28)")));
    }
    Ok(())
}

/// What those share who are written to and those who make others write.
#[derive(Default)]
struct Board {
    listeners: RefCell<Vec<(ConnId, usize)>>,
}

/// Echoes in two parts; between them everybody who listens is sent the next bytes of a long text.
struct Caller(Rc<Board>);

impl Handler for Caller {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        conn.write(first);
        for (listener, said) in self.0.listeners.borrow_mut().iter_mut() {
            let more: Vec<u8> = (*said..*said + 20 + bytes.len() % 30).map(byte).collect();
            if conn.handle().write(*listener, &more).is_ok() {
                *said += more.len();
            }
        }
        conn.write(second);
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        conn.close();
    }
}

struct Listens(Rc<Board>);

impl Handler for Listens {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        self.0.listeners.borrow_mut().push((conn.id(), 0));
    }

    fn on_data(&mut self, _: &mut Conn<'_>, _: &[u8]) {}

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        conn.close();
    }
}

fn i35_many_written_to_at_once(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    world.set_buffers(2 << 10, 2 << 10);
    let server = world.host("server", || async {
        let (handle, board): (_, Rc<Board>) = (Handle::current(), Rc::default());
        let (callers, listeners) = (board.clone(), board);
        let options = ListenOptions::default();
        let mut limits = patient();
        // A network that lets nothing through for seconds is no reason to give anybody up.
        limits.close_deadline = Duration::from_secs(600);
        handle.pool(limits.clone()).listen("0.0.0.0:7000", &options, move |_: &_| Caller(callers.clone()))?;
        handle.pool(limits).listen("0.0.0.0:7001", &options, move |_: &_| Listens(listeners.clone()))?;
        std::future::pending().await
    });
    let ip = world.ip(server);
    for i in 0..3 {
        world.client(&format!("calls {i}"), move || async move {
            time::sleep(Duration::from_millis(20)).await;
            crate::streams::exchange(SocketAddr::new(ip, 7000), 12_000).await
        });
        world.client(&format!("listens {i}"), move || async move {
            time::sleep(Duration::from_millis(1)).await;
            let mut stream = Stream::connect(SocketAddr::new(ip, 7001)).await?;
            let (mut got, mut buffer) = (0, [0; 100]);
            // As long as there is something to hear.
            while let Ok(n) = time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await {
                let n = n?;
                if n == 0 || buffer[..n].iter().enumerate().any(|(i, b)| *b != byte(got + i)) {
                    sim::fail(format!("another byte came than was sent, near {got} (I35)"));
                    break;
                }
                got += n;
                if sim::random(4) == 0 {
                    time::sleep(Duration::from_micros(sim::random(2_000))).await;
                }
            }
            stream.shutdown().await
        });
    }
    world.run()
}

/// Writes as fast as it may and reads now and then: each direction waits for its own, and not for the other.
fn i04_each_direction_waits_by_itself(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    world.set_buffers(2 << 10, 2 << 10);
    let server = world.host("server", crate::streams::serve);
    let address = SocketAddr::new(world.ip(server), 7000);
    for i in 0..2 {
        world.client(&format!("client {i}"), move || async move {
            time::sleep(Duration::from_millis(1)).await;
            let (mut read, mut write) = Stream::connect(address).await?.into_split();
            let writing = evenkeel::spawn(async move {
                write.write_all(&bytes(20_000)).await?;
                write.shutdown().await
            });
            let (mut got, mut buffer) = (Vec::new(), [0; 1_500]);
            loop {
                match read.read(&mut buffer).await? {
                    0 => break,
                    n => got.extend_from_slice(&buffer[..n]),
                }
                time::sleep(Duration::from_micros(sim::random(4_000))).await;
            }
            writing.await.map_err(io::Error::other)??;
            if got != bytes(20_000) {
                sim::fail(format!("{} of 20000 bytes came back (I35)", got.len()));
            }
            Ok(())
        });
    }
    world.run()
}

/// A waker of no task, which uses the loop when it is woken and when it is dropped.
struct Meddling {
    task: Waker,
}

fn meddle() {
    if let Some(handle) = Handle::try_current() {
        handle.cancel(handle.after(Duration::from_secs(1), || {}));
        handle.defer(|| {});
    }
}

impl Wake for Meddling {
    fn wake(self: Arc<Self>) {
        meddle();
        self.task.wake_by_ref();
    }
}

impl Drop for Meddling {
    fn drop(&mut self) {
        meddle();
    }
}

/// Each poll has another waker, and each may do what it likes.
fn i39_wakers_may_do_anything(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    let server = world.host("server", crate::streams::serve);
    let address = SocketAddr::new(world.ip(server), 7000);
    let polls = Rc::new(Cell::new(0));
    world.client("client", move || {
        let polls = polls.clone();
        async move {
            let mut work = pin!(crate::streams::exchange(address, 3_000));
            poll_fn(|cx| {
                polls.set(polls.get() + 1);
                let waker = Waker::from(Arc::new(Meddling { task: cx.waker().clone() }));
                let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
                if polled.is_pending() && polls.get() % 2 == 1 {
                    // Once more, so that the waker that was just left is replaced.
                    cx.waker().wake_by_ref();
                }
                polled
            })
            .await
        }
    });
    world.run()
}

on_every_driver! {
    i04_each_direction_waits_by_itself(0..10, &[]);
    i41_i47_queues_have_caps(0..10, &[]);
    i28_a_close_ends_in_its_time(0..6, &[]);
    i30_unread_bytes_do_not_destroy_the_answer(0..15, &[]);
    i30_what_comes_after_a_lingering_close_destroys_nothing(0..15, &[]);
    i28_a_lingering_close_ends_for_who_never_stops(0..1, &[]);
    i35_many_written_to_at_once(0..15, &[]);
    i39_wakers_may_do_anything(0..10, &[]);
}
