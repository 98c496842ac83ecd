//! Memory that a kernel shares with its process: regions, and plain values in them.
//!
//! What a region has is read and written through pointers only, by either side, on the one thread of a world. References into
//! it are made to atomic numbers; the process makes others, to bytes that it was told are its own, which is what the model
//! checks by writing over what is not.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, AtomicU32};

use rustix::io::Errno;

use crate::sys::buffers::Provided;
use crate::sys::ring::{Done, Entry};

const PAGE: usize = 4096;

/// A piece of memory that begins at a page.
#[derive(Debug)]
pub(crate) struct Region {
    at: NonNull<u8>,
    layout: Layout,
}

/// What can be read from memory whatever is there: every pattern of bits is a value.
pub(super) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for Entry {}
impl Plain for Done {}
impl Plain for Provided {}

impl Region {
    /// Zeroed.
    pub(super) fn new(bytes: usize) -> Result<Rc<Self>, Errno> {
        let layout = Layout::from_size_align(bytes.max(1), PAGE).map_err(|_| Errno::INVAL)?;
        // SAFETY: the size is above zero.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(Errno::NOMEM)?;
        Ok(Rc::new(Region { at, layout }))
    }

    pub(super) fn len(&self) -> usize {
        self.layout.size()
    }

    pub(super) fn address(&self) -> u64 {
        self.at.as_ptr() as u64
    }

    fn place<T>(&self, at: usize) -> *mut T {
        let fits = at.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len());
        assert!(fits && at.is_multiple_of(align_of::<T>()), "{at} is no place in {} bytes", self.len());
        // SAFETY: within the region, as the line above has checked.
        unsafe { self.at.add(at) }.cast().as_ptr()
    }

    /// A number that both sides read and write.
    pub(super) fn number(&self, at: u32) -> &AtomicU32 {
        // SAFETY: it lies in the region, is aligned, and lives as long as that; both sides use it atomically.
        unsafe { AtomicU32::from_ptr(self.place(at as usize)) }
    }

    /// The same, of half the size.
    pub(super) fn half(&self, at: usize) -> &AtomicU16 {
        // SAFETY: as for `number`.
        unsafe { AtomicU16::from_ptr(self.place(at)) }
    }

    pub(super) fn get<T: Plain>(&self, at: usize) -> T {
        // SAFETY: the place lies in the region and is aligned, the type takes any bits, and all is on one thread.
        unsafe { self.place::<T>(at).read() }
    }

    pub(super) fn put<T: Plain>(&self, at: usize, value: T) {
        // SAFETY: as for `get`. Nobody has a reference to what is the kernel's to write.
        unsafe { self.place::<T>(at).write(value) }
    }

    pub(super) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.len()), "outside of the memory");
        // SAFETY: within the region, as the line above has checked; `bytes` are the model's own.
        unsafe { self.at.add(at).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) }
    }

    /// Writes one byte everywhere.
    pub(super) fn fill(&self, at: usize, len: usize, byte: u8) {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len()), "outside of the memory");
        // SAFETY: as for `write`.
        unsafe { self.at.add(at).write_bytes(byte, len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody's any more: mappings and rings share it.
        unsafe { dealloc(self.at.as_ptr(), self.layout) }
    }
}

/// What is mapped, by its address. What is never unmapped is freed with the world.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    maps: BTreeMap<u64, Rc<Region>>,
}

impl Memory {
    pub(super) fn map(&mut self, bytes: usize) -> Result<NonNull<u8>, Errno> {
        let region = Region::new(bytes)?;
        Ok(self.show(&region))
    }

    /// Lets the process have a region of the kernel's.
    pub(super) fn show(&mut self, region: &Rc<Region>) -> NonNull<u8> {
        self.maps.insert(region.address(), region.clone());
        region.at
    }

    /// Takes a mapping back.
    pub(super) fn unmap(&mut self, at: NonNull<u8>) -> Option<Rc<Region>> {
        self.maps.remove(&(at.as_ptr() as u64))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    /// Where an address lies, if all of `len` bytes from there are mapped in one piece.
    pub(super) fn find(&self, address: u64, len: usize) -> Option<(&Rc<Region>, usize)> {
        let (start, region) = self.maps.range(..=address).next_back()?;
        let at = usize::try_from(address - start).ok()?;
        (at.checked_add(len)? <= region.len()).then_some((region, at))
    }
}
