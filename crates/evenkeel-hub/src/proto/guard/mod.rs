//! A strict check of a connection's requests, in front of an HTTP server that is less strict.
//!
//! The HTTP server behind the guard repairs some malformed requests silently and serves them. Behind a proxy that
//! reads the same bytes differently this lets one client's bytes become another client's request. The guard follows
//! the framing of every request on a keep-alive connection, passes on only what is beyond doubt, and stops the
//! connection at the first byte that is not. It also shows each request's head before the server sees it, so that a
//! later request for WebSocket or an event stream can leave the server and go back to the front door.
//!
//! # Contract
//!
//! The caller keeps the bytes that have arrived and not been passed on, and calls [`Guard::next`] with all of them.
//! The guard copies nothing; it remembers how far it has looked, so the bytes given once must be given again at the
//! front, unchanged, until a [`Verdict::Pass`] takes them. Each verdict says what to do before the next call:
//!
//! - [`Verdict::NeedMore`]: nothing can pass yet. Call again when more bytes have arrived. On end of file, report end
//!   of file to the server. At most [`head::Limits::max_head`](crate::proto::head::Limits) bytes are ever kept for
//!   this verdict, since a longer head is refused.
//! - [`Verdict::Head`]: the bytes begin with a complete head, of which nothing has passed. Either call
//!   [`Guard::admit`], and the next verdict passes it; or take the connection away from the server with all of the
//!   bytes, once [`Guard::in_flight`] is 0. Calling `next` without either shows the same head again.
//! - [`Verdict::Pass`]: give the first `n` bytes to the server and drop them; `n` is never 0. They never reach into
//!   the next request. Giving fewer at a time is fine when all `n` are given before the next call.
//! - [`Verdict::Full`]: the client has pipelined more requests than the limit. Call again after
//!   [`Guard::response_finished`], which the caller reports once for each admitted request. Do not read more meanwhile.
//! - [`Verdict::Reject`]: nothing passes any more. Report end of file to the server, let responses under way finish,
//!   write [`GuardError::response`] if there is one, and close.
//!
//! ```
//! use evenkeel_hub::proto::guard::{Guard, Limits, Verdict};
//!
//! let mut guard = Guard::new(Limits::default());
//! let mut unread: &[u8] = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nokGET /b HTTP/1.1\r\n";
//! let mut server = Vec::new();
//! loop {
//!     match guard.next(unread) {
//!         Verdict::Head(head) => {
//!             assert_eq!(head.path(), "/a");
//!             guard.admit(1024).unwrap();
//!         }
//!         Verdict::Pass(n) => {
//!             server.extend_from_slice(&unread[..n]);
//!             unread = &unread[n..];
//!         }
//!         Verdict::NeedMore => break,
//!         Verdict::Full | Verdict::Reject(_) => unreachable!(),
//!     }
//! }
//! assert!(server.ends_with(b"\r\n\r\nok"));
//! assert_eq!(unread, b"GET /b HTTP/1.1\r\n");
//! ```

mod chunked;
mod error;
#[cfg(test)]
mod tests;

use crate::proto::head::{self, Framing, HeadScanner, RequestHead};
use chunked::ChunkedBody;
pub use error::GuardError;

/// What one connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The limits of each request's head.
    pub head: head::Limits,
    /// The most admitted requests whose responses are not finished.
    pub max_in_flight: u32,
}

impl Default for Limits {
    /// The default limits of a head, and 16 requests in flight.
    fn default() -> Limits {
        Limits { head: head::Limits::default(), max_in_flight: 16 }
    }
}

/// What to do with the bytes given to [`Guard::next`]. The [module](self) has the contract.
#[derive(Debug)]
pub enum Verdict<'b> {
    /// Nothing can pass before more bytes arrive.
    NeedMore,
    /// A request begins: admit it or take the connection over.
    Head(RequestHead<'b>),
    /// This many bytes, at least 1, may go to the server.
    Pass(usize),
    /// Too many requests wait for their responses.
    Full,
    /// The connection ends here.
    Reject(GuardError),
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    state: State,
    in_flight: u32,
}

#[derive(Debug)]
enum State {
    /// Looking for the end of a head.
    Head(HeadScanner),
    /// A head of `len` bytes was shown.
    Shown {
        len: usize,
        framing: Framing,
        keep_alive: bool,
    },
    /// An admitted request is passing: first the `head` bytes that are left of its head, then its body.
    Passing {
        head: usize,
        body: Body,
        keep_alive: bool,
    },
    /// The last request said that no other follows.
    Last,
    Rejected(GuardError),
}

#[derive(Debug)]
enum Body {
    Length(u64),
    Chunked(ChunkedBody),
}

impl Guard {
    /// A guard at the start of a connection, or of what is left of one after a takeover.
    #[must_use]
    pub const fn new(limits: Limits) -> Guard {
        Guard { limits, state: State::Head(HeadScanner::new()), in_flight: 0 }
    }

    /// Judges the bytes that have arrived and not passed, all of them. The [module](self) has the contract.
    ///
    /// # Panics
    ///
    /// When a head that was shown and admitted is not given again, which is the caller's mistake.
    pub fn next<'b>(&mut self, bytes: &'b [u8]) -> Verdict<'b> {
        match self.judge(bytes) {
            Ok(verdict) => verdict,
            Err(error) => {
                self.state = State::Rejected(error);
                Verdict::Reject(error)
            }
        }
    }

    /// Lets the request whose head was shown pass, with a body of at most `max_body` bytes. The framing of chunks
    /// does not count.
    ///
    /// # Errors
    ///
    /// The head declares a longer body. The connection is then rejected, and `next` says so again.
    ///
    /// # Panics
    ///
    /// When the last verdict was not [`Verdict::Head`].
    pub fn admit(&mut self, max_body: u64) -> Result<(), GuardError> {
        let State::Shown { len, framing, keep_alive } = self.state else {
            panic!("admit follows Verdict::Head");
        };
        let body = match framing {
            Framing::None => Body::Length(0),
            Framing::Length(length) if length > max_body => {
                let error = GuardError::BodyTooLarge { limit: max_body };
                self.state = State::Rejected(error);
                return Err(error);
            }
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(ChunkedBody::new(max_body)),
        };
        self.in_flight += 1;
        self.state = State::Passing { head: len, body, keep_alive };
        Ok(())
    }

    /// The server has finished the response to one admitted request.
    ///
    /// # Panics
    ///
    /// When every admitted request had its response.
    pub fn response_finished(&mut self) {
        assert!(self.in_flight > 0, "a response without a request");
        self.in_flight -= 1;
    }

    /// Admitted requests whose responses are not finished.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether the client is in the middle of a head or a body, so that it owes us bytes. `unpassed` is how many
    /// bytes the caller keeps.
    #[must_use]
    pub fn in_request(&self, unpassed: usize) -> bool {
        match self.state {
            State::Head(_) => unpassed > 0,
            State::Passing { .. } => true,
            State::Shown { .. } | State::Last | State::Rejected(_) => false,
        }
    }

    /// Whether the next bytes are those of a head that is not complete.
    #[must_use]
    pub fn in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    fn judge<'b>(&mut self, bytes: &'b [u8]) -> Result<Verdict<'b>, GuardError> {
        match &mut self.state {
            State::Rejected(error) => Err(*error),
            _ if bytes.is_empty() => Ok(Verdict::NeedMore),
            State::Last => Err(GuardError::AfterLastRequest),
            State::Shown { len, .. } => self.limits.parse(bytes, *len).map(Verdict::Head),
            State::Head(_) if self.in_flight >= self.limits.max_in_flight => Ok(Verdict::Full),
            State::Head(scanner) => {
                let Some(len) = scanner.scan(bytes, &self.limits.head)? else { return Ok(Verdict::NeedMore) };
                let head = self.limits.parse(bytes, len)?;
                self.state = State::Shown { len, framing: head.framing(), keep_alive: head.keep_alive() };
                Ok(Verdict::Head(head))
            }
            State::Passing { head, body, keep_alive } => {
                let rest = bytes.get(*head..).expect("the head that was shown is given again");
                let taken = *head + body.follow(rest)?;
                *head = 0;
                if body.is_complete() {
                    self.state = if *keep_alive { State::Head(HeadScanner::new()) } else { State::Last };
                }
                Ok(Verdict::Pass(taken))
            }
        }
    }
}

impl Limits {
    fn parse<'b>(&self, bytes: &'b [u8], len: usize) -> Result<RequestHead<'b>, GuardError> {
        Ok(RequestHead::parse_scanned(&bytes[..len.min(bytes.len())], &self.head)?)
    }
}

impl Body {
    /// How many of `bytes` belong to this body.
    fn follow(&mut self, bytes: &[u8]) -> Result<usize, GuardError> {
        match self {
            Body::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                Ok(taken)
            }
            Body::Chunked(body) => body.follow(bytes),
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(body) => body.is_complete(),
        }
    }
}
