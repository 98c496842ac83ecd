//! `tokio::io::AsyncRead` and `AsyncWrite` for streams and their halves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::as_stream::{AsStream, poll_writes};
use crate::net::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, Stream, WriteHalf};

/// Reads straight into memory that is initialised already; otherwise through the loop's, since to initialise a
/// large buffer costs more than to copy the few bytes that came.
fn read(stream: &Stream, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    if buf.remaining() == 0 {
        return Poll::Ready(Ok(()));
    }
    if buf.initialized().len() < buf.capacity() {
        return stream.poll_lend_ref(cx, buf.remaining(), |bytes| buf.put_slice(bytes));
    }
    let n = ready!(stream.poll_read_ref(cx, buf.initialize_unfilled()))?;
    buf.advance(n);
    Poll::Ready(Ok(()))
}

macro_rules! reads {
    ($($half:ty),*) => { $(
        /// Reads into the caller's buffer, as [`Stream::read`] does. Cancel safe.
        impl AsyncRead for $half {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                read(self.as_stream(), cx, into)
            }
        }
    )* };
}

macro_rules! writes {
    ($($half:ty),*) => { $(
        /// Writes hand their bytes to the kernel at once, as [`Stream::write`] does. `shutdown` ends the write half,
        /// as [`Stream::shutdown`] does. Cancel safe.
        impl AsyncWrite for $half {
            fn is_write_vectored(&self) -> bool {
                true
            }

            poll_writes!(poll_shutdown);
        }
    )* };
}

reads!(Stream, ReadHalf<'_>, OwnedReadHalf);
writes!(Stream, WriteHalf<'_>, OwnedWriteHalf);
