//! A child process that was started.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::io::Errno;

use super::ExitStatus;
use crate::core::Shared;
use crate::core::async_io::Half;
use crate::core::watch::{Interest, Watched};
use crate::handle::Handle;
use crate::pipe::{Receiver, Sender};
use crate::signal::Signal;

/// A child process, made by [`Command::spawn`](super::Command::spawn). It stays on its loop's thread.
///
/// Dropping it leaves the child running, unless [`kill_on_drop`](super::Command::kill_on_drop) was asked for; the loop
/// takes its status when it ends. The ends of its pipes are closed.
pub struct Child {
    /// Its standard input, if that was piped and nobody has taken it.
    pub stdin: Option<Sender>,
    /// Its standard output, if that was piped and nobody has taken it.
    pub stdout: Option<Receiver>,
    /// Its standard error, if that was piped and nobody has taken it.
    pub stderr: Option<Receiver>,
    shared: Rc<Shared>,
    /// None once its status was taken, or is the loop's to take.
    running: Option<Process>,
    id: u32,
    status: Option<ExitStatus>,
    kill_on_drop: bool,
}

/// A child whose status has not been taken: its number is not another's until then.
struct Process {
    std: std::process::Child,
    /// Its pidfd.
    watched: Watched,
}

impl Process {
    fn watch(shared: &Rc<Shared>, std: &std::process::Child) -> io::Result<Watched> {
        let pidfd = shared.driver.sys().pidfd(std.id())?;
        Watched::new(shared.clone(), pidfd, Interest::READABLE, true)
    }

    fn signal(&self, number: i32) -> io::Result<()> {
        self.watched.sys().signal(self.watched.fd()?, number)
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<ExitStatus>> {
        let Process { std, watched } = self;
        // It may have ended before anybody looked.
        if let Some(status) = std.try_wait()? {
            return Poll::Ready(Ok(status));
        }
        watched
            .poll_io(cx, Half::Read, |_, _| std.try_wait()?.ok_or_else(|| io::ErrorKind::WouldBlock.into()))
    }
}

impl Child {
    /// Takes over a child that was just started. If that fails nothing is left running.
    pub(super) fn adopt(
        shared: &Rc<Shared>,
        mut std: std::process::Child,
        kill_on_drop: bool,
    ) -> io::Result<Child> {
        let sys = shared.driver.sys();
        let watched: io::Result<_> = (|| {
            let stdin = std.stdin.take().map(|fd| Sender::of(shared, sys.import(fd.into())?)).transpose()?;
            let receiver = |fd: OwnedFd| Receiver::of(shared, sys.import(fd)?);
            let stdout = std.stdout.take().map(|fd| receiver(fd.into())).transpose()?;
            let stderr = std.stderr.take().map(|fd| receiver(fd.into())).transpose()?;
            Ok::<_, io::Error>((stdin, stdout, stderr, Process::watch(shared, &std)?))
        })();
        match watched {
            Ok((stdin, stdout, stderr, watched)) => {
                let (shared, id) = (shared.clone(), std.id());
                let running = Some(Process { std, watched });
                Ok(Child { stdin, stdout, stderr, shared, running, id, status: None, kill_on_drop })
            }
            // It has ended, and its status went to nobody or to somebody else. Its number may be another's by now.
            Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Err(Errno::CHILD.into()),
            Err(e) => {
                // It has hardly begun, and what is killed ends at once. Neither fails for a child that is there.
                let _ = std.kill();
                let _ = std.wait();
                Err(e)
            }
        }
    }

    /// The number of the process. Once its status was taken, the kernel may give it to another process.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits for the child's end and returns its status; again and again the same. Its standard input is closed first, if
    /// that was piped and nobody has taken it: a child that reads to the end would wait for ever.
    ///
    /// A child that writes more into a pipe than it holds, and that nobody reads, does not end.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The kernel's: `ECHILD` when something else in this process has taken the status.
    pub fn wait(&mut self) -> impl Future<Output = io::Result<ExitStatus>> {
        poll_fn(|cx| {
            self.stdin = None;
            self.poll_wait(cx)
        })
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<ExitStatus>> {
        if let Some(status) = self.status {
            return Poll::Ready(Ok(status));
        }
        let Some(process) = &mut self.running else { return Poll::Ready(Err(Errno::CHILD.into())) };
        let result = std::task::ready!(process.poll_wait(cx));
        self.note(result.as_ref().copied().map(Some));
        Poll::Ready(result)
    }

    /// Nothing more is to be waited for once the status was taken, by us or by somebody else.
    fn note(&mut self, result: Result<Option<ExitStatus>, &io::Error>) {
        let lost = |e: &io::Error| e.raw_os_error() == Some(Errno::CHILD.raw_os_error());
        match result {
            Ok(Some(status)) => (self.status, self.running) = (Some(status), None),
            Err(e) if lost(e) => self.running = None,
            Ok(None) | Err(_) => {}
        }
    }

    /// The status if the child has ended.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.status {
            return Ok(Some(status));
        }
        let Some(process) = &mut self.running else { return Err(Errno::CHILD.into()) };
        let result = process.std.try_wait();
        self.note(result.as_ref().copied());
        result
    }

    /// Calls `call` on the loop when the child has ended. It runs as a task does: never inside another call; a panic in it
    /// is counted. Pipes that nobody has taken are closed now, and nothing kills the child any more when something is
    /// dropped. If the loop ends first, `call` is dropped.
    pub fn on_exit(mut self, call: impl FnOnce(&Handle, io::Result<ExitStatus>) + 'static) {
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
        self.kill_on_drop = false;
        let shared = self.shared.clone();
        let handle = Handle::from_shared(shared.clone());
        let waits = async move {
            let result = self.wait().await;
            handle.shared.guard(|| call(&handle, result));
        };
        shared.executor.spawn(waits).detach();
    }

    /// Sends the child a signal. It cannot reach another process, whatever became of the child.
    ///
    /// # Errors
    /// `ESRCH` when its status was taken; `InvalidInput` for a real-time signal that does not exist; the kernel's, for
    /// instance when the child runs as another user.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let number = signal.as_raw()?;
        let Some(process) = &self.running else { return Err(Errno::SRCH.into()) };
        process.signal(number)
    }

    /// Kills the child: it ends without a chance to do anything about it. Does nothing if it has ended. Its status is still
    /// to be waited for.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&mut self) -> io::Result<()> {
        if self.running.is_none() { Ok(()) } else { self.signal(Signal::Kill) }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(mut process) = self.running.take() else { return };
        if self.kill_on_drop {
            // It cannot fail but for a child that became another user's, who would have to do it.
            let _ = process.signal(rustix::process::Signal::KILL.as_raw());
        }
        if matches!(process.std.try_wait(), Ok(None)) {
            let reap = async move { poll_fn(|cx| process.poll_wait(cx)).await.map(drop) };
            self.shared.executor.spawn(reap).detach();
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id).field("status", &self.status).finish_non_exhaustive()
    }
}
