//! The ledger of buffers against a model, and on a ring of its own.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::{Buffers, NonNull, Provided, Provision, Span};
use crate::sys::ring::{Done, Entry, Ring, Setup, SetupFlags};
use crate::sys::{Real, Sys};

const SIZE: u32 = 64;

/// Buffers in plain memory, without a kernel.
struct Plain {
    buffers: Buffers,
    ring: *mut [Provided],
    memory: *mut [u8],
}

impl Plain {
    fn new(count: u16, incremental: bool) -> Self {
        let nothing = Provided { address: 0, len: 0, id: 0, tail: 0 };
        let ring = Box::into_raw(vec![nothing; usize::from(count)].into_boxed_slice());
        let memory = Box::into_raw(vec![0; usize::from(count) * SIZE as usize].into_boxed_slice());
        let (first, start) = (NonNull::new(ring.cast()).unwrap(), NonNull::new(memory.cast()).unwrap());
        let buffers = Buffers::over(first, start, Provision { count, size: SIZE, incremental });
        buffers.give_all();
        Plain { buffers, ring, memory }
    }
}

impl std::ops::Deref for Plain {
    type Target = Buffers;

    fn deref(&self) -> &Buffers {
        &self.buffers
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: both came from boxes, and no span is used after this.
        unsafe { drop((Box::from_raw(self.ring), Box::from_raw(self.memory))) }
    }
}

/// How many buffers were given to the kernel so far.
fn given(buffers: &Buffers) -> u16 {
    buffers.tail.get()
}

/// A completion of a receive, as the kernel writes it.
fn done(buffer: u16, len: i32, more: bool) -> Done {
    Done::received(len, buffer, more)
}

#[test]
fn i15_a_buffer_returns_when_nobody_has_it() {
    let buffers = Plain::new(2, true);
    assert_eq!(given(&buffers), 2);
    let first = buffers.take(&done(1, 10, true)).unwrap();
    let mut second = buffers.take(&done(1, 20, true)).unwrap();
    let lease = buffers.lease(&buffers.bytes(&second)[3..9]).unwrap();
    assert_eq!((first.from, first.len()), (0, 10));
    assert_eq!((second.from, second.len()), (10, 20));
    assert_eq!((lease.from, lease.len()), (13, 6));
    buffers.advance(&mut second, 15);
    assert_eq!((second.from, second.len()), (25, 5));
    buffers.advance(&mut second, 100);
    assert_eq!((second.from, second.len()), (30, 0));
    buffers.release(first);
    buffers.release(second);
    buffers.release(lease);
    assert_eq!(given(&buffers), 2, "the kernel still fills it");
    let last = buffers.take(&done(1, 34, false)).unwrap();
    assert_eq!((last.from, last.len()), (30, 34));
    buffers.release(last);
    assert_eq!(given(&buffers), 3);
    // It begins from the start.
    let again = buffers.take(&done(1, 5, false)).unwrap();
    assert_eq!((again.from, again.len()), (0, 5));
    buffers.release(again);
    assert_eq!(given(&buffers), 4);
}

#[test]
fn i15_an_end_without_bytes_gives_only_a_whole_buffer_back() {
    let buffers = Plain::new(1, false);
    let none = buffers.take(&done(0, 0, false)).unwrap();
    assert!(buffers.bytes(&none).is_empty());
    buffers.release(none);
    assert_eq!(given(&buffers), 2);
    // One that is filled piece by piece stays the kernel's: some clear the flag for a transfer of nothing.
    let buffers = Plain::new(1, true);
    let none = buffers.take(&done(0, 0, false)).unwrap();
    buffers.release(none);
    assert_eq!(given(&buffers), 1);
    // Nor is more believed than a buffer holds.
    let much = buffers.take(&done(0, 1 << 20, false)).unwrap();
    assert_eq!(much.len(), SIZE as usize);
    buffers.release(much);
}

#[test]
fn i15_only_bytes_that_a_reader_has_are_leased() {
    let buffers = Plain::new(2, true);
    let all = Span { buffer: 0, from: 0, len: SIZE };
    assert!(buffers.lease(buffers.bytes(&all)).is_none(), "nothing is out of it");
    assert!(buffers.take(&done(2, 1, true)).is_none(), "there is no such buffer");
    let span = buffers.take(&done(0, 10, true)).unwrap();
    assert!(buffers.lease(&buffers.bytes(&all)[..11]).is_none(), "the kernel may write there");
    assert!(buffers.lease(b"elsewhere").is_none());
    buffers.release(span);
}

/// What a model knows of one buffer.
#[derive(Clone, Default)]
struct Known {
    filled: u32,
    over: bool,
    out: usize,
}

/// Random completions, leases and releases: each buffer is with the kernel, with readers or both, and given back once.
#[test]
fn i15_the_ledger_agrees_with_a_model() {
    const COUNT: u16 = 8;
    // An interpreter takes seconds for a thousand steps.
    const SEEDS: u64 = if cfg!(miri) { 3 } else { 50 };
    const STEPS: u32 = if cfg!(miri) { 300 } else { 3000 };
    for seed in 0..SEEDS {
        let buffers = Plain::new(COUNT, true);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut known = vec![Known::default(); usize::from(COUNT)];
        let mut out: Vec<Span> = Vec::new();
        let mut back = given(&buffers);
        for _ in 0..STEPS {
            match rng.u8(..5) {
                0 | 1 => {
                    let id = rng.u16(..COUNT);
                    let one = &mut known[usize::from(id)];
                    if one.over {
                        // The kernel does not have it.
                        continue;
                    }
                    let len = rng.u32(..=SIZE - one.filled);
                    let more = one.filled + len < SIZE && rng.bool();
                    let span = buffers.take(&done(id, len as i32, more)).unwrap();
                    assert_eq!((span.buffer, span.from, span.len), (id, one.filled, len));
                    (one.filled, one.out) = (one.filled + len, one.out + 1);
                    one.over = one.filled == SIZE || !more && len > 0;
                    out.push(span);
                }
                2 if !out.is_empty() => {
                    let span = &out[rng.usize(..out.len())];
                    let lease = buffers.lease(buffers.bytes(span));
                    // An empty slice at a buffer's end lies in the next one.
                    if span.len > 0 {
                        let lease = lease.unwrap();
                        assert_eq!((lease.buffer, lease.from, lease.len), (span.buffer, span.from, span.len));
                        known[usize::from(span.buffer)].out += 1;
                        out.push(lease);
                    } else if let Some(lease) = lease {
                        known[usize::from(lease.buffer)].out += 1;
                        out.push(lease);
                    }
                }
                _ if !out.is_empty() => {
                    let span = out.swap_remove(rng.usize(..out.len()));
                    let one = &mut known[usize::from(span.buffer)];
                    one.out -= 1;
                    if one.out == 0 && one.over {
                        *one = Known::default();
                        back = back.wrapping_add(1);
                    }
                    buffers.release(span);
                }
                _ => {}
            }
            assert_eq!(given(&buffers), back);
        }
    }
}

/// The kernel's own completions, through a pool of one buffer, with more than it holds on the way.
#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn i13_i15_one_buffer_serves_a_long_stream() {
    let setup = Setup { submissions: 8, completions: 16, flags: SetupFlags::empty() };
    let ring = Ring::new(&Real, setup).unwrap();
    let provision = Provision { count: 1, size: SIZE, incremental: true };
    let buffers = Buffers::new(&Real, &ring, provision).unwrap();
    let (ours, theirs) = Real.socket_pair().unwrap();
    let sent: Vec<u8> = (0..5000u32).map(|i| (i * 7 % 251) as u8).collect();
    assert_eq!(Real.send(theirs, &sent).unwrap(), sent.len());
    let (mut got, mut armed, mut dry) = (Vec::new(), false, 0);
    while got.len() < sent.len() {
        if !armed {
            ring.push(&Entry::recv(ours, true).with(1));
            armed = true;
        }
        ring.enter(&Real, 1, true, Some(Duration::from_secs(5))).unwrap();
        let mut spans = Vec::new();
        ring.reap(|done| {
            armed &= done.more();
            spans.extend(buffers.take(&done));
            dry += usize::from(done.result < 0);
        });
        for span in spans {
            got.extend_from_slice(buffers.bytes(&span));
            buffers.release(span);
        }
    }
    assert_eq!(got, sent);
    assert!(dry > 0, "the buffer ran out in between");
    Real.close(ours);
    Real.close(theirs);
    ring.close(&Real);
    buffers.free(&Real);
}
