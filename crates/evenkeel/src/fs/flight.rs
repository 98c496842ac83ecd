//! Operations in flight: how one gets from a future to the driver or the threads, and its result back.
//!
//! ```text
//!   future ── a place ──> Driver::file ──────────────> the ring ────────────┐
//!                              └─ Err ──> Threads ──────────> take_done ────┤
//!   future <── Slot <── FileWaiter::complete <──────────────────────────────┘
//! ```
//!
//! A future holds nothing that the operation needs. Dropping it before it has a place means that nothing happens;
//! dropping it later abandons the operation, which still runs to its end and keeps its place until then.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::op::{FileDone, FileOp, Output};
use super::threads::Threads;
use crate::core::{Shared, caught};
use crate::pool::{LaneOptions, LaneStats};
use crate::stand_in::StandIn;
use crate::sys::WakeFn;

/// The file operations of one loop.
pub(crate) struct Files {
    places: Rc<Places>,
    /// How many places there are, on whatever backend. It bounds the threads' queue, and the memory that operations own.
    most: usize,
    threads: Threads,
    /// Who waits for what the threads were given.
    waiters: RefCell<BTreeMap<u64, FileWaiter>>,
    next: Cell<u64>,
    /// A simulated host, which has the disk.
    host: Option<Arc<dyn StandIn>>,
}

/// Performs an operation: waits for a place, makes the operation, has it run, and waits for its result.
///
/// # Errors
/// The operation's, and those of the threads: none can be started, or the loop has ended.
pub(super) async fn perform(lp: &Rc<Shared>, make: impl FnOnce() -> FileOp) -> FileDone {
    let place = InLine { places: lp.files.places.clone(), ticket: None }.await;
    if lp.ended.get() {
        return Err(ended());
    }
    let slot = Rc::new(Slot::default());
    let waiter = FileWaiter { slot: slot.clone(), _place: place };
    let op = make();
    let taken = if lp.files.host.is_some() { Err((op, waiter)) } else { lp.driver.file(lp, op, waiter) };
    if let Err((op, waiter)) = taken {
        lp.files.to_threads(op, waiter).map_err(|(error, _)| error)?;
    }
    poll_fn(|cx| slot.poll(cx)).await
}

/// Runs a call that blocks on a thread, and waits for what it gives. It has a place as an operation has one; a future that
/// is dropped before there is one means that nothing happens, and one that is dropped later abandons the call.
///
/// # Errors
/// The call's; those of the pool; `Other` if the call panics.
pub(crate) async fn on_thread(
    lp: Rc<Shared>,
    call: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
) -> io::Result<Vec<u8>> {
    match perform(&lp, || FileOp::Call(Box::new(move || Ok(Output::Read(call()?))))).await? {
        Output::Read(got) => Ok(got),
        other => unreachable!("the call gave {other:?}"),
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the loop has ended")
}

impl Files {
    /// `notify` wakes the loop, which then calls [`deliver`](Self::deliver).
    pub(crate) fn new(notify: WakeFn, options: &LaneOptions, host: Option<Arc<dyn StandIn>>) -> Self {
        let most = options.queue.max(1);
        let places = Places { free: Cell::new(most), line: RefCell::default(), next: Cell::new(0) };
        let threads = Threads::new(notify, options, host.clone());
        let (waiters, next) = (RefCell::default(), Cell::new(0));
        Files { places: Rc::new(places), most, threads, waiters, next, host }
    }

    fn to_threads(&self, op: FileOp, waiter: FileWaiter) -> Result<(), (io::Error, FileWaiter)> {
        let id = self.next.get();
        self.next.set(id + 1);
        let host = self.host.clone();
        let perform = move || match host {
            None => op.run(),
            Some(host) => host.file(op),
        };
        if let Err(error) = self.threads.submit(id, perform) {
            return Err((error, waiter));
        }
        self.waiters.borrow_mut().insert(id, waiter);
        Ok(())
    }

    /// Has a thread perform what a driver's kernel took and did not do. As for [`FileWaiter::complete`], nothing may be
    /// borrowed.
    pub(crate) fn hand_back(&self, lp: &Shared, op: FileOp, waiter: FileWaiter) {
        if let Err((error, waiter)) = self.to_threads(op, waiter) {
            waiter.complete(lp, Err(error));
        }
    }

    /// Passes on what the threads have done. Called on each wake of the loop, when nothing of it is borrowed.
    pub(crate) fn deliver(&self, lp: &Shared) {
        if self.waiters.borrow().is_empty() {
            return;
        }
        for (id, result) in self.threads.take_done() {
            lp.stats.add(&lp.stats.file_ops_on_threads);
            let waiter = self.waiters.borrow_mut().remove(&id);
            let done = result.unwrap_or_else(|| {
                lp.stats.add(&lp.stats.panics);
                Err(io::Error::other("the file operation panicked"))
            });
            if let Some(waiter) = waiter {
                waiter.complete(lp, done);
            }
        }
    }

    /// The loop has ended: whoever still waits hears so.
    pub(crate) fn end(&self) {
        self.threads.end();
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        drop(waiters);
        // Each is told that it has a place, and finds that the loop has ended.
        let line = std::mem::take(&mut *self.places.line.borrow_mut());
        for waker in line.into_values() {
            caught(|| waker.wake());
        }
    }

    /// Operations that have a place.
    pub(crate) fn in_flight(&self) -> usize {
        self.most.saturating_sub(self.places.free.get())
    }

    /// The loop's own threads for files.
    pub(crate) fn lane(&self) -> LaneStats {
        self.threads.stats()
    }

    /// Operations that wait for a place.
    pub(crate) fn waiting(&self) -> usize {
        self.places.line.borrow().len()
    }
}

/// Where the result of one operation goes. It belongs to the loop's thread, and outlives the future that waits.
///
/// Dropped without a result, as a driver does at the loop's end, it gives the future an error.
pub(crate) struct FileWaiter {
    slot: Rc<Slot>,
    /// Free again when the operation has ended.
    _place: Place,
}

impl FileWaiter {
    /// Hands over the result and wakes who waits for it; if nobody does any more, the result is dropped here, which
    /// closes what was opened. Wakers may be the user's code: nothing of the loop or of the driver may be borrowed.
    pub(crate) fn complete(self, lp: &Shared, done: FileDone) {
        lp.stats.add(&lp.stats.file_ops);
        if let Some(waker) = self.slot.put(|| done) {
            lp.guard(|| waker.wake());
        }
    }
}

/// A waiter for a driver's own tests, and the future that waits by it.
#[cfg(test)]
pub(crate) fn waiter(lp: &Shared) -> (FileWaiter, impl Future<Output = FileDone> + use<>) {
    let slot = Rc::new(Slot::default());
    assert!(lp.files.places.take());
    let waiter = FileWaiter { slot: slot.clone(), _place: Place(lp.files.places.clone()) };
    (waiter, async move { poll_fn(|cx| slot.poll(cx)).await })
}

impl Drop for FileWaiter {
    fn drop(&mut self) {
        if let Some(waker) = self.slot.put(|| Err(ended())) {
            caught(|| waker.wake());
        }
    }
}

/// What a future and its operation share.
struct Slot(Cell<SlotState>);

enum SlotState {
    Waiting(Option<Waker>),
    Done(FileDone),
    Taken,
}

impl Default for Slot {
    fn default() -> Self {
        Slot(Cell::new(SlotState::Waiting(None)))
    }
}

impl Slot {
    /// Puts a result in, unless there is or was one; returns who is to be woken.
    fn put(&self, done: impl FnOnce() -> FileDone) -> Option<Waker> {
        match self.0.replace(SlotState::Taken) {
            SlotState::Waiting(waker) => {
                self.0.set(SlotState::Done(done()));
                waker
            }
            over => {
                self.0.set(over);
                None
            }
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<FileDone> {
        // Cloning and dropping wakers may run the user's code, which finds the slot whole.
        let waker = cx.waker().clone();
        let left = match self.0.replace(SlotState::Taken) {
            SlotState::Done(done) => return Poll::Ready(done),
            SlotState::Waiting(left) => left,
            SlotState::Taken => unreachable!("a future is not polled after it was ready"),
        };
        self.0.set(SlotState::Waiting(Some(waker)));
        drop(left);
        Poll::Pending
    }
}

/// The places for operations in flight, and who waits for one, first come first served.
struct Places {
    /// Above 0 only when nobody waits.
    free: Cell<usize>,
    line: RefCell<BTreeMap<u64, Waker>>,
    next: Cell<u64>,
}

impl Places {
    /// Takes a free place, if there is one.
    fn take(&self) -> bool {
        let free = self.free.get();
        self.free.set(free.saturating_sub(1));
        free > 0
    }

    fn new_ticket(&self) -> u64 {
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        ticket
    }
}

/// The right to have one operation in flight.
struct Place(Rc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        let next = self.0.line.borrow_mut().pop_first();
        match next {
            // The place is the next one's now: who finds its ticket gone from the line has one.
            Some((_, waker)) => drop(caught(|| waker.wake())),
            None => self.0.free.set(self.0.free.get() + 1),
        }
    }
}

/// Waits for a place.
struct InLine {
    places: Rc<Places>,
    ticket: Option<u64>,
}

impl Future for InLine {
    type Output = Place;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Place> {
        // Cloning a waker may run the user's code, which may free a place; so it comes before the look.
        let waker = cx.waker().clone();
        let places = self.places.clone();
        let has_place = match self.ticket {
            None => places.take(),
            Some(ticket) => !places.line.borrow().contains_key(&ticket),
        };
        if has_place {
            self.ticket = None;
            return Poll::Ready(Place(places));
        }
        let ticket = *self.ticket.get_or_insert_with(|| places.new_ticket());
        let left = places.line.borrow_mut().insert(ticket, waker);
        drop(left);
        Poll::Pending
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let waker = self.places.line.borrow_mut().remove(&ticket);
        if waker.is_none() {
            // It has a place, and nobody to use it: the next one gets it.
            drop(Place(self.places.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
