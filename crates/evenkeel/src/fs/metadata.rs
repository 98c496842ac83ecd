//! What a file system knows of a file.

use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Statx, StatxFlags, StatxTimestamp};

/// What a file system knows of a file, at the time when it was asked.
#[derive(Clone, Copy, Debug)]
pub struct Metadata {
    pub(crate) mode: u32,
    pub(crate) len: u64,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) links: u64,
    pub(crate) owner: (u32, u32),
    pub(crate) accessed: SystemTime,
    pub(crate) modified: SystemTime,
    pub(crate) created: Option<SystemTime>,
}

impl Metadata {
    pub(crate) fn new(stat: &Statx) -> Self {
        let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Metadata {
            mode: u32::from(stat.stx_mode),
            len: stat.stx_size,
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            links: u64::from(stat.stx_nlink),
            owner: (stat.stx_uid, stat.stx_gid),
            accessed: time(stat.stx_atime),
            modified: time(stat.stx_mtime),
            created: born.then(|| time(stat.stx_btime)),
        }
    }

    fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type() == FileType::RegularFile
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Whether it is a symbolic link, which only [`symlink_metadata`](super::symlink_metadata) shows.
    pub fn is_symlink(&self) -> bool {
        self.file_type() == FileType::Symlink
    }

    /// The length in bytes: of regular files and symbolic links; of others what the file system says, often 0.
    #[allow(clippy::len_without_is_empty, reason = "as in the standard library: a length, not a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The type and the permissions, as `st_mode` has them.
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// The user and the group that own the file.
    pub fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// The file system that the file is in. With [`inode`](Self::inode) it names the file.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// The file's number in its file system.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The names (hard links) that the file has: 0 for one that was removed and is still open.
    pub fn links(&self) -> u64 {
        self.links
    }

    /// When the content was read last, as far as the file system keeps it.
    pub fn accessed(&self) -> SystemTime {
        self.accessed
    }

    /// When the content was changed last.
    pub fn modified(&self) -> SystemTime {
        self.modified
    }

    /// When the file was made, where the file system keeps it.
    pub fn created(&self) -> Option<SystemTime> {
        self.created
    }
}

/// A time before 1970 has negative seconds, and nanoseconds that count forward from them.
fn time(at: StatxTimestamp) -> SystemTime {
    let seconds = Duration::from_secs(at.tv_sec.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let whole = if at.tv_sec < 0 { epoch.checked_sub(seconds) } else { epoch.checked_add(seconds) };
    let nanos = Duration::from_nanos(u64::from(at.tv_nsec));
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(epoch)
}
