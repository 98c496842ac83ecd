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
