//! A group of loops under measurement.

use std::fmt;
use std::io::{self, BufRead};

use clap::ValueEnum;
use evenkeel::group::{Group, Share};
use evenkeel::net::{Limits, ListenOptions};
use evenkeel::{Backend, Conn, EventLoop, Handler};

use super::{Echo, Model, echo, echo_from_own_buffer};

/// The ways to share a port, as a command line names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// A socket for each loop; the kernel deals by a hash of the addresses.
    ReusePort,
    /// One loop accepts and hands over.
    Acceptor,
    /// One socket for all loops.
    Shared,
}

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::ReusePort, Way::Acceptor, Way::Shared];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::ReusePort => "reuse-port",
            Way::Acceptor => "acceptor",
            Way::Shared => "shared",
        }
    }

    fn share(self) -> Share {
        match self {
            Way::ReusePort => Share::ReusePort,
            Way::Acceptor => Share::Acceptor,
            Way::Shared => Share::Shared,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Gives its connection to a task as soon as it is open.
struct IntoTask(Model);

impl Handler for IntoTask {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        let (Some(stream), handle) = (conn.detach(b""), conn.handle()) else { return };
        if self.0 == Model::OwnBuffer {
            handle.spawn(echo_from_own_buffer(stream)).detach();
        } else {
            handle.spawn(echo(stream)).detach();
        }
    }

    fn on_data(&mut self, _: &mut Conn<'_>, _: &[u8]) {}
}

/// Serves with so many loops until its input ends. For each line of input it says how many connections each loop has.
pub(crate) fn serve(model: Model, backend: Backend, loops: usize, way: Way, port: u16) -> io::Result<()> {
    let each = EventLoop::builder().backend(backend).on_fallback(|_| {});
    let group = Group::builder().loops(loops).event_loop(each).build(move |handle, _| {
        match handle.fallback() {
            // A measurement under a wrong name is worse than none.
            Some(fallback) if backend != Backend::Auto => Err(io::Error::other(fallback.to_string())),
            _ => Ok(()),
        }
    })?;
    let (at, options) = (("127.0.0.1", port), ListenOptions::default());
    // Idle ones stay.
    let mut limits = Limits::default();
    (limits.idle_timeout, limits.message_deadline) = (None, None);
    let share = way.share();
    let listener = if model == Model::Callbacks {
        group.listen(at, &options, &limits, share, |_, _| Echo)?
    } else {
        group.listen(at, &options, &limits, share, move |_, _| IntoTask(model))?
    };
    println!("listening on {}", listener.addr());
    for line in io::stdin().lock().lines() {
        line?;
        let counts: Vec<_> = listener.counts().iter().map(|counts| counts.connections.to_string()).collect();
        println!("{}", counts.join(" "));
    }
    Ok(())
}
