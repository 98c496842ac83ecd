//! The stream that hyper sees: our own, behind the strict check of every request.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use evenkeel::net::Stream;
use evenkeel::time::Sleep;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

use super::Server;
use super::front::Class;
use super::seconds;
use crate::proto::guard::{Guard, GuardError, Limits, Verdict};

/// How long a connection may stay open between requests.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a body may come at any rate.
const RATE_GRACE: Duration = Duration::from_secs(5);
/// Bytes read at a time.
const PIECE: usize = 16 << 10;

/// What the connection, as hyper holds it, shares with the service that answers its requests.
#[derive(Default)]
pub(super) struct Shared {
    /// Responses that have been made since the guard was last told.
    finished: u32,
    waker: Option<Waker>,
    /// Why the stream was ended under hyper, until somebody has told the client: the service, if it waits for the rest
    /// of a body, else whoever comes after hyper. A request gets one answer.
    refusal: Option<Refusal>,
}

/// What a client is told whose request is not served.
pub(super) enum Refusal {
    Framing(GuardError),
    SlowBody,
}

impl Shared {
    /// One response is complete; hyper writes it out before it ends.
    pub(super) fn response_finished(this: &RefCell<Shared>) {
        this.borrow_mut().finished += 1;
        Shared::wake(this);
    }

    /// Lets the connection look again whether it may go on.
    pub(super) fn wake(this: &RefCell<Shared>) {
        let waker = this.borrow_mut().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn take_refusal(this: &RefCell<Shared>) -> Option<Refusal> {
        this.borrow_mut().refusal.take()
    }
}

/// What the client owes us now, which decides how long it has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owes {
    /// Nothing: between requests.
    Nothing,
    /// The rest of a head.
    Head,
    /// The rest of a body, since then, with so many bytes so far.
    Body { since: Instant, bytes: u64 },
}

/// Why hyper was told that the stream has ended though it has not.
pub(super) enum Ending {
    /// The client ended it, or failed, or has no request under way while the server stops.
    Client,
    /// The next request is not for hyper.
    Leave,
    /// The guard refuses what comes.
    Rejected(GuardError),
    /// The client was too slow with this.
    TooSlow(&'static str),
}

/// A stream with a guard in front of its reading half.
pub(super) struct Guarded {
    stream: Stream,
    guard: Guard,
    server: Rc<Server>,
    shared: Rc<RefCell<Shared>>,
    /// What has arrived and has not been passed on.
    unpassed: Vec<u8>,
    /// How much of it the guard has passed and hyper has not taken.
    passing: usize,
    owes: Owes,
    deadline: Sleep,
    writing: Option<Sleep>,
    ending: Ending,
    ended: bool,
}

impl Guarded {
    pub(super) fn new(server: Rc<Server>, stream: Stream, shared: Rc<RefCell<Shared>>) -> Self {
        let limits = Limits { head: server.common().head_limits, ..Limits::default() };
        Guarded {
            stream,
            guard: Guard::new(limits),
            server,
            shared,
            unpassed: Vec::new(),
            passing: 0,
            owes: Owes::Nothing,
            deadline: evenkeel::time::sleep(KEEP_ALIVE),
            writing: None,
            ending: Ending::Client,
            ended: false,
        }
    }

    /// What is left when hyper is done: the stream, why it ended, and the bytes that nobody has taken.
    pub(super) fn into_parts(self) -> (Stream, Ending, Vec<u8>) {
        (self.stream, self.ending, self.unpassed)
    }

    /// Whether the client has not sent all of its request: what it is told comes in the middle of that.
    pub(super) fn is_interrupted(&self) -> bool {
        let in_body = self.guard.in_request(self.unpassed.len()) && !self.guard.in_head();
        matches!(self.ending, Ending::Rejected(_)) || in_body
    }

    fn end(&mut self, ending: Ending) -> Poll<io::Result<()>> {
        self.ended = true;
        self.shared.borrow_mut().refusal = match &ending {
            Ending::Rejected(error) => Some(Refusal::Framing(*error)),
            Ending::TooSlow("slow_body") => Some(Refusal::SlowBody),
            _ => None,
        };
        self.ending = ending;
        Poll::Ready(Ok(()))
    }

    /// Sets the deadline when what the client owes has changed.
    fn now_owes(&mut self, owes: Owes) {
        if std::mem::discriminant(&self.owes) == std::mem::discriminant(&owes) {
            return;
        }
        let limits = &self.server.config().limits;
        let within = match owes {
            Owes::Nothing => KEEP_ALIVE,
            Owes::Head => seconds(limits.handshake_deadline_seconds),
            Owes::Body { .. } => seconds(limits.body_deadline_seconds),
        };
        self.owes = owes;
        self.deadline.reset(evenkeel::time::now() + within);
    }

    /// Between bodies the client owes the next head, as far as it has come.
    fn settle_debt(&mut self) {
        if !self.guard.in_request(self.unpassed.len()) {
            self.now_owes(Owes::Nothing);
        } else if self.guard.in_head() {
            self.now_owes(Owes::Head);
        }
    }

    /// Whether a body comes slower than it must.
    fn is_slow(&mut self, n: usize) -> bool {
        let Owes::Body { since, bytes } = &mut self.owes else { return false };
        *bytes += n as u64;
        let age = evenkeel::time::now().saturating_duration_since(*since);
        let least = u64::from(self.server.config().limits.min_body_rate);
        age > RATE_GRACE && u128::from(*bytes) * 1000 < u128::from(least) * age.as_millis()
    }

    /// Reads more from the client. Ready when there is more, or at the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut piece = [0u8; PIECE];
        let mut buffer = ReadBuf::new(&mut piece);
        match Pin::new(&mut self.stream).poll_read(cx, buffer.unfilled())? {
            Poll::Ready(()) => {
                self.unpassed.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Poll::Pending => {
                ready!(Pin::new(&mut self.deadline).poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// As [`poll_more`](Self::poll_more); between requests it is the end while the server closes idle connections. A
    /// request that has arrived is still served.
    fn poll_more_or_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let more = self.poll_more(cx);
        let idle = self.owes == Owes::Nothing && self.unpassed.is_empty();
        if more.is_pending() && idle && self.server.is_closing_idle() {
            return Poll::Ready(Ok(0));
        }
        more
    }

    fn tell_guard(&mut self, cx: &Context<'_>) {
        let mut shared = self.shared.borrow_mut();
        for _ in 0..std::mem::take(&mut shared.finished) {
            self.guard.response_finished();
        }
        shared.waker = Some(cx.waker().clone());
    }

    /// Gives hyper what has been passed.
    fn give(&mut self, buf: &mut ReadBufCursor<'_>) {
        let n = self.passing.min(buf.remaining());
        buf.put_slice(&self.unpassed[..n]);
        self.unpassed.drain(..n);
        self.passing -= n;
    }

    /// Decides about the request whose head is next. None: it may pass.
    fn judge_head(&mut self) -> Option<Judged> {
        let Verdict::Head(head) = self.guard.next(&self.unpassed) else { return None };
        if !matches!(self.server.classify(&head), Class::Http) {
            return Some(if self.guard.in_flight() == 0 { Judged::Leave } else { Judged::Wait });
        }
        let has_body = !matches!(head.framing(), crate::proto::head::Framing::None);
        match self.guard.admit(self.server.config().limits.max_body_bytes as u64) {
            Ok(()) if has_body => {
                self.now_owes(Owes::Body { since: evenkeel::time::now(), bytes: 0 });
                None
            }
            Ok(()) => {
                // What follows is another request's.
                self.now_owes(Owes::Nothing);
                None
            }
            Err(error) => Some(Judged::Reject(error)),
        }
    }
}

/// What becomes of a request whose head was seen, unless it passes.
enum Judged {
    Leave,
    Wait,
    Reject(GuardError),
}

impl Read for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(Ok(()));
        }
        this.tell_guard(cx);
        loop {
            if this.passing > 0 {
                this.give(&mut buf);
                return Poll::Ready(Ok(()));
            }
            this.settle_debt();
            match this.guard.next(&this.unpassed) {
                Verdict::Pass(n) => {
                    if this.is_slow(n) {
                        return this.end(Ending::TooSlow("slow_body"));
                    }
                    this.passing = n;
                }
                Verdict::Head(_) => match this.judge_head() {
                    None => {}
                    Some(Judged::Leave) => return this.end(Ending::Leave),
                    Some(Judged::Wait) => return Poll::Pending,
                    Some(Judged::Reject(error)) => return this.end(Ending::Rejected(error)),
                },
                Verdict::NeedMore => match ready!(this.poll_more_or_close(cx)) {
                    Ok(0) => return this.end(Ending::Client),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                        let why = match this.owes {
                            Owes::Nothing => return this.end(Ending::Client),
                            Owes::Head => "handshake_timeout",
                            Owes::Body { .. } => "slow_body",
                        };
                        return this.end(Ending::TooSlow(why));
                    }
                    Err(e) => return Poll::Ready(Err(e)),
                },
                Verdict::Full => {
                    // It is us who are late.
                    this.now_owes(Owes::Nothing);
                    return Poll::Pending;
                }
                Verdict::Reject(error) => return this.end(Ending::Rejected(error)),
            }
        }
    }
}

impl Guarded {
    /// A client that takes nothing of its response for too long is cut off.
    fn slow_reader<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.writing = None;
            return result;
        }
        let patience = seconds(self.server.config().limits.max_queue_age_seconds);
        let sleep = self.writing.get_or_insert_with(|| evenkeel::time::sleep(patience));
        ready!(Pin::new(sleep).poll(cx));
        self.writing = None;
        self.server.refuse("slow_reader", &[]);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Write for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.slow_reader(cx, result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Hyper flushes after each response. They leave with what else this batch has written, which for a publisher is what
        // its subscribers get.
        let result = this.stream.poll_drained(cx);
        this.slow_reader(cx, result)
    }

    /// The stream goes on: back to the front door, to a last word, or to its end when it is dropped.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
