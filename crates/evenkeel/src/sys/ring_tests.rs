//! The two queues, over small ones of the running kernel. The bodies take any kernel, so that a model of one can be held to the same.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::{Done, Entry, Ring, Setup, SetupFlags};
use crate::sys::{Fd, Real, Sys, poll_bits};

fn ring<Y: Sys>(sys: &Y, submissions: u32, completions: u32) -> Ring {
    Ring::new(sys, Setup { submissions, completions, flags: SetupFlags::SUBMIT_ALL }).unwrap()
}

fn send(fd: Fd, bytes: &'static [u8], quiet: bool) -> Entry {
    // SAFETY: the bytes are static.
    unsafe { Entry::send(fd, bytes, quiet) }
}

fn reaped(ring: &Ring) -> Vec<Done> {
    let mut all = Vec::new();
    ring.reap(|done| all.push(done));
    all
}

fn received<Y: Sys>(sys: &Y, fd: Fd) -> Vec<u8> {
    let mut memory = [0; 100];
    sys.recv(fd, &mut memory).map_or(Vec::new(), |n| memory[..n].to_vec())
}

/// Makes a test of each body, over this kernel.
macro_rules! tests_over {
    ($sys:expr) => {
        #[test]
        fn i09_a_revoked_send_is_never_sent_and_all_else_is_done() {
            crate::sys::ring::tests::i09_a_revoked_send_is_never_sent_and_all_else_is_done(&$sys);
        }
        #[test]
        fn i09_a_send_is_over_when_enter_returns() {
            crate::sys::ring::tests::i09_a_send_is_over_when_enter_returns(&$sys);
        }
        #[test]
        fn a_full_queue_takes_nothing_until_the_kernel_has() {
            crate::sys::ring::tests::a_full_queue_takes_nothing_until_the_kernel_has(&$sys);
        }
        #[test]
        fn i14_completions_without_room_come_with_the_next_enter() {
            crate::sys::ring::tests::i14_completions_without_room_come_with_the_next_enter(&$sys);
        }
        #[test]
        fn i11_cancelling_one_operation_leaves_the_others_of_its_socket() {
            crate::sys::ring::tests::i11_cancelling_one_operation_leaves_the_others_of_its_socket(&$sys);
        }
    };
}
pub(crate) use tests_over;

mod real {
    super::tests_over!(super::Real);
}

pub(crate) fn i09_a_revoked_send_is_never_sent_and_all_else_is_done<Y: Sys>(sys: &Y) {
    let ring = ring(sys, 8, 16);
    let (a, b) = sys.socket_pair().unwrap();
    // Around the end of the queue, whose places are used again.
    for round in 0..20 {
        assert!(ring.push(&send(a, b"revoked", true).with(7)));
        assert!(ring.push(&Entry::poll(a, poll_bits::OUT, false).with(9)));
        assert!(ring.push(&send(a, b"too", round % 2 == 0).with(8)));
        let mut told = Vec::new();
        ring.revoke_sends(|data| told.push(data));
        told.sort_unstable();
        assert_eq!(told, [7, 8], "each once");
        ring.revoke_sends(|data| panic!("{data} was revoked twice"));
        assert_eq!(ring.enter(sys, 1, true, None).unwrap(), 3);
        let done: Vec<_> = reaped(&ring).iter().map(|done| done.data).collect();
        assert_eq!(done, [9]);
        assert!(received(sys, b).is_empty());
        assert!(ring.push(&send(a, b"sent", true).with(1)));
        ring.enter(sys, 0, false, None).unwrap();
        ring.revoke_sends(|data| panic!("{data} was sent"));
        assert_eq!(received(sys, b), b"sent");
    }
    sys.close(a);
    sys.close(b);
    ring.close(sys);
}

pub(crate) fn i09_a_send_is_over_when_enter_returns<Y: Sys>(sys: &Y) {
    let ring = ring(sys, 8, 16);
    let (a, b) = sys.socket_pair().unwrap();
    let mut memory = *b"before";
    // SAFETY: it is changed after `enter` only, which is what is tried.
    let entry = unsafe { Entry::send(a, &memory, true) };
    ring.push(&entry.with(1));
    ring.enter(sys, 0, false, None).unwrap();
    memory.copy_from_slice(b"after!");
    assert_eq!(received(sys, b), b"before");
    // More than fits: the completion says how much was taken, at once.
    static MUCH: [u8; 8 << 20] = [1; 8 << 20];
    ring.push(&send(a, &MUCH, true).with(2));
    ring.push(&send(a, b"full", true).with(3));
    ring.enter(sys, 0, false, None).unwrap();
    let done = reaped(&ring);
    assert!(done[0].data == 2 && done[0].result > 0 && done[0].result < MUCH.len() as i32, "{done:?}");
    assert_eq!((done[1].data, done[1].result), (3, -rustix::io::Errno::AGAIN.raw_os_error()));
    sys.close(b);
    ring.push(&send(a, b"nobody", true).with(4));
    ring.enter(sys, 0, false, None).unwrap();
    assert_eq!(reaped(&ring)[0].result, -rustix::io::Errno::PIPE.raw_os_error());
    sys.close(a);
    ring.close(sys);
}

pub(crate) fn a_full_queue_takes_nothing_until_the_kernel_has<Y: Sys>(sys: &Y) {
    let ring = ring(sys, 4, 8);
    let (a, b) = sys.socket_pair().unwrap();
    for _ in 0..5 {
        assert!((0..4).all(|_| ring.push(&send(a, b"x", true))));
        assert!(!ring.push(&send(a, b"y", true)));
        assert_eq!(ring.pending(), 4);
        assert_eq!(ring.enter(sys, 0, false, None).unwrap(), 4);
        assert_eq!((ring.pending(), received(sys, b)), (0, b"xxxx".to_vec()));
    }
    sys.close(a);
    sys.close(b);
    ring.close(sys);
}

pub(crate) fn i14_completions_without_room_come_with_the_next_enter<Y: Sys>(sys: &Y) {
    let ring = ring(sys, 8, 8);
    let (a, b) = sys.socket_pair().unwrap();
    for _ in 0..4 {
        (0..8).for_each(|i| assert!(ring.push(&send(a, b"x", false).with(i))));
        ring.enter(sys, 0, false, None).unwrap();
    }
    assert!(ring.overflowed() && ring.has_work());
    let mut all = reaped(&ring);
    while ring.overflowed() {
        ring.enter(sys, 0, true, None).unwrap();
        all.extend(reaped(&ring));
    }
    let data: Vec<_> = all.iter().map(|done| done.data).collect();
    assert_eq!(data, [0, 1, 2, 3, 4, 5, 6, 7].repeat(4));
    sys.close(a);
    sys.close(b);
    ring.close(sys);
}

pub(crate) fn i11_cancelling_one_operation_leaves_the_others_of_its_socket<Y: Sys>(sys: &Y) {
    let ring = ring(sys, 8, 16);
    let (a, b) = sys.socket_pair().unwrap();
    let wait = || {
        let _ = ring.enter(sys, 1, true, Some(Duration::from_secs(5)));
        reaped(&ring).iter().map(|done| (done.data, done.result)).collect::<Vec<_>>()
    };
    const CANCELED: i32 = -rustix::io::Errno::CANCELED.raw_os_error();
    ring.push(&Entry::poll(a, poll_bits::IN, false).with(1));
    ring.push(&Entry::poll(a, poll_bits::IN, true).with(2));
    ring.push(&Entry::cancel(1).with(3));
    assert_eq!(wait(), [(1, CANCELED)]);
    // Nothing of that name is left, which is the only thing that a cancellation says.
    ring.push(&Entry::cancel(1).with(3));
    assert_eq!(wait(), [(3, -rustix::io::Errno::NOENT.raw_os_error())]);
    sys.send(b, b"x").unwrap();
    assert_eq!(wait(), [(2, i32::from(poll_bits::IN))]);
    ring.push(&Entry::poll(a, poll_bits::PRI, false).with(4));
    ring.push(&Entry::cancel_all(a).with(5));
    let mut both = wait();
    both.sort_unstable();
    assert_eq!(both, [(2, CANCELED), (4, CANCELED)]);
    sys.close(a);
    sys.close(b);
    ring.close(sys);
}
