//! Why the guard stops a connection.

use std::fmt;

use crate::proto::head::HeadError;
use crate::proto::reply::refusal;

/// The client sent something that must not reach the HTTP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuardError {
    /// A request's head is refused.
    Head(HeadError),
    /// The body is, or declares to become, longer than the request may have.
    BodyTooLarge {
        /// The limit in bytes that was passed.
        limit: u64,
    },
    /// A chunk's size is not a hexadecimal number of at most 16 digits.
    ChunkSize,
    /// A chunk's size is followed by an extension or by white space.
    ChunkExtension,
    /// A line of chunk framing does not end in CRLF, or data runs over its chunk's size.
    ChunkLineEnd,
    /// Trailer fields follow the last chunk.
    Trailer,
    /// Bytes follow a request that said that it was the last.
    AfterLastRequest,
}

impl GuardError {
    /// The metric label of a body over its limit, whoever finds it.
    pub const BODY_TOO_LARGE: &'static str = "body_too_large";

    /// The value of the metric label `reason`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            GuardError::Head(error) => error.label(),
            GuardError::BodyTooLarge { .. } => Self::BODY_TOO_LARGE,
            _ => "request_framing",
        }
    }

    /// The HTTP status that answers this error.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            GuardError::Head(error) => error.status(),
            GuardError::BodyTooLarge { .. } => 413,
            _ => 400,
        }
    }

    /// The complete response, which announces that the connection closes. None when there is nothing to answer,
    /// because the bytes at fault belong to no request.
    #[must_use]
    pub fn response(&self) -> Option<Vec<u8>> {
        match self {
            GuardError::Head(error) => Some(error.response()),
            GuardError::AfterLastRequest => None,
            _ => Some(refusal(self.status(), &[], self)),
        }
    }
}

impl From<HeadError> for GuardError {
    fn from(error: HeadError) -> GuardError {
        GuardError::Head(error)
    }
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuardError::Head(error) => error.fmt(f),
            GuardError::BodyTooLarge { limit } => write!(f, "request body is longer than {limit} bytes"),
            GuardError::ChunkSize => f.write_str("malformed chunk size"),
            GuardError::ChunkExtension => f.write_str("chunk extension"),
            GuardError::ChunkLineEnd => f.write_str("chunk does not end in CRLF"),
            GuardError::Trailer => f.write_str("trailer fields"),
            GuardError::AfterLastRequest => f.write_str("bytes after the last request"),
        }
    }
}

impl std::error::Error for GuardError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            GuardError::Head(error) => Some(error),
            _ => None,
        }
    }
}
