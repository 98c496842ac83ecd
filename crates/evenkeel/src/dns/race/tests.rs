//! Orders, and races whose attempts end when the test wants it. The delay is one that never or always passes.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use super::*;
use crate::EventLoop;

const NEVER: Duration = Duration::from_secs(1 << 40);

fn four(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 80).into()
}

fn six(last: u16) -> SocketAddr {
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80).into()
}

#[test]
fn families_take_turns_and_the_resolvers_first_begins() {
    let found = [six(1), six(2), six(3), four(1), four(2)];
    assert_eq!(interleave(&found), [six(1), four(1), six(2), four(2), six(3)]);
    let found = [four(1), six(1), four(2), four(3)];
    assert_eq!(interleave(&found), [four(1), six(1), four(2), four(3)]);
    assert_eq!(interleave(&[four(1), four(1), six(1), four(1)]), [four(1), six(1)], "each once");
    assert_eq!(interleave(&[six(2), six(1)]), [six(2), six(1)], "within a family the order stays");
    assert_eq!(interleave(&[]), []);
}

/// What an attempt comes to.
type End = io::Result<SocketAddr>;

/// Attempts that were begun and not dropped, each with its end as soon as the test says it.
#[derive(Default)]
struct Attempts(RefCell<Vec<(SocketAddr, Option<End>)>>);

impl Attempts {
    fn begin(self: &Rc<Self>, to: SocketAddr) -> impl Future<Output = End> + use<> {
        struct Drops(Rc<Attempts>, SocketAddr);
        impl Drop for Drops {
            fn drop(&mut self) {
                self.0.0.borrow_mut().retain(|(to, _)| *to != self.1);
            }
        }
        self.0.borrow_mut().push((to, None));
        let drops = Drops(self.clone(), to);
        poll_fn(move |_| {
            let mut all = drops.0.0.borrow_mut();
            let (_, end) = all.iter_mut().find(|(at, _)| *at == to).unwrap();
            end.take().map_or(Poll::Pending, Poll::Ready)
        })
    }

    fn end(&self, to: SocketAddr, end: End) {
        let mut all = self.0.borrow_mut();
        all.iter_mut().find(|(at, _)| *at == to).unwrap().1 = Some(end);
    }

    fn begun(&self) -> Vec<SocketAddr> {
        self.0.borrow().iter().map(|(to, _)| *to).collect()
    }
}

fn refused() -> End {
    Err(io::ErrorKind::ConnectionRefused.into())
}

#[test]
fn the_next_begins_at_once_when_one_fails() {
    let (attempts, order) = (Rc::<Attempts>::default(), vec![four(1), six(1), four(2)]);
    let mut race = Race::new(order, NEVER);
    let mut begin = |to| attempts.begin(to);
    let body = poll_fn(|cx| {
        assert!(race.poll(cx, &mut begin).is_pending());
        assert!(race.poll(cx, &mut begin).is_pending());
        assert_eq!(attempts.begun(), [four(1)], "its time is not up");
        attempts.end(four(1), refused());
        assert!(race.poll(cx, &mut begin).is_pending());
        assert_eq!(attempts.begun(), [six(1)], "and the failed one is dropped");
        attempts.end(six(1), Ok(six(1)));
        assert!(matches!(race.poll(cx, &mut begin), Poll::Ready(Some(won)) if won == six(1)));
        Poll::Ready(())
    });
    EventLoop::new().unwrap().block_on(body).unwrap();
    let (failed, left) = race.give_up();
    assert_eq!((failed.len(), failed[0].to, left), (1, four(1), 1));
}

#[test]
fn the_next_begins_beside_one_that_takes_long_and_the_first_wins() {
    let (attempts, order) = (Rc::<Attempts>::default(), vec![six(1), four(1), six(2)]);
    let mut race = Race::new(order, Duration::from_millis(20));
    let mut begin = |to| attempts.begin(to);
    let began = std::time::Instant::now();
    let watched = attempts.clone();
    let won = EventLoop::new().unwrap().block_on(poll_fn(|cx| {
        let polled = race.poll(cx, &mut begin);
        if watched.begun().len() == 2 && began.elapsed() < Duration::from_millis(20) {
            panic!("the second begins early");
        }
        if watched.begun().len() == 3 {
            assert!(began.elapsed() >= Duration::from_millis(40), "the third begins early");
            watched.end(four(1), Ok(four(1)));
            cx.waker().wake_by_ref();
        }
        polled
    }));
    assert_eq!(won.unwrap(), Some(four(1)));
    assert_eq!(attempts.begun(), [six(1), six(2)]);
    drop(race);
    assert_eq!(attempts.begun(), [], "the others are dropped with the race");
}

#[test]
fn a_race_is_over_when_all_have_failed_and_tells_of_each() {
    let attempts = Rc::<Attempts>::default();
    let mut race = Race::new(vec![six(1), four(1)], Duration::ZERO);
    let mut begin = |to| attempts.begin(to);
    let watched = attempts.clone();
    let won = EventLoop::new().unwrap().block_on(poll_fn(|cx| {
        let polled = race.poll(cx, &mut begin);
        if watched.begun().len() == 2 {
            watched.end(four(1), refused());
            watched.end(six(1), Err(io::ErrorKind::TimedOut.into()));
            cx.waker().wake_by_ref();
        }
        polled
    }));
    assert_eq!(won.unwrap(), None);
    let (failed, left) = race.give_up();
    let failed: Vec<_> = failed.into_iter().map(|attempt| (attempt.to, attempt.error.kind())).collect();
    let both = [(six(1), io::ErrorKind::TimedOut), (four(1), io::ErrorKind::ConnectionRefused)];
    assert_eq!((failed, left), (both.to_vec(), 0));
}

#[test]
fn what_is_in_progress_at_the_deadline_is_told_too() {
    let attempts = Rc::<Attempts>::default();
    let mut race = Race::new(vec![four(1), four(2)], NEVER);
    let mut begin = |to| attempts.begin(to);
    let body = poll_fn(|cx| Poll::Ready(race.poll(cx, &mut begin).is_pending()));
    assert!(EventLoop::new().unwrap().block_on(body).unwrap());
    let (late, left) = race.give_up();
    assert_eq!(
        (late.len(), late[0].to, late[0].error.kind(), left),
        (1, four(1), io::ErrorKind::TimedOut, 1)
    );
    assert_eq!(attempts.begun(), []);
}
