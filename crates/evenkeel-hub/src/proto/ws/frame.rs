//! The header of a client's frame, and the mask over its payload.

use super::WsError;

/// The most bytes that the header of a masked frame takes: 2, 8 of length, 4 of mask.
pub(super) const MAX_HEADER: usize = 14;

/// The most bytes that a control frame may carry.
pub(super) const MAX_CONTROL: usize = 125;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message under way.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The end of the connection.
    Close = 0x8,
    /// A question whether the peer is alive.
    Ping = 0x9,
    /// The answer to a ping.
    Pong = 0xa,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Opcode, WsError> {
        Ok(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            reserved => return Err(WsError::ReservedOpcode(reserved)),
        })
    }

    pub(super) fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    pub(super) is_final: bool,
    pub(super) len: u64,
    pub(super) mask: [u8; 4],
}

impl Header {
    /// Reads a header from the start of `bytes`. `None` means that more bytes are needed; an error is reported at
    /// the first byte that shows it. With the header comes the number of bytes it took.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, WsError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(WsError::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f)?;
        let is_final = first & 0x80 != 0;
        if opcode.is_control() && !is_final {
            return Err(WsError::FragmentedControl);
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(WsError::Unmasked);
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err(WsError::ControlTooLong);
        }
        let Some((len, at)) = parse_length(short, bytes)? else { return Ok(None) };
        let Some(mask) = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
        Ok(Some((Header { opcode, is_final, len, mask: *mask }, at + 4)))
    }
}

/// The payload's length, and where in the header the mask begins.
fn parse_length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, WsError> {
    let extended = bytes.get(2..).unwrap_or_default();
    match short {
        126 => {
            let Some(raw) = extended.first_chunk() else { return Ok(None) };
            let len = u16::from_be_bytes(*raw);
            if len < 126 {
                return Err(WsError::LengthNotMinimal);
            }
            Ok(Some((u64::from(len), 4)))
        }
        127 => {
            let Some(raw) = extended.first_chunk() else { return Ok(None) };
            let len = u64::from_be_bytes(*raw);
            if len >> 63 != 0 {
                return Err(WsError::LengthOutOfRange);
            }
            if len <= u64::from(u16::MAX) {
                return Err(WsError::LengthNotMinimal);
            }
            Ok(Some((len, 10)))
        }
        len => Ok(Some((u64::from(len), 2))),
    }
}

/// Applies `mask` to `data`, whose first byte is the payload's byte number `offset`. Masking twice restores the data.
pub(super) fn apply_mask(data: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut rotated = mask;
    rotated.rotate_left(offset % 4);
    let [a, b, c, d] = rotated;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = data.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(rotated.iter().cycle()) {
        *byte ^= key;
    }
}
