//! Completion backends: the kernel is asked once and says when it is done.
//!
//! [`Uring`] keeps the contract of [`backend`](crate::backend) on an io_uring. What it asks of the kernel: connections
//! accepted and bytes received again and again, into buffers that the loop provides, until it cancels that; and a report,
//! once, when a socket has room again. What it never leaves with the kernel is memory to send from: a send is submitted
//! so that it is over, whole or refused, when the submitting call returns. So a batch's answers leave in one call, the
//! one that also waits for the next batch, and a connection's queue stays the loop's own (I9). Files are the exception:
//! what an operation on one names is the kernel's until it completes, and is lent for so long.
//!
//! | file | question |
//! |---|---|
//! | `uring.rs` | what the driver holds, and its turn |
//! | `submit.rs` | how writes leave, and completions come in |
//! | `receive.rs` | how bytes reach handlers, and wait for tasks |
//! | `pull.rs` | how tasks read them |
//! | `held.rs` | where bytes wait that a task has not read |
//! | `accept.rs` | how connections are accepted |
//! | `end.rs` | how operations end before their descriptor does |
//! | `watch.rs` | how watches are told that they are ready |
//! | `files.rs` | how files are read, written and all else |
//! | `probe.rs` | what this kernel has |

mod accept;
mod end;
mod files;
mod held;
mod probe;
mod pull;
mod receive;
mod submit;
#[cfg(test)]
mod tests;
mod uring;
mod watch;
#[cfg(test)]
mod watch_tests;

pub(crate) use probe::{Features, check_names, probe};
pub(crate) use uring::Uring;
