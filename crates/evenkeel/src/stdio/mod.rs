//! Standard input, output and error, for tasks.
//!
//! They are shared: with the shell that started the program, with its other programs, and with children. To make them
//! non-blocking, as a loop makes what is its own, would make them so for all of these, and for those that come after; a
//! shell's next program would fail with an error that it does not know. So the loop takes another way to the same bytes:
//!
//! | what it is | the way |
//! |---|---|
//! | a terminal, a pipe | opened anew, so that the mode is the loop's own |
//! | a socket | received from and sent to by calls that do not wait |
//! | a file, or what cannot be opened anew | by the threads that files have too |
//!
//! ```
//! let mut events = evenkeel::EventLoop::new()?;
//! events.block_on(async {
//!     let mut out = evenkeel::stdio::stdout()?;
//!     out.write_all(b"hello\n").await?;
//!     out.flush().await
//! })??;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Bytes go past the buffers of `std::io`: whoever uses both flushes that one first, and does not read from both.
//!
//! With the features `futures-io` and `tokio-io` they have the traits of those; see [`compat`](crate::compat).

mod open;
mod reader;
mod threads;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    In,
    Out,
    Err,
}

/// Standard input, on the current loop.
///
/// # Errors
/// The kernel's, such as when descriptors have run out.
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn stdin() -> std::io::Result<Reader> {
    Ok(Reader::new(open::open(Which::In)?))
}

/// Standard output, on the current loop.
///
/// # Errors
/// The kernel's, such as when descriptors have run out.
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn stdout() -> std::io::Result<Writer> {
    Ok(Writer::new(open::open(Which::Out)?))
}

/// Standard error, on the current loop.
///
/// # Errors
/// The kernel's, such as when descriptors have run out.
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn stderr() -> std::io::Result<Writer> {
    Ok(Writer::new(open::open(Which::Err)?))
}
