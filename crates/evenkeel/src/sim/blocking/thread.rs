//! Threads that belong to a world: time stands still while one of them does something.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use super::Desk;
use crate::sim::place::here;

thread_local! {
    /// The world that this thread belongs to without running it.
    static BELONGS: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

/// How this thread reaches the world that it is in, if it is in one of this kind.
pub(super) fn desk() -> Option<Desk> {
    if let Some(desk) = BELONGS.with_borrow(Clone::clone) {
        return Some(desk);
    }
    let place = here().filter(|place| place.alone)?;
    let doorbell = place.sim.kernel.borrow().doorbell.clone();
    Some(Desk { doorbell, host: place.host })
}

/// Whether this thread counts among those whose doings keep time still.
pub(super) fn belongs_to(desk: &Desk) -> bool {
    BELONGS.with_borrow(|own| own.as_ref().is_some_and(|own| Arc::ptr_eq(&own.doorbell, &desk.doorbell)))
}

/// Whether this thread belongs to a world that another one runs.
pub(in crate::sim) fn is_helper() -> bool {
    BELONGS.with_borrow(Option::is_some)
}

/// A thread belongs to its world for as long as this lives.
struct Belonging {
    desk: Desk,
    ended: Arc<AtomicBool>,
}

impl Drop for Belonging {
    fn drop(&mut self) {
        BELONGS.set(None);
        self.desk.doorbell.ring(|outside| {
            self.ended.store(true, Ordering::Release);
            outside.running -= 1;
            outside.stirred = true;
        });
    }
}

/// A thread that [`spawn`] has started.
#[derive(Debug)]
pub struct JoinHandle<T> {
    thread: std::thread::JoinHandle<T>,
    ended: Arc<AtomicBool>,
}

impl<T> JoinHandle<T> {
    /// Waits for the thread to end; the world goes on meanwhile.
    ///
    /// # Errors
    /// What the thread has panicked with.
    pub fn join(self) -> std::thread::Result<T> {
        if here().is_some_and(|place| place.alone) {
            until(|| self.ended.load(Ordering::Acquire).then_some(()));
            return self.thread.join();
        }
        aside(|| self.thread.join())
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.thread.is_finished()
    }
}

/// Starts a thread that belongs to this thread's world. Outside of a world it is the standard library's.
///
/// # Panics
/// If the system refuses a thread.
pub fn spawn<T: Send + 'static>(code: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let ended = Arc::new(AtomicBool::new(false));
    let Some(desk) = desk() else { return JoinHandle { thread: std::thread::spawn(code), ended } };
    // From now on, so that nothing overtakes its first step.
    desk.doorbell.ring(|outside| outside.running += 1);
    let belonging = Belonging { desk, ended: ended.clone() };
    let thread = std::thread::spawn(move || {
        let belonging = belonging;
        BELONGS.set(Some(belonging.desk.clone()));
        code()
    });
    JoinHandle { thread, ended }
}

/// Waits for a condition that another thread of the world brings about, on the world's own thread; the world goes on meanwhile.
/// It is looked at whenever something has happened in the world. Outside of a world it is asked again and again.
pub fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let place = here().filter(|place| place.alone);
    loop {
        if let Some(place) = &place {
            place.sim.settle();
            if let Some(found) = condition() {
                return found;
            }
            place.sim.pass_time(None);
        } else {
            if let Some(found) = condition() {
                return found;
            }
            std::thread::yield_now();
        }
    }
}

/// Runs code that waits for something that is not the world's: time may pass meanwhile. For threads that [`spawn`] has started;
/// elsewhere it is a plain call.
pub fn aside<R>(code: impl FnOnce() -> R) -> R {
    struct Aside(Desk);
    impl Drop for Aside {
        fn drop(&mut self) {
            self.0.doorbell.ring(|outside| outside.running += 1);
        }
    }
    let _aside = BELONGS.with_borrow(Clone::clone).map(|desk| {
        desk.doorbell.ring(|outside| {
            outside.running -= 1;
            outside.stirred = true;
        });
        Aside(desk)
    });
    code()
}

/// Lets so much time pass; in a world, virtual time.
pub fn sleep(time: Duration) {
    match desk() {
        Some(desk) => {
            let woken: io::Result<()> =
                desk.call(Some(time), |_, _, last| if last { Ok(()) } else { Err(Errno::AGAIN) });
            // It fails only if the world has ended, which nobody waits for.
            drop(woken);
        }
        // Outside of a world it is what it is called.
        None => std::thread::sleep(time),
    }
}

/// Lets other threads go on, and what is due happen. For loops that ask for something again and again.
pub fn yield_now() {
    if let Some(place) = here().filter(|place| place.alone) {
        place.sim.settle();
    }
    std::thread::yield_now();
}
