//! A message that many connections share.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Immutable bytes with a reference count: queued on 10,000 connections it is stored once.
///
/// ```
/// use evenkeel::Message;
/// let m = Message::from(b"hello".as_slice());
/// let copy = m.clone();
/// assert_eq!(m.as_ptr(), copy.as_ptr());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Arc<[u8]>);

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Message(bytes.into())
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Message(bytes.into())
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Message(text.as_bytes().into())
    }
}

impl From<Arc<[u8]>> for Message {
    fn from(bytes: Arc<[u8]>) -> Self {
        Message(bytes)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.len())
    }
}
