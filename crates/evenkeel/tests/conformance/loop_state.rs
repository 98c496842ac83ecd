//! What a loop keeps for its users, what it tells them of its queues, and ids that travel.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;

use evenkeel::sim::is_simulated;
use evenkeel::{Backend, ConnId, Handle, Message, StaleConn};

use crate::support::{Probe, Server, event_loop, exactly, no_limits, read_now, reset_on_close};

on_every_kernel! {
    a_loop_keeps_one_value_of_each_type,
    i28_values_of_a_loop_end_after_its_connections_and_tasks,
    i37_a_value_that_calls_the_loop_when_it_is_dropped_hears_that_it_has_ended,
    i37_a_value_that_replaces_itself_when_it_is_dropped,
    what_is_flushed_is_on_its_way_before_the_callback_ends,
    i37_flushing_in_any_callback,
    i37_flushing_within_a_callback_when_the_peer_is_gone,
    i47_flushing_keeps_a_burst_within_the_limits_of_a_queue,
    queues_are_those_of_open_connections_that_wait,
    an_id_of_numbers_names_what_they_came_from_and_nothing_else,
}

struct Named(&'static str);

fn a_loop_keeps_one_value_of_each_type(backend: Backend) {
    let (a, b) = (event_loop(backend), event_loop(backend));
    let (a, b) = (a.handle(), b.handle());
    assert!(a.local::<Named>().is_none());
    assert!(a.set_local(Rc::new(Named("first"))).is_none());
    assert!(a.set_local(Rc::new(7_u32)).is_none());
    assert_eq!(a.set_local(Rc::new(Named("second"))).map(|before| before.0), Some("first"));
    assert_eq!(a.local::<Named>().map(|named| named.0), Some("second"));
    assert_eq!(a.local::<u32>().as_deref(), Some(&7));
    assert!(b.local::<Named>().is_none(), "another loop of the same thread");
    assert!(a.local::<Rc<Named>>().is_none());
}

/// Notes that it was dropped.
struct Ends(&'static str, Rc<RefCell<Vec<&'static str>>>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

fn i28_values_of_a_loop_end_after_its_connections_and_tasks(backend: Backend) {
    let mut s = Server::new(backend);
    let ended: Rc<RefCell<Vec<&str>>> = Rc::default();
    let closed = ended.clone();
    let (_peer, _) = s.pair(Probe::new().on_close(move |_, _| closed.borrow_mut().push("connection")));
    s.h.set_local(Rc::new(Ends("value", ended.clone())));
    let of_task = Ends("task", ended.clone());
    s.h.spawn(async move {
        std::future::pending::<()>().await;
        drop(of_task);
    })
    .detach();
    let of_timer = Ends("timer", ended.clone());
    s.h.after(std::time::Duration::from_secs(1000), move || drop(of_timer));
    s.turns(2);
    let h = s.h.clone();
    drop(s);
    let order = ended.borrow().clone();
    assert_eq!((order.len(), order.last()), (4, Some(&"value")), "{order:?}");
    // After the end there is none, and none is kept.
    assert!(h.local::<Ends>().is_none());
    assert!(h.set_local(Rc::new(Ends("late", ended.clone()))).is_none());
    assert_eq!(ended.borrow().last(), Some(&"late"));
    assert!(h.local::<Ends>().is_none());
}

/// Uses the loop when it is dropped.
struct Meddles(Handle, ConnId, Rc<Cell<u32>>);

impl Drop for Meddles {
    fn drop(&mut self) {
        let Meddles(h, id, calls) = self;
        assert!(h.local::<Meddles>().is_none() && h.local::<Named>().is_none());
        assert!(h.set_local(Rc::new(Named("late"))).is_none());
        assert!(h.local::<Named>().is_none(), "it would be kept for ever");
        assert_eq!(h.send(*id, &Message::from(b"late".to_vec())), Err(StaleConn::Gone));
        assert!(h.queues().is_empty());
        h.flush();
        h.defer(|| ());
        assert!(h.remote().run(|_| ()).is_err());
        calls.set(calls.get() + 1);
    }
}

fn i37_a_value_that_calls_the_loop_when_it_is_dropped_hears_that_it_has_ended(backend: Backend) {
    let calls = Rc::<Cell<u32>>::default();
    let mut s = Server::new(backend);
    let (_peer, seen) = s.pair(Probe::echo());
    s.h.set_local(Rc::new(Meddles(s.h.clone(), seen.id(), calls.clone())));
    s.h.set_local(Rc::new(Named("beside it")));
    s.turns(1);
    drop(s);
    assert_eq!((calls.get(), seen.why()), (1, "loop ended"));
}

/// Sets another value of its type when it is dropped, so often.
struct Again(Handle, Cell<u32>);

impl Drop for Again {
    fn drop(&mut self) {
        if self.1.get() > 0 {
            let before = self.0.set_local(Rc::new(Again(self.0.clone(), Cell::new(self.1.get() - 1))));
            drop(before);
        }
    }
}

fn i37_a_value_that_replaces_itself_when_it_is_dropped(backend: Backend) {
    let mut s = Server::new(backend);
    let h = s.h.clone();
    h.set_local(Rc::new(Again(h.clone(), Cell::new(2))));
    // Dropped by who replaces it, when nothing is borrowed: it sets another, whose drop sets one more.
    drop(h.set_local(Rc::new(Again(h.clone(), Cell::new(0)))));
    assert!(h.local::<Again>().is_some());
    let (mut peer, _) = s.pair(Probe::echo());
    s.serve(move |_| {
        peer.write_all(b"ping").unwrap();
        assert_eq!(exactly(&mut peer, 4), b"ping");
    });
    h.set_local(Rc::new(Again(h.clone(), Cell::new(3))));
    drop(s);
    assert!(h.local::<Again>().is_none());
}

fn what_is_flushed_is_on_its_way_before_the_callback_ends(backend: Backend) {
    let mut s = Server::new(backend);
    let (other, to) = s.pair(Probe::new());
    let other = Rc::new(RefCell::new(other));
    let (receiver, read) = (other.clone(), Rc::<RefCell<Vec<u8>>>::default());
    let so_far = read.clone();
    let (mut peer, _) = s.pair(Probe::new().on_data(move |conn, _| {
        let h = conn.handle();
        h.write(to.id(), b"small ").unwrap();
        h.send(to.id(), &Message::from(vec![b'x'; 2_000])).unwrap();
        h.flush();
        so_far.borrow_mut().extend(read_now(&mut receiver.borrow_mut()));
    }));
    peer.write_all(b"go").unwrap();
    s.until("it was flushed", || !read.borrow().is_empty());
    assert!(read.borrow().starts_with(b"small "));
    s.turns(3);
    let mut all = read.take();
    let left = 2_006 - all.len();
    all.extend(exactly(&mut *other.borrow_mut(), left));
    assert_eq!(all, [b"small ".as_slice(), &[b'x'; 2_000]].concat(), "once, and in order");
}

fn i37_flushing_in_any_callback(backend: Backend) {
    let mut s = Server::new(backend);
    fn write(conn: &mut evenkeel::Conn<'_>, what: &[u8]) {
        conn.write(what);
        conn.handle().flush();
        conn.send(&Message::from(what.to_ascii_uppercase()));
        conn.handle().flush();
        conn.handle().flush();
    }
    let h = s.h.clone();
    let probe = Probe::new()
        .on_open(|conn| write(conn, b"open"))
        .on_data(write)
        .on_notify(|conn| write(conn, b"told"))
        .on_eof(|conn| {
            write(conn, b"end");
            conn.close();
            conn.handle().flush();
        })
        .on_close(move |_, _| h.flush());
    let (mut peer, seen) = s.pair(probe);
    peer.write_all(b"data").unwrap();
    s.until("data came", || seen.len() == 4);
    s.h.notify(seen.id()).unwrap();
    s.until("it was told", || seen.notified.get() == 1);
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    s.until("it is over", || seen.closed());
    let (all, end) = crate::support::read_all(&mut peer);
    end.unwrap();
    assert_eq!(String::from_utf8(all).unwrap(), "openOPENdataDATAtoldTOLDendEND");
    assert_eq!(s.h.stats().panics, 0);
}

fn i37_flushing_within_a_callback_when_the_peer_is_gone(backend: Backend) {
    let mut s = Server::new(backend);
    let (gone, lost) = s.pair(Probe::new());
    let id = lost.id();
    reset_on_close(&gone);
    let gone = RefCell::new(Some(gone));
    let (mut peer, seen) = s.pair(Probe::new().on_data(move |conn, bytes| {
        drop(gone.take());
        let h = conn.handle();
        for _ in 0..50 {
            // Whether it has heard of the reset is the kernel's to say; nothing is called from in here.
            let _ = h.send(id, &Message::from(vec![b'x'; 1_000]));
            h.flush();
        }
        conn.write(bytes);
    }));
    peer.write_all(b"go").unwrap();
    s.until("the lost one has ended", || lost.closed());
    s.turns(3);
    assert_eq!((exactly(&mut peer, 2), seen.why(), s.h.stats().panics), (b"go".to_vec(), "open", 0));
}

fn i47_flushing_keeps_a_burst_within_the_limits_of_a_queue(backend: Backend) {
    let mut limits = no_limits();
    limits.max_queue_messages = 8;
    limits.max_queue_bytes = 64 << 10;
    let mut s = Server::with_limits(backend, limits);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| {
        for n in 0..40_u8 {
            if n % 4 == 0 {
                conn.handle().flush();
            }
            conn.send(&Message::from(vec![n; 1_000]));
        }
    }));
    peer.write_all(b"go").unwrap();
    s.until("it was asked", || seen.len() == 2);
    s.turns(5);
    assert_eq!(seen.why(), "open");
    let expected: Vec<u8> = (0..40_u8).flat_map(|n| [n; 1_000]).collect();
    s.serve(move |_| assert_eq!(exactly(&mut peer, 40_000), expected));
}

fn queues_are_those_of_open_connections_that_wait(backend: Backend) {
    let mut s = Server::new(backend);
    let h = s.h.clone();
    let (mut slow, to_slow) = s.pair(Probe::new());
    let (_idle, _) = s.pair(Probe::new());
    let (_third, to_third) = s.pair(Probe::new());
    assert_eq!(h.queues(), []);
    // More than the kernel's buffers hold.
    let len = if is_simulated() { 2 << 20 } else { 32 << 20 };
    let much = Message::from(vec![b'x'; len]);
    for id in [to_slow.id(), to_third.id()] {
        h.send(id, &much).unwrap();
    }
    s.until("both wait", || h.queues().len() == 2);
    s.turns(5);
    let (id, bytes) = h.queues().into_iter().find(|(id, _)| *id == to_slow.id()).unwrap();
    assert_eq!(h.queued(id), Ok(bytes));
    assert!((1..=len).contains(&bytes), "{bytes}");
    h.abort(to_third.id()).unwrap();
    let left: Vec<ConnId> = h.queues().into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, [to_slow.id()], "one that is over does not wait");
    s.serve(move |_| drop(exactly(&mut slow, len)));
    s.until("nothing waits", || h.queues().is_empty());
}

fn an_id_of_numbers_names_what_they_came_from_and_nothing_else(backend: Backend) {
    let mut s = Server::new(backend);
    let other = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    let bits = seen.id().to_bits();
    let again = ConnId::from_bits(bits);
    assert_eq!((again, again.to_bits()), (seen.id(), bits));
    s.h.write(again, b"yes").unwrap();
    assert_eq!(s.answer(&mut peer, 3), b"yes");
    assert_eq!(other.h.write(again, b"no"), Err(StaleConn::OtherLoop));
    drop(peer);
    s.until("it is over", || seen.closed());
    // Another connection has its place now, and is not meant.
    let mut later = Vec::new();
    for _ in 0..3 {
        later.push(s.pair(Probe::new()));
        assert_eq!(s.h.write(again, b"no"), Err(StaleConn::Gone));
    }
    for nowhere in [(0, bits.1), (u64::MAX, bits.1), (bits.0, u32::MAX), (bits.0 ^ 1, bits.1), (u64::MAX, 0)]
    {
        let id = ConnId::from_bits(nowhere);
        assert_eq!(id.to_bits(), nowhere);
        assert!(s.h.is_open(id) == later.iter().any(|(_, seen)| seen.id() == id));
        let _ = (s.h.queued(id), s.h.pause(id), s.h.resume(id), s.h.notify(id));
    }
    s.turns(3);
    assert_eq!(s.h.stats().panics, 0);
}
