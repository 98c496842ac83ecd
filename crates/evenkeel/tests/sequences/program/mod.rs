//! Programs of bytes: any part of the API from any callback (I37).
//!
//! A program is a tape. Whoever comes by takes the next byte from it and does what the byte says: the code that drives the
//! loop, each callback of a handler, timers, deferred calls, polls of tasks, and destructors of all that the loop drops,
//! wakers among them. When the tape is at its end nobody does anything more, and everything has to come to its end as well.
//!
//! What is checked, whatever the program:
//! - the calls of each handler come in the order of the contract, `on_close` exactly once and last, and none inside another;
//! - nothing is delivered to a paused connection, and nothing after the peer's end;
//! - the loop is usable afterwards, and all connections, tasks and handlers end within a bounded number of turns;
//! - each panic is counted, and only the planned ones are;
//! - after the loop's end every operation is an answer and no panic.
//!
//! Whether descriptors are left open is the caller's to check, who knows what else there is in the process. The loop comes from
//! outside, and so does the other side of its connections: a simulated kernel has no sockets beside those of its loops, and
//! programs connect to themselves, too.

mod act;
mod actor;
mod outside;
mod tape;
mod tasks;
mod world;

use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::Addr;
use evenkeel::{EventLoop, time};

pub use outside::{Nobody, Outside, Sockets};
pub use world::is_planned;

use act::act;
use tape::Tape;
use world::World;

/// Turns without waiting that everything may take to end, and then waits of a millisecond.
const TURNS: usize = 200;
const WAITS: usize = 3_000;

/// What a program did, so that a test can see that programs do something.
#[derive(Debug, Default)]
pub struct Report {
    /// Handlers that there were.
    pub actors: usize,
    /// Bytes of the tape that were taken by callbacks, tasks and destructors.
    pub inside: usize,
    pub panics: u64,
}

/// Runs a program on a loop, with listeners at `at`.
///
/// # Panics
/// When something that must hold does not.
pub fn run(mut events: EventLoop, at: &Addr, outside: &mut dyn Outside, program: &[u8]) -> Report {
    let world = World::new(&events.handle(), at, Tape::new(program));
    world.listen();
    while let Some(byte) = world.tape.next() {
        step(&mut events, &world, outside, byte);
    }
    assert!(world.broken().is_empty(), "{:#?}", world.broken());
    let drop_first = program.first().is_some_and(|byte| byte & 1 == 1);
    if !drop_first {
        usable(&mut events, &world);
        end(&mut events, &world, outside);
    }
    let panics = events.handle().stats().panics;
    drop(events);
    world.after_the_end();
    outside.leave();
    let (least, most) = world.planned_panics();
    assert!(
        (least..=most).contains(&panics),
        "{panics} panics are counted, and {least} to {most} were planned"
    );
    let report = Report { actors: world.actors(), inside: world.inside.get(), panics };
    world.take_leave();
    assert!(world.broken().is_empty(), "{:#?}", world.broken());
    report
}

/// What the code around the loop does.
fn step(events: &mut EventLoop, world: &Rc<World>, outside: &mut dyn Outside, byte: u8) {
    match byte % 16 {
        0..=4 => events.poll().expect("a turn"),
        5..=7 => act(world, None, false),
        8..=12 => outside.act(&world.address(), &world.tape),
        13 => {
            let fd = outside.pair();
            let adopt = async { fd.map(evenkeel::net::Stream::from_fd) };
            // A handler may have stopped the loop before.
            if let Ok(Some(Ok(stream))) = events.block_on(adopt) {
                world.keep_stream(stream);
            }
        }
        // Seldom: real time is what programs would spend most of theirs on.
        14 if world.tape.below(8) == 0 => {
            // A program may ask it to stop before it has begun.
            let _ = events.block_on(async { time::sleep(Duration::from_millis(1)).await });
        }
        _ => {
            let h = events.handle();
            h.clone().defer(move || h.stop());
            events.run().expect("a run");
        }
    }
}

/// The loop does what a new one does.
fn usable(events: &mut EventLoop, world: &World) {
    // What is left of a program's last stop.
    events.poll().expect("a turn");
    let (ready, number) = (events.handle().spawn(async { 5 }), 7);
    let ran = (0..2).find_map(|_| events.block_on(evenkeel::task::yield_now()).ok());
    assert!(ran.is_some(), "a loop that was stopped once does not run again");
    let sum = events.block_on(async move { ready.await.expect("a task ends") + number });
    assert_eq!(sum.expect("nobody stops it any more"), 12);
    assert!(world.broken().is_empty(), "{:#?}", world.broken());
}

/// Ends all that there is, and sees that it ends.
fn end(events: &mut EventLoop, world: &World, outside: &mut dyn Outside) {
    outside.leave();
    for round in 0..TURNS + WAITS {
        world.let_go();
        if world.is_over() {
            return;
        }
        if round < TURNS {
            events.poll().expect("a turn");
        } else {
            events.block_on(async { time::sleep(Duration::from_millis(1)).await }).expect("a wait");
        }
    }
    panic!("not everything ends: {}", world.what_is_left());
}
