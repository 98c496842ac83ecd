//! WebSocket (RFC 6455), the server's side: bytes in, events out.
//!
//! The hub holds hundreds of thousands of idle connections, so the codec is built around what an idle one costs. A
//! [`Decoder`] is one pointer. It is null while no frame and no message is under way; a frame that the bytes cut in
//! two boxes its state, and the box is freed with the frame's last byte. Payloads are unmasked into a scratch buffer
//! that all connections of a loop share.
//!
//! ```
//! use evenkeel_hub::proto::ws::{self, Decoder, Event, Limits};
//!
//! let mut decoder = Decoder::new();
//! let mut scratch = Vec::new(); // One for the loop, not one for each connection.
//! // "Hi" as a browser sends it: final text frame, masked with 01 02 03 04.
//! let mut bytes: &[u8] = &[0x81, 0x82, 1, 2, 3, 4, b'H' ^ 1, b'i' ^ 2];
//! let mut reply = Vec::new();
//! while let Some(event) = decoder.next(&mut bytes, &Limits::default(), &mut scratch).unwrap() {
//!     match event {
//!         Event::Text(text) => ws::text(text, &mut reply),
//!         Event::Ping(data) => ws::pong(data, &mut reply),
//!         _ => {}
//!     }
//! }
//! assert_eq!(reply, [0x81, 2, b'H', b'i']);
//! ```

mod decode;
mod encode;
mod error;
mod frame;
mod handshake;
#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use decode::{Decoder, Event, Limits};
pub use encode::{FrameHeader, binary, close, ping, pong, text};
pub use error::WsError;
pub use frame::Opcode;
pub use handshake::{HandshakeError, Upgrade, accept_key};
