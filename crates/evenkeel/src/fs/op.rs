//! File operations as plain data, and how a thread that may block performs them.
//!
//! An operation owns all that it needs until it has ended: its paths, its buffer, a share of its descriptor. So it can
//! be moved to another thread or be given to the kernel, and whoever asked for it may be gone meanwhile (I9, I10).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, retry_on_intr};

use super::Metadata;

/// What is asked of the kernel. Paths that are relative start at the process's working directory.
///
/// Offsets and lengths are at most `i64::MAX`: the kernel takes what is above for negative, and -1 for a file's own
/// position in places.
pub(crate) enum FileOp {
    /// `openat`. The flags hold `CLOEXEC`.
    Open { path: CString, flags: OFlags, mode: Mode },
    /// `close`, by whoever drops the last share.
    Close { fd: Arc<OpenFile> },
    /// `pread`: appends at most `most` bytes, which is above 0, to `into`, whose spare memory holds at least one.
    Read { fd: Arc<OpenFile>, into: Vec<u8>, most: usize, at: u64 },
    /// `pwrite` of all of `from`, once; it may write less.
    Write { fd: Arc<OpenFile>, from: Vec<u8>, at: u64 },
    /// `fsync`, or `fdatasync`.
    Sync { fd: Arc<OpenFile>, data_only: bool },
    /// `ftruncate`.
    SetLen { fd: Arc<OpenFile>, len: u64 },
    /// `statx` with the mask [`STAT_MASK`] of a path; a symbolic link at its end is followed, or not.
    Stat { path: CString, follow: bool },
    /// `statx` with the mask [`STAT_MASK`], an empty path and `EMPTY_PATH`.
    StatFd { fd: Arc<OpenFile> },
    /// `renameat`.
    Rename { from: CString, to: CString },
    /// `unlinkat`, of a directory with `REMOVEDIR`.
    Unlink { path: CString, dir: bool },
    /// `mkdirat`.
    MakeDir { path: CString, mode: Mode },
    /// A call that blocks and that no interface of the kernel has another way for.
    Call(Box<dyn FnOnce() -> FileDone + Send>),
}

/// An open file, as its owner and the operations on it share it.
#[derive(Debug)]
pub(crate) struct OpenFile {
    fd: OwnedFd,
    positioned: OnceLock<bool>,
}

impl OpenFile {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        OpenFile { fd, positioned: OnceLock::new() }
    }

    /// Whether an offset means something for it: it is a regular file or a block device, and not one of the regular
    /// files that are streams, as some in `/sys` are. Where it means nothing, `pread` and `pwrite` refuse, and other
    /// ways to read take whatever comes next.
    ///
    /// Asked of the kernel once, and never of a file system's server.
    pub(crate) fn is_positioned(&self) -> bool {
        *self.positioned.get_or_init(|| {
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
            let found = rustix::fs::statx(&self.fd, c"", flags, StatxFlags::TYPE);
            let kind = found.map(|found| FileType::from_raw_mode(found.stx_mode.into()));
            matches!(kind, Ok(FileType::RegularFile | FileType::BlockDevice))
                && rustix::fs::tell(&self.fd).is_ok()
        })
    }
}

impl From<OpenFile> for OwnedFd {
    fn from(file: OpenFile) -> OwnedFd {
        file.fd
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What [`FileOp::Stat`] and [`FileOp::StatFd`] ask for.
pub(crate) const STAT_MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// What came of an operation.
#[derive(Debug)]
pub(crate) enum Output {
    /// Of all operations that have no other output.
    Done,
    /// Of `Open`. Dropping it closes it, so an abandoned open leaves nothing behind (I10).
    Opened(OwnedFd),
    /// Of `Read`: the memory that it was given, longer by what was read; as long as before at the end of the file.
    Read(Vec<u8>),
    /// Of `Write`: how many bytes were written.
    Written(usize),
    /// Of `Stat` and `StatFd`.
    Stat(Box<Metadata>),
}

/// How an operation ended. It is never `Interrupted`.
pub(crate) type FileDone = io::Result<Output>;

impl FileOp {
    /// Performs the operation on this thread, which blocks as long as the kernel takes. It is tried again when a
    /// signal interrupts it.
    pub(crate) fn run(self) -> FileDone {
        match self {
            FileOp::Open { path, flags, mode } => {
                let fd = retry_on_intr(|| rustix::fs::openat(CWD, &path, flags, mode))?;
                Ok(Output::Opened(fd))
            }
            FileOp::Close { fd } => {
                drop(fd);
                Ok(Output::Done)
            }
            FileOp::Read { fd, into, most, at } => Ok(Output::Read(read(&fd, into, most, at)?)),
            FileOp::Write { fd, from, at } => {
                Ok(Output::Written(retry_on_intr(|| rustix::io::pwrite(&fd, &from, at))?))
            }
            FileOp::Sync { fd, data_only: true } => done(|| rustix::fs::fdatasync(&fd)),
            FileOp::Sync { fd, data_only: false } => done(|| rustix::fs::fsync(&fd)),
            FileOp::SetLen { fd, len } => done(|| rustix::fs::ftruncate(&fd, len)),
            FileOp::Stat { path, follow } => {
                let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
                stat(CWD, &path, flags)
            }
            FileOp::StatFd { fd } => stat(fd, &CString::default(), AtFlags::EMPTY_PATH),
            FileOp::Rename { from, to } => done(|| rustix::fs::renameat(CWD, &from, CWD, &to)),
            FileOp::Unlink { path, dir } => {
                let flags = if dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                done(|| rustix::fs::unlinkat(CWD, &path, flags))
            }
            FileOp::MakeDir { path, mode } => done(|| rustix::fs::mkdirat(CWD, &path, mode)),
            FileOp::Call(call) => call(),
        }
    }
}

fn done(call: impl FnMut() -> Result<(), Errno>) -> FileDone {
    retry_on_intr(call)?;
    Ok(Output::Done)
}

fn read(fd: &OpenFile, mut into: Vec<u8>, most: usize, at: u64) -> io::Result<Vec<u8>> {
    let len = into.len();
    let spare = into.capacity() - len;
    if spare <= most {
        retry_on_intr(|| rustix::io::pread(fd, spare_capacity(&mut into), at))?;
    } else {
        // Only a part of the memory may be filled, which costs setting it first.
        into.resize(len + most, 0);
        let n = retry_on_intr(|| rustix::io::pread(fd, &mut into[len..], at))?;
        into.truncate(len + n);
    }
    Ok(into)
}

fn stat(fd: impl AsFd, path: &CString, flags: AtFlags) -> FileDone {
    let found = retry_on_intr(|| rustix::fs::statx(&fd, path, flags, STAT_MASK))?;
    Ok(Output::Stat(Box::new(Metadata::new(&found))))
}

/// A path as the kernel takes it.
pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path cannot hold a zero byte"))
}
