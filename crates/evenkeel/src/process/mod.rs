//! Child processes, waited for and talked with by tasks.
//!
//! A child's end is an event of the loop like any other: a *pidfd* names exactly this child, so that nothing is sent to
//! another process that got its number, no signal handler is in play, and children that others in this process start are
//! none of its business. The child's standard streams are [`pipe`](crate::pipe)s.
//!
//! ```
//! use evenkeel::process::{Command, Stdio};
//!
//! let mut events = evenkeel::EventLoop::new()?;
//! let out = events.block_on(async {
//!     let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//!     let mut to = child.stdin.take().expect("it is piped");
//!     to.write_all(b"meow").await?;
//!     drop(to);
//!     let mut out = Vec::new();
//!     child.stdout.as_mut().expect("it is piped").read_to_end(&mut out).await?;
//!     assert!(child.wait().await?.success());
//!     Ok::<_, std::io::Error>(out)
//! })??;
//! assert_eq!(out, b"meow");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What a child gets
//!
//! - Its standard streams and no other descriptor: all that this crate opens are close-on-exec.
//! - SIGPIPE at its default and not blocked, although the loop's thread blocks it. The rest of the signal mask is the
//!   thread's. Signals that are listened for are at their default.
//!
//! # Who waits for a child
//!
//! The kernel keeps the status of a child that has ended until its parent takes it. [`Child::wait`] does. A [`Child`] that
//! is dropped before is left to the loop, which takes the status when the child ends, for as long as the loop lives and
//! runs. What still runs when the loop ends is left to the operating system: its status is kept until this process ends.
//!
//! If SIGCHLD is ignored in this process, or something else in it waits for any child (`waitpid(-1)`), statuses get lost,
//! and [`Child::wait`], or already [`Command::spawn`], fails with `ECHILD`.
//!
//! Linux 5.4 is needed, for `pidfd_open` that can be waited for.

mod child;
mod command;

pub use std::process::{ExitStatus, Output, Stdio};

pub use child::Child;
pub use command::Command;
