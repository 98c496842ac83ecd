//! Sockets that outlive a process: taken from a service manager, and handed to the next version of a server.
//!
//! A listening socket is a queue of connections that have been made and that nobody has accepted yet. When a process closes the
//! last descriptor of one, the kernel resets them all; when a new process binds the port anew, whoever comes in between is
//! refused. Neither happens when the sockets themselves pass from process to process, which is all that this module is about:
//!
//! - [`listen_fds`]: the service manager has opened the sockets, before the first process began (socket activation).
//! - [`Succession`] and [`predecessor`]: a running process starts the next one, gives it its sockets, and goes on until the
//!   new one serves. If that fails, nothing has happened.
//! - [`notify`](mod@notify): telling the service manager of all this.
//!
//! # Handing over
//!
//! ```no_run
//! # use std::time::Duration;
//! use evenkeel::group::{Group, GroupListener, Share};
//! use evenkeel::inherit::{self, Succession};
//! use evenkeel::inherit::notify::{State, notify};
//! use evenkeel::net::{Closing, Limits, ListenOptions};
//! # struct Echo;
//! # impl evenkeel::Handler for Echo { fn on_data(&mut self, _: &mut evenkeel::Conn<'_>, _: &[u8]) {} }
//!
//! // At the start of every process.
//! fn start(group: &Group) -> std::io::Result<GroupListener> {
//!     let (options, limits, share) = (ListenOptions::default(), Limits::default(), Share::ReusePort);
//!     let Some(mut old) = inherit::predecessor()? else {
//!         return group.listen("0.0.0.0:7000", &options, &limits, share, |_, _| Echo);
//!     };
//!     let sockets = old.sockets(Duration::from_secs(10))?.into_iter().flat_map(|handed| handed.sockets);
//!     let listener = group.adopt(sockets.collect(), &options, &limits, share, |_, _| Echo)?;
//!     old.ready()?;
//!     Ok(listener)
//! }
//!
//! // When this process is to be replaced: by a signal, say.
//! async fn replace(listener: GroupListener) -> std::io::Result<()> {
//!     let mut succession = Succession::new()?;
//!     succession.hand_over(b"web", &listener.sockets().await?)?;
//!     // By name: the running program's own file may have been replaced, which is what this is for.
//!     let new = succession.spawn(std::process::Command::new("/usr/local/bin/server"))?;
//!     let new = new.ready(Duration::from_secs(30)).await?;
//!     notify(&[State::MainPid(new.id())])?;
//!     // From here on the new process serves whoever comes, and this one has its connections to end.
//!     listener.close_as(Closing::HandedOver)?;
//!     Ok(())
//! }
//! ```
//!
//! Both processes accept from the same sockets for a moment, which is what makes the change seamless. Everything else that the
//! two have to tell each other goes over the [channel](Successor::channel) between them, in the application's own words.
//!
//! # What passes between the processes
//!
//! A pair of connected Unix sockets, of which the new process inherits one end; the environment variable
//! `EVENKEEL_SUCCESSION` tells it which. The first words are a version, so that a new program that does not understand an old one
//! refuses to take over, and the old one goes on serving.

mod activation;
mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
pub mod notify;
mod predecessor;
mod successor;
mod wire;

pub use activation::{Inherited, NotListening, listen_fds};
pub use error::SuccessionError;
pub use predecessor::{HandedOver, Predecessor, predecessor};
pub use successor::{Succession, Successor};

/// Names the socket to the predecessor: its number, and its inode, by which it is told from whatever else has that number.
const VARIABLE: &str = "EVENKEEL_SUCCESSION";
