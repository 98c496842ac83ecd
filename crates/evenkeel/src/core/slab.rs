//! A slab that lends its values where they are: a value never moves, and while it is lent, every operation of
//! the slab is legal, so that a handler can be called in place and may still open and close connections of its
//! own pool (I37).
//!
//! A value is lent to one borrower at a time. Its place says so, and who asks meanwhile is told that there is
//! nothing.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// What is in a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// A value that nobody is using.
    Here,
    /// A value that somebody has borrowed.
    Lent,
}

struct Place<T> {
    state: Cell<State>,
    /// Holds a value unless `state` is `Free`.
    value: UnsafeCell<MaybeUninit<T>>,
}

/// Values of one type, each at an index that it keeps. It grows by chunks, which stay where they are.
pub(crate) struct Slab<T> {
    /// The first place of each chunk. Chunks are added, and freed by the slab's drop only. Nothing keeps a
    /// reference to the list itself, not even for the length of a method's call of another.
    chunks: UnsafeCell<Vec<NonNull<Place<T>>>>,
    free: RefCell<Vec<u32>>,
    owns: PhantomData<Place<T>>,
}

impl<T> Slab<T> {
    /// Places of a chunk, as a power of two: about four kibibytes, and at least one.
    const SHIFT: u32 = {
        let places = 4096 / size_of::<Place<T>>();
        if places == 0 { 0 } else { places.ilog2() }
    };
    const CHUNK: usize = 1 << Self::SHIFT;

    pub(crate) fn new() -> Self {
        Slab { chunks: UnsafeCell::default(), free: RefCell::default(), owns: PhantomData }
    }

    /// Values in the slab, those that are lent included.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: see `chunks`: this reference is the only one, and ends here.
        let chunks = unsafe { (&*self.chunks.get()).len() };
        chunks * Self::CHUNK - self.free.borrow().len()
    }

    /// Puts a value into a free place.
    ///
    /// # Panics
    /// If there are 2^32 values.
    pub(crate) fn insert(&self, value: T) -> u32 {
        if self.free.borrow().is_empty() {
            self.grow();
        }
        let at = self.free.borrow_mut().pop().expect("it has grown if it was full");
        let place = self.place(at).expect("free places are places");
        // SAFETY: the place is free, so nobody refers to what is in it, and nothing is dropped by this write.
        unsafe { (*place.value.get()).write(value) };
        place.state.set(State::Here);
        at
    }

    /// Borrows the value at an index. None if there is none, or if it is lent already.
    #[inline]
    pub(crate) fn lend(&self, at: u32) -> Option<Lent<'_, T>> {
        let place = self.place(at)?;
        if place.state.get() != State::Here {
            return None;
        }
        place.state.set(State::Lent);
        Some(Lent { place })
    }

    /// Takes a value out for good; its place is free. None if there is none, or if it is lent.
    pub(crate) fn remove(&self, at: u32) -> Option<T> {
        let place = self.place(at).filter(|place| place.state.get() == State::Here)?;
        // SAFETY: the value is there and lent to nobody; it is moved out once, because the place is marked as free
        // before anybody can look.
        let value = unsafe { (*place.value.get()).assume_init_read() };
        place.state.set(State::Free);
        self.free.borrow_mut().push(at);
        Some(value)
    }

    #[inline]
    fn place(&self, at: u32) -> Option<&Place<T>> {
        // SAFETY: see `chunks`: this reference is the only one, and ends here.
        let chunk = unsafe { (&*self.chunks.get()).get(at as usize >> Self::SHIFT).copied()? };
        // SAFETY: a chunk has `CHUNK` places, initialised by `grow`, and lives as long as the slab, which is
        // borrowed. Places are only ever referred to by shared references.
        Some(unsafe { chunk.add(at as usize & (Self::CHUNK - 1)).as_ref() })
    }

    #[cold]
    fn grow(&self) {
        let first = self.len() + self.free.borrow().len();
        let end = u32::try_from(first + Self::CHUNK).expect("fewer than 2^32 values");
        // Last first, so that the lowest index is given out first.
        self.free.borrow_mut().extend((first as u32..end).rev());
        let layout = Self::layout();
        // SAFETY: the layout is not empty, because a place holds its state.
        let memory = unsafe { std::alloc::alloc(layout) };
        let Some(chunk) = NonNull::new(memory.cast::<Place<T>>()) else { handle_alloc_error(layout) };
        for n in 0..Self::CHUNK {
            let value = UnsafeCell::new(MaybeUninit::uninit());
            // SAFETY: the memory has room for `CHUNK` places, and nobody else knows of it yet.
            unsafe { chunk.add(n).write(Place { state: Cell::new(State::Free), value }) };
        }
        // SAFETY: see `chunks`: this reference is the only one, and ends here.
        unsafe { (&mut *self.chunks.get()).push(chunk) };
    }

    fn layout() -> Layout {
        Layout::array::<Place<T>>(Self::CHUNK).expect("a few kibibytes, or one value")
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        let mut values = Vec::new();
        for chunk in std::mem::take(self.chunks.get_mut()) {
            for n in 0..Self::CHUNK {
                // SAFETY: as in `place`. A value that is `Here` is moved out once, since its chunk is freed next;
                // one that is still `Lent` was forgotten by its borrower, and is leaked.
                unsafe {
                    let place = chunk.add(n).as_ref();
                    if place.state.get() == State::Here {
                        values.push((*place.value.get()).assume_init_read());
                    }
                }
            }
            // SAFETY: allocated by `grow` with this layout; no borrower is left, since each borrows the slab.
            unsafe { std::alloc::dealloc(chunk.as_ptr().cast(), Self::layout()) };
        }
        // The values' own drops come last: they run code of users, which may panic.
        drop(values);
    }
}

/// A value that is lent. Dropping this gives it back.
pub(crate) struct Lent<'a, T> {
    place: &'a Place<T>,
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the place is `Lent` to this alone, and holds a value.
        unsafe { (*self.place.value.get()).assume_init_ref() }
    }
}

impl<T> DerefMut for Lent<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the place is `Lent` to this alone, which is borrowed for as long as the reference lives.
        unsafe { (*self.place.value.get()).assume_init_mut() }
    }
}

impl<T> Drop for Lent<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.place.state.set(State::Here);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_lent_value_stays_where_it_is_while_the_slab_grows() {
        let slab = Slab::new();
        let first = slab.insert([1u64; 8]);
        let mut lent = slab.lend(first).expect("it is there");
        let at: *const _ = &*lent;
        let others: Vec<u32> = (0..1000).map(|n| slab.insert([n; 8])).collect();
        lent[0] = 7;
        assert_eq!(std::ptr::from_ref(&*lent), at);
        drop(lent);
        assert_eq!(slab.lend(first).map(|v| v[0]), Some(7));
        assert!(others.iter().zip(0..).all(|(at, n)| slab.lend(*at).is_some_and(|v| v[7] == n)));
        assert_eq!(slab.len(), 1001);
    }

    #[test]
    fn i37_a_value_is_lent_once_at_a_time() {
        let slab = Slab::new();
        let at = slab.insert(String::from("a"));
        let lent = slab.lend(at);
        assert!(lent.is_some() && slab.lend(at).is_none() && slab.remove(at).is_none());
        drop(lent);
        assert!(slab.lend(at).is_some(), "it was given back");
        assert!(slab.lend(at + 1).is_none() && slab.lend(u32::MAX).is_none());
    }

    #[test]
    fn a_panic_gives_a_value_back() {
        let slab = Slab::new();
        let at = slab.insert(1);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut lent = slab.lend(at).expect("it is there");
            *lent = 2;
            panic!("on purpose");
        }));
        assert!(result.is_err());
        assert_eq!(slab.lend(at).map(|v| *v), Some(2));
    }

    #[test]
    fn each_value_is_dropped_once_and_its_place_used_again() {
        let count = Rc::new(());
        let slab = Slab::new();
        let places: Vec<u32> = (0..100).map(|_| slab.insert(count.clone())).collect();
        assert_eq!(Rc::strong_count(&count), 101);
        let taken = slab.remove(places[3]);
        assert!(slab.lend(places[3]).is_none());
        assert_eq!((Rc::strong_count(&count), slab.len()), (101, 99));
        drop(taken);
        assert_eq!(slab.insert(count.clone()), places[3]);
        drop(slab);
        assert_eq!(Rc::strong_count(&count), 1);
    }

    #[test]
    fn values_of_any_size_have_places() {
        let (empty, large) = (Slab::new(), Slab::new());
        let places: Vec<u32> = (0..5000).map(|_| empty.insert(())).collect();
        assert!(places.iter().all(|at| empty.lend(*at).is_some()));
        let at = large.insert([9u8; 10_000]);
        let other = large.insert([8u8; 10_000]);
        assert_eq!(large.lend(at).map(|v| v[9_999]), Some(9));
        assert_eq!(large.lend(other).map(|v| v[0]), Some(8));
    }
}
