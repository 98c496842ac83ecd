//! How a file is to be opened.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::File;
use super::flight::perform;
use super::op::{FileOp, Output, c_path};
use crate::handle::Handle;

/// How a file is to be opened, as in the standard library.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("evenkeel-doc-options-{}", std::process::id()));
/// # let _ = std::fs::remove_file(&path);
/// use evenkeel::fs::OpenOptions;
/// let mut events = evenkeel::EventLoop::new()?;
/// events.block_on(async {
///     let mut options = OpenOptions::new();
///     options.write(true).create_new(true).mode(0o600);
///     let file = options.open(&path).await?;
///     file.write_all_at(b"secret", 0).await?;
///     let again = options.open(&path).await.unwrap_err();
///     assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
/// #   std::fs::remove_file(&path)?;
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    mode: u32,
    custom: i32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Options that allow nothing yet: at least one of `read`, `write` and `append` must be set.
    pub fn new() -> Self {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            mode: 0o666,
            custom: 0,
        }
    }

    /// The file can be read.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.read = read;
        self
    }

    /// The file can be written.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.write = write;
        self
    }

    /// The file can be written at its end. Each write finds the end anew, in one step with the writing, whatever the
    /// offset that [`File::write_at`] was given.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.append = append;
        self
    }

    /// A file that exists is made empty. Needs `write`.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    /// A file that does not exist is made. Needs `write` or `append`.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    /// The file is made, and opening fails with `AlreadyExists` if there is anything of that name: of several who
    /// try, one succeeds. Needs `write` or `append`; `create` and `truncate` mean nothing then.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.create_new = create_new;
        self
    }

    /// The permissions of a file that is made, before the process's mask takes some away. Default: `0o666`.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// Further flags of `open`, such as `O_DIRECT` or `O_NOFOLLOW`. Those that the other options stand for have no
    /// effect here.
    pub fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.custom = flags;
        self
    }

    /// Opens a file on the current loop. It is not inherited by child processes.
    ///
    /// Opening a named pipe waits for its other end, and keeps one of the few threads busy meanwhile.
    ///
    /// Dropping the future abandons the operation: the file may be made or emptied even so, and is closed if it was
    /// opened.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` for options that make no sense together and for a path with a zero byte.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let shared = Handle::current().shared;
        let (flags, path) = (self.flags()?, c_path(path.as_ref())?);
        let mode = Mode::from_raw_mode(self.mode & 0o7777);
        match perform(&shared, || FileOp::Open { path, flags, mode }).await? {
            Output::Opened(fd) => Ok(File::new(shared, fd)),
            other => unreachable!("opening gave {other:?}"),
        }
    }

    fn flags(&self) -> io::Result<OFlags> {
        let access = match (self.read, self.write || self.append) {
            (true, true) => OFlags::RDWR,
            (true, false) => OFlags::RDONLY,
            (false, true) => OFlags::WRONLY,
            (false, false) => return Err(senseless("a file must be opened to read, to write or to append")),
        };
        if self.create_new || self.create || self.truncate {
            if !self.write && !self.append {
                return Err(senseless("a file that is only read cannot be made or emptied"));
            }
            if self.truncate && self.append && !self.create_new {
                return Err(senseless("a file cannot be emptied and appended to"));
            }
        }
        let create = match (self.create_new, self.create, self.truncate) {
            (true, _, _) => OFlags::CREATE | OFlags::EXCL,
            (false, true, true) => OFlags::CREATE | OFlags::TRUNC,
            (false, true, false) => OFlags::CREATE,
            (false, false, true) => OFlags::TRUNC,
            (false, false, false) => OFlags::empty(),
        };
        let append = if self.append { OFlags::APPEND } else { OFlags::empty() };
        let ours = OFlags::ACCMODE | OFlags::CREATE | OFlags::EXCL | OFlags::TRUNC | OFlags::APPEND;
        let custom = OFlags::from_bits_retain(self.custom as u32) - ours;
        Ok(access | create | append | custom | OFlags::CLOEXEC)
    }
}

fn senseless(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(set: impl FnOnce(&mut OpenOptions) -> &mut OpenOptions) -> Result<OFlags, io::ErrorKind> {
        let mut options = OpenOptions::new();
        set(&mut options);
        options.flags().map_err(|e| e.kind())
    }

    #[test]
    fn options_become_flags_that_close_on_exec() {
        let ok = |flags: OFlags| Ok(flags | OFlags::CLOEXEC);
        assert_eq!(flags(|o| o.read(true)), ok(OFlags::RDONLY));
        assert_eq!(flags(|o| o.append(true).read(true)), ok(OFlags::RDWR | OFlags::APPEND));
        assert_eq!(
            flags(|o| o.write(true).create(true).truncate(true)),
            ok(OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)
        );
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        assert_eq!(flags(|o| o.write(true).create_new(true).truncate(true)), ok(new));
        assert_eq!(flags(|o| o.append(true).create_new(true)), ok(new | OFlags::APPEND));
    }

    #[test]
    fn custom_flags_cannot_change_what_has_an_option() {
        let all = flags(|o| o.read(true).custom_flags(-1)).unwrap_or(OFlags::empty());
        assert!(all.contains(OFlags::NOFOLLOW | OFlags::DIRECT));
        let ours = OFlags::ACCMODE | OFlags::CREATE | OFlags::EXCL | OFlags::TRUNC | OFlags::APPEND;
        assert!(!all.intersects(ours));
    }

    #[test]
    fn senseless_options_are_refused() {
        let senseless = Err(io::ErrorKind::InvalidInput);
        assert_eq!(flags(|o| o), senseless);
        assert_eq!(flags(|o| o.create(true)), senseless);
        assert_eq!(flags(|o| o.read(true).create(true)), senseless);
        assert_eq!(flags(|o| o.read(true).create_new(true)), senseless);
        assert_eq!(flags(|o| o.read(true).truncate(true)), senseless);
        assert_eq!(flags(|o| o.append(true).truncate(true)), senseless);
        assert_eq!(flags(|o| o.write(true).append(true).truncate(true)), senseless);
    }
}
