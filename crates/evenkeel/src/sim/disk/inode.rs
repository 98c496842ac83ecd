//! One file or directory of a disk.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::SystemTime;

use fastrand::Rng;
use rustix::fs::{MemfdFlags, Mode, OFlags};

use super::names::Number;
use crate::fs::Metadata;

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

pub(super) struct Inode {
    mode: u32,
    /// Of a directory: where it is.
    parent: Option<Number>,
    /// What it holds; none for a directory that was never opened.
    memory: Option<OwnedFd>,
    pub(super) len: u64,
    /// What is on the disk.
    synced: Vec<u8>,
    /// What was written could not be synced, and nobody will try again.
    pub(super) damaged: bool,
    pub(super) accessed: SystemTime,
    modified: SystemTime,
    created: SystemTime,
}

/// What tells memory from other memory.
pub(super) fn identity(fd: impl AsFd) -> io::Result<(u64, u64)> {
    let found = rustix::fs::fstat(fd)?;
    Ok((found.st_dev, found.st_ino))
}

fn memory() -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create("evenkeel-disk", MemfdFlags::CLOEXEC)?)
}

impl Inode {
    pub(super) fn file(permissions: u32, now: SystemTime) -> io::Result<Self> {
        let mut file = Self::new(FILE | permissions, None, now);
        file.memory = Some(memory()?);
        Ok(file)
    }

    pub(super) fn directory(parent: Number, permissions: u32, now: SystemTime) -> Self {
        Self::new(DIRECTORY | permissions, Some(parent), now)
    }

    fn new(mode: u32, parent: Option<Number>, now: SystemTime) -> Self {
        Inode {
            mode,
            parent,
            memory: None,
            len: 0,
            synced: Vec::new(),
            damaged: false,
            accessed: now,
            modified: now,
            created: now,
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.parent.is_some()
    }

    /// Where a directory is; none for a file.
    pub(super) fn parent(&self) -> Option<Number> {
        self.parent
    }

    /// A directory is elsewhere.
    pub(super) fn move_to(&mut self, parent: Number) {
        if let Some(here) = &mut self.parent {
            *here = parent;
        }
    }

    fn memory(&self) -> io::Result<&OwnedFd> {
        self.memory.as_ref().ok_or_else(|| io::ErrorKind::IsADirectory.into())
    }

    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        identity(self.memory()?)
    }

    /// Another descriptor, with rights of its own.
    pub(super) fn open(&mut self, flags: OFlags) -> io::Result<OwnedFd> {
        if self.memory.is_none() {
            self.memory = Some(memory()?);
        }
        let kept = OFlags::ACCMODE | OFlags::APPEND | OFlags::SYNC | OFlags::DSYNC | OFlags::NONBLOCK;
        let path = format!("/proc/self/fd/{}", self.memory()?.as_raw_fd());
        Ok(rustix::fs::open(path, (flags & kept) | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Something was written.
    pub(super) fn changed(&mut self, now: SystemTime) -> io::Result<()> {
        self.len = u64::try_from(rustix::fs::fstat(self.memory()?)?.st_size).unwrap_or(0);
        self.modified = now;
        Ok(())
    }

    pub(super) fn empty(&mut self, now: SystemTime) -> io::Result<()> {
        rustix::fs::ftruncate(self.memory()?, 0)?;
        self.damaged = false;
        self.changed(now)
    }

    fn content(&self) -> io::Result<Vec<u8>> {
        let mut content = vec![0; usize::try_from(self.len).map_err(|_| io::ErrorKind::OutOfMemory)?];
        let mut at = 0;
        while at < content.len() {
            match rustix::io::pread(self.memory()?, &mut content[at..], at as u64)? {
                0 => break,
                n => at += n,
            }
        }
        content.truncate(at);
        Ok(content)
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if !self.damaged {
            self.synced = self.content()?;
        }
        Ok(())
    }

    /// What was not synced is lost, or kept, or partly both. The memory is another one from here on.
    pub(super) fn crash(&mut self, dice: &mut Rng) -> io::Result<()> {
        if self.is_dir() {
            self.memory = None;
            return Ok(());
        }
        let (new, old) = (self.content()?, std::mem::take(&mut self.synced));
        let left = if new == old { new } else { torn(new, old, dice) };
        let memory = memory()?;
        let mut at = 0;
        while at < left.len() {
            at += rustix::io::pwrite(&memory, &left[at..], at as u64)?;
        }
        (self.len, self.synced, self.damaged) = (left.len() as u64, left, false);
        self.memory = Some(memory);
        Ok(())
    }

    pub(super) fn metadata(&self, device: u64, inode: Number, links: u64) -> Metadata {
        Metadata {
            mode: self.mode,
            len: self.len,
            device,
            inode,
            links,
            owner: (0, 0),
            accessed: self.accessed,
            modified: self.modified,
            created: Some(self.created),
        }
    }
}

/// What a loss of power leaves of a file of which only `old` was synced.
fn torn(new: Vec<u8>, old: Vec<u8>, dice: &mut Rng) -> Vec<u8> {
    match dice.u8(..4) {
        0 => old,
        1 => new,
        2 => {
            // Its length reached the disk, and not its content.
            let mut left = old;
            left.resize(new.len(), 0);
            left
        }
        _ => {
            let reached = dice.usize(..=new.len());
            let mut left = new;
            left.truncate(reached);
            left.extend(old.get(reached..).unwrap_or_default());
            left
        }
    }
}
