//! Timers: none is early, none is lost, whatever the clock shows and however far they are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::sim::{self, Failure, Fault, World};
use evenkeel::{Backend, Handle, time};

/// Timers that are due, by their numbers.
type Due = Rc<RefCell<BTreeMap<u64, Duration>>>;

fn some_time() -> Duration {
    match sim::random(6) {
        0 => Duration::ZERO,
        1 => Duration::from_nanos(1 + sim::random(2_000_000)),
        // Around the places where a wheel's levels meet.
        2 | 3 => {
            let edge = 1u64 << sim::random(22);
            Duration::from_millis(edge + sim::random(3)).saturating_sub(Duration::from_nanos(sim::random(3)))
        }
        4 => Duration::from_millis(sim::random(5_000)),
        _ => Duration::from_secs(sim::random(100_000)),
    }
}

fn fired(due: &Due, number: u64, slack: Duration) {
    let now = sim::elapsed();
    match due.borrow_mut().remove(&number) {
        None => sim::fail(format!("timer {number} fired that was not armed (I23)")),
        Some(at) if now < at => sim::fail(format!("timer {number} fired at {now:?}, due at {at:?} (I18)")),
        Some(at) if now > at + slack => {
            sim::fail(format!("timer {number} was late: {now:?}, due at {at:?} (I18)"))
        }
        Some(_) => {}
    }
}

/// Arms, cancels and resets, and sees each fire once and in its time.
async fn wind(slack: Duration) -> io::Result<()> {
    let due: Due = Rc::default();
    let handle = Handle::current();
    let mut armed = Vec::new();
    for number in 0..300 {
        let delay = some_time();
        due.borrow_mut().insert(number, sim::elapsed() + delay);
        let calls = due.clone();
        armed.push((number, handle.after(delay, move || fired(&calls, number, slack))));
        if sim::random(3) == 0 {
            let (number, timer) = armed.swap_remove(sim::random(armed.len() as u64) as usize);
            let was = due.borrow_mut().remove(&number).is_some();
            if handle.cancel(timer) != was {
                sim::fail(format!("timer {number} was cancelled and fired, or neither (I23)"));
            }
        }
        if sim::random(4) == 0 {
            time::sleep(some_time()).await;
        }
    }
    let last = due.borrow().values().max().copied().unwrap_or_default();
    time::sleep(last.saturating_sub(sim::elapsed()) + slack).await;
    let left = due.borrow().len();
    if left > 0 {
        sim::fail(format!("{left} timers never fired (I18)"));
    }
    Ok(())
}

/// A tick, the time of a turn, and what a kernel may be late by.
const SLACK: Duration = Duration::from_millis(60);

fn i18_i19_i23_timers_fire_once_and_in_time(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(&[Fault::TimerSlack, Fault::SpuriousWake, Fault::Interrupted]);
    world.set_limit(Duration::from_secs(1 << 40));
    world.client("clock", || async {
        // Of any age: a little before the clock passes a power of two.
        let age = Duration::from_millis(1 << sim::random(48));
        time::sleep(age.saturating_sub(Duration::from_millis(sim::random(5_000)))).await;
        wind(SLACK).await
    });
    world.run()
}

/// A loop has lived for long, and its clock passes every power of two.
fn i19_i20_a_sleep_ends_at_every_age(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.set_limit(Duration::from_secs(1 << 50));
    world.client("clock", || async {
        for power in 5..50 {
            let edge = Duration::from_millis(1 << power);
            time::sleep(edge.saturating_sub(sim::elapsed() + Duration::from_millis(2))).await;
            for _ in 0..5 {
                let before = (sim::elapsed(), Handle::current().stats().turns);
                time::sleep(Duration::from_millis(1)).await;
                let (took, turns) = (sim::elapsed() - before.0, Handle::current().stats().turns - before.1);
                if took < Duration::from_millis(1) || took > Duration::from_millis(4) || turns > 3 {
                    sim::fail(format!(
                        "a millisecond took {took:?} and {turns} turns near 2^{power} ms (I19, I20)"
                    ));
                }
            }
        }
        Ok(())
    });
    world.run()
}

/// Timers of no time, armed anew in their own calls, do not keep anybody waiting, and deferred calls do not.
fn i22_timers_of_no_time_starve_nobody(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.client("busy", move || async move {
        fn again(handle: Handle) {
            let next = handle.clone();
            handle.after(Duration::ZERO, move || again(next));
        }
        for _ in 0..100 {
            again(Handle::current());
        }
        // And a call that always leaves another one for the next turn. On a ring such turns take no call, and so no virtual
        // time: nothing would ever come.
        fn always(handle: Handle) {
            let next = handle.clone();
            handle.defer(move || always(next));
        }
        if backend != Backend::IoUring {
            always(Handle::current());
        }
        let listener = evenkeel::net::Listener::bind("0.0.0.0:7000");
        let mut listener = listener?;
        let address = listener.local_addr()?.socket_addr().ok_or(io::ErrorKind::NotFound)?;
        let began = sim::elapsed();
        let near = evenkeel::spawn(evenkeel::net::Stream::connect(std::net::SocketAddr::new(
            [127, 0, 0, 1].into(),
            address.port(),
        )));
        let (far, _) = listener.accept().await?;
        drop((near.await, far));
        if sim::elapsed() - began > Duration::from_millis(100) {
            sim::fail("a connection waited for timers of no time (I22)");
        }
        Ok(())
    });
    world.run()
}

on_every_driver! {
    i18_i19_i23_timers_fire_once_and_in_time(0..15, &[]);
    i19_i20_a_sleep_ends_at_every_age(0..2, &[]);
    i22_timers_of_no_time_starve_nobody(0..5, &[]);
}
