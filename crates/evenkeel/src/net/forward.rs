//! Forwarding: what one stream receives, another one sends.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;

use super::{ReadHalf, Stream, WriteHalf};
use crate::core::Shared;
use crate::sys::Fd;

/// What is under way in one direction at most, as much as a pipe holds.
const MOST: usize = 64 << 10;
/// What comes at once at least where a pipe pays. Most conversations never have so much, and occupy no descriptors.
const MUCH: usize = 32 << 10;

/// Forwards both ways between two streams until both directions have ended, and returns how many bytes went from `a` to `b`
/// and from `b` to `a`. An end is passed on when all that came before it has been written; the other direction goes on.
///
/// Nothing is read while the other side takes nothing, so a slow side slows the other one down. Of each direction at most
/// 64 KiB are under way. What comes in large pieces is moved by the kernel through a pipe (`splice(2)`), which exists as long
/// as there is a lot; otherwise, and where the kernel refuses, it goes through the loop's memory. On io_uring that is
/// whenever the ring has received it already.
///
/// Not cancel safe, and after an error the streams are good for nothing but [`abort`](Stream::abort): what was under way
/// is lost.
///
/// ```
/// use evenkeel::net::{TcpListener, TcpStream, forward_both};
/// # let mut events = evenkeel::EventLoop::new()?;
/// # let counts = events.block_on(async {
/// let mut front = TcpListener::bind("127.0.0.1:0")?;
/// let mut back = TcpListener::bind("127.0.0.1:0")?;
/// let (front_addr, back_addr) = (front.local_addr()?, back.local_addr()?);
/// let proxy = evenkeel::spawn(async move {
///     let (mut client, _peer) = front.accept().await?;
///     let mut server = TcpStream::connect(back_addr).await?;
///     forward_both(&mut client, &mut server).await
/// });
/// # evenkeel::spawn(async move {
/// #     let (mut stream, _) = back.accept().await?;
/// #     while stream.read_with(|bytes, reply| { reply.write(bytes); }).await?.is_some() {}
/// #     stream.shutdown().await
/// # }).detach();
/// # let mut client = TcpStream::connect(front_addr).await?;
/// # client.write_all(b"ping").await?;
/// # client.shutdown().await?;
/// # let mut reply = [0; 4];
/// # client.read_exact(&mut reply).await?;
/// # assert_eq!(client.read(&mut reply).await?, 0);
/// # proxy.await.map_err(std::io::Error::other)?
/// # })??;
/// # assert_eq!(counts, (4, 4));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The first of either direction: the kernel's. That nobody takes what is forwarded is one.
pub async fn forward_both(a: &mut Stream, b: &mut Stream) -> io::Result<(u64, u64)> {
    let (from_a, to_a) = a.split();
    let (from_b, to_b) = b.split();
    let (mut there, mut back) = (pin!(forward(from_a, to_b)), pin!(forward(from_b, to_a)));
    let (mut sent, mut returned) = (None, None);
    poll_fn(move |cx| {
        if sent.is_none()
            && let Poll::Ready(count) = there.as_mut().poll(cx)
        {
            sent = Some(count?);
        }
        if returned.is_none()
            && let Poll::Ready(count) = back.as_mut().poll(cx)
        {
            returned = Some(count?);
        }
        sent.zip(returned).map_or(Poll::Pending, |both| Poll::Ready(Ok(both)))
    })
    .await
}

/// Forwards one way until the end, which is passed on, and returns how many bytes went. As [`forward_both`].
///
/// # Errors
/// The kernel's, of either stream.
pub async fn forward(from: ReadHalf<'_>, to: WriteHalf<'_>) -> io::Result<u64> {
    let mut way = Way {
        from: from.0,
        to: to.0,
        pipe: None,
        left: Vec::new(),
        at: 0,
        much: false,
        refused: false,
        sent: 0,
        ended: false,
    };
    poll_fn(|cx| way.poll(cx)).await
}

/// A pipe that bytes are moved through, and how many are in it.
struct Through {
    shared: Rc<Shared>,
    read: Fd,
    write: Fd,
    holds: usize,
}

impl Through {
    fn new(shared: &Rc<Shared>) -> io::Result<Self> {
        let (read, write) = shared.driver.sys().pipe()?;
        Ok(Through { shared: shared.clone(), read, write, holds: 0 })
    }
}

impl Drop for Through {
    fn drop(&mut self) {
        let sys = self.shared.driver.sys();
        sys.close(self.read);
        sys.close(self.write);
    }
}

/// One direction.
struct Way<'a> {
    from: &'a Stream,
    to: &'a Stream,
    pipe: Option<Through>,
    /// What was read into memory and could not be written at once, from `at` on.
    left: Vec<u8>,
    at: usize,
    /// The last piece was a large one.
    much: bool,
    /// The kernel has refused to move what this stream receives.
    refused: bool,
    sent: u64,
    ended: bool,
}

impl Way<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        loop {
            ready!(self.poll_write(cx))?;
            if self.ended {
                ready!(self.to.poll_shutdown_ref(cx))?;
                return Poll::Ready(Ok(self.sent));
            }
            let read = self.poll_read(cx);
            if read.is_pending() {
                // Nothing comes: nothing is kept for it.
                self.pipe = None;
            }
            ready!(read)?;
        }
    }

    /// Writes all that is under way.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.holds > 0) {
            let moved = self.to.poll_send_by(cx, |sys, fd| sys.splice(pipe.read, fd, pipe.holds));
            match ready!(moved)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => pipe.holds -= n,
            }
        }
        while self.at < self.left.len() {
            self.at += ready!(self.to.poll_write_ref(cx, &self.left[self.at..]))?;
        }
        (self.left, self.at) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Reads the next bytes, at least one, or the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.much && !self.refused && self.pipe.is_none() {
            // Without descriptors to spare it goes through memory.
            self.pipe = Through::new(&self.from.shared).ok();
        }
        if let Some(pipe) = &mut self.pipe {
            // The pipe is empty, so what is refused is refused by the stream.
            match ready!(self.from.poll_recv_by(cx, |sys, fd| sys.splice(fd, pipe.write, MOST))) {
                Ok(Some(n)) => {
                    pipe.holds = n;
                    self.sent += n as u64;
                    self.ended = n == 0;
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => {}
                Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    (self.pipe, self.refused) = (None, true);
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        self.poll_read_to_memory(cx)
    }

    /// Has the loop's memory lent, and writes from there what can be written at once.
    fn poll_read_to_memory(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (to, waker) = (self.to, cx.waker().clone());
        let lent = self.from.poll_lend_ref(cx, MOST, |bytes| {
            let written = match to.poll_write_ref(&mut Context::from_waker(&waker), bytes) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            Ok::<_, io::Error>((bytes.len(), bytes[written..].to_vec()))
        });
        let (n, left) = ready!(lent)??;
        self.left = left;
        self.sent += n as u64;
        self.ended = n == 0;
        self.much = n >= MUCH;
        Poll::Ready(Ok(()))
    }
}
