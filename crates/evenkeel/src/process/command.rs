//! How a child process is to be started.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;

use super::{Child, ExitStatus, Output, Stdio};
use crate::handle::Handle;
use crate::pipe::Receiver;
use crate::sys::sigpipe;

/// What [`Command::output`] collects of each stream unless it was told otherwise.
const OUTPUT_LIMIT: usize = 16 << 20;

/// How a child process is to be started. It is `std::process::Command` with children that are waited for on the loop.
///
/// A child inherits this process's standard streams unless told otherwise. The loop never makes them non-blocking, so a
/// child that shares them finds them as it expects.
pub struct Command {
    std: std::process::Command,
    kill_on_drop: bool,
    output_limit: usize,
}

impl Command {
    /// A program, looked up in `PATH` unless there is a `/` in it, without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self::from(std::process::Command::new(program))
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.std.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.std.args(args);
        self
    }

    /// Sets a variable of the child's environment, which is otherwise this process's.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.std.env(name, value);
        self
    }

    /// Sets variables of the child's environment.
    pub fn envs(
        &mut self,
        all: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Self {
        self.std.envs(all);
        self
    }

    /// Leaves a variable out of the child's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.std.env_remove(name);
        self
    }

    /// Gives the child no variable but those that are set after this.
    pub fn env_clear(&mut self) -> &mut Self {
        self.std.env_clear();
        self
    }

    /// The child's working directory.
    pub fn current_dir(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.std.current_dir(path);
        self
    }

    /// The child's standard input. Default: this process's.
    pub fn stdin(&mut self, from: impl Into<Stdio>) -> &mut Self {
        self.std.stdin(from);
        self
    }

    /// The child's standard output. Default: this process's.
    pub fn stdout(&mut self, to: impl Into<Stdio>) -> &mut Self {
        self.std.stdout(to);
        self
    }

    /// The child's standard error. Default: this process's.
    pub fn stderr(&mut self, to: impl Into<Stdio>) -> &mut Self {
        self.std.stderr(to);
        self
    }

    /// Whether a [`Child`] that is dropped before it was waited for is killed. Default: no.
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Self {
        self.kill_on_drop = kill;
        self
    }

    /// How many bytes [`output`](Self::output) collects of each stream at most. Default: 16 MiB.
    pub fn output_limit(&mut self, bytes: usize) -> &mut Self {
        self.output_limit = bytes;
        self
    }

    /// All other options, such as the user and the process group.
    pub fn as_std_mut(&mut self) -> &mut std::process::Command {
        &mut self.std
    }

    /// Starts the child on the current loop. This thread waits until the program is loaded, for some hundred
    /// microseconds as a rule.
    ///
    /// # Errors
    /// The kernel's, such as `NotFound` when there is no such program; then nothing is left running.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn spawn(&mut self) -> io::Result<Child> {
        let shared = Handle::current().shared;
        // The mask of this thread becomes the child's.
        let child = sigpipe::unblocked(|| self.std.spawn())?;
        Child::adopt(&shared, child, self.kill_on_drop)
    }

    /// Starts the child and waits for its end.
    ///
    /// Dropping the future is dropping the [`Child`].
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn) and [`Child::wait`].
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait().await
    }

    /// Starts the child without any input, collects what it writes, and waits for its end. Streams that
    /// [`as_std_mut`](Self::as_std_mut) or others have set are replaced.
    ///
    /// Dropping the future is dropping the [`Child`].
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn) and [`Child::wait`]. `FileTooLarge` when the child writes more than
    /// [`output_limit`](Self::output_limit); it is killed then.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn output(&mut self) -> io::Result<Output> {
        self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn()?;
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both are piped");
        };
        let most = self.output_limit;
        match both(collect(out, most), collect(err, most)).await {
            Ok((stdout, stderr)) => Ok(Output { status: child.wait().await?, stdout, stderr }),
            Err(e) => {
                child.kill()?;
                child.wait().await?;
                Err(e)
            }
        }
    }
}

async fn collect(mut from: Receiver, most: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut append = |bytes: &[u8]| {
        let fits = bytes.len() <= most - all.len();
        if fits {
            all.extend_from_slice(bytes);
        }
        fits
    };
    while let Some(fits) = from.read_with(&mut append).await? {
        if !fits {
            let what = format!("the child wrote more than the limit of {most} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
    }
    Ok(all)
}

/// Both results, or the first error.
async fn both<A, B>(
    a: impl Future<Output = io::Result<A>>,
    b: impl Future<Output = io::Result<B>>,
) -> io::Result<(A, B)> {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut from_a, mut from_b) = (None, None);
    std::future::poll_fn(move |cx| {
        use std::task::Poll;
        if from_a.is_none()
            && let Poll::Ready(result) = a.as_mut().poll(cx)
        {
            from_a = Some(result?);
        }
        if from_b.is_none()
            && let Poll::Ready(result) = b.as_mut().poll(cx)
        {
            from_b = Some(result?);
        }
        match (from_a.take(), from_b.take()) {
            (Some(a), Some(b)) => Poll::Ready(Ok((a, b))),
            unfinished => {
                (from_a, from_b) = unfinished;
                Poll::Pending
            }
        }
    })
    .await
}

impl From<std::process::Command> for Command {
    fn from(std: std::process::Command) -> Self {
        Command { std, kill_on_drop: false, output_limit: OUTPUT_LIMIT }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.std.fmt(f)
    }
}
