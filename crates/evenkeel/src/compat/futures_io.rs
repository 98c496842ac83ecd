//! `futures_io::AsyncRead` and `AsyncWrite` for streams and their halves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::as_stream::{AsStream, poll_writes};
use crate::net::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, Stream, WriteHalf};

macro_rules! reads {
    ($($half:ty),*) => { $(
        /// Reads into the caller's buffer, as [`Stream::read`] does. Cancel safe.
        impl AsyncRead for $half {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                into: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                self.as_stream().poll_read_ref(cx, into)
            }
        }
    )* };
}

macro_rules! writes {
    ($($half:ty),*) => { $(
        /// Writes hand their bytes to the kernel at once, as [`Stream::write`] does. `close` ends the write half, as
        /// [`Stream::shutdown`] does. Cancel safe.
        impl AsyncWrite for $half {
            poll_writes!(poll_close);
        }
    )* };
}

reads!(Stream, ReadHalf<'_>, OwnedReadHalf);
writes!(Stream, WriteHalf<'_>, OwnedWriteHalf);
