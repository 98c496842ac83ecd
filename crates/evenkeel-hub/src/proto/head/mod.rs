//! The head of an HTTP/1 request: the request line and the header fields, read incrementally and strictly.
//!
//! A proxy in front of the hub and the hub itself must never disagree on where a request ends: that is request
//! smuggling. So whatever two implementations could read differently is refused instead of repaired: bare line feeds
//! and carriage returns, folded lines, a space before a colon, two lengths, a length beside a transfer coding,
//! transfer codings other than `chunked`, a missing or second `Host`.
//!
//! [`HeadScanner`] finds the end of a head and looks at each byte once, however small the pieces are in which the
//! bytes come; only then, and once, is the head parsed. [`HeadReader`] does both, with a buffer for the connection that
//! has none.
//!
//! ```
//! use evenkeel_hub::proto::head::{Framing, HeadReader, Limits};
//!
//! let mut reader = HeadReader::new();
//! let mut first: &[u8] = b"GET /app/key?protocol=7 HT";
//! assert!(reader.next(&mut first, &Limits::default()).unwrap().is_none());
//! let mut second: &[u8] = b"TP/1.1\r\nHost: example.com\r\n\r\nbytes of the body";
//! let head = reader.next(&mut second, &Limits::default()).unwrap().unwrap();
//! assert_eq!((head.method(), head.path(), head.query()), ("GET", "/app/key", Some("protocol=7")));
//! assert_eq!(head.framing(), Framing::None);
//! assert_eq!(second, b"bytes of the body");
//! ```

mod error;
mod parse;
pub mod query;
mod scan;
#[cfg(test)]
pub(crate) mod tests;

pub use error::HeadError;
pub use parse::{Field, Framing, RequestHead, Version};
pub use scan::{HeadReader, HeadScanner, Limits, MAX_FIELDS};
