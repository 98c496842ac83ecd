//! An open file.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::flight::perform;
use super::op::{FileOp, OpenFile, Output};
use super::{MOST_BYTES, Metadata, OpenOptions};
use crate::core::Shared;
use crate::handle::Handle;

/// An open file, read and written at offsets.
///
/// It has no position of its own: each operation says where, so several can be in flight at once, and dropping one
/// moves nothing for the others. It stays on its loop's thread.
///
/// Dropping a `File` closes it at once, on this thread, or when the last operation that was abandoned on it has ended.
/// Closing is quick as a rule. It can take long on a network file system, which may write first, and for the last
/// handle of a removed big file: [`close`](Self::close) does not keep the loop meanwhile. Neither tells of errors in
/// writing; [`sync_all`](Self::sync_all) does.
pub struct File {
    shared: Rc<Shared>,
    fd: Arc<OpenFile>,
}

impl File {
    pub(super) fn new(shared: Rc<Shared>, fd: OwnedFd) -> Self {
        File { shared, fd: Arc::new(OpenFile::new(fd)) }
    }

    /// Opens a file to read it, on the current loop. See [`OpenOptions::open`].
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` for a path with a zero byte.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).open(path).await
    }

    /// Opens a file to write it, on the current loop; it is made, or made empty. See [`OpenOptions::open`].
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` for a path with a zero byte.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn create(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path).await
    }

    /// Takes over a file of the standard library, on the current loop.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn from_std(file: std::fs::File) -> File {
        File::new(Handle::current().shared, file.into())
    }

    /// Gives the file away. If an abandoned operation still holds it, the new owner gets a duplicate of it.
    ///
    /// # Errors
    /// The kernel's, when it refuses the duplicate; the file is closed then.
    pub fn into_std(self) -> io::Result<std::fs::File> {
        match Arc::try_unwrap(self.fd) {
            Ok(file) => Ok(OwnedFd::from(file).into()),
            Err(shared) => Ok(shared.as_fd().try_clone_to_owned()?.into()),
        }
    }

    /// Reads at offset `at` into `into`; 0 is the end of the file, or an empty `into`. At most 256 KiB are read by one
    /// call.
    ///
    /// Cancel safe: nothing is written to `into` unless the future was ready.
    ///
    /// # Errors
    /// The kernel's, such as `NotSeekable` for a pipe; `InvalidInput` for an offset above `i64::MAX`.
    pub async fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let most = into.len().min(MOST_BYTES);
        if most == 0 {
            return Ok(0);
        }
        let got = self.read_into(Vec::new, most, at).await?;
        let n = got.len().min(into.len());
        into[..n].copy_from_slice(&got[..n]);
        Ok(n)
    }

    /// Appends at most `most` bytes from offset `at` to a vector, which is made when the operation is begun; without
    /// spare memory it gets as much as is read.
    pub(super) async fn read_into(
        &self,
        into: impl FnOnce() -> Vec<u8>,
        most: usize,
        at: u64,
    ) -> io::Result<Vec<u8>> {
        let at = in_range(at)?;
        let make = || {
            let mut into = into();
            if into.capacity() == into.len() {
                into.reserve_exact(most);
            }
            FileOp::Read { fd: self.fd.clone(), into, most, at }
        };
        match perform(&self.shared, make).await? {
            Output::Read(got) => Ok(got),
            other => unreachable!("reading gave {other:?}"),
        }
    }

    /// Fills `into` from offset `at`.
    ///
    /// Cancel safe, but that a part of `into` may have been written.
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at), and `UnexpectedEof` at the end of the file.
    pub async fn read_exact_at(&self, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
        while !into.is_empty() {
            let n = self.read_at(into, at).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            into = &mut into[n..];
            at += n as u64;
        }
        Ok(())
    }

    /// Writes from `from` at offset `at`, or at the end of a file that was opened to append. At most 256 KiB are
    /// written by one call. Bytes past the end make the file longer, with zeros in a gap.
    ///
    /// Dropping the future abandons the write: it may happen or not, then or later, and a part of it may. Nothing says
    /// when; [`sync_data`](Self::sync_data) does not wait for it.
    ///
    /// # Errors
    /// The kernel's, such as `StorageFull`, and `NotSeekable` for a pipe; `InvalidInput` for an offset above
    /// `i64::MAX`.
    pub async fn write_at(&self, from: &[u8], at: u64) -> io::Result<usize> {
        let at = in_range(at)?;
        let from = &from[..from.len().min(MOST_BYTES)];
        if from.is_empty() {
            return Ok(0);
        }
        let make = || FileOp::Write { fd: self.fd.clone(), from: from.to_vec(), at };
        match perform(&self.shared, make).await? {
            Output::Written(n) => Ok(n),
            other => unreachable!("writing gave {other:?}"),
        }
    }

    /// Writes all of `from` from offset `at`. A file that was opened to append gets it in parts of at most 256 KiB,
    /// between which others may write.
    ///
    /// Dropping the future leaves a part of it written, and abandons the write that is in flight as
    /// [`write_at`](Self::write_at) says.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at), and `WriteZero` when nothing more is taken.
    pub async fn write_all_at(&self, mut from: &[u8], mut at: u64) -> io::Result<()> {
        while !from.is_empty() {
            let n = self.write_at(from, at).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            from = &from[n..];
            at += n as u64;
        }
        Ok(())
    }

    /// Waits until the device has all that was written, and the file's metadata. Of writes that failed in the
    /// background this tells, once.
    ///
    /// Dropping the future has no effect on what is written.
    ///
    /// # Errors
    /// The kernel's. What was written before is in doubt then, and trying again does not mend that.
    pub async fn sync_all(&self) -> io::Result<()> {
        self.perform(|fd| FileOp::Sync { fd, data_only: false }).await
    }

    /// As [`sync_all`](Self::sync_all), without metadata that reading the content back does not need, such as times.
    ///
    /// # Errors
    /// As for [`sync_all`](Self::sync_all).
    pub async fn sync_data(&self) -> io::Result<()> {
        self.perform(|fd| FileOp::Sync { fd, data_only: true }).await
    }

    /// Cuts the file off at `len` bytes, or makes it longer with zeros.
    ///
    /// Dropping the future abandons the operation: it may happen or not, then or later.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` for a length above `i64::MAX` or a file that was opened to read.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        let len = in_range(len)?;
        self.perform(|fd| FileOp::SetLen { fd, len }).await
    }

    /// What the file system knows of the file.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn metadata(&self) -> io::Result<Metadata> {
        super::stat(&self.shared, FileOp::StatFd { fd: self.fd.clone() }).await
    }

    /// Closes the file without keeping the loop, however long it takes.
    ///
    /// Dropping the future closes the file too.
    ///
    /// # Errors
    /// When a thread is needed for it and none can be started, or the loop has ended; the file is closed then as by
    /// dropping it.
    pub async fn close(self) -> io::Result<()> {
        let File { shared, fd } = self;
        perform(&shared, || FileOp::Close { fd }).await.map(drop)
    }

    async fn perform(&self, op: impl FnOnce(Arc<OpenFile>) -> FileOp) -> io::Result<()> {
        perform(&self.shared, || op(self.fd.clone())).await.map(drop)
    }
}

/// Offsets and lengths that the kernel takes for what they are.
fn in_range(number: u64) -> io::Result<u64> {
    if i64::try_from(number).is_err() {
        let what = "offsets and lengths of files are at most i64::MAX";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(number)
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("fd", &self.fd.as_fd()).finish_non_exhaustive()
    }
}
