//! Finds the end of a request head, looking at each byte once.

use memchr::memchr2;

use super::{HeadError, RequestHead};

/// The most header fields that any limit allows.
pub const MAX_FIELDS: usize = 64;

/// What one request head may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest head in bytes, with its empty last line.
    pub max_head: usize,
    /// The longest request target in bytes.
    pub max_target: usize,
    /// The most header fields. More than [`MAX_FIELDS`] counts as that.
    pub max_fields: usize,
}

impl Default for Limits {
    /// 8 KiB, a target of 4 KiB, 64 fields.
    fn default() -> Limits {
        Limits { max_head: 8 * 1024, max_target: 4 * 1024, max_fields: MAX_FIELDS }
    }
}

/// Looks for the end of a head in bytes that the caller keeps.
///
/// The scanner remembers how far it has looked, so feeding a head byte by byte costs no more looks than feeding it
/// whole.
#[derive(Debug, Default)]
pub struct HeadScanner {
    /// How much of the head has been looked at.
    scanned: usize,
    /// Where the line under way begins.
    line_start: usize,
    /// Whole lines so far, without an empty one in front.
    lines: usize,
    /// Bytes looked at, to prove that the work is linear.
    #[cfg(test)]
    pub(super) looks: usize,
}

impl HeadScanner {
    /// A scanner at the first byte of a head.
    #[must_use]
    pub const fn new() -> HeadScanner {
        HeadScanner {
            scanned: 0,
            line_start: 0,
            lines: 0,
            #[cfg(test)]
            looks: 0,
        }
    }

    /// Looks at what is new in `bytes`, which begins with the head's first byte and with everything that earlier
    /// calls were given. Answers the head's length once its empty line is there, and is then ready for the next head.
    ///
    /// # Errors
    ///
    /// The head passed a limit, or a line does not end in CRLF.
    pub fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, HeadError> {
        let window = &bytes[..bytes.len().min(limits.max_head)];
        while let Some(at) = self.find_line_end(window) {
            if window[at] == b'\n' {
                return Err(HeadError::BareLineFeed);
            }
            let Some(&after) = window.get(at + 1) else {
                self.scanned = at;
                break;
            };
            if after != b'\n' {
                return Err(HeadError::BareCarriageReturn);
            }
            self.scanned = at + 2;
            let is_empty = at == self.line_start;
            self.line_start = at + 2;
            if !is_empty {
                self.end_line(limits)?;
            } else if self.lines > 0 {
                let len = self.scanned;
                *self = HeadScanner {
                    #[cfg(test)]
                    looks: self.looks,
                    ..HeadScanner::new()
                };
                return Ok(Some(len));
            } else if at > 0 {
                // One empty line before the request is what RFC 9112 asks servers to forgive; more is a flood.
                return Err(HeadError::RequestLine);
            }
        }
        if window.last() != Some(&b'\r') {
            self.scanned = window.len();
        }
        if bytes.len() >= limits.max_head { Err(self.too_large(limits)) } else { Ok(None) }
    }

    fn end_line(&mut self, limits: &Limits) -> Result<(), HeadError> {
        self.lines += 1;
        let limit = limits.max_fields.min(MAX_FIELDS);
        if self.lines > limit + 1 { Err(HeadError::TooManyFields { limit }) } else { Ok(()) }
    }

    fn too_large(&self, limits: &Limits) -> HeadError {
        match self.lines {
            0 => HeadError::TargetTooLong { limit: limits.max_target },
            _ => HeadError::TooLarge { limit: limits.max_head },
        }
    }

    fn find_line_end(&mut self, window: &[u8]) -> Option<usize> {
        let fresh = window.get(self.scanned..)?;
        let found = memchr2(b'\r', b'\n', fresh);
        #[cfg(test)]
        {
            self.looks += found.map_or(fresh.len(), |found| found + 1);
        }
        found.map(|found| self.scanned + found)
    }
}

/// Reads heads from borrowed pieces of a stream.
///
/// A head that comes in one piece is parsed where it lies. Otherwise the reader keeps what has arrived, at most
/// [`Limits::max_head`] bytes, and frees it with the next call.
#[derive(Debug, Default)]
pub struct HeadReader {
    scanner: HeadScanner,
    held: Vec<u8>,
    complete: bool,
}

impl HeadReader {
    /// A reader at the first byte of a head. It holds no memory yet.
    #[must_use]
    pub const fn new() -> HeadReader {
        HeadReader { scanner: HeadScanner::new(), held: Vec::new(), complete: false }
    }

    /// Takes a head from the front of `input`, and nothing behind it. `None` means that all of `input` was taken and
    /// the head goes on.
    ///
    /// # Errors
    ///
    /// See [`HeadError`]. The connection is of no use afterwards.
    pub fn next<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i [u8],
        limits: &Limits,
    ) -> Result<Option<RequestHead<'r>>, HeadError> {
        if std::mem::take(&mut self.complete) {
            self.held = Vec::new();
        }
        if self.held.is_empty() {
            if let Some(len) = self.scanner.scan(input, limits)? {
                let (head, rest) = input.split_at(len);
                *input = rest;
                return RequestHead::parse_scanned(head, limits).map(Some);
            }
            self.held.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        }
        let before = self.held.len();
        let room = limits.max_head.saturating_sub(before).min(input.len());
        self.held.extend_from_slice(&input[..room]);
        let Some(len) = self.scanner.scan(&self.held, limits)? else {
            *input = &input[room..];
            return Ok(None);
        };
        self.held.truncate(len);
        *input = &input[len - before..];
        self.complete = true;
        RequestHead::parse_scanned(&self.held, limits).map(Some)
    }

    /// Whether a head is incomplete, so that the peer owes us bytes.
    #[must_use]
    pub fn in_head(&self) -> bool {
        !self.complete && !self.held.is_empty()
    }

    /// Everything of a head under way, for handing the connection to another reader.
    #[must_use]
    pub fn into_held(self) -> Vec<u8> {
        if self.complete { Vec::new() } else { self.held }
    }
}
