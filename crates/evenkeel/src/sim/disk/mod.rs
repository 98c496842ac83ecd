//! A host's disk: a tree of names, and files whose bytes are memory of this process (`memfd_create`).
//!
//! An open file is a descriptor of that memory which was opened for itself, so its rights and its way to append are the real
//! kernel's, and all that uses a file's descriptor goes on to work. Names, times and numbers of files are the model's.
//!
//! What was written is seen by everyone at once and is on the disk only when it was synced: a file's content by its own
//! `fsync`, names by that of a directory. A host that loses its power may find any part of the rest gone.

mod inode;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::time::SystemTime;

use fastrand::Rng;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::inode::{Inode, identity};
use self::names::{Names, Number, ROOT, Step};
use super::fault::Fault;
use super::kernel::{HostId, Kernel};
use crate::fs::{FileDone, FileOp, Metadata, OpenFile, Output};

/// Bytes of all files of a disk.
const CAPACITY: u64 = 256 << 20;
/// What the process's mask takes from the permissions of what it makes.
const MASK: u32 = 0o022;

/// The disk of one host.
pub(crate) struct Disk {
    device: u64,
    names: Names,
    inodes: BTreeMap<Number, Inode>,
    /// Files by their memory.
    by_memory: BTreeMap<(u64, u64), Number>,
    next: Number,
}

impl Disk {
    /// An empty one, with `/tmp`.
    pub(crate) fn new(host: HostId) -> Self {
        let mut disk = Disk {
            device: u64::from(host.0) + 1,
            names: Names::default(),
            inodes: BTreeMap::new(),
            by_memory: BTreeMap::new(),
            next: ROOT + 1,
        };
        disk.inodes.insert(ROOT, Inode::directory(ROOT, 0o755, SystemTime::UNIX_EPOCH));
        let tmp = disk.add(Inode::directory(ROOT, 0o777, SystemTime::UNIX_EPOCH));
        disk.names.change(vec![(ROOT, b"tmp".to_vec(), Some(tmp))]);
        disk.names.sync();
        disk
    }

    fn add(&mut self, inode: Inode) -> Number {
        let number = self.next;
        self.next += 1;
        self.inodes.insert(number, inode);
        number
    }

    /// Performs an operation, or fails as disks do.
    pub(crate) fn perform(&mut self, kernel: &mut Kernel, now: SystemTime, op: FileOp) -> FileDone {
        let what = told(&op);
        let done = self.try_perform(kernel, now, op);
        match &done {
            Ok(_) => kernel.log(format_args!("{what}: done")),
            Err(e) => kernel.log(format_args!("{what}: {}", e.kind())),
        }
        done
    }

    fn try_perform(&mut self, kernel: &mut Kernel, now: SystemTime, op: FileOp) -> FileDone {
        match op {
            FileOp::Open { path, flags, mode } => self.open(kernel, now, &path, flags, mode),
            FileOp::Close { fd } => {
                drop(fd);
                Ok(Output::Done)
            }
            FileOp::Read { fd, into, most, at } => {
                let found = self.of(&fd)?;
                if found.is_some_and(|found| self.inodes[&found].is_dir()) {
                    return Err(Errno::ISDIR.into());
                }
                let most = most.min(fails(kernel, most, &[Errno::IO])?);
                if let Some(inode) = found.and_then(|found| self.inodes.get_mut(&found)) {
                    inode.accessed = now;
                }
                FileOp::Read { fd, into, most, at }.run()
            }
            FileOp::Write { fd, from, at } => self.write(kernel, now, fd, from, at),
            FileOp::Sync { fd, data_only: _ } => self.sync(kernel, &fd),
            FileOp::SetLen { fd, len } => {
                fails(kernel, 1, &[Errno::IO, Errno::NOSPC])?;
                let found = self.of(&fd)?;
                let done = FileOp::SetLen { fd, len }.run()?;
                if let Some(inode) = found.and_then(|found| self.inodes.get_mut(&found)) {
                    inode.changed(now)?;
                    inode.damaged &= len > 0;
                }
                Ok(done)
            }
            FileOp::Stat { path, follow: _ } => {
                fails(kernel, 1, &[Errno::IO])?;
                let found = self.walk(&path)?.found.ok_or(Errno::NOENT)?;
                self.stat(found)
            }
            FileOp::StatFd { fd } => match self.of(&fd)? {
                Some(found) => self.stat(found),
                // It has no name any more.
                None => FileOp::StatFd { fd }.run().map(|done| self.nameless(done)),
            },
            FileOp::Rename { from, to } => self.rename(kernel, &from, &to),
            FileOp::Unlink { path, dir } => self.unlink(kernel, &path, dir),
            FileOp::MakeDir { path, mode } => self.make_dir(kernel, now, &path, mode),
            FileOp::Call(_) => {
                let what = "a simulated host has no standard streams, and no other calls that block";
                Err(io::Error::new(io::ErrorKind::Unsupported, what))
            }
        }
    }

    /// The file behind a descriptor; none if it has no name any more.
    fn of(&self, fd: &OpenFile) -> io::Result<Option<Number>> {
        let identity = identity(fd)?;
        match self.by_memory.get(&identity) {
            Some(number) => Ok(Some(*number)),
            // All memory is in one file system of the real kernel.
            None if self.by_memory.keys().next().is_none_or(|(device, _)| *device == identity.0) => Ok(None),
            None => {
                let what = "this file is none of the simulated host's disk";
                Err(io::Error::new(io::ErrorKind::Unsupported, what))
            }
        }
    }

    fn walk(&self, path: &CString) -> Result<Step, Errno> {
        self.names.walk(path.to_bytes(), |number| self.inodes.get(&number).and_then(Inode::parent))
    }

    fn open(
        &mut self,
        kernel: &mut Kernel,
        now: SystemTime,
        path: &CString,
        flags: OFlags,
        mode: Mode,
    ) -> FileDone {
        fails(kernel, 1, &[Errno::IO, Errno::NFILE])?;
        if flags.intersects(OFlags::PATH) || flags.contains(OFlags::TMPFILE) {
            return Err(Errno::OPNOTSUPP.into());
        }
        let step = self.walk(path)?;
        let create = flags.contains(OFlags::CREATE);
        let number = match step.found {
            Some(_) if create && flags.contains(OFlags::EXCL) => return Err(Errno::EXIST.into()),
            Some(found) => {
                let is_dir = self.inodes[&found].is_dir();
                let writes = (flags & OFlags::ACCMODE) != OFlags::RDONLY;
                if is_dir && (writes || create) {
                    return Err(Errno::ISDIR.into());
                }
                if !is_dir && (step.wants_dir || flags.contains(OFlags::DIRECTORY)) {
                    return Err(Errno::NOTDIR.into());
                }
                found
            }
            None if !create => return Err(Errno::NOENT.into()),
            None if step.wants_dir => return Err(Errno::ISDIR.into()),
            None => {
                let inode = Inode::file(mode.bits() & !MASK, now)?;
                let memory = inode.identity()?;
                let number = self.add(inode);
                self.by_memory.insert(memory, number);
                self.names.change(vec![(step.parent, step.name, Some(number))]);
                number
            }
        };
        let Some(inode) = self.inodes.get_mut(&number) else { return Err(Errno::NOENT.into()) };
        if flags.contains(OFlags::TRUNC) && !inode.is_dir() {
            inode.empty(now)?;
        }
        let fd = inode.open(flags)?;
        if inode.is_dir() {
            // A directory's memory is made with its first descriptor.
            self.by_memory.insert(identity(&fd)?, number);
        }
        Ok(Output::Opened(fd))
    }

    fn write(
        &mut self,
        kernel: &mut Kernel,
        now: SystemTime,
        fd: std::sync::Arc<OpenFile>,
        mut from: Vec<u8>,
        at: u64,
    ) -> FileDone {
        let found = self.of(&fd)?;
        let most = fails(kernel, from.len(), &[Errno::IO, Errno::NOSPC])?;
        from.truncate(most);
        let Some(inode) = found.and_then(|found| self.inodes.get(&found)) else {
            return FileOp::Write { fd, from, at }.run();
        };
        let used: u64 = self.names.named().filter_map(|found| Some(self.inodes.get(&found)?.len)).sum();
        let appends = rustix::fs::fcntl_getfl(&fd)?.contains(OFlags::APPEND);
        let at = if appends { inode.len } else { at };
        let room = (inode.len + CAPACITY.saturating_sub(used)).saturating_sub(at);
        if room == 0 && !from.is_empty() {
            return Err(Errno::NOSPC.into());
        }
        from.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        let syncs = rustix::fs::fcntl_getfl(&fd)?.intersects(OFlags::SYNC | OFlags::DSYNC);
        let done = FileOp::Write { fd, from, at }.run()?;
        if let Some(inode) = found.and_then(|found| self.inodes.get_mut(&found)) {
            inode.changed(now)?;
            if syncs {
                inode.sync()?;
            }
        }
        Ok(done)
    }

    fn sync(&mut self, kernel: &mut Kernel, fd: &OpenFile) -> FileDone {
        let found = self.of(fd)?;
        let failed = fails(kernel, 1, &[Errno::IO, Errno::NOSPC]);
        let Some(inode) = found.and_then(|found| self.inodes.get_mut(&found)) else {
            return Ok(Output::Done);
        };
        if let Err(error) = failed {
            // As kernels do it: what was not written is taken for written from here on, and never is.
            inode.damaged = true;
            return Err(error);
        }
        if inode.is_dir() {
            self.names.sync();
            self.forget_unused();
        } else {
            inode.sync()?;
        }
        Ok(Output::Done)
    }

    fn stat(&self, number: Number) -> FileDone {
        let inode = &self.inodes[&number];
        let links = match inode.is_dir() {
            true => 2 + self.names.directories_in(number, &self.inodes),
            false => self.names.named().filter(|named| *named == number).count() as u64,
        };
        Ok(Output::Stat(Box::new(inode.metadata(self.device, number, links))))
    }

    /// What is known of a file without a name is the real kernel's but for times and numbers, which must not be seen.
    fn nameless(&self, done: Output) -> Output {
        let Output::Stat(real) = done else { return done };
        let long_ago = SystemTime::UNIX_EPOCH;
        Output::Stat(Box::new(Metadata {
            device: self.device,
            inode: 0,
            links: 0,
            owner: (0, 0),
            accessed: long_ago,
            modified: long_ago,
            created: None,
            ..*real
        }))
    }

    fn rename(&mut self, kernel: &mut Kernel, from: &CString, to: &CString) -> FileDone {
        fails(kernel, 1, &[Errno::IO, Errno::NOSPC])?;
        let (from, to) = (self.walk(from)?, self.walk(to)?);
        let moved = from.found.ok_or(Errno::NOENT)?;
        if from.name.is_empty() || to.name.is_empty() {
            return Err(Errno::BUSY.into());
        }
        let is_dir = self.inodes[&moved].is_dir();
        if !is_dir && (from.wants_dir || to.wants_dir) {
            return Err(Errno::NOTDIR.into());
        }
        if is_dir && self.is_within(to.parent, moved) {
            return Err(Errno::INVAL.into());
        }
        match to.found {
            Some(there) if there == moved => return Ok(Output::Done),
            Some(there) => match (is_dir, self.inodes[&there].is_dir()) {
                (false, true) => return Err(Errno::ISDIR.into()),
                (true, false) => return Err(Errno::NOTDIR.into()),
                (true, true) if !self.names.is_empty(there) => return Err(Errno::NOTEMPTY.into()),
                _ => {}
            },
            None => {}
        }
        self.names.change(vec![(from.parent, from.name, None), (to.parent, to.name, Some(moved))]);
        if let Some(inode) = self.inodes.get_mut(&moved) {
            inode.move_to(to.parent);
        }
        self.forget_unused();
        Ok(Output::Done)
    }

    /// Whether `at` is `dir` or somewhere below it.
    fn is_within(&self, mut at: Number, dir: Number) -> bool {
        while at != dir {
            match self.inodes.get(&at).and_then(Inode::parent) {
                Some(parent) if at != ROOT => at = parent,
                _ => return false,
            }
        }
        true
    }

    fn unlink(&mut self, kernel: &mut Kernel, path: &CString, dir: bool) -> FileDone {
        fails(kernel, 1, &[Errno::IO])?;
        let step = self.walk(path)?;
        let found = step.found.ok_or(Errno::NOENT)?;
        let is_dir = self.inodes[&found].is_dir();
        match (dir, is_dir) {
            (false, true) => return Err(Errno::ISDIR.into()),
            (false, false) if step.wants_dir => return Err(Errno::NOTDIR.into()),
            (true, false) => return Err(Errno::NOTDIR.into()),
            (true, true) if found == ROOT => return Err(Errno::BUSY.into()),
            (true, true) if step.name.is_empty() => return Err(Errno::INVAL.into()),
            (true, true) if !self.names.is_empty(found) => return Err(Errno::NOTEMPTY.into()),
            _ => {}
        }
        self.names.change(vec![(step.parent, step.name, None)]);
        self.forget_unused();
        Ok(Output::Done)
    }

    fn make_dir(&mut self, kernel: &mut Kernel, now: SystemTime, path: &CString, mode: Mode) -> FileDone {
        fails(kernel, 1, &[Errno::IO, Errno::NOSPC])?;
        let step = self.walk(path)?;
        if step.found.is_some() {
            return Err(Errno::EXIST.into());
        }
        let made = self.add(Inode::directory(step.parent, mode.bits() & !MASK, now));
        self.names.change(vec![(step.parent, step.name, Some(made))]);
        Ok(Output::Done)
    }

    /// Forgets what no name leads to, now or after a loss of power. Who has it open keeps its memory.
    fn forget_unused(&mut self) {
        let used = self.names.all();
        self.inodes.retain(|number, _| used.contains(number));
        self.by_memory.retain(|_, number| used.contains(number));
    }

    /// The host loses its power. What is open belongs to a process that is no more.
    ///
    /// # Errors
    /// The real kernel's, when it refuses memory.
    pub(crate) fn crash(&mut self, dice: &mut Rng) -> io::Result<()> {
        self.names.crash(dice);
        self.forget_unused();
        self.by_memory.clear();
        for (number, inode) in &mut self.inodes {
            inode.crash(dice)?;
            if !inode.is_dir() {
                self.by_memory.insert(inode.identity()?, *number);
            }
        }
        for (dir, number) in self.names.places() {
            if let Some(inode) = self.inodes.get_mut(&number) {
                inode.move_to(dir);
            }
        }
        Ok(())
    }
}

/// An operation, for the trace.
fn told(op: &FileOp) -> String {
    match op {
        FileOp::Open { path, .. } => format!("open {path:?}"),
        FileOp::Close { .. } => "close a file".into(),
        FileOp::Read { most, at, .. } => format!("read {most} of a file at {at}"),
        FileOp::Write { from, at, .. } => format!("write {} to a file at {at}", from.len()),
        FileOp::Sync { .. } => "sync".into(),
        FileOp::SetLen { len, .. } => format!("set the length of a file to {len}"),
        FileOp::Stat { path, .. } => format!("stat of {path:?}"),
        FileOp::StatFd { .. } => "stat of a file".into(),
        FileOp::Rename { from, to } => format!("rename {from:?} to {to:?}"),
        FileOp::Unlink { path, .. } => format!("unlink {path:?}"),
        FileOp::MakeDir { path, .. } => format!("make the directory {path:?}"),
        FileOp::Call(_) => "a call that blocks".into(),
    }
}

/// Whether this operation fails; if it only does a part, of how many bytes.
fn fails(kernel: &mut Kernel, bytes: usize, errors: &[Errno]) -> io::Result<usize> {
    if !kernel.strikes(Fault::Disk) {
        return Ok(bytes);
    }
    let dice = kernel.faults.dice(Fault::Disk);
    if bytes > 1 && dice.bool() {
        return Ok(dice.usize(1..bytes));
    }
    Err(errors[dice.usize(..errors.len())].into())
}
