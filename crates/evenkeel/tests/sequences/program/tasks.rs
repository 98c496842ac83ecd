//! Tasks of a program, and wakers that misbehave as users' may.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use evenkeel::net::Stream;
use evenkeel::{Message, task, time};

use super::act::{ActsAtItsEnd, act};
use super::world::World;

/// A waker that acts when it wakes and when the last of it is dropped.
struct Meddler;

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        meddle();
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        meddle();
    }
}

fn meddle() {
    if let Some(world) = World::current().filter(|_| !std::thread::panicking()) {
        act(&world, None, false);
    }
}

/// A future whose polls are watched: none runs inside of a callback.
async fn watched<F: Future>(world: Rc<World>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| world.enter("a task", || future.as_mut().poll(cx))).await
}

/// Starts a task of some kind.
pub fn start(world: &Rc<World>) {
    let w = world.clone();
    let acts = ActsAtItsEnd(world.clone());
    let kind = world.tape.below(9);
    let stream = if matches!(kind, 3..=7) { world.take_stream() } else { None };
    let future = watched(world.clone(), async move {
        let _acts = acts;
        match (kind, stream) {
            (0, _) => yields(&w).await,
            (1, _) => sleeps(&w).await,
            (2, _) => meddled(&w).await,
            (3, Some(stream)) => reads(&w, stream).await,
            (4, Some(stream)) => writes(&w, stream).await,
            (5, Some(stream)) => splits(&w, stream).await,
            (6, Some(stream)) => changes(&w, stream),
            (7, Some(stream)) => lends(&w, stream).await,
            _ => connects(&w).await,
        }
        act(&w, None, false);
        if w.tape.below(16) == 15 {
            w.panics(false);
        }
    });
    let join = world.h.spawn(future);
    if world.tape.says() {
        world.joins.borrow_mut().push(join);
    } else {
        join.detach();
    }
}

/// Gives up its turn, and leaves its waker to whoever takes it.
async fn yields(world: &Rc<World>) {
    for _ in 0..world.tape.below(4) {
        task::yield_now().await;
        act(world, None, false);
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        world.wakers.borrow_mut().push(waker);
    }
}

async fn sleeps(world: &Rc<World>) {
    let mut sleep = pin!(time::sleep(world.tape.time()));
    for _ in 0..world.tape.below(3) {
        poll_once(sleep.as_mut()).await;
        sleep.reset(time::now() + Duration::from_millis(world.tape.below(3) as u64));
        act(world, None, false);
    }
    // Not for ever: nobody would end it.
    let _ = time::timeout(Duration::from_millis(1), sleep).await;
}

/// Polls with a waker of its own, and drops that.
async fn meddled(world: &Rc<World>) {
    let mut sleep = pin!(time::sleep(world.tape.time()));
    for _ in 0..1 + world.tape.below(2) {
        let waker = Waker::from(Arc::new(Meddler));
        let _ = sleep.as_mut().poll(&mut Context::from_waker(&waker));
        if let Some(stream) = world.take_stream() {
            world.keep_stream(poll_read_with(stream, &waker));
        }
        world.wakers.borrow_mut().push(waker);
    }
    act(world, None, false);
}

fn poll_read_with(mut stream: Stream, waker: &Waker) -> Stream {
    let mut into = [0; 10];
    let _ = pin!(stream.read(&mut into)).poll(&mut Context::from_waker(waker));
    stream
}

async fn reads(world: &Rc<World>, mut stream: Stream) {
    let mut into = vec![0; 1 + world.tape.size() % 5_000];
    for _ in 0..1 + world.tape.below(3) {
        match time::timeout(Duration::from_millis(1), stream.read(&mut into)).await {
            Ok(Ok(0) | Err(_)) => break,
            _ => act(world, None, false),
        }
    }
    world.keep_stream(stream);
}

async fn lends(world: &Rc<World>, mut stream: Stream) {
    for _ in 0..1 + world.tape.below(3) {
        let w = world.clone();
        let take = stream.read_with(|bytes, reply| {
            reply.write(bytes);
            reply.send(&Message::from("lent"));
            act(&w, None, false);
        });
        match time::timeout(Duration::from_millis(1), take).await {
            Ok(Ok(None) | Err(_)) => break,
            _ => act(world, None, false),
        }
    }
    world.keep_stream(stream);
}

async fn writes(world: &Rc<World>, mut stream: Stream) {
    stream.send(&Message::from("from a task"));
    let bytes = vec![8; world.tape.size()];
    let _ = time::timeout(Duration::from_millis(1), stream.write_all(&bytes)).await;
    act(world, None, false);
    let _ = time::timeout(Duration::from_millis(1), stream.flush()).await;
    if world.tape.says() {
        let _ = time::timeout(Duration::from_millis(1), stream.shutdown()).await;
    }
    world.keep_stream(stream);
}

/// Its halves, one of them on another task.
async fn splits(world: &Rc<World>, stream: Stream) {
    let (mut reading, mut writing) = stream.into_split();
    let w = world.clone();
    let acts = ActsAtItsEnd(world.clone());
    let other = world.h.spawn(watched(world.clone(), async move {
        let _acts = acts;
        let bytes = vec![9; w.tape.size()];
        let _ = time::timeout(Duration::from_millis(1), writing.write_all(&bytes)).await;
        act(&w, None, false);
        writing
    }));
    let _ = time::timeout(Duration::from_millis(1), reading.read(&mut [0; 100])).await;
    act(world, None, false);
    if let Ok(writing) = other.await
        && let Ok(stream) = reading.reunite(writing)
    {
        world.keep_stream(stream);
    }
}

/// Becomes something else and back.
fn changes(world: &Rc<World>, stream: Stream) {
    if world.tape.says() {
        if let Ok(parcel) = stream.pack() {
            world.keep_parcel(parcel);
        }
        return;
    }
    let Ok(parts) = stream.into_parts() else { return };
    act(world, None, false);
    if let Ok(stream) = Stream::from_fd(parts.fd) {
        world.keep_stream(stream);
    }
}

async fn connects(world: &Rc<World>) {
    let connect = Stream::connect(world.address());
    match time::timeout(Duration::from_millis(1), connect).await {
        Ok(Ok(stream)) => world.keep_stream(stream),
        _ => act(world, None, false),
    }
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) {
    poll_fn(|cx| {
        let _ = future.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}
