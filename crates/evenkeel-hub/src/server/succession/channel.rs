//! The stream between the two processes, on the loop that has the state.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::{Poll, Waker};

use evenkeel::net::{OwnedReadHalf, Stream};
use serde::de::DeserializeOwned;

use super::wire::{Frame, Reader, ToOld, message};
use crate::server::crossing::Batch;

/// What may wait to be sent, in bytes: a process that reads nothing of so much is given up.
const MAX_QUEUED: usize = 512 << 20;

/// Frames on their way to the other process, in order.
#[derive(Default)]
pub(in super::super) struct Channel {
    queue: RefCell<VecDeque<Vec<u8>>>,
    bytes: Cell<usize>,
    writer: Cell<Option<Waker>>,
    ended: Cell<bool>,
}

impl Channel {
    /// Begins to write what is sent. Returns also what is read from. `before` has been read of it already.
    pub(super) fn open(socket: UnixStream, before: Reader) -> io::Result<(Rc<Channel>, Incoming)> {
        let (reading, mut writing) = Stream::from_fd(socket)?.into_split();
        let channel = Rc::new(Channel::default());
        let this = channel.clone();
        evenkeel::spawn(async move {
            while let Some(frame) = this.next().await {
                this.bytes.set(this.bytes.get() - frame.len());
                if writing.write_all(&frame).await.is_err() {
                    break;
                }
            }
            // The other process reads an end, and sees that this one says no more.
            let _ = writing.shutdown().await;
            this.end();
        })
        .detach();
        Ok((channel, Incoming { reading, reader: before, piece: vec![0; 64 << 10] }))
    }

    /// Sends effects on connections of one of the old process's loops.
    pub(in super::super) fn send_effects(&self, front: u16, batch: Batch) {
        self.send(message(&ToOld::Effects { front, batch }));
    }

    /// Sends a frame after all others.
    pub(super) fn send(&self, frame: Vec<u8>) {
        self.bytes.set(self.bytes.get() + frame.len());
        if self.bytes.get() > MAX_QUEUED {
            self.end();
        }
        if !self.ended.get() {
            self.queue.borrow_mut().push_back(frame);
            self.wake();
        }
    }

    /// Sends nothing more.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.queue.borrow_mut().clear();
        self.wake();
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    async fn next(&self) -> Option<Vec<u8>> {
        poll_fn(|cx| {
            if self.ended.get() {
                return Poll::Ready(None);
            }
            let frame = self.queue.borrow_mut().pop_front();
            if frame.is_none() {
                self.writer.set(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            Poll::Ready(frame)
        })
        .await
    }
}

/// What the other process says.
pub(super) struct Incoming {
    reading: OwnedReadHalf,
    reader: Reader,
    piece: Vec<u8>,
}

impl Incoming {
    /// The next frame; none at the end.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<Frame<T>>> {
        loop {
            if let Some(frame) = self.reader.next()? {
                return Ok(Some(frame));
            }
            match self.reading.read(&mut self.piece).await? {
                0 => return Ok(None),
                n => self.reader.push(&self.piece[..n]),
            }
        }
    }
}
