//! The old process's side: starting the new one, giving it the sockets, and hearing that it serves.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use super::wire::{self, Kind};
use super::{SuccessionError, VARIABLE};
use crate::handle::Handle;
use crate::net::Stream;
use crate::sys::inherit::{MOST_SENT, inode, keep, number, pair};
use crate::time;

/// How often a killed process is looked at until it is gone.
const LOOK: Duration = Duration::from_millis(10);
/// How many looks one that gave up has to end by itself.
const PATIENCE: u32 = 100;

/// What a new process is to have, collected before it is started: so it never waits for this one, and what cannot be handed
/// over is known before there is a process.
#[derive(Debug)]
pub struct Succession {
    control: OwnedFd,
    theirs: OwnedFd,
    channel: UnixStream,
}

impl Succession {
    /// Nothing yet.
    ///
    /// # Errors
    /// The kernel's, when descriptors have run out.
    pub fn new() -> Result<Succession, SuccessionError> {
        let (control, theirs) = pair()?;
        let (channel, their_channel) = UnixStream::pair()?;
        wire::send(&control, Kind::Hello, &wire::hello(), &[their_channel.as_fd()])?;
        Ok(Succession { control, theirs, channel })
    }

    /// Hands over listening sockets, under a label by which the new process knows what they are. They stay open here.
    ///
    /// All sockets of a group that shares a port by `SO_REUSEPORT` are to be handed over, or the connections that wait in the
    /// others' queues are reset when this process closes them. Does not block: the kernel holds the sockets until they are
    /// taken.
    ///
    /// # Errors
    /// [`Full`](SuccessionError::Full) when the kernel holds no more, which are some hundred labels; its own, when descriptors
    /// have run out; `InvalidInput` for no socket at all, or a label of more than 255 bytes. The succession is to be given up
    /// then.
    pub fn hand_over(&mut self, label: &[u8], sockets: &[impl AsFd]) -> Result<(), SuccessionError> {
        if sockets.is_empty() || label.len() > wire::MOST_TEXT {
            let what = "at least one socket is handed over, under a label of at most 255 bytes";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what).into());
        }
        for some in sockets.chunks(MOST_SENT) {
            let fds: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            wire::send(&self.control, Kind::Sockets, label, &fds)?;
        }
        Ok(())
    }

    /// Starts the new process. It finds all this by [`predecessor`](super::predecessor); its standard streams, arguments and
    /// environment are as `command` says. It does not get what a service manager has passed to this process, but it can
    /// notify the manager.
    ///
    /// Returns when the program has begun, as [`Command::spawn`] does, which copies the tables of this process's memory; on a
    /// loop that has gigabytes, that is a pause of some milliseconds.
    ///
    /// # Errors
    /// The kernel's, for instance when there is no such program.
    pub fn spawn(self, mut command: Command) -> Result<Successor, SuccessionError> {
        let Succession { control, theirs, channel } = self;
        wire::send(&control, Kind::End, &[], &[])?;
        command.env(VARIABLE, format!("{}:{}", number(&theirs), inode(&theirs)?));
        for activation in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(activation);
        }
        if super::notify::watchdog().is_some() {
            // The manager watches the service; whose main process is the new one soon, under another number.
            command.env_remove("WATCHDOG_PID");
        }
        keep(&mut command, theirs);
        let child = command.spawn()?;
        // With the command goes this process's copy of the other end: once the child's is closed, this end hears of it.
        drop(command);
        Ok(Successor { child: Some(child), control, channel: Some(channel), ready: false })
    }
}

/// A process that is to take over from this one.
///
/// Dropping it before it was [ready](Self::ready) gives the succession up: the new process is killed and reaped, and this
/// one goes on as if nothing had been. Dropped on a loop, reaping goes on there, without holding it up.
#[derive(Debug)]
pub struct Successor {
    child: Option<Child>,
    control: OwnedFd,
    channel: Option<UnixStream>,
    ready: bool,
}

impl Successor {
    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// A stream socket to the new process, for whatever the two have to tell each other; it can be used from now on, and
    /// lives on after the succession. Given out once.
    ///
    /// On a loop it becomes a stream by [`Stream::from_fd`].
    pub fn channel(&mut self) -> Option<UnixStream> {
        self.channel.take()
    }

    /// Waits at most `within` for the new process to serve. Once it does,
    /// this process stops accepting and ends its connections in its own time: the new one lives on by itself, and is returned,
    /// for whoever wants to hear how it ends.
    ///
    /// Runs on the current loop, and does not hold it up. Dropping the future gives the succession up.
    ///
    /// # Errors
    /// When the new process does not take over: it ended or gave up ([`Died`](SuccessionError::Died)), speaks another version
    /// ([`Version`](SuccessionError::Version)), or was not ready in time ([`TimedOut`](SuccessionError::TimedOut)). It is
    /// killed and reaped.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn ready(mut self, within: Duration) -> Result<Child, SuccessionError> {
        let result = match time::timeout(within, self.is_ready()).await {
            Ok(result) => result,
            Err(_) => Err(SuccessionError::TimedOut),
        };
        match result {
            Ok(()) => {
                self.ready = true;
                self.child.take().ok_or(SuccessionError::Died(None))
            }
            // One that gave up by closing its socket ends in a moment, and then its own status says more than ours.
            Err(SuccessionError::Died(_)) => Err(SuccessionError::Died(self.end(PATIENCE).await)),
            Err(error) => {
                self.end(0).await;
                Err(error)
            }
        }
    }

    async fn is_ready(&mut self) -> Result<(), SuccessionError> {
        let mut control = Stream::from_fd(self.control.try_clone()?)?;
        let (kind, text) = read_frame(&mut control).await?;
        if kind != Kind::Hello {
            return Err(SuccessionError::Malformed("no hello"));
        }
        wire::check_hello(&text)?;
        match read_frame(&mut control).await? {
            (Kind::Ready, _) => Ok(()),
            _ => Err(SuccessionError::Malformed("a frame out of order")),
        }
    }

    /// Kills the process, unless it ends by itself within so many looks, and waits for it to be gone.
    async fn end(&mut self, looks: u32) -> Option<ExitStatus> {
        for _ in 0..looks {
            match self.child.as_mut()?.try_wait() {
                Ok(Some(status)) => {
                    self.child = None;
                    return Some(status);
                }
                _ => time::sleep(LOOK).await,
            }
        }
        reap(self.child.take()?).await
    }
}

/// Kills a process and takes its exit status.
async fn reap(mut child: Child) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            // It can have ended meanwhile, which is all that is wanted.
            Ok(None) => _ = child.kill(),
            Err(_) => return None,
        }
        time::sleep(LOOK).await;
    }
}

async fn read_frame(control: &mut Stream) -> Result<(Kind, Vec<u8>), SuccessionError> {
    let gone = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => SuccessionError::Died(None),
        _ => SuccessionError::Io(e),
    };
    let mut head = [0; wire::HEAD];
    control.read_exact(&mut head).await.map_err(gone)?;
    let (kind, len, _) = wire::head(head)?;
    let mut text = vec![0; len];
    control.read_exact(&mut text).await.map_err(gone)?;
    Ok((kind, text))
}

impl Drop for Successor {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take().filter(|_| !self.ready) else { return };
        // It can have ended by itself.
        let _ = child.kill();
        match Handle::try_current().filter(|handle| !handle.shared.ended.get()) {
            Some(handle) => handle.spawn(async move { _ = reap(child).await }).detach(),
            // Nothing is held up but this thread, for as long as the kernel takes to end a killed process.
            None => _ = child.wait(),
        }
    }
}
