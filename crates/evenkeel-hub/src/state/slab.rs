//! A vector of reusable slots whose keys carry a generation.
//!
//! Sessions and channels live here. Freed slots are reused lowest first and free slots at the end are given back, so that
//! a crowd that has gone does not keep its memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::{Index, IndexMut};

/// The place of an entry and the generation that tells it from those who had the place before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Entry<T>>,
    /// Free places. It may also name places that are occupied again or gone: whoever takes one from here looks first.
    free: BinaryHeap<Reverse<u32>>,
    len: usize,
    /// The generation of the latest entry, counted for the whole slab, so that a place keeps no memory of its own.
    generation: u32,
}

#[derive(Debug)]
pub(super) struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { entries: Vec::new(), free: BinaryHeap::new(), len: 0, generation: 0 }
    }

    /// A slab with these entries, each in its place and with its generation. `generation` is the latest one.
    pub(super) fn from_places(places: Vec<Option<(u32, T)>>, generation: u32) -> Slab<T> {
        let entry = |place| match place {
            Some((generation, value)) => Entry { generation, value: Some(value) },
            None => Entry { generation: 0, value: None },
        };
        let mut entries: Vec<Entry<T>> = places.into_iter().map(entry).collect();
        while entries.last().is_some_and(|entry| entry.value.is_none()) {
            entries.pop();
        }
        let vacant = entries.iter().zip(0..).filter(|(entry, _)| entry.value.is_none());
        let free: BinaryHeap<Reverse<u32>> = vacant.map(|(_, index)| Reverse(index)).collect();
        Slab { len: entries.len() - free.len(), entries, free, generation }
    }

    /// Every place up to the last that is taken, with its generation.
    pub(super) fn places(&self) -> impl Iterator<Item = Option<(u32, &T)>> {
        self.entries.iter().map(|entry| entry.value.as_ref().map(|value| (entry.generation, value)))
    }

    /// The generation of the latest entry.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// # Panics
    /// When 2^32 entries are alive.
    pub(super) fn insert(&mut self, value: T) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let entry = Entry { generation: self.generation, value: Some(value) };
        self.len += 1;
        let index = match self.take_free() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                assert!(self.entries.len() < u32::MAX as usize, "the slab is full");
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        Key { index, generation: self.generation }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.entries.get_mut(index as usize)?.value.take()?;
        self.len -= 1;
        if index as usize == self.entries.len() - 1 {
            self.trim();
        } else {
            self.free.push(Reverse(index));
        }
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The entry of `key`, unless it has gone.
    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.index as usize)?;
        if entry.generation == key.generation { entry.value.as_ref() } else { None }
    }

    /// The entry at `index`, whatever its generation.
    pub(super) fn at(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.value.as_ref()
    }

    /// Whether there is a place `index`, and the entry in it.
    pub(super) fn place(&self, index: u32) -> Option<Option<&T>> {
        self.entries.get(index as usize).map(|entry| entry.value.as_ref())
    }

    /// The key of the living entry at `index`.
    pub(super) fn key(&self, index: u32) -> Key {
        Key { index, generation: self.entries[index as usize].generation }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().zip(0_u32..).filter_map(|(entry, index)| {
            Some((Key { index, generation: entry.generation }, entry.value.as_ref()?))
        })
    }

    /// How many entries the memory held now has room for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity() + self.free.capacity() / 4
    }

    fn take_free(&mut self) -> Option<u32> {
        while let Some(Reverse(index)) = self.free.pop() {
            if self.entries.get(index as usize).is_some_and(|entry| entry.value.is_none()) {
                return Some(index);
            }
        }
        None
    }

    /// Drops the free places at the end, and the memory when most of it is unused.
    fn trim(&mut self) {
        while self.entries.last().is_some_and(|entry| entry.value.is_none()) {
            self.entries.pop();
        }
        let len = self.entries.len();
        shrink(&mut self.entries);
        if self.free.len() > len + 64 {
            let entries = &self.entries;
            self.free.retain(|Reverse(i)| entries.get(*i as usize).is_some_and(|e| e.value.is_none()));
            if self.free.len() * 4 < self.free.capacity() {
                self.free.shrink_to(self.free.len() * 2);
            }
        }
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    /// # Panics
    /// When there is no entry: indices that the hub keeps for itself name living entries.
    fn index(&self, index: u32) -> &T {
        self.entries[index as usize].value.as_ref().unwrap_or_else(|| vacant(index))
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.entries[index as usize].value.as_mut().unwrap_or_else(|| vacant(index))
    }
}

#[cold]
fn vacant(index: u32) -> ! {
    panic!("slab place {index} is vacant")
}

/// Gives back the memory of a vector that is less than a quarter full, in amortised constant time.
pub(super) fn shrink<T>(vec: &mut Vec<T>) {
    if vec.capacity() > 16 && vec.len() * 4 < vec.capacity() {
        vec.shrink_to(vec.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::new();
        let a = slab.insert('a');
        slab.remove(a.index);
        let b = slab.insert('b');
        assert_eq!(a.index, b.index);
        assert_eq!((slab.get(a), slab.get(b)), (None, Some(&'b')));
        assert_eq!(slab.key(b.index), b);
    }

    #[test]
    fn random_operations_agree_with_a_map() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut slab, mut model) = (Slab::new(), HashMap::new());
        for step in 0..50_000_u32 {
            let target = if step / 5_000 % 2 == 0 { 700 } else { 10 };
            if model.len() < target && rng.bool() {
                assert!(model.insert(slab.insert(step), step).is_none());
            } else if let Some(key) = model.keys().nth(rng.usize(0..model.len().max(1))).copied() {
                assert_eq!(slab.remove(key.index), model.remove(&key));
                assert_eq!(slab.get(key), None);
            }
            assert_eq!(slab.len(), model.len());
            if step % 1_000 == 0 {
                let places = slab.places().map(|place| place.map(|(generation, value)| (generation, *value)));
                slab = Slab::from_places(places.chain([None]).collect(), slab.generation());
            }
        }
        assert!(model.iter().all(|(key, value)| slab.get(*key) == Some(value)));
        assert_eq!(slab.iter().count(), model.len());
        assert_eq!(slab.remove(1 << 30), None);
    }

    #[test]
    fn memory_returns_when_the_crowd_leaves() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..100_000).map(|n| slab.insert(n)).collect();
        for key in keys {
            slab.remove(key.index);
        }
        assert!(slab.capacity() < 200, "{}", slab.capacity());
    }
}
