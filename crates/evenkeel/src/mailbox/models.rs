//! Senders, the loop that takes, and its end.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use loom::thread;

use super::Mailbox;
use crate::remote::RemoteError;
use crate::sync::{Arc, AtomicUsize, Bell, Cell, Mutex, ThreadId, model, thread_id};

/// A loop's end of its mailbox. It waits as a loop does: not when a wake is pending.
struct Loop<M> {
    mailbox: Arc<Mailbox<M>>,
    bell: std::sync::Arc<Bell>,
}

impl<M: 'static> Loop<M> {
    fn new(most: usize) -> Self {
        let (bell, wake) = Bell::new();
        Loop { mailbox: Arc::new(Mailbox::new(most, wake)), bell }
    }

    fn wait(&self) {
        if self.mailbox.is_woken() {
            self.bell.take();
        } else {
            self.bell.wait();
        }
    }

    /// One turn, with room for so many messages.
    fn turn(&self, most: usize, each: impl FnMut(M)) {
        if self.mailbox.take_wake() {
            self.mailbox.take(most, each);
        }
    }
}

fn two<R: 'static>(act: impl Fn(usize) -> R + Clone + 'static) -> [thread::JoinHandle<R>; 2] {
    [0, 1].map(|id| {
        let act = act.clone();
        thread::spawn(move || act(id))
    })
}

/// Two senders, whose wakes may be one; the loop waits in between, and comes to each message once.
#[test]
fn i02_no_message_waits_for_a_wake_that_was_coalesced() {
    for room in [1, 8] {
        model(move || {
            let lp = Loop::new(8);
            let mailbox = lp.mailbox.clone();
            let senders = two(move |id| mailbox.push(id, |id| id).unwrap());
            let mut got = Vec::new();
            while got.len() < 2 {
                lp.wait();
                lp.turn(room, |id| got.push(id));
            }
            got.sort_unstable();
            assert_eq!(got, [0, 1]);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            assert!(lp.mailbox.pop().is_none());
        });
    }
}

/// What a thread did before it woke the loop is seen by the turn that takes the wake, also if that was another's.
#[test]
fn i02_what_a_wake_announces_is_seen() {
    model(|| {
        let lp = Loop::<()>::new(1);
        let said = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let (mailbox, says) = (lp.mailbox.clone(), said.clone());
        let others = two(move |id| {
            says[id].store(1, Relaxed);
            mailbox.wake();
        });
        while said.iter().any(|one| one.load(Relaxed) == 0) {
            lp.wait();
            assert!(lp.mailbox.take_wake() || !lp.mailbox.is_woken());
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// A message that counts what became of it.
struct Letter {
    fates: Arc<[AtomicUsize; 2]>,
    id: usize,
    home: ThreadId,
    /// Taken by the loop, or come back.
    told: bool,
}

impl Letter {
    fn tell(mut self) {
        self.told = true;
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        self.fates[self.id].fetch_add(1, Relaxed);
        assert!(self.told || thread_id() == self.home, "what waits is dropped on the loop's thread");
    }
}

/// Each message is taken, or dropped by the close, or comes back: one of these, once. None is left in a closed mailbox, where its
/// sender would wait for it for ever.
#[test]
fn a_message_meets_the_close() {
    model(|| {
        let lp = Loop::new(8);
        let fates = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let home = thread_id();
        let (mailbox, told) = (lp.mailbox.clone(), fates.clone());
        let senders = two(move |id| {
            let letter = Letter { fates: told.clone(), id, home, told: false };
            if let Err((letter, error)) = mailbox.push(letter, |letter| letter) {
                assert_eq!(error, RemoteError::LoopEnded);
                letter.tell();
            }
        });
        lp.turn(1, Letter::tell);
        lp.mailbox.close();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert!(fates.iter().all(|fate| fate.load(Relaxed) == 1), "{fates:?}");
    });
}

/// A full mailbox gives back what does not fit, and what it has is taken.
#[test]
fn a_full_mailbox_keeps_its_bound() {
    model(|| {
        let lp = Loop::new(1);
        let mailbox = lp.mailbox.clone();
        let senders = two(move |id| match mailbox.push(id, |id| id) {
            Ok(()) => true,
            Err((back, RemoteError::Full)) => back != id,
            Err(_) => panic!("it is open"),
        });
        let mut got = Vec::new();
        while got.is_empty() {
            lp.wait();
            lp.turn(8, |id| got.push(id));
        }
        let taken: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        lp.turn(8, |id| got.push(id));
        got.sort_unstable();
        let expected: Vec<_> = (0..2).filter(|id| taken[*id]).collect();
        assert_eq!(got, expected);
    });
}

/// A loop whose mailbox is full hears that it is to stop.
#[test]
fn i02_a_stop_finds_room_in_a_full_mailbox() {
    model(|| {
        let lp = Loop::new(1);
        let mailbox = lp.mailbox.clone();
        let [one, other] = two(move |id| match id {
            0 => drop(mailbox.push((), |()| ())),
            _ => mailbox.stop(),
        });
        loop {
            lp.wait();
            let stops = lp.mailbox.take_wake() && lp.mailbox.take_stop();
            if stops {
                break;
            }
        }
        one.join().unwrap();
        other.join().unwrap();
    });
}

/// What is sent beside the messages, under their lock, has their order, and is there when the message is taken: descriptors take
/// another way than the calls that they belong to.
#[test]
fn what_goes_along_arrives_in_the_order_of_the_messages() {
    model(|| {
        let lp = Loop::new(8);
        // A socket: whole pieces, in order. The cell finds out who is there at the same time.
        let socket = Arc::new((Mutex::new(Vec::new()), Cell::new(0)));
        let (mailbox, way) = (lp.mailbox.clone(), socket.clone());
        let senders = two(move |id| {
            let put = |id: &usize| -> Result<(), ()> {
                way.1.set(way.1.get() + 1);
                way.0.lock().unwrap().push(*id);
                Ok(())
            };
            mailbox.push_after(id, put, |id| id).ok().unwrap();
        });
        let mut got = 0;
        while got < 2 {
            lp.wait();
            lp.turn(8, |id| {
                assert_eq!(socket.0.lock().unwrap().remove(0), id);
                got += 1;
            });
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

/// A signal's handler counts and wakes; the loop that looks for signals finds each arrival.
#[test]
fn i02_a_signal_that_was_counted_is_seen() {
    model(|| {
        let lp = Loop::<()>::new(1);
        let arrived = Arc::new(AtomicUsize::new(0));
        let (mailbox, counts) = (lp.mailbox.clone(), arrived.clone());
        let handlers = two(move |_| {
            counts.fetch_add(1, Release);
            mailbox.wake();
        });
        while arrived.load(Acquire) < 2 {
            lp.wait();
            lp.mailbox.take_wake();
        }
        handlers.into_iter().for_each(|handler| handler.join().unwrap());
    });
}
