//! The model's ring, held to what the running kernel's is, and its ledgers, which must find what they are there for.

#![allow(clippy::unwrap_used)]

use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::Offer;
use super::setup::Version;
use crate::proactor::probe;
use crate::sim::fault::Fault;
use crate::sim::kernel::Kernel;
use crate::sim::net::Network;
use crate::sim::sys::{Sim, SimSys};
use crate::sys::buffers::{Buffers, Provision};
use crate::sys::ring::{Done, Entry, Ring, Setup, SetupFlags, tests::tests_over};
use crate::sys::{Fd, Sys, poll_bits};

/// A host without faults and delays.
fn host() -> SimSys {
    let mut kernel = Kernel::new(1, Network::immediate(), false);
    let host = kernel.add_host("host");
    let sim = Sim::new(kernel);
    let id = sim.add_loop(host, false);
    SimSys::new(sim, host, id)
}

fn offering(offer: Offer) -> SimSys {
    let sys = host();
    sys.sim.kernel.borrow_mut().host(sys.host).rings = Some(offer);
    sys
}

/// The bodies that the running kernel has to pass.
mod as_the_running_kernel {
    super::tests_over!(super::host());
}

const DEFERRED: SetupFlags =
    SetupFlags::SUBMIT_ALL.union(SetupFlags::SINGLE_ISSUER).union(SetupFlags::DEFER_TASKRUN);

fn ring(sys: &SimSys) -> Ring {
    Ring::new(sys, Setup { submissions: 8, completions: 16, flags: DEFERRED }).unwrap()
}

fn done(sys: &SimSys, ring: &Ring) -> Vec<Done> {
    let _ = ring.enter(sys, 0, true, None);
    let mut all = Vec::new();
    ring.reap(|done| all.push(done));
    all
}

const SMALL: Provision = Provision { count: 2, size: 16, incremental: false };

/// Each version has what it came with, and nothing older has it.
#[test]
fn i17_the_probe_finds_what_each_version_has() {
    let found = |version| {
        let features = probe(&offering(Offer { version, ..Offer::NEWEST }), "").unwrap();
        let has = |flag| features.setup.contains(flag);
        (
            features.multishot_recv,
            has(SetupFlags::DEFER_TASKRUN),
            has(SetupFlags::NO_SQARRAY),
            features.incremental,
        )
    };
    assert_eq!(found(Version::V5_19), (false, false, false, false));
    assert_eq!(found(Version::V6_0), (true, false, false, false));
    assert_eq!(found(Version::V6_1), (true, true, false, false));
    assert_eq!(found(Version::V6_6), (true, true, true, false));
    assert_eq!(found(Version::V6_12), (true, true, true, true));
    for errno in [Errno::PERM, Errno::NOSYS, Errno::NOMEM] {
        let refusal = probe(&offering(Offer { refusal: Some(errno), ..Offer::NEWEST }), "").unwrap_err();
        assert_eq!(refusal.raw_os_error(), Some(errno.raw_os_error()));
    }
}

/// A kernel that is interrupted, busy, or out of room for a moment is not taken for one that cannot.
#[test]
fn i17_the_probe_is_not_misled() {
    for seed in 0..200 {
        let mut kernel = Kernel::new(seed, Network::immediate(), false);
        for fault in
            [Fault::SubmitFails, Fault::Interrupted, Fault::CompletionOverflow, Fault::SpuriousReadable]
        {
            kernel.faults.set_rate(fault, 0.2);
        }
        let host = kernel.add_host("host");
        let sim = Sim::new(kernel);
        let sys = SimSys::new(sim.clone(), host, sim.add_loop(host, false));
        let features = probe(&sys, "").unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(features.multishot_recv && features.incremental, "seed {seed}: {features:?}");
        assert_eq!(sim.kernel.borrow_mut().host(host).table.used(), 0, "seed {seed}: I36");
    }
}

/// Task work is done when completions are asked for, and not before; the flag tells that there is some.
#[test]
fn deferred_work_waits_until_completions_are_wanted() {
    let sys = host();
    let flags = DEFERRED | SetupFlags::TASKRUN_FLAG;
    let ring = Ring::new(&sys, Setup { submissions: 8, completions: 16, flags }).unwrap();
    let (a, b) = sys.socket_pair().unwrap();
    ring.push(&Entry::poll(a, poll_bits::IN, true).with(1));
    ring.enter(&sys, 0, false, None).unwrap();
    assert!(!ring.has_work());
    sys.send(b, b"x").unwrap();
    ring.enter(&sys, 0, false, None).unwrap();
    assert!(ring.has_work());
    ring.reap(|done| panic!("{done:?} came before it was asked for"));
    let all = done(&sys, &ring);
    assert!(all.len() == 1 && all[0].more() && all[0].result == i32::from(poll_bits::IN), "{all:?}");
    assert!(!ring.has_work());
    // Nobody sends: the time passes, and is over.
    let before = sys.clock();
    let waited = ring.enter(&sys, 1, true, Some(Duration::from_secs(3600)));
    assert_eq!(waited.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(sys.clock() - before >= Duration::from_secs(3600));
}

/// A request keeps what it was made for open; the peer sees the end when the request has ended (I11).
#[test]
fn i11_a_closed_number_is_open_while_a_request_is_in_flight() {
    let sys = host();
    let ring = ring(&sys);
    let (a, b) = sys.socket_pair().unwrap();
    ring.push(&Entry::poll(a, poll_bits::IN, false).with(1));
    ring.enter(&sys, 0, false, None).unwrap();
    // What no driver of ours may do.
    sys.call(|kernel, host| kernel.close(host, a)).unwrap();
    assert_eq!(sys.recv(b, &mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    ring.push(&Entry::cancel(1).with(2));
    assert_eq!(done(&sys, &ring)[0].result, -Errno::CANCELED.raw_os_error());
    assert_eq!(sys.recv(b, &mut [0; 8]).unwrap(), 0);
}

#[test]
#[should_panic(expected = "(I11)")]
fn i11_closing_under_a_request_is_found() {
    let sys = host();
    let ring = ring(&sys);
    let (a, _) = sys.socket_pair().unwrap();
    ring.push(&Entry::poll(a, poll_bits::IN, false).with(1));
    ring.enter(&sys, 0, false, None).unwrap();
    sys.close(a);
}

/// What is in a buffer when it is given back is written over: whoever still reads it sees that.
#[test]
fn i09_what_is_given_back_is_written_over() {
    let sys = host();
    let ring = ring(&sys);
    let buffers = Buffers::new(&sys, &ring, SMALL).unwrap();
    let (a, b) = sys.socket_pair().unwrap();
    sys.send(b, b"received").unwrap();
    ring.push(&Entry::recv(a, false).with(1));
    let all = done(&sys, &ring);
    let span = buffers.take(&all[0]).unwrap();
    assert_eq!(buffers.bytes(&span), b"received");
    let (at, len) = (buffers.bytes(&span).as_ptr() as u64, span.len());
    buffers.release(span);
    assert!(done(&sys, &ring).is_empty());
    let kernel = sys.sim.kernel.borrow();
    let (region, from) = kernel.rings.memory.find(at, len).unwrap();
    assert!((from..from + len).all(|at| region.get::<u8>(at) == 0xdd));
}

fn receiving(sys: &SimSys) -> (Ring, Buffers, Fd) {
    let ring = ring(sys);
    let buffers = Buffers::new(sys, &ring, SMALL).unwrap();
    let (a, b) = sys.socket_pair().unwrap();
    ring.push(&Entry::recv(a, true).with(1));
    assert!(done(sys, &ring).is_empty());
    (ring, buffers, b)
}

/// A group of buffers runs out, which ends the receive, and goes on when one is back (I13).
#[test]
fn i13_without_a_buffer_the_receive_ends_and_the_bytes_stay() {
    let sys = host();
    let (ring, buffers, b) = receiving(&sys);
    sys.send(b, &[7; 40]).unwrap();
    let all = done(&sys, &ring);
    let results: Vec<_> = all.iter().map(|done| (done.result, done.more())).collect();
    assert_eq!(results, [(16, true), (16, true), (-Errno::NOBUFS.raw_os_error(), false)]);
    let spans: Vec<_> = all.iter().filter_map(|done| buffers.take(done)).collect();
    spans.into_iter().for_each(|span| buffers.release(span));
    let object = sys.sim.kernel.borrow().lookup(sys.host, b - 1).unwrap();
    let left = sys.sim.kernel.borrow().objects.get(object).unwrap().stream().unwrap().unread();
    assert_eq!(left, 8);
}

#[test]
#[should_panic(expected = "(I15)")]
fn i15_a_buffer_that_is_provided_twice_is_found() {
    let sys = host();
    let (ring, buffers, _) = receiving(&sys);
    // Says that the kernel has used it, which it has not.
    let span = buffers.take(&Done::received(3, 0, false)).unwrap();
    buffers.release(span);
    done(&sys, &ring);
}

#[test]
#[should_panic(expected = "(I16)")]
fn i16_memory_that_goes_before_a_receive_has_ended_is_found() {
    let sys = host();
    let (_, buffers, _) = receiving(&sys);
    buffers.free(&sys);
}

#[test]
#[should_panic(expected = "(I16)")]
fn i16_memory_that_goes_when_the_ring_went_before_its_receive_is_found() {
    let sys = host();
    let (ring, buffers, _) = receiving(&sys);
    ring.close(&sys);
    buffers.free(&sys);
}

/// A loop on this thread whose ring ends with it leaves no descriptor and no memory behind.
#[test]
fn i16_i36_a_loop_that_ends_leaves_nothing() {
    let sys = host();
    let features = probe(&sys, "").unwrap();
    let driver = crate::proactor::Uring::new(sys.clone(), features).unwrap();
    let events = crate::EventLoop::over(crate::Backend::IoUring, Box::new(driver));
    drop(events);
    let kernel = &mut *sys.sim.kernel.borrow_mut();
    assert_eq!(kernel.host(sys.host).table.used(), 0);
    assert!(kernel.rings.memory.is_empty());
    assert_eq!(Rc::strong_count(&sys.sim), 1);
}
