//! Buffers that the kernel receives into: provided to it in a ring, lent to readers, and given back.
//!
//! Each is in the kernel's hands, in a reader's, or both, where the kernel fills it piece by piece; it is given back when
//! it is in neither (I15). A [`Span`] is a received piece, and the proof that its buffer is still there.

use std::cell::Cell;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use super::Sys;
use super::ring::{Done, Ring};

/// An entry of the ring of buffers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Provided {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) id: u16,
    /// In the first entry, the ring's tail.
    tail: u16,
}

const _: () = assert!(size_of::<Provided>() == 16);

/// What is known of one buffer.
#[derive(Clone, Copy, Default)]
struct State {
    /// Where the kernel puts the next bytes.
    filled: u32,
    /// Spans of it that are out.
    spans: u32,
    /// The kernel will put nothing more into it.
    over: bool,
}

/// Received bytes. To be given to [`Buffers::release`]: a buffer with a span that is not never returns to the kernel.
#[derive(Debug)]
#[must_use]
pub(crate) struct Span {
    buffer: u16,
    from: u32,
    len: u32,
}

impl Span {
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }
}

#[cfg(test)]
impl Span {
    /// One of no buffer, that is told from others.
    pub(crate) fn named(name: u32) -> Self {
        Span { buffer: 0, from: name, len: 0 }
    }

    pub(crate) fn name(&self) -> u32 {
        self.from
    }
}

/// How many buffers there are, and of what size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Provision {
    /// A power of two, at most 32,768.
    pub(crate) count: u16,
    pub(crate) size: u32,
    /// The kernel fills a buffer piece by piece, instead of one for each receive.
    pub(crate) incremental: bool,
}

/// The buffers of one ring.
pub(crate) struct Buffers {
    ring: NonNull<Provided>,
    memory: NonNull<u8>,
    count: u16,
    size: u32,
    incremental: bool,
    tail: Cell<u16>,
    states: Box<[Cell<State>]>,
}

impl Buffers {
    /// Makes the buffers and gives all of them to the kernel, as the group 0.
    ///
    /// # Errors
    /// The kernel's: EINVAL if it has no rings of buffers, or cannot fill them piece by piece; ENOMEM.
    pub(crate) fn new<Y: Sys>(sys: &Y, ring: &Ring, provision: Provision) -> io::Result<Self> {
        let Provision { count, size, incremental } = provision;
        let memory = sys.map(usize::from(count) * size as usize)?;
        let entries = match sys.map(usize::from(count) * size_of::<Provided>()) {
            Ok(at) => at,
            Err(e) => {
                sys.unmap(memory, usize::from(count) * size as usize);
                return Err(e);
            }
        };
        let this = Self::over(entries.cast(), memory, provision);
        if let Err(e) = sys.ring_provide(ring.fd, entries, count, incremental) {
            this.free(sys);
            return Err(e);
        }
        this.give_all();
        Ok(this)
    }

    /// Buffers in this memory, none of which is the kernel's as yet.
    fn over(ring: NonNull<Provided>, memory: NonNull<u8>, provision: Provision) -> Self {
        let Provision { count, size, incremental } = provision;
        assert!(count.is_power_of_two() && count <= 1 << 15);
        let states = vec![Cell::default(); usize::from(count)].into_boxed_slice();
        Buffers { ring, memory, count, size, incremental, tail: Cell::new(0), states }
    }

    fn give_all(&self) {
        (0..self.count).for_each(|id| self.give(id));
    }

    /// Gives a buffer to the kernel.
    fn give(&self, id: u16) {
        let tail = self.tail.get();
        let at = usize::from(tail & (self.count - 1));
        // SAFETY: the index is below `count`; the kernel reads no entry past the tail that is published below. The
        // first entry's last field is the tail itself, so fields are written one by one.
        unsafe {
            let entry = self.ring.add(at).as_ptr();
            (&raw mut (*entry).address).write(self.at(id, 0).as_ptr() as u64);
            (&raw mut (*entry).len).write(self.size);
            (&raw mut (*entry).id).write(id);
        }
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: the field lies in the mapping, and both sides use it atomically.
        unsafe { AtomicU16::from_ptr(&raw mut (*self.ring.as_ptr()).tail) }
            .store(self.tail.get(), Ordering::Release);
    }

    fn at(&self, id: u16, from: u32) -> NonNull<u8> {
        assert!(id < self.count && from <= self.size);
        // SAFETY: within the memory, as the line above has checked.
        unsafe { self.memory.add(usize::from(id) * self.size as usize + from as usize) }
    }

    /// Takes the bytes of a receive's completion. Completions must come here in their order: each tells only how
    /// much there is. None if it carries no buffer.
    #[inline]
    pub(crate) fn take(&self, done: &Done) -> Option<Span> {
        let (buffer, more) = done.buffer()?;
        let state = self.states.get(usize::from(buffer))?;
        let mut now = state.get();
        let len = u32::try_from(done.result).unwrap_or(0).min(self.size - now.filled);
        let span = Span { buffer, from: now.filled, len };
        now.filled += len;
        now.spans += 1;
        // A transfer of nothing says nothing about the buffer, whatever the flag says.
        now.over = now.filled == self.size || !more && (len > 0 || !self.incremental);
        state.set(now);
        Some(span)
    }

    /// The bytes of a span.
    #[inline]
    pub(crate) fn bytes<'a>(&'a self, span: &'a Span) -> &'a [u8] {
        let at = self.at(span.buffer, span.from);
        // SAFETY: `take` made the span of bytes that the kernel has written and says it is done with; the buffer is
        // not given back while the span is out, and the kernel goes on behind it only.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), span.len()) }
    }

    /// Takes `n` bytes off the front of a span.
    pub(crate) fn advance(&self, span: &mut Span, n: usize) {
        let n = n.min(span.len()) as u32;
        span.from += n;
        span.len -= n;
    }

    /// A span of its own for bytes that lie in a buffer, which is some reader's for now. None for any others.
    pub(crate) fn lease(&self, bytes: &[u8]) -> Option<Span> {
        let offset = (bytes.as_ptr() as usize).checked_sub(self.memory.as_ptr() as usize)?;
        let size = self.size as usize;
        let (id, from) = (u16::try_from(offset / size).ok()?, offset % size);
        let state = self.states.get(usize::from(id))?;
        let mut now = state.get();
        if now.spans == 0 || from + bytes.len() > now.filled as usize {
            return None;
        }
        now.spans += 1;
        state.set(now);
        Some(Span { buffer: id, from: from as u32, len: bytes.len() as u32 })
    }

    /// A reader is done with a span. The buffer goes back to the kernel if that was the last of it.
    #[inline]
    pub(crate) fn release(&self, span: Span) {
        let state = &self.states[usize::from(span.buffer)];
        let mut now = state.get();
        debug_assert!(now.spans > 0, "a span was released twice");
        now.spans -= 1;
        if now.spans == 0 && now.over {
            state.set(State::default());
            return self.give(span.buffer);
        }
        state.set(now);
    }

    /// Frees the memory. The kernel must have no receive in flight that could choose a buffer.
    pub(crate) fn free<Y: Sys>(&self, sys: &Y) {
        sys.unmap(self.ring.cast(), usize::from(self.count) * size_of::<Provided>());
        sys.unmap(self.memory, usize::from(self.count) * self.size as usize);
    }
}

#[cfg(test)]
#[path = "buffers_tests.rs"]
mod tests;
