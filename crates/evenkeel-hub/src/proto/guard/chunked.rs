//! A body in chunks, followed byte by byte around the data and in one step through it.
//!
//! Only what two readers cannot take differently is let through: hexadecimal digits, CRLF, data, CRLF, and an empty
//! trailer section. Chunk extensions and trailers have no use here and a history of desynchronised parsers.

use super::GuardError;

/// Digits of a chunk's size, leading zeros included: what fits 64 bits.
const MAX_SIZE_DIGITS: u8 = 16;

#[derive(Debug)]
pub(super) struct ChunkedBody {
    state: State,
    /// Bytes of data that the limit still allows.
    allowance: u64,
    max_body: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { value: u64, digits: u8 },
    SizeLineFeed(u64),
    Data(u64),
    DataReturn,
    DataLineFeed,
    EndReturn,
    EndLineFeed,
    Complete,
}

impl ChunkedBody {
    pub(super) fn new(max_body: u64) -> ChunkedBody {
        ChunkedBody { state: State::Size { value: 0, digits: 0 }, allowance: max_body, max_body }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// How many of `bytes` belong to this body, its end included.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, GuardError> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Complete => break,
                State::Data(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::DataReturn } else { State::Data(left) };
                    at += taken;
                }
                _ => {
                    self.state = self.step(byte)?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    /// The state after one byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, GuardError> {
        match (self.state, byte) {
            (State::Size { digits: 1.., value }, b'\r') => Ok(State::SizeLineFeed(value)),
            (State::Size { value, digits }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(match (digits, byte) {
                    (1.., b';' | b' ' | b'\t') => GuardError::ChunkExtension,
                    _ => GuardError::ChunkSize,
                })?;
                if digits == MAX_SIZE_DIGITS {
                    return Err(GuardError::ChunkSize);
                }
                Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::SizeLineFeed(0), b'\n') => Ok(State::EndReturn),
            (State::SizeLineFeed(size), b'\n') => {
                self.allowance = self
                    .allowance
                    .checked_sub(size)
                    .ok_or(GuardError::BodyTooLarge { limit: self.max_body })?;
                Ok(State::Data(size))
            }
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::Size { value: 0, digits: 0 }),
            (State::EndReturn, b'\r') => Ok(State::EndLineFeed),
            (State::EndReturn, b'\n') => Err(GuardError::ChunkLineEnd),
            (State::EndReturn, _) => Err(GuardError::Trailer),
            (State::EndLineFeed, b'\n') => Ok(State::Complete),
            _ => Err(GuardError::ChunkLineEnd),
        }
    }
}
