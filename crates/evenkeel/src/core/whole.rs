//! Reading and writing to the last byte, by what reads and writes some.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

/// Writes all of `from` by `write`. Not cancel safe.
#[inline]
pub(crate) fn write_all(
    mut from: &[u8],
    mut write: impl FnMut(&mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
) -> impl Future<Output = io::Result<()>> {
    poll_fn(move |cx| {
        while !from.is_empty() {
            let n = ready!(write(cx, from))?;
            from = &from[n..];
        }
        Poll::Ready(Ok(()))
    })
}

/// Fills `into` by `read`; an end before is `UnexpectedEof`. Not cancel safe.
pub(crate) async fn read_exact(
    mut into: &mut [u8],
    mut read: impl FnMut(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>>,
) -> io::Result<()> {
    while !into.is_empty() {
        match poll_fn(|cx| read(cx, into)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => into = &mut into[n..],
        }
    }
    Ok(())
}
