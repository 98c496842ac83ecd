//! Files, without keeping the loop waiting for a disk.
//!
//! No kernel says that a file is ready: a read that finds its page on the disk blocks, on a socket's loop as anywhere.
//! So these operations are completions on every backend: they are given away, the loop goes on, and it is told when
//! they have ended. A backend that can have the kernel perform them does; for the others a few threads of the loop's
//! own do, which are started when they are first needed.
//!
//! | backend | reading and writing | all else |
//! |---|---|---|
//! | io_uring | by the kernel at once, if it is little and needs no waiting; else by its threads | by the kernel's threads |
//! | all others | by the loop's threads | by the loop's threads |
//!
//! The loop's threads are at most four, unless [`PoolOptions`](crate::pool::PoolOptions) says otherwise. So are the kernel's,
//! which it keeps for each thread that has rings: loops on one thread share them, and the last one built decides. What an io_uring lacks, such as [`File::set_len`] before Linux 6.9, or does not do as it is
//! promised here, such as reading from what has no offsets, the loop's threads do there too;
//! [`LoopStats::file_ops_on_threads`](crate::LoopStats::file_ops_on_threads) counts it.
//!
//! ```
//! # let folder = std::env::temp_dir().join(format!("evenkeel-doc-fs-{}", std::process::id()));
//! use evenkeel::{EventLoop, fs};
//! let mut events = EventLoop::new()?;
//! events.block_on(async {
//!     fs::create_dir_all(&folder).await?;
//!     let path = folder.join("greeting");
//!     fs::write(&path, "good morning").await?;
//!
//!     let file = fs::OpenOptions::new().read(true).write(true).open(&path).await?;
//!     file.write_all_at(b"evening", 5).await?;
//!     file.sync_data().await?;
//!     assert_eq!(file.metadata().await?.len(), 12);
//!     assert_eq!(fs::read(&path).await?, b"good evening");
//! #   std::fs::remove_dir_all(&folder)?;
//!     Ok::<(), std::io::Error>(())
//! })??;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Semantics
//!
//! - **An operation begins when its future is first polled** and one of the loop's places for operations in flight (1,024
//!   unless told otherwise) is free; otherwise it waits for one, first come first served. Operations in flight at the same time run in any
//!   order, on one file too: await one before the other where it matters.
//! - **Memory.** Buffers are borrowed and copied once: the operation has memory of its own, of at most 256 KiB, from
//!   when it gets its place to its end. [`read`] gives it the vector that it returns. So nothing is freed or
//!   overwritten under the kernel, whenever a future is dropped.
//! - **Dropping a future abandons its operation.** One that waits for a place does not happen. One in flight runs to its
//!   end and holds its place until then; what it opened is closed then. Each operation says what that means for it.
//! - **The end of a loop** does not wait for operations. Those that no thread has begun do not happen. On io_uring those
//!   that can be interrupted are, and what a file system or a disk keeps the kernel at is waited for, a few seconds at
//!   most; after that its memory is left to the kernel for ever.
//! - **Offsets.** Files are read and written at offsets, so pipes, terminals and sockets fail with `NotSeekable`. They
//!   have readiness, and are no business of this module.
//! - **What blocks for ever** - opening a named pipe that nobody opens at the other end, a dead network file system -
//!   keeps a place, and one of the threads, until it ends. Nothing can end such a call from outside. As many of
//!   them as there are threads keep all other operations that need a thread waiting, but never the loop.
//!
//! # Errors
//!
//! Errors are the kernel's, with the kinds that the standard library gives them. Besides these, every operation fails
//! with `NotConnected` when its loop has ended, and with `Other` when it needs a thread of the loop's, there is none and
//! none can be started.
//! A system without `statx` (Linux before 4.11) refuses metadata with `Unsupported`.

mod file;
mod flight;
mod metadata;
mod op;
mod options;
mod threads;

use std::io;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::Mode;

use self::flight::perform;
use self::op::c_path;
use crate::core::Shared;
use crate::handle::Handle;

pub use self::file::File;
pub use self::metadata::Metadata;
pub use self::options::OpenOptions;

#[cfg(test)]
pub(crate) use self::flight::waiter;
pub(crate) use self::flight::{FileWaiter, Files, on_thread};
pub(crate) use self::op::{FileDone, FileOp, OpenFile, Output, STAT_MASK};

/// What one operation reads or writes at most, so that each keeps a thread and its memory for a bounded time.
const MOST_BYTES: usize = 256 << 10;

/// Memory for a file whose file system does not know its length, as in `/proc`.
const UNKNOWN_LENGTH: usize = 8 << 10;

/// Reads a whole file, to the end that it has when that is reached.
///
/// Cancel safe: nothing is changed.
///
/// # Errors
/// The kernel's; `OutOfMemory` for a file that does not fit in memory; `InvalidInput` for a path with a zero byte.
///
/// # Panics
/// Outside of a running loop.
pub async fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = File::open(path).await?;
    // Only a hint: the read that finds the end has the last word.
    let len = file.metadata().await.map_or(0, |found| found.len());
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut all = Vec::new();
    // One byte more, for the read that finds the end.
    all.try_reserve_exact(if len == 0 { UNKNOWN_LENGTH } else { len.saturating_add(1) })?;
    loop {
        if all.len() == all.capacity() {
            all.try_reserve(MOST_BYTES)?;
        }
        let before = all.len();
        all = file.read_into(move || all, MOST_BYTES, before as u64).await?;
        if all.len() == before {
            return Ok(all);
        }
    }
}

/// Writes a whole file: it is made, or emptied first. Others can see it in between; to replace a file in one step,
/// write another one, [`File::sync_all`] it, and [`rename`] it.
///
/// Dropping the future leaves the file missing, as it was, empty, or written in part.
///
/// # Errors
/// The kernel's; `InvalidInput` for a path with a zero byte.
///
/// # Panics
/// Outside of a running loop.
pub async fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path).await?.write_all_at(content.as_ref(), 0).await
}

/// What the file system knows of a file; a symbolic link is followed.
///
/// Cancel safe.
///
/// # Errors
/// The kernel's; `InvalidInput` for a path with a zero byte.
///
/// # Panics
/// Outside of a running loop.
pub async fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let path = c_path(path.as_ref())?;
    stat(&Handle::current().shared, FileOp::Stat { path, follow: true }).await
}

/// As [`metadata`], of a symbolic link itself.
///
/// # Errors
/// As for [`metadata`].
///
/// # Panics
/// Outside of a running loop.
pub async fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let path = c_path(path.as_ref())?;
    stat(&Handle::current().shared, FileOp::Stat { path, follow: false }).await
}

async fn stat(shared: &Rc<Shared>, op: FileOp) -> io::Result<Metadata> {
    match perform(shared, || op).await? {
        Output::Stat(found) => Ok(*found),
        other => unreachable!("asking for metadata gave {other:?}"),
    }
}

/// Gives a file or a directory another name, in one step. What had that name is replaced.
///
/// Dropping the future abandons the operation: it may happen or not, then or later.
///
/// # Errors
/// The kernel's, such as `CrossesDevices`; `InvalidInput` for a path with a zero byte.
///
/// # Panics
/// Outside of a running loop.
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (c_path(from.as_ref())?, c_path(to.as_ref())?);
    change(FileOp::Rename { from, to }).await
}

/// Removes a file, or a symbolic link itself. Whoever has it open keeps it until then.
///
/// Dropping the future abandons the operation: it may happen or not, then or later.
///
/// # Errors
/// The kernel's, such as `IsADirectory`; `InvalidInput` for a path with a zero byte.
///
/// # Panics
/// Outside of a running loop.
pub async fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let path = c_path(path.as_ref())?;
    change(FileOp::Unlink { path, dir: false }).await
}

/// Makes a directory.
///
/// Dropping the future abandons the operation: it may happen or not, then or later.
///
/// # Errors
/// The kernel's, such as `AlreadyExists` and, when its parent is missing, `NotFound`; `InvalidInput` for a path with a
/// zero byte.
///
/// # Panics
/// Outside of a running loop.
pub async fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = c_path(path.as_ref())?;
    change(FileOp::MakeDir { path, mode: Mode::from_raw_mode(0o777) }).await
}

/// Makes a directory and its parents, as far as they are missing.
///
/// Dropping the future leaves some of them made.
///
/// # Errors
/// As for [`create_dir`], but that a directory which is there already is none.
///
/// # Panics
/// Outside of a running loop.
pub async fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let mut at = path.as_ref();
    if at.as_os_str().is_empty() {
        return Ok(());
    }
    let mut missing = Vec::new();
    loop {
        match ensure_dir(at).await {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = at.parent().filter(|parent| !parent.as_os_str().is_empty());
                missing.push(at);
                at = parent.ok_or(e)?;
            }
            result => break result?,
        }
    }
    for path in missing.into_iter().rev() {
        ensure_dir(path).await?;
    }
    Ok(())
}

/// Makes a directory, unless there is one.
async fn ensure_dir(path: &Path) -> io::Result<()> {
    match create_dir(path).await {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(e),
        // Whatever the kernel says of one that is there: for some it names the lack of permission first.
        Err(e) => match metadata(path).await {
            Ok(found) if found.is_dir() => Ok(()),
            _ => Err(e),
        },
        made => made,
    }
}

/// Removes an empty directory.
///
/// Dropping the future abandons the operation: it may happen or not, then or later.
///
/// # Errors
/// The kernel's, such as `DirectoryNotEmpty` and `NotADirectory`; `InvalidInput` for a path with a zero byte.
///
/// # Panics
/// Outside of a running loop.
pub async fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = c_path(path.as_ref())?;
    change(FileOp::Unlink { path, dir: true }).await
}

/// Performs an operation, on the current loop, that has no output.
async fn change(op: FileOp) -> io::Result<()> {
    perform(&Handle::current().shared, || op).await.map(drop)
}
