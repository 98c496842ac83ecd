//! One operation, anything that the API has.

use std::rc::Rc;

use evenkeel::net::{ConnectOptions, SocketOption};
use evenkeel::{Conn, Message};

use super::actor::Actor;
use super::tasks;
use super::world::World;

/// The connection that is being called, and what tells its handler that it was given away.
pub type Called<'c, 'a> = (&'c mut Conn<'a>, &'c dyn Fn());

/// Acts when it is dropped, wherever that may be.
pub struct ActsAtItsEnd(pub Rc<World>);

impl Drop for ActsAtItsEnd {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            act(&self.0, None, false);
        }
    }
}

/// Does what the next byte says. Inside of a callback, or anywhere; `may_panic`: where the loop catches and counts it.
pub fn act(world: &Rc<World>, called: Option<Called<'_, '_>>, may_panic: bool) {
    struct Leave<'a>(&'a World);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            self.0.depth.set(self.0.depth.get() - 1);
        }
    }
    if !world.deeper() {
        return;
    }
    let _leave = Leave(world);
    let Some(byte) = world.tape.next() else { return };
    world.inside.set(world.inside.get() + 1);
    match (called, byte) {
        (_, 250..) if may_panic => world.panics(true),
        (Some((conn, left)), 0..128) => with_its_own(world, conn, left, byte),
        (_, byte) if byte & 1 == 0 => with_another(world, byte >> 1),
        (_, byte) => with_the_loop(world, byte >> 1),
    }
}

/// Something with the connection that is being called.
fn with_its_own(world: &Rc<World>, conn: &mut Conn<'_>, left: &dyn Fn(), byte: u8) {
    let (tape, id) = (&world.tape, conn.id());
    match byte % 18 {
        0..=2 => drop(conn.write(&vec![1; tape.size()])),
        3 | 4 => drop(conn.send(&Message::from(vec![2; tape.size()]))),
        5 => {
            conn.pause();
            world.change(id, |life| life.paused = true);
        }
        6 | 7 => {
            world.change(id, |life| life.paused = false);
            conn.resume();
        }
        8 => {
            world.change(id, |life| life.closing = true);
            conn.close();
        }
        9 => conn.abort(),
        10 => conn.shutdown_write(),
        11 => conn.notify_after(tape.time()),
        12 => conn.message_started(),
        13 => conn.message_done(),
        14 => {
            if let Some(stream) = conn.detach(&vec![3; tape.size()]) {
                left();
                world.keep_stream(stream);
            }
        }
        15 => {
            if let Ok(parcel) = conn.pack(&vec![4; tape.size()]) {
                left();
                world.keep_parcel(parcel);
            }
        }
        16 => drop(conn.set_option(SocketOption::NoDelay(tape.says()))),
        _ => {
            let _ = (conn.peer_addr(), conn.local_addr(), conn.queued(), format!("{conn:?}"));
        }
    }
}

/// Something with any connection, be it the same one, or one that is gone.
fn with_another(world: &Rc<World>, byte: u8) {
    let (h, tape) = (&world.h, &world.tape);
    let Some(id) = world.any_id() else { return };
    match byte % 12 {
        0 | 1 => drop(h.write(id, &vec![5; tape.size()])),
        2 => drop(h.send(id, &Message::from(vec![6; tape.size()]))),
        3 => {
            if h.pause(id).is_ok() {
                world.change(id, |life| life.paused = true);
            }
        }
        4 | 5 => {
            world.change(id, |life| life.paused = false);
            let _ = h.resume(id);
        }
        6 => {
            if h.close(id).is_ok() {
                world.change(id, |life| life.closing = true);
            }
        }
        7 => drop(h.abort(id)),
        8 | 9 => drop(h.notify(id)),
        10 => drop(h.queued(id)),
        _ => assert_eq!(h.is_open(id), h.queued(id).is_ok()),
    }
}

/// Something with the loop, or with what was kept.
fn with_the_loop(world: &Rc<World>, byte: u8) {
    let (h, tape) = (&world.h, &world.tape);
    match byte % 26 {
        0 | 1 => later(world),
        2 | 3 => {
            let call = deferred(world, "a timer");
            world.keep_timer(h.after(tape.time(), call));
        }
        4 => {
            if let Some(timer) = world.any_timer() {
                h.cancel(timer);
                assert!(!h.cancel(timer), "a timer is cancelled twice");
            }
        }
        5..=7 => connect(world),
        8 | 9 => adopt(world),
        10 => drop(world.take_stream()),
        11 => {
            if let Some(stream) = world.take_stream() {
                stream.abort();
            }
        }
        12 => unpack(world),
        13 => drop(world.take_parcel()),
        14 => world.listen(),
        15 => {
            if let Some(listener) = world.take_listener() {
                let _ = (h.listener_addr(listener), h.close_listener(listener));
                assert!(!h.close_listener(listener), "a listener is closed twice");
            }
        }
        16 => h.stop(),
        17 => h.flush(),
        18 => world.pool.close_all(),
        19 => drop((h.queues(), h.stats(), h.now(), h.clone())),
        20 => remote(world),
        21 => {
            if let Some(join) = world.take_join() {
                join.abort();
            }
        }
        22 => drop(world.take_join()),
        23 => {
            if let Some(waker) = world.take_waker() {
                if tape.says() { waker.wake_by_ref() } else { waker.wake() }
            }
        }
        _ => tasks::start(world),
    }
}

fn later(world: &Rc<World>) {
    world.h.defer(deferred(world, "a deferred call"));
}

/// A call that acts when it is called, and again when it is dropped, called or not.
fn deferred(world: &Rc<World>, what: &'static str) -> impl FnOnce() + 'static {
    let acts = ActsAtItsEnd(world.clone());
    move || {
        let world = acts.0.clone();
        world.enter(what, || act(&world, None, true));
    }
}

fn connect(world: &Rc<World>) {
    let handler = Actor::new(world);
    let owed = handler.owed();
    // Refused, the handler is dropped: what has not begun has no end.
    if let Ok(id) = world.pool.connect(world.address(), &ConnectOptions::default(), handler) {
        owed.set(true);
        world.know(id);
    }
}

fn adopt(world: &Rc<World>) {
    let Some(stream) = world.take_stream() else { return };
    let unread = vec![7; world.tape.size()];
    let handler = Actor::new(world);
    let owed = handler.owed();
    if let Ok(id) = world.pool.adopt(stream, handler, &unread) {
        owed.set(true);
        world.know(id);
    }
}

fn unpack(world: &Rc<World>) {
    let Some(parcel) = world.take_parcel() else { return };
    if world.tape.says() {
        if let Ok(stream) = parcel.unpack(&world.h) {
            world.keep_stream(stream);
        }
        return;
    }
    let handler = Actor::new(world);
    let owed = handler.owed();
    if let Ok(id) = world.pool.unpack(parcel, handler) {
        owed.set(true);
        world.know(id);
    }
}

/// By the mailbox for other threads, from the loop's own.
fn remote(world: &Rc<World>) {
    let call = |_: &evenkeel::Handle| {
        if let Some(world) = World::current() {
            world.enter("a remote call", || act(&world, None, true));
        }
    };
    // Full, it says so.
    let _ = world.h.remote().run(call);
}
