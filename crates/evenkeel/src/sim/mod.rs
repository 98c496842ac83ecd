//! A simulated world: servers and clients on hosts of their own, in one process, on virtual time, under seeded faults.
//!
//! Most mistakes of a server show only when something goes wrong at the wrong moment: a read that is short, a reset between
//! two messages, a peer that stops reading, a packet that is seconds late, a process that dies. On a quiet machine that
//! hardly happens, and when it does it does not happen again. Here it happens all the time, and again whenever it is asked
//! for: everything that is left to chance is decided by one number, the *seed*. Time is virtual, so that a day of waiting takes no
//! time at all. The programs are the ones that run elsewhere, unchanged: their loops run over a simulated kernel.
//!
//! ```
//! use std::io;
//! use std::net::SocketAddr;
//!
//! use evenkeel::net::{Listener, Stream};
//! use evenkeel::sim::{Check, Fault};
//!
//! /// Answers one line of each connection.
//! async fn serve() -> io::Result<()> {
//!     let mut listener = Listener::bind("0.0.0.0:7000")?;
//!     loop {
//!         let (mut stream, _) = listener.accept().await?;
//!         evenkeel::spawn(async move {
//!             let mut line = [0; 6];
//!             stream.read_exact(&mut line).await?;
//!             stream.write_all(&line).await
//!         })
//!         .detach();
//!     }
//! }
//!
//! let report = Check::new().seeds(0..20).run(|world| {
//!     world.set_fault(Fault::ShortRead, 0.5);
//!     world.set_fault(Fault::Delay, 0.1);
//!     let server = world.host("server", serve);
//!     let address = SocketAddr::new(world.ip(server), 7000);
//!     world.client("client", move || async move {
//!         let mut stream = Stream::connect(address).await?;
//!         stream.write_all(b"hello\n").await?;
//!         let mut answer = [0; 6];
//!         stream.read_exact(&mut answer).await?;
//!         assert_eq!(&answer, b"hello\n");
//!         Ok(())
//!     });
//!     world.run()
//! });
//! assert!(report.hits(Fault::ShortRead) > 0);
//! ```
//!
//! # What to do when a world fails
//!
//! A world fails when a client's program returns an error or panics, when a handler or a task panics, when nothing can happen
//! any more although clients have not ended, when a loop turns and turns without doing anything, when a program that has
//! ended leaves descriptors open, and when code says so by [`fail`]. [`Check`] then tells the seed, the last things
//! that happened, and the command that makes the same world again. With `EVENKEEL_SIM_SEED=17` that one world runs, and writes
//! down all that happens in it. The example `sim_chat` goes that way from a planted mistake to its seed.
//!
//! A program that asks the system's clock, starts threads, or depends on the order of a `HashMap` does not do the same twice.
//! The first seed of a check runs twice to notice that. In a host, [`elapsed`] and [`wall_clock`] tell the time, and [`random`]
//! gives numbers.
//!
//! # Which faults
//!
//! [`World::set_fault`] lets one kind strike in a share of all cases where it could; [`World::swarm`] lets the seed choose
//! among several, each off in half of the worlds, since faults hide one another. [`World::calm`] ends them all: then is the time
//! to demand that everything recovers. [`World::kill`], [`World::partition`] and others do one thing to one host. What only a peer
//! can do (to send without reading, to stop in the middle of a message) is best done by a client that does just that.
//!
//! # Which kernel
//!
//! Loops that ask for no backend get [`Backend::Sim`](crate::Backend::Sim), which keeps the contract over the model of the network
//! directly and is the fastest. With [`World::set_backend`], or in a program that asks for one by name, the driver of that
//! backend runs: the very code that runs elsewhere, over a model of its system calls.
//!
//! # Tests that are no programs
//!
//! [`blocking`] runs a test that drives its loop by hand, with plain sockets as peers, over the same kernel.
#![doc = include_str!("limits.md")]

pub mod blocking;
mod chaos;
mod check;
#[doc(hidden)]
pub mod differ;
mod disk;
mod driver;
pub(crate) mod fault;
mod inside;
pub(crate) mod kernel;
mod machine;
pub(crate) mod net;
mod packet;
pub(crate) mod place;
mod report;
mod step;
pub(crate) mod sys;
pub(crate) mod trace;
mod world;

pub use check::Check;
pub use fault::Fault;
pub use inside::{elapsed, fail, hit, is_simulated, note, random, remotes, strikes, wall_clock};
pub use report::{Failure, Report};
pub use world::{Host, World};

pub(crate) use place::{machine, start};
