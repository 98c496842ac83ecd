//! The names of a disk, as they are and as a loss of power may leave them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;
use rustix::io::Errno;

use super::inode::Inode;

/// The number of a file or directory.
pub(super) type Number = u64;

/// The directory where all paths begin, relative ones too.
pub(super) const ROOT: Number = 1;

const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 4095;
/// Changes that the kernel keeps to itself at most before it writes the oldest.
const MOST_PENDING: usize = 64;

/// In this directory this name means that, or nothing.
type Change = (Number, Vec<u8>, Option<Number>);

type Tree = BTreeMap<(Number, Vec<u8>), Number>;

#[derive(Default)]
pub(super) struct Names {
    now: Tree,
    /// What is on the disk.
    synced: Tree,
    /// What is not yet, each with all that happens in one step.
    pending: VecDeque<Vec<Change>>,
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) parent: Number,
    /// Empty for a path that ends in `.` or `..`, or at the root.
    pub(super) name: Vec<u8>,
    pub(super) found: Option<Number>,
    /// It ends in a slash.
    pub(super) wants_dir: bool,
}

fn apply(tree: &mut Tree, changes: Vec<Change>) {
    for (dir, name, to) in changes {
        match to {
            Some(number) => tree.insert((dir, name), number),
            None => tree.remove(&(dir, name)),
        };
    }
}

impl Names {
    /// Follows a path. `parent` tells the directory that a directory is in; none for what is no directory.
    pub(super) fn walk(&self, path: &[u8], parent: impl Fn(Number) -> Option<Number>) -> Result<Step, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if path.len() > LONGEST_PATH {
            return Err(Errno::NAMETOOLONG);
        }
        let wants_dir = path.ends_with(b"/");
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        let mut step = Step { parent: ROOT, name: Vec::new(), found: Some(ROOT), wants_dir };
        for part in parts {
            let dir = step.found.ok_or(Errno::NOENT)?;
            let above = parent(dir).ok_or(Errno::NOTDIR)?;
            step = match part {
                _ if part.len() > LONGEST_NAME => return Err(Errno::NAMETOOLONG),
                b"." => Step { parent: above, name: Vec::new(), found: Some(dir), wants_dir },
                b".." => Step { parent: above, name: Vec::new(), found: Some(above), wants_dir },
                _ => {
                    let found = self.now.get(&(dir, part.to_vec())).copied();
                    Step { parent: dir, name: part.to_vec(), found, wants_dir }
                }
            };
        }
        Ok(step)
    }

    /// Makes changes in one step.
    pub(super) fn change(&mut self, changes: Vec<Change>) {
        apply(&mut self.now, changes.clone());
        self.pending.push_back(changes);
        if self.pending.len() > MOST_PENDING
            && let Some(oldest) = self.pending.pop_front()
        {
            apply(&mut self.synced, oldest);
        }
    }

    pub(super) fn sync(&mut self) {
        self.pending.clear();
        self.synced = self.now.clone();
    }

    pub(super) fn is_empty(&self, dir: Number) -> bool {
        self.now.range((dir, Vec::new())..).next().is_none_or(|((parent, _), _)| *parent != dir)
    }

    pub(super) fn directories_in(&self, dir: Number, inodes: &BTreeMap<Number, Inode>) -> u64 {
        let entries = self.now.range((dir, Vec::new())..).take_while(|((parent, _), _)| *parent == dir);
        entries.filter(|(_, number)| inodes.get(number).is_some_and(Inode::is_dir)).count() as u64
    }

    /// What has a name now.
    pub(super) fn named(&self) -> impl Iterator<Item = Number> {
        self.now.values().copied()
    }

    /// Everything that a name leads to, or may lead to after a loss of power.
    pub(super) fn all(&self) -> BTreeSet<Number> {
        let pending = self.pending.iter().flatten().filter_map(|(_, _, to)| *to);
        let named = self.now.values().chain(self.synced.values()).copied();
        named.chain(pending).chain([ROOT]).collect()
    }

    /// What is in which directory.
    pub(super) fn places(&self) -> impl Iterator<Item = (Number, Number)> {
        self.now.iter().map(|((dir, _), number)| (*dir, *number))
    }

    /// Of the changes that are not on the disk, the first ones may have reached it.
    pub(super) fn crash(&mut self, dice: &mut Rng) {
        let kept = dice.usize(..=self.pending.len());
        for changes in self.pending.drain(..).take(kept) {
            apply(&mut self.synced, changes);
        }
        self.now = self.synced.clone();
    }
}
