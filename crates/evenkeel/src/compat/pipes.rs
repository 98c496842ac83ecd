//! The reading and writing traits of `futures_io` and `tokio::io` for pipes and standard streams.

use std::io;
use std::pin::Pin;
#[cfg(feature = "tokio-io")]
use std::task::ready;
use std::task::{Context, Poll};

use crate::pipe::{Receiver, Sender};
use crate::stdio::{Reader, Writer};

macro_rules! reads {
    ($($type:ty),*) => { $(
        /// Reads into the caller's buffer. Cancel safe.
        #[cfg(feature = "futures-io")]
        impl futures_io::AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                into: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                <$type>::poll_read(&mut self, cx, into)
            }
        }

        /// Reads into the caller's buffer. Cancel safe.
        #[cfg(feature = "tokio-io")]
        impl tokio::io::AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                into: &mut tokio::io::ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let n = ready!(<$type>::poll_read(&mut self, cx, into.initialize_unfilled()))?;
                into.advance(n);
                Poll::Ready(Ok(()))
            }
        }
    )* };
}

reads!(Receiver, Reader);

/// Writes hand their bytes to the kernel at once. `close` closes the pipe. Cancel safe.
#[cfg(feature = "futures-io")]
impl futures_io::AsyncWrite for Sender {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Sender::poll_write(&mut self, cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Sender::poll_write_vectored(&mut self, cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

/// Writes hand their bytes to the kernel at once. `shutdown` closes the pipe. Cancel safe.
#[cfg(feature = "tokio-io")]
impl tokio::io::AsyncWrite for Sender {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Sender::poll_write(&mut self, cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Sender::poll_write_vectored(&mut self, cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

/// `close` flushes: the stream is the process's, and stays open. Cancel safe.
#[cfg(feature = "futures-io")]
impl futures_io::AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Writer::poll_write(&mut self, cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Writer::poll_flush(&mut self, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Writer::poll_flush(&mut self, cx)
    }
}

/// `shutdown` flushes: the stream is the process's, and stays open. Cancel safe.
#[cfg(feature = "tokio-io")]
impl tokio::io::AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Writer::poll_write(&mut self, cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Writer::poll_flush(&mut self, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Writer::poll_flush(&mut self, cx)
    }
}
