//! A hierarchical timer wheel: what is due, and when to look again.
//!
//! It is pure: time is a number of ticks (the loop uses milliseconds) that the caller passes in, and it may
//! start anywhere. Arming and cancelling take constant time, whatever the number of timers.
//!
//! Level `l` has 64 slots of `64^l` ticks each. A timer is on the level of the highest group of six bits in
//! which its deadline differs from the wheel's present, so eleven levels hold every `u64`, and every timer of
//! a level is due before every one of the next level. When the present reaches a slot above level 0, the
//! slot's timers move down; on level 0 a slot is one tick. A timer moves at most ten times.
//!
//! Timers that share a deadline fire in the order in which they were armed (arming again by [`Wheel::reset`]
//! counts as arming now).

/// Slots of a level.
const SLOTS: u64 = 64;
/// Bits of a deadline that one level looks at.
const BITS: u32 = SLOTS.trailing_zeros();
/// Levels that hold all deadlines.
const LEVELS: usize = u64::BITS.div_ceil(BITS) as usize;
/// The list of timers that were armed for a time that had come already.
const OVERDUE: usize = LEVELS * SLOTS as usize;
/// No entry.
const NIL: u32 = u32::MAX;

/// Names a timer. It goes stale when the timer fires or is cancelled, and does not match another one after
/// that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

struct Entry<T> {
    /// For an overdue timer: the time at which it was armed.
    deadline: u64,
    prev: u32,
    /// In a vacant entry: the next vacant one.
    next: u32,
    generation: u32,
    /// The list that it is in.
    list: u16,
    /// `None` in a vacant entry.
    value: Option<T>,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    /// No deadline of the list is before it, and when none was cancelled it is the first one. Of no meaning
    /// in an empty list.
    earliest: u64,
}

/// A timer wheel. See the module's documentation.
pub(crate) struct Wheel<T> {
    /// The wheel's present: the slots of all levels are relative to it.
    present: u64,
    /// The time of the current pass; `present` follows it as the pass goes on.
    now: u64,
    entries: Vec<Entry<T>>,
    vacant: u32,
    len: usize,
    lists: Box<[List; OVERDUE + 1]>,
    /// For each level, the slots that are not empty.
    occupied: [u64; LEVELS],
    /// The levels that are not empty.
    levels: u32,
    /// The first overdue timer that was armed in the current pass and waits for the next one.
    fence: u32,
}

impl<T> Wheel<T> {
    /// An empty wheel at this time.
    pub(crate) fn new(now: u64) -> Wheel<T> {
        Wheel {
            present: now,
            now,
            entries: Vec::new(),
            vacant: NIL,
            len: 0,
            lists: Box::new([List { head: NIL, tail: NIL, earliest: 0 }; OVERDUE + 1]),
            occupied: [0; LEVELS],
            levels: 0,
            fence: NIL,
        }
    }

    /// The number of timers that have neither fired nor been cancelled.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Arms a timer. Every deadline is legal: one that is not after the current pass fires in the next pass,
    /// and `u64::MAX` fires when the time is `u64::MAX`, which is never.
    ///
    /// # Panics
    /// If there are 2^32 - 1 timers.
    #[inline]
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> Key {
        let index = self.vacant;
        let key = if index == NIL {
            self.grow(value)
        } else {
            let entry = &mut self.entries[index as usize];
            self.vacant = entry.next;
            entry.value = Some(value);
            Key { index, generation: entry.generation }
        };
        self.len += 1;
        self.arm(key.index, deadline);
        key
    }

    /// Takes a timer out before it fires. `None` if it has fired or was cancelled.
    #[inline]
    pub(crate) fn cancel(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        self.unlink(key.index);
        self.vacate(key.index)
    }

    /// The value of a timer that has not fired.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    /// Arms a timer anew, for another time, under the same key. False if it has fired or was cancelled.
    pub(crate) fn reset(&mut self, key: Key, deadline: u64) -> bool {
        if self.get_mut(key).is_none() {
            return false;
        }
        self.unlink(key.index);
        self.arm(key.index, deadline);
        true
    }

    /// When to begin the next pass: a time in the past or the present if something is due already, `None` if
    /// there is no timer.
    ///
    /// It is the first deadline, or, if timers were cancelled, perhaps a time before it. The pass at such a
    /// time moves timers down and so finds out a later one; that costs at most one empty pass for each
    /// cancelled timer, and none if no timer is cancelled.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let overdue = &self.lists[OVERDUE];
        if overdue.head != NIL {
            return Some(self.now);
        }
        Some(self.lists[self.first_slot()?].earliest)
    }

    /// Begins a pass: what is due at `now` will come out of [`pop`](Wheel::pop). A time before that of the
    /// last pass counts as that.
    #[inline]
    pub(crate) fn begin_pass(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.fence = NIL;
    }

    /// The next timer that is due in this pass, by deadline. Its key is stale when this returns.
    ///
    /// Timers may be armed, reset and cancelled between two calls; those that are armed during the pass for a
    /// time that has come wait for the next pass. A pass may be left before it is empty: the next one goes on
    /// with the rest. After `None`, it is empty until the next [`begin_pass`](Wheel::begin_pass).
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let index = self.first_due()?;
        self.unlink(index);
        self.vacate(index)
    }

    /// The first timer due in this pass. Moves the present to where it is, or to the end of the pass if there
    /// is none.
    fn first_due(&mut self) -> Option<u32> {
        let overdue = self.lists[OVERDUE].head;
        let overdue = (overdue != self.fence).then_some(overdue);
        // At equal deadlines the wheel comes first: what is in it was armed before the time came.
        let until = overdue.map_or(self.now, |index| self.entries[index as usize].deadline);
        while let Some(slot) = self.first_slot() {
            let start = self.start_of(slot);
            if start > until {
                break;
            }
            self.present = start;
            if slot < SLOTS as usize {
                return Some(self.lists[slot].head);
            }
            self.cascade(slot);
        }
        if overdue.is_none() {
            self.present = self.now;
        }
        overdue
    }

    /// The slot that is due first among those that are not empty.
    #[inline]
    fn first_slot(&self) -> Option<usize> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros() as usize;
        Some(level * SLOTS as usize + self.occupied[level].trailing_zeros() as usize)
    }

    /// The first tick of a slot that is not empty.
    fn start_of(&self, slot: usize) -> u64 {
        let (level, slot) = ((slot as u64 / SLOTS) as u32, slot as u64 % SLOTS);
        let shift = level * BITS;
        let above = self.present.checked_shr(shift + BITS).unwrap_or(0);
        (above.checked_shl(BITS).unwrap_or(0) | slot) << shift
    }

    /// Moves the timers of a slot, whose start is the present, to lower levels, in their order.
    fn cascade(&mut self, slot: usize) {
        let mut index = self.lists[slot].head;
        self.lists[slot] = List { head: NIL, tail: NIL, earliest: 0 };
        self.set_empty(slot);
        while index != NIL {
            let Entry { next, deadline, .. } = self.entries[index as usize];
            let to = self.slot_of(deadline);
            self.link(index, to, deadline);
            index = next;
        }
    }

    /// Where a timer belongs whose deadline is not before the present.
    #[inline]
    fn slot_of(&self, deadline: u64) -> usize {
        let differs = (deadline ^ self.present) | (SLOTS - 1);
        let level = differs.ilog2() / BITS;
        level as usize * SLOTS as usize + (deadline >> (level * BITS) & (SLOTS - 1)) as usize
    }

    #[inline]
    fn arm(&mut self, index: u32, deadline: u64) {
        if deadline > self.now {
            let to = self.slot_of(deadline);
            self.link(index, to, deadline);
        } else {
            self.link(index, OVERDUE, self.now);
            if self.fence == NIL {
                self.fence = index;
            }
        }
    }

    /// Appends an entry to a list.
    #[inline]
    fn link(&mut self, index: u32, to: usize, deadline: u64) {
        let list = &mut self.lists[to];
        let tail = std::mem::replace(&mut list.tail, index);
        if tail == NIL {
            list.head = index;
            list.earliest = deadline;
            if to != OVERDUE {
                let level = to / SLOTS as usize;
                self.occupied[level] |= 1 << (to as u64 % SLOTS);
                self.levels |= 1 << level;
            }
        } else {
            list.earliest = list.earliest.min(deadline);
            self.entries[tail as usize].next = index;
        }
        let entry = &mut self.entries[index as usize];
        (entry.prev, entry.next) = (tail, NIL);
        (entry.list, entry.deadline) = (to as u16, deadline);
    }

    /// Removes an entry from its list.
    #[inline]
    fn unlink(&mut self, index: u32) {
        let Entry { prev, next, list, .. } = self.entries[index as usize];
        let list = list as usize;
        if index == self.fence {
            self.fence = next;
        }
        if prev == NIL {
            self.lists[list].head = next;
        } else {
            self.entries[prev as usize].next = next;
        }
        if next == NIL {
            self.lists[list].tail = prev;
        } else {
            self.entries[next as usize].prev = prev;
        }
        if prev == NIL && next == NIL && list != OVERDUE {
            self.set_empty(list);
        }
    }

    #[inline]
    fn set_empty(&mut self, slot: usize) {
        let level = slot / SLOTS as usize;
        self.occupied[level] &= !(1 << (slot as u64 % SLOTS));
        if self.occupied[level] == 0 {
            self.levels &= !(1 << level);
        }
    }

    /// Makes an entry that is in no list vacant.
    #[inline]
    fn vacate(&mut self, index: u32) -> Option<T> {
        self.len -= 1;
        let entry = &mut self.entries[index as usize];
        // An entry whose generations are used up is given up, so that an old key never matches a new timer.
        if let Some(generation) = entry.generation.checked_add(1) {
            entry.generation = generation;
            entry.next = self.vacant;
            self.vacant = index;
        }
        entry.value.take()
    }

    #[cold]
    fn grow(&mut self, value: T) -> Key {
        let index = u32::try_from(self.entries.len()).unwrap_or(NIL);
        assert!(index != NIL, "2^32 - 1 timers are armed");
        let value = Some(value);
        self.entries.push(Entry { deadline: 0, prev: NIL, next: NIL, generation: 0, list: 0, value });
        Key { index, generation: 0 }
    }
}

#[cfg(test)]
#[path = "wheel_tests.rs"]
mod tests;
