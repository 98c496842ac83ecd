//! hyper's clients and servers on this runtime: HTTP/1 and HTTP/2, with services and bodies that need not be `Send`.
//!
//! Hand a [`Stream`] to hyper as it is, [`LocalExec`] where it asks for an executor, and [`LoopTimer`] where it asks
//! for a timer. For an upgrade, end hyper's part by `Connection::without_shutdown`: the stream comes back, with what
//! the peer has sent beyond the request, and can become a callback connection by
//! [`Pool::adopt`](crate::net::Pool::adopt). (`with_upgrades` does not fit: it wants a stream that is `Send`.)
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//! use evenkeel::compat::hyper::LoopTimer;
//! use evenkeel::net::{TcpListener, TcpStream};
//! use hyper::{Request, Response, body::Incoming, service::service_fn};
//!
//! async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
//!     Ok(Response::new("hello".into()))
//! }
//!
//! let mut events = evenkeel::EventLoop::new()?;
//! let status = events.block_on(async {
//!     let mut listener = TcpListener::bind("127.0.0.1:0")?;
//!     let addr = listener.local_addr()?;
//!     evenkeel::spawn(async move {
//!         let (stream, _peer) = listener.accept().await?;
//!         hyper::server::conn::http1::Builder::new()
//!             .timer(LoopTimer)
//!             .header_read_timeout(Duration::from_secs(10))
//!             .serve_connection(stream, service_fn(hello))
//!             .await
//!             .map_err(std::io::Error::other)
//!     });
//!     let stream = TcpStream::connect(addr).await?;
//!     let (mut client, connection) =
//!         hyper::client::conn::http1::handshake(stream).await.map_err(std::io::Error::other)?;
//!     evenkeel::spawn(connection);
//!     let request = Request::get("/").header("host", "localhost").body(String::new());
//!     let response = client.send_request(request.map_err(std::io::Error::other)?).await;
//!     response.map(|r| r.status()).map_err(std::io::Error::other)
//! })??;
//! assert_eq!(status, 200);
//! # Ok::<(), std::io::Error>(())
//! ```

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Executor, Read, ReadBufCursor, Sleep, Timer, Write};

use super::as_stream::{AsStream, poll_writes};
use crate::handle::Handle;
use crate::net::Stream;
use crate::remote::Remote;
use crate::time::Alarm;

/// Reads through the loop's memory, with one copy: hyper's buffer is not initialised, and to fill it directly would
/// take `unsafe`. Cancel safe.
impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_lend_ref(cx, buf.remaining(), |bytes| buf.put_slice(bytes))
    }
}

/// Writes hand their bytes to the kernel at once. Cancel safe.
impl Write for Stream {
    fn is_write_vectored(&self) -> bool {
        true
    }

    poll_writes!(poll_shutdown);
}

/// An executor of the current loop, for futures that need not be `Send`: hyper's HTTP/2 takes it.
///
/// # Panics
/// `execute` panics outside of a running loop. hyper calls it when a connection is polled, so poll connections on
/// a loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalExec;

impl<F: Future + 'static> Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        // Detached: whoever wants its end has a channel to it.
        drop(crate::spawn(future));
    }
}

/// A timer of the current loop, for hyper's timeouts and keep-alive pings. Its time is the loop's: under simulation,
/// the virtual one.
///
/// hyper demands that timers and their sleeps are `Send`, and that is safe: a sleep is plain data beside its loop.
/// It may be dropped anywhere, but works on the loop on which it was made.
///
/// # Panics
/// Each use panics outside of a running loop; to poll or reset a sleep panics on another loop than its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopTimer;

impl Timer for LoopTimer {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Sleep>> {
        let handle = Handle::current();
        let deadline = handle.shared.driver.sys().clock().checked_add(time);
        Box::pin(LoopSleep::new(&handle, deadline))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(LoopSleep::new(&Handle::current(), Some(deadline)))
    }

    fn now(&self) -> Instant {
        crate::time::now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<LoopSleep>() {
            Some(ours) => {
                let ours = ours.get_mut();
                ours.alarm.reset(&ours.home().shared, deadline);
            }
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

/// A sleep that may be sent about, but works on its loop only.
struct LoopSleep {
    owner: u32,
    /// Where the timer is cancelled from elsewhere.
    remote: Remote,
    alarm: Alarm,
}

impl LoopSleep {
    fn new(handle: &Handle, deadline: Option<Instant>) -> Self {
        LoopSleep { owner: handle.shared.id, remote: handle.remote(), alarm: Alarm::at(deadline) }
    }

    /// The loop that runs here, if it is this sleep's.
    fn try_home(&self) -> Option<Handle> {
        Handle::try_current().filter(|current| current.shared.id == self.owner)
    }

    fn home(&self) -> Handle {
        self.try_home().expect(
            "a sleep of hyper's timer was used away from the event loop on which it was made: poll each connection \
             on the loop that made it",
        )
    }
}

impl Sleep for LoopSleep {}

impl Future for LoopSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let home = this.home();
        ready!(this.alarm.poll(&home.shared, cx));
        Poll::Ready(())
    }
}

impl Drop for LoopSleep {
    fn drop(&mut self) {
        if let Some(home) = self.try_home() {
            self.alarm.cancel(&home.shared);
        } else if let Some(mut armed) = self.alarm.take() {
            // If the loop takes no call, the timer fires once for nothing, or the loop has ended.
            let _ = self.remote.run(move |home| armed.cancel(&home.shared));
        }
    }
}

impl fmt::Debug for LoopSleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopSleep").field("deadline", &self.alarm.deadline).finish_non_exhaustive()
    }
}
