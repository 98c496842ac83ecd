//! Why a WebSocket connection fails, and the close code that says so to the peer.

use std::fmt;

/// A peer broke the protocol or a limit. The connection must be closed with [`close_code`](WsError::close_code).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WsError {
    /// A client's frame was not masked.
    Unmasked,
    /// A reserved bit was set though no extension was agreed on.
    ReservedBits,
    /// The opcode is one of those that the RFC reserves.
    ReservedOpcode(u8),
    /// A control frame did not carry the final bit.
    FragmentedControl,
    /// A control frame declared more than 125 bytes.
    ControlTooLong,
    /// The length was written in more bytes than it needs.
    LengthNotMinimal,
    /// The most significant bit of a 64-bit length was set.
    LengthOutOfRange,
    /// A continuation frame arrived with no message to continue.
    UnexpectedContinuation,
    /// A text or binary frame arrived inside a fragmented message.
    MessageInterleaved,
    /// A text message or a close reason is not UTF-8.
    InvalidUtf8,
    /// A close frame carried one byte, which is no code.
    ClosePayload,
    /// A close frame carried a code that must not be sent.
    CloseCode(u16),
    /// The message is, or declares to become, longer than the limit in bytes.
    MessageTooBig {
        /// The limit that was passed.
        limit: usize,
    },
    /// The message came in more fragments than the limit.
    TooManyFragments {
        /// The limit that was passed.
        limit: u32,
    },
}

impl WsError {
    /// The status code of the close frame that answers this error: 1002 (protocol error), 1007 (invalid UTF-8),
    /// 1008 (policy) or 1009 (too big).
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            WsError::InvalidUtf8 => 1007,
            WsError::TooManyFragments { .. } => 1008,
            WsError::MessageTooBig { .. } => 1009,
            _ => 1002,
        }
    }
}

impl fmt::Display for WsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WsError::Unmasked => f.write_str("frame from a client is not masked"),
            WsError::ReservedBits => f.write_str("reserved bit set without an extension"),
            WsError::ReservedOpcode(opcode) => write!(f, "reserved opcode {opcode:#x}"),
            WsError::FragmentedControl => f.write_str("control frame is fragmented"),
            WsError::ControlTooLong => f.write_str("control frame is longer than 125 bytes"),
            WsError::LengthNotMinimal => f.write_str("frame length is not in its shortest form"),
            WsError::LengthOutOfRange => f.write_str("frame length uses the reserved high bit"),
            WsError::UnexpectedContinuation => {
                f.write_str("continuation frame without a message to continue")
            }
            WsError::MessageInterleaved => f.write_str("new message inside a fragmented message"),
            WsError::InvalidUtf8 => f.write_str("text is not valid UTF-8"),
            WsError::ClosePayload => f.write_str("close frame with a truncated code"),
            WsError::CloseCode(code) => write!(f, "close code {code} must not be sent"),
            WsError::MessageTooBig { limit } => write!(f, "message is longer than {limit} bytes"),
            WsError::TooManyFragments { limit } => write!(f, "message has more than {limit} fragments"),
        }
    }
}

impl std::error::Error for WsError {}
