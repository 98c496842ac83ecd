//! Places, and the slot that a future and its operation share.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;
use crate::EventLoop;
use crate::fs::op::Output;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One who waits for a place, and how often it was woken.
struct Waits(Option<Pin<Box<InLine>>>, Arc<Count>);

impl Waits {
    fn new(places: &Rc<Places>) -> Self {
        let line = InLine { places: places.clone(), ticket: None };
        Waits(Some(Box::pin(line)), Arc::default())
    }

    fn poll(&mut self) -> Option<Place> {
        let waker = Waker::from(self.1.clone());
        match self.0.as_mut().unwrap().as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    fn woken(&self) -> usize {
        self.1.0.load(Ordering::Relaxed)
    }
}

fn places(free: usize) -> Rc<Places> {
    Rc::new(Places { free: Cell::new(free), line: RefCell::default(), next: Cell::new(0) })
}

#[test]
fn places_go_to_those_who_wait_first() {
    let places = places(1);
    let first = Waits::new(&places).poll().unwrap();
    let (mut second, mut third) = (Waits::new(&places), Waits::new(&places));
    assert!(second.poll().is_none() && third.poll().is_none());
    assert!(second.poll().is_none(), "asking again does not change the order");
    drop(first);
    assert_eq!((second.woken(), third.woken()), (1, 0));
    assert!(Waits::new(&places).poll().is_none(), "a newcomer does not pass those who wait");
    assert!(third.poll().is_none());
    let place = second.poll().unwrap();
    assert_eq!(places.line.borrow().len(), 1);
    drop(place);
    drop(third.poll().unwrap());
    assert_eq!(places.free.get(), 1);
}

#[test]
fn i02_a_place_of_one_who_went_away_goes_to_the_next() {
    let places = places(1);
    let first = Waits::new(&places).poll().unwrap();
    let (mut gone, mut next, mut left) = (Waits::new(&places), Waits::new(&places), Waits::new(&places));
    assert!(gone.poll().is_none() && left.poll().is_none() && next.poll().is_none());
    left.0 = None;
    drop(first);
    assert_eq!(gone.woken(), 1);
    // It has a place, and does not come for it.
    gone.0 = None;
    assert_eq!((left.woken(), next.woken()), (0, 1));
    drop(next.poll().unwrap());
    assert_eq!((places.free.get(), places.line.borrow().len()), (1, 0));
}

#[test]
fn i07_a_result_is_given_once_and_the_first_counts() {
    let (slot, count) = (Slot::default(), Arc::new(Count::default()));
    let waker = Waker::from(count.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(slot.poll(&mut cx).is_pending() && slot.poll(&mut cx).is_pending());
    slot.put(|| Ok(Output::Written(1))).unwrap().wake();
    assert!(slot.put(|| Err(ended())).is_none());
    assert!(matches!(slot.poll(&mut cx), Poll::Ready(Ok(Output::Written(1)))));
    assert!(slot.put(|| Err(ended())).is_none(), "what is taken stays taken");
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}

#[test]
fn i07_a_waiter_without_a_result_gives_an_error() {
    let (slot, places) = (Rc::new(Slot::default()), places(0));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(slot.poll(&mut cx).is_pending());
    drop(FileWaiter { slot: slot.clone(), _place: Place(places.clone()) });
    let Poll::Ready(Err(error)) = slot.poll(&mut cx) else { panic!("the future still waits") };
    assert_eq!((error.kind(), places.free.get()), (io::ErrorKind::NotConnected, 1));
}

#[test]
fn i26_a_panic_on_a_thread_reaches_the_caller() {
    let mut events = EventLoop::new().unwrap();
    let h = events.handle();
    let lp = &h.shared;
    for (id, job) in [(0, panics as fn() -> FileDone), (1, || Ok(Output::Written(7)))] {
        let slot = Rc::new(Slot::default());
        let waiter = FileWaiter { slot: slot.clone(), _place: Place(lp.files.places.clone()) };
        lp.files.waiters.borrow_mut().insert(id, waiter);
        lp.files.threads.submit(id, job).unwrap();
        match events.block_on(poll_fn(|cx| slot.poll(cx))).unwrap() {
            Err(e) if id == 0 => assert_eq!(e.to_string(), "the file operation panicked"),
            Ok(Output::Written(7)) if id == 1 => {}
            other => panic!("the job {id} gave {other:?}"),
        }
    }
    assert_eq!((h.stats().panics, h.stats().file_ops), (1, 2));
}

fn panics() -> FileDone {
    panic!("as the test wants it")
}
