//! The server's frames, which are final and never masked.

use super::frame::{MAX_CONTROL, Opcode};

/// The header of one unfragmented server frame, for a payload that lives elsewhere, such as one that many
/// connections share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    bytes: [u8; 10],
    len: u8,
}

impl FrameHeader {
    /// The header of a frame with `payload_len` bytes of payload.
    ///
    /// # Panics
    ///
    /// When a control frame would carry more than 125 bytes, which is our own mistake.
    #[must_use]
    pub fn new(opcode: Opcode, payload_len: usize) -> FrameHeader {
        assert!(!opcode.is_control() || payload_len <= MAX_CONTROL, "control frame over 125 bytes");
        let mut bytes = [0; 10];
        bytes[0] = 0x80 | opcode as u8;
        let len = match payload_len {
            0..=125 => {
                bytes[1] = payload_len as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
                10
            }
        };
        FrameHeader { bytes, len }
    }

    /// The header as it goes on the wire: 2, 4 or 10 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Appends a text message.
pub fn text(payload: &str, out: &mut Vec<u8>) {
    frame(Opcode::Text, payload.as_bytes(), out);
}

/// Appends a binary message.
pub fn binary(payload: &[u8], out: &mut Vec<u8>) {
    frame(Opcode::Binary, payload, out);
}

/// Appends a ping.
///
/// # Panics
///
/// When `payload` is longer than 125 bytes.
pub fn ping(payload: &[u8], out: &mut Vec<u8>) {
    frame(Opcode::Ping, payload, out);
}

/// Appends a pong. The payload of a ping that the decoder let through always fits.
///
/// # Panics
///
/// When `payload` is longer than 125 bytes.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    frame(Opcode::Pong, payload, out);
}

/// Appends a close frame. Of a long `reason` it sends as many whole characters as fit in 123 bytes. Without a code
/// the frame is empty, since a reason cannot come alone.
pub fn close(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let Some(code) = code else { return frame(Opcode::Close, &[], out) };
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    out.extend_from_slice(FrameHeader::new(Opcode::Close, 2 + reason.len()).as_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

fn frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader::new(opcode, payload.len());
    out.reserve(header.as_bytes().len() + payload.len());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(payload);
}
