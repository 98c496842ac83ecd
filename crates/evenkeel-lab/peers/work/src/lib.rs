//! The work that every runtime is given: the same echo server and the same small operations inside one process.
//!
//! It lives apart from the lab, because the peers link it too and are built in a workspace of their own. A runtime
//! implements [`Runtime`] and calls [`main`]; everything that could make one of them look better than another
//! (counts, rounds, clocks, placement, what a message is) is here.
//!
//! A program speaks to the lab on its standard output: a server prints one line, `listening on ADDRESS`; a micro
//! benchmark prints one line for each figure, `FIGURE = NUMBER NUMBER ...`.

pub mod micro;
pub mod place;

use std::io;
use std::net::TcpListener;
use std::time::Duration;

pub use micro::{Figure, Op};

/// A runtime that runs its tasks on the thread of [`run`](Runtime::run).
pub trait Runtime: 'static {
    /// Makes a runtime on this thread and runs `main` in it to its end.
    fn run<F: Future<Output = ()> + 'static>(main: F);
    /// Spawns a task on this thread's runtime; what it returns is ready when the task has ended.
    fn spawn<F: Future<Output = ()> + 'static>(task: F) -> impl Future<Output = ()> + 'static;
    /// The runtime's own timer.
    fn sleep(time: Duration) -> impl Future<Output = ()> + 'static;
}

/// How an echo server is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// Bytes of the read buffer that each connection owns, where the runtime's interface wants one.
    pub buffer: usize,
    /// With the options that its experts would choose, where the defaults are not those.
    pub tuned: bool,
}

/// Makes a program of a runtime: `echo [--port N] [--buffer N] [--tuned]` or `micro OPERATION`. Never returns from
/// `echo` but by an error.
///
/// # Errors
/// `InvalidInput` for a command line that it does not know, and the kernel's.
pub fn main<R: Runtime>(echo: fn(TcpListener, Echo) -> io::Result<()>) -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("echo") => serve(words, echo),
        Some("micro") => micro::main::<R>(words.next().as_deref()),
        other => Err(bad(format!("echo or micro, not {other:?}"))),
    }
}

/// The part of [`main`] for a program that only serves.
///
/// # Errors
/// As for [`main`].
pub fn serve(
    mut words: impl Iterator<Item = String>,
    echo: fn(TcpListener, Echo) -> io::Result<()>,
) -> io::Result<()> {
    let (mut port, mut options) = (0, Echo { buffer: 4096, tuned: false });
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|v| v.parse::<u32>().ok());
            value.ok_or_else(|| bad(format!("{word} needs a number")))
        };
        match word.as_str() {
            "--port" => port = u16::try_from(number()?).map_err(|e| bad(format!("--port: {e}")))?,
            "--buffer" => options.buffer = number()? as usize,
            "--tuned" => options.tuned = true,
            _ => return Err(bad(format!("unknown option {word}"))),
        }
    }
    place::raise_descriptor_limit();
    let listener = place::listen(port)?;
    println!("listening on {}", listener.local_addr()?);
    echo(listener, options)
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
