//! What the bridges share: the stream behind each type, and the methods that every writing trait has.

use crate::net::Stream;
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
use crate::net::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};

/// The stream that a half is of.
pub(super) trait AsStream {
    fn as_stream(&self) -> &Stream;
}

impl AsStream for Stream {
    fn as_stream(&self) -> &Stream {
        self
    }
}

#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
macro_rules! halves {
    ($($half:ty),*) => { $(
        impl AsStream for $half {
            fn as_stream(&self) -> &Stream {
                &self.0
            }
        }
    )* };
}
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
halves!(ReadHalf<'_>, WriteHalf<'_>, OwnedReadHalf, OwnedWriteHalf);

/// The methods of a writing trait, the same in each but for the name of the one that ends the write half.
macro_rules! poll_writes {
    ($close:ident) => {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
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

        fn $close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.as_stream().poll_shutdown_ref(cx)
        }
    };
}
pub(super) use poll_writes;
