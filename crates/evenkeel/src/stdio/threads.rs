//! A standard stream that can only be read and written by calls that block: on the threads that files have too.
//!
//! One call at a time is under way. It is this struct's and not the future's that waits, so a future that is dropped loses
//! nothing: what was read is there for the next one.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::retry_on_intr;

use super::Which;
use crate::core::Shared;
use crate::core::async_io::Half;
use crate::core::watch::Watched;
use crate::fs::on_thread;
use crate::sys::{PollEntry, poll_bits};

/// What one call reads or writes at most.
const MOST: usize = 64 << 10;

type Call = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>>>>;

pub(super) struct Threads {
    shared: Rc<Shared>,
    which: Which,
    fd: Arc<OwnedFd>,
    /// Tells when a call will not block, so that a terminal at which nobody types does not keep a thread. None for what
    /// is ready at any time.
    watched: Option<Watched>,
    call: Option<Call>,
    /// What was read and not yet taken, from `taken` on.
    got: Vec<u8>,
    taken: usize,
}

impl Threads {
    pub(super) fn new(shared: &Rc<Shared>, which: Which, fd: OwnedFd, watched: Option<Watched>) -> Self {
        let (shared, fd) = (shared.clone(), Arc::new(fd));
        Threads { shared, which, fd, watched, call: None, got: Vec::new(), taken: 0 }
    }

    /// Waits until a call will not block for long, where that can be known.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(watched) = &self.watched else { return Poll::Ready(Ok(())) };
        let half = self.which.half();
        let events = if half == Half::Read { poll_bits::IN } else { poll_bits::OUT };
        watched.poll_io(cx, half, |sys, fd| {
            let mut now = [PollEntry { fd, events, revents: 0 }];
            sys.poll(&mut now, Some(Duration::ZERO))?;
            if now[0].revents == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        })
    }

    /// Waits for the end of the call that is under way, if one is.
    fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let Some(call) = &mut self.call else { return Poll::Ready(Ok(Vec::new())) };
        let result = ready!(call.as_mut().poll(cx));
        self.call = None;
        Poll::Ready(result)
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.taken == self.got.len() {
            if self.call.is_none() {
                ready!(self.poll_ready(cx))?;
                let (fd, most) = (self.fd.clone(), into.len().min(MOST));
                let read = move || {
                    let mut got = vec![0; most];
                    let n = retry_on_intr(|| rustix::io::read(&fd, &mut got))?;
                    got.truncate(n);
                    Ok(got)
                };
                self.call = Some(Box::pin(on_thread(self.shared.clone(), read)));
            }
            self.got = ready!(self.poll_call(cx))?;
            self.taken = 0;
        }
        let n = into.len().min(self.got.len() - self.taken);
        into[..n].copy_from_slice(&self.got[self.taken..self.taken + n]);
        self.taken += n;
        Poll::Ready(Ok(n))
    }

    /// Takes bytes as soon as those before are written.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_call(cx))?;
        ready!(self.poll_ready(cx))?;
        let (fd, bytes) = (self.fd.clone(), from[..from.len().min(MOST)].to_vec());
        let n = bytes.len();
        let write = move || {
            let mut left = &bytes[..];
            while !left.is_empty() {
                let n = retry_on_intr(|| rustix::io::write(&fd, left))?;
                left = &left[n..];
            }
            Ok(Vec::new())
        };
        self.call = Some(Box::pin(on_thread(self.shared.clone(), write)));
        // This begins it. An error that is there already is this write's, or the next one's.
        match self.poll_call(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    /// Waits until all bytes that were taken are written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_call(cx).map_ok(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;
    use crate::core::watch::Interest;
    use crate::{Backend, EventLoop, time};

    fn threads(which: Which, fd: OwnedFd) -> Threads {
        let shared = crate::Handle::current().shared;
        let interest = if which == Which::In { Interest::READABLE } else { Interest::WRITABLE };
        let number = shared.driver.sys().duplicate(fd.as_fd()).unwrap();
        let watched = Watched::new(shared.clone(), number, interest, false).unwrap();
        Threads::new(&shared, which, fd, Some(watched))
    }

    /// A pipe that cannot be opened anew.
    #[test]
    fn no_thread_is_kept_while_there_is_nothing_to_read() {
        for backend in Backend::ALL {
            let mut events = EventLoop::builder().backend(*backend).build().unwrap();
            let h = events.handle();
            let (read, write) = rustix::pipe::pipe().unwrap();
            let mut write = File::from(write);
            let done = events.block_on(async {
                let mut input = threads(Which::In, read);
                for round in 0..5u8 {
                    let mut got = [0; 2];
                    let early = poll_fn(|cx| input.poll_read(cx, &mut got));
                    assert!(time::timeout(Duration::from_millis(2), early).await.is_err());
                    assert_eq!(h.stats().files_in_flight, 0);
                    write.write_all(&[round, 7, 9]).unwrap();
                    let mut all = Vec::new();
                    while all.len() < 3 {
                        let n = poll_fn(|cx| input.poll_read(cx, &mut got)).await.unwrap();
                        all.extend_from_slice(&got[..n]);
                    }
                    assert_eq!(all, [round, 7, 9]);
                }
                drop(write);
                poll_fn(|cx| input.poll_read(cx, &mut [0; 4])).await.unwrap()
            });
            assert_eq!(done.unwrap(), 0, "the end");
        }
    }

    #[test]
    fn what_was_written_arrives_in_order_when_it_is_flushed() {
        for backend in Backend::ALL {
            let mut events = EventLoop::builder().backend(*backend).build().unwrap();
            let (mut read, write) = rustix::pipe::pipe().map(|(r, w)| (File::from(r), w)).unwrap();
            events
                .block_on(async {
                    let mut out = threads(Which::Out, write);
                    for part in [&b"one "[..], b"two ", b"three"] {
                        assert_eq!(poll_fn(|cx| out.poll_write(cx, part)).await.unwrap(), part.len());
                    }
                    poll_fn(|cx| out.poll_flush(cx)).await.unwrap();
                })
                .unwrap();
            drop(events);
            let mut all = String::new();
            read.read_to_string(&mut all).unwrap();
            assert_eq!(all, "one two three");
        }
    }
}
