//! The two halves of a stream, borrowed for one task or owned by two.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;

use super::Stream;
use crate::core::whole;

/// The reading half of a borrowed stream.
#[derive(Debug)]
pub struct ReadHalf<'a>(pub(crate) &'a Stream);

/// The writing half of a borrowed stream.
#[derive(Debug)]
pub struct WriteHalf<'a>(pub(crate) &'a Stream);

/// The reading half of a stream that two tasks share.
#[derive(Debug)]
pub struct OwnedReadHalf(pub(crate) Rc<Stream>);

/// The writing half of a stream that two tasks share. Dropping it does not end the stream's write half:
/// [`shutdown`](Self::shutdown) does.
#[derive(Debug)]
pub struct OwnedWriteHalf(pub(crate) Rc<Stream>);

impl<'a> ReadHalf<'a> {
    pub(crate) fn new(stream: &'a Stream) -> Self {
        ReadHalf(stream)
    }

    /// As [`Stream::read`]. Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.0.poll_read_ref(cx, into)).await
    }
}

impl OwnedReadHalf {
    pub(crate) fn new(stream: Rc<Stream>) -> Self {
        OwnedReadHalf(stream)
    }

    /// As [`Stream::read`]. Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        ReadHalf(&self.0).read(into).await
    }

    /// Puts the two halves of one stream together again.
    ///
    /// # Errors
    /// Gives both back if they are of different streams.
    pub fn reunite(self, other: OwnedWriteHalf) -> Result<Stream, (Self, OwnedWriteHalf)> {
        if !Rc::ptr_eq(&self.0, &other.0) {
            return Err((self, other));
        }
        drop(other);
        Rc::try_unwrap(self.0).map_err(|_| unreachable!("a stream has two halves, and one was just dropped"))
    }
}

impl<'a> WriteHalf<'a> {
    pub(crate) fn new(stream: &'a Stream) -> Self {
        WriteHalf(stream)
    }

    /// As [`Stream::write_all`]. Not cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn write_all(&mut self, from: &[u8]) -> io::Result<()> {
        whole::write_all(from, |cx, rest| self.0.poll_write_ref(cx, rest)).await
    }

    /// As [`Stream::flush`]. Cancel safe.
    ///
    /// # Errors
    /// What went wrong with bytes that were queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.0.poll_flush_ref(cx)).await
    }

    /// As [`Stream::shutdown`]. Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.0.poll_shutdown_ref(cx)).await
    }
}

impl OwnedWriteHalf {
    pub(crate) fn new(stream: Rc<Stream>) -> Self {
        OwnedWriteHalf(stream)
    }

    /// As [`Stream::write_all`]. Not cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn write_all(&mut self, from: &[u8]) -> io::Result<()> {
        WriteHalf(&self.0).write_all(from).await
    }

    /// As [`Stream::flush`]. Cancel safe.
    ///
    /// # Errors
    /// What went wrong with bytes that were queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        WriteHalf(&self.0).flush().await
    }

    /// As [`Stream::shutdown`]. Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        WriteHalf(&self.0).shutdown().await
    }
}
