//! `futures_io::AsyncRead` and `AsyncWrite` for streams and their halves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::AsStream;
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
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                from: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.as_stream().poll_write_ref(cx, from)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                from: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.as_stream().poll_write_vectored_ref(cx, from)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.as_stream().poll_flush_ref(cx)
            }

            fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.as_stream().poll_shutdown_ref(cx)
            }
        }
    )* };
}

reads!(Stream, ReadHalf<'_>, OwnedReadHalf);
writes!(Stream, WriteHalf<'_>, OwnedWriteHalf);
