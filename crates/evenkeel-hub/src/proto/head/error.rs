//! Why a request head is refused, and the response that says so.

use std::fmt;

use crate::proto::reply::refusal;

/// A request head broke the grammar, a rule against smuggling, or a limit. The connection must be closed after the
/// [`response`](HeadError::response): what follows on it cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// The head is longer than the limit in bytes.
    TooLarge {
        /// The limit that was passed.
        limit: usize,
    },
    /// The head has more header fields than the limit.
    TooManyFields {
        /// The limit that was passed.
        limit: usize,
    },
    /// The request target is longer than the limit in bytes.
    TargetTooLong {
        /// The limit that was passed.
        limit: usize,
    },
    /// A line feed came without a carriage return.
    BareLineFeed,
    /// A carriage return came without a line feed.
    BareCarriageReturn,
    /// A line begins with white space: an obsolete folded line.
    FoldedLine,
    /// The request line is not `METHOD target HTTP/x.y`.
    RequestLine,
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// The target is not a path, an absolute `http` or `https` address, or `*` for OPTIONS.
    Target,
    /// The method asks for a tunnel.
    Connect,
    /// A field's name is not a token directly followed by a colon.
    FieldName,
    /// A field's value holds a control character.
    FieldValue,
    /// The body has both a length and a transfer coding.
    LengthAndCoding,
    /// There is more than one length, even if they agree.
    DuplicateLength,
    /// The length is not a plain decimal number that fits 64 bits.
    Length,
    /// The transfer coding is something other than `chunked`, once.
    TransferCoding,
    /// A transfer coding came with HTTP/1.0, which has none.
    CodingInOldVersion,
    /// An HTTP/1.1 request has no `Host`.
    MissingHost,
    /// There is more than one `Host`.
    DuplicateHost,
    /// `Host` is not a host with an optional port, or contradicts an absolute target.
    Host,
}

impl HeadError {
    /// The value of the metric label `reason`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        "request_head"
    }

    /// The HTTP status that answers this error.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            HeadError::TooLarge { .. } | HeadError::TooManyFields { .. } => 431,
            HeadError::TargetTooLong { .. } => 414,
            HeadError::Version => 505,
            HeadError::Connect => 405,
            _ => 400,
        }
    }

    /// The complete response, which announces that the connection closes.
    #[must_use]
    pub fn response(&self) -> Vec<u8> {
        let allowed = [("Allow", "GET, HEAD, POST, OPTIONS")];
        refusal(self.status(), if *self == HeadError::Connect { &allowed } else { &[] }, self)
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            HeadError::TooLarge { limit } => return write!(f, "request head is longer than {limit} bytes"),
            HeadError::TooManyFields { limit } => {
                return write!(f, "request has more than {limit} header fields");
            }
            HeadError::TargetTooLong { limit } => {
                return write!(f, "request target is longer than {limit} bytes");
            }
            HeadError::BareLineFeed => "line feed without carriage return",
            HeadError::BareCarriageReturn => "carriage return without line feed",
            HeadError::FoldedLine => "folded header line",
            HeadError::RequestLine => "malformed request line",
            HeadError::Version => "HTTP version is neither 1.0 nor 1.1",
            HeadError::Target => "malformed request target",
            HeadError::Connect => "CONNECT is not served",
            HeadError::FieldName => "malformed header field name",
            HeadError::FieldValue => "control character in a header field",
            HeadError::LengthAndCoding => "both Content-Length and Transfer-Encoding",
            HeadError::DuplicateLength => "more than one Content-Length",
            HeadError::Length => "malformed Content-Length",
            HeadError::TransferCoding => "Transfer-Encoding is not exactly chunked",
            HeadError::CodingInOldVersion => "Transfer-Encoding in HTTP/1.0",
            HeadError::MissingHost => "no Host",
            HeadError::DuplicateHost => "more than one Host",
            HeadError::Host => "malformed Host",
        };
        f.write_str(text)
    }
}

impl std::error::Error for HeadError {}
