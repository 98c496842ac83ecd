//! The decoder: a client's bytes to messages and control frames.

use super::WsError;
use super::frame::{Header, MAX_HEADER, Opcode, apply_mask};

/// What one client may make the decoder hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message in bytes, over all of its fragments. Also the most memory that a message under way holds.
    pub max_message: usize,
    /// The most frames that one message may be cut into, empty ones included.
    pub max_fragments: u32,
}

impl Default for Limits {
    /// 64 KiB and 16 fragments.
    fn default() -> Limits {
        Limits { max_message: 64 * 1024, max_fragments: 16 }
    }
}

/// A whole message or control frame, unmasked. It borrows the scratch buffer, not the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'s> {
    /// A text message.
    Text(&'s str),
    /// A binary message.
    Binary(&'s [u8]),
    /// The peer asks for a pong with the same payload, at most 125 bytes.
    Ping(&'s [u8]),
    /// The peer answers a ping.
    Pong(&'s [u8]),
    /// The peer closes. The decoder ignores whatever follows.
    Close {
        /// The status code. None means that the frame was empty, which the RFC calls 1005.
        code: Option<u16>,
        /// The peer's words, at most 123 bytes.
        reason: &'s str,
    },
}

/// Decodes the frames of one client.
///
/// It holds no memory between messages. Within one it holds what has arrived, never what a header merely declared.
/// How many messages and control frames may come each second, and how long one may take, is for the caller to limit:
/// [`in_message`](Decoder::in_message) says when a deadline is due.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

/// What is under way. It exists only while a frame or a message is incomplete, or after the last frame.
#[derive(Debug, Default)]
struct Partial {
    /// The start of a header that is not complete.
    header: [u8; MAX_HEADER],
    header_len: usize,
    frame: Option<Frame>,
    message: Option<Message>,
    /// The message's payload as far as it arrived, unmasked.
    payload: Vec<u8>,
    /// The same for a control frame, which may come between the fragments of a message.
    control: Vec<u8>,
    /// A close frame or an error ended the stream.
    finished: bool,
}

/// The frame whose payload is arriving.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; 4],
    len: u64,
    received: u64,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    is_text: bool,
    fragments: u32,
    /// How much of the payload is known to be UTF-8. What is behind it is at most a part of one character.
    valid: usize,
}

impl Decoder {
    /// A decoder for a connection whose handshake is done.
    #[must_use]
    pub const fn new() -> Decoder {
        Decoder { partial: None }
    }

    /// Takes the next message or control frame from the front of `input`.
    ///
    /// `None` means that `input` is used up. Frames may be cut at any byte and any number of them may lie in one
    /// `input`. The payload of the event lies in `scratch`, whose former content is lost and whose length stays within
    /// the limits; share one between connections.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol or a limit. After an error, as after [`Event::Close`], the decoder discards all
    /// further input, so an error is reported once.
    pub fn next<'s>(
        &mut self,
        input: &mut &[u8],
        limits: &Limits,
        scratch: &'s mut Vec<u8>,
    ) -> Result<Option<Event<'s>>, WsError> {
        if self.is_finished() {
            *input = &[];
            return Ok(None);
        }
        let event = match self.advance(input, limits, scratch) {
            Ok(Some(opcode)) => event(opcode, scratch).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        if matches!(event, Err(_) | Ok(Some(Event::Close { .. }))) {
            *input = &[];
            self.partial = Some(Box::new(Partial { finished: true, ..Partial::default() }));
        }
        event
    }

    /// Whether a frame or a message is incomplete, so that the peer owes us bytes.
    #[must_use]
    pub fn in_message(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| !partial.finished)
    }

    /// Whether a close frame or an error ended the stream.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.finished)
    }

    /// The bytes of heap memory that this decoder holds now: 0 between messages.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.payload.capacity() + partial.control.capacity()
        })
    }

    /// Reads up to the end of the next message or control frame, whose payload it leaves in `scratch`. The opcode
    /// returned is never that of a continuation.
    fn advance(
        &mut self,
        input: &mut &[u8],
        limits: &Limits,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Opcode>, WsError> {
        loop {
            if self.partial.as_ref().is_none_or(|partial| partial.frame.is_none()) {
                let Some(header) = self.take_header(input)? else { return Ok(None) };
                self.check(&header, limits)?;
                if let Some(payload) = whole_payload(&header, input) {
                    scratch.clear();
                    scratch.extend_from_slice(payload);
                    apply_mask(scratch, header.mask, 0);
                    self.release();
                    return Ok(Some(header.opcode));
                }
                self.partial.get_or_insert_default().begin(&header);
            }
            let Some(partial) = self.partial.as_mut() else { return Ok(None) };
            if !partial.absorb(input, limits)? {
                return Ok(None);
            }
            if let Some(opcode) = partial.finish_frame(scratch) {
                self.release();
                return Ok(Some(opcode));
            }
        }
    }

    /// The next frame's header, joined with what an earlier input held of it.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, WsError> {
        let held = self.partial.as_ref().map_or(0, |partial| partial.header_len);
        if held == 0 {
            if let Some((header, taken)) = Header::parse(input)? {
                *input = &input[taken..];
                return Ok(Some(header));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        let partial = self.partial.get_or_insert_default();
        let copied = input.len().min(MAX_HEADER - held);
        partial.header[held..held + copied].copy_from_slice(&input[..copied]);
        match Header::parse(&partial.header[..held + copied])? {
            Some((header, taken)) => {
                partial.header_len = 0;
                *input = &input[taken - held..];
                Ok(Some(header))
            }
            None => {
                partial.header_len = held + copied;
                *input = &input[copied..];
                Ok(None)
            }
        }
    }

    /// Whether this frame may come now, by the order of frames and by the limits.
    fn check(&self, header: &Header, limits: &Limits) -> Result<(), WsError> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let message = self.partial.as_ref().and_then(|partial| partial.message);
        let (held, fragments) = match (header.opcode, message) {
            (Opcode::Continuation, None) => return Err(WsError::UnexpectedContinuation),
            (Opcode::Continuation, Some(message)) => {
                (self.partial.as_ref().map_or(0, |partial| partial.payload.len()), message.fragments)
            }
            (_, Some(_)) => return Err(WsError::MessageInterleaved),
            (_, None) => (0, 0),
        };
        if header.len > limits.max_message.saturating_sub(held) as u64 {
            return Err(WsError::MessageTooBig { limit: limits.max_message });
        }
        if fragments >= limits.max_fragments {
            return Err(WsError::TooManyFragments { limit: limits.max_fragments });
        }
        Ok(())
    }

    /// Frees the state unless a fragmented message is still under way.
    fn release(&mut self) {
        if self.partial.as_ref().is_some_and(|partial| partial.message.is_none()) {
            self.partial = None;
        }
    }
}

impl Partial {
    fn begin(&mut self, header: &Header) {
        let Header { opcode, is_final, len, mask } = *header;
        self.frame = Some(Frame { opcode, is_final, mask, len, received: 0 });
        if !opcode.is_control() {
            let is_text = opcode == Opcode::Text;
            self.message.get_or_insert(Message { is_text, fragments: 0, valid: 0 }).fragments += 1;
        }
    }

    /// Takes what has arrived of the frame's payload. True when the frame is complete.
    fn absorb(&mut self, input: &mut &[u8], limits: &Limits) -> Result<bool, WsError> {
        let Some(frame) = self.frame.as_mut() else { return Ok(false) };
        let missing = frame.len - frame.received;
        let (bytes, rest) = input.split_at(usize::try_from(missing).unwrap_or(usize::MAX).min(input.len()));
        *input = rest;
        let buffer = if frame.opcode.is_control() { &mut self.control } else { &mut self.payload };
        let start = buffer.len();
        append(buffer, bytes, limits.max_message);
        apply_mask(&mut buffer[start..], frame.mask, (frame.received % 4) as usize);
        frame.received += bytes.len() as u64;
        let complete = frame.received == frame.len;
        if let Some(message) = self.message.as_mut().filter(|message| message.is_text) {
            message.valid += valid_prefix(&self.payload[message.valid..])?;
        }
        Ok(complete)
    }

    /// Ends the frame. When that ends a message or is a control frame, copies its payload to
    /// `scratch`, which stays as large as it has become.
    fn finish_frame(&mut self, scratch: &mut Vec<u8>) -> Option<Opcode> {
        let frame = self.frame.take()?;
        let (opcode, payload) = if frame.opcode.is_control() {
            (frame.opcode, std::mem::take(&mut self.control))
        } else if frame.is_final {
            let opcode = if self.message.take()?.is_text { Opcode::Text } else { Opcode::Binary };
            (opcode, std::mem::take(&mut self.payload))
        } else {
            return None;
        };
        scratch.clear();
        scratch.extend_from_slice(&payload);
        Some(opcode)
    }
}

/// Takes the payload out of `input` when the frame is all there and is a message, or a control frame, by itself.
fn whole_payload<'i>(header: &Header, input: &mut &'i [u8]) -> Option<&'i [u8]> {
    if !header.is_final || header.opcode == Opcode::Continuation {
        return None;
    }
    let len = usize::try_from(header.len).ok()?;
    let (payload, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(payload)
}

/// Appends like `extend_from_slice`, but never lets doubling reserve more than `max` bytes.
fn append(buffer: &mut Vec<u8>, bytes: &[u8], max: usize) {
    let needed = buffer.len() + bytes.len();
    if needed > buffer.capacity() {
        let target = (buffer.capacity() * 2).min(max).max(needed);
        buffer.reserve_exact(target - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

/// How much of `bytes` is UTF-8. A character that the end cuts off is no error yet.
fn valid_prefix(bytes: &[u8]) -> Result<usize, WsError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(WsError::InvalidUtf8),
    }
}

fn event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, WsError> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| WsError::InvalidUtf8);
    Ok(match opcode {
        Opcode::Text => Event::Text(text(payload)?),
        Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => match payload.split_first_chunk() {
            None if payload.is_empty() => Event::Close { code: None, reason: "" },
            None => return Err(WsError::ClosePayload),
            Some((code, reason)) => {
                let code = u16::from_be_bytes(*code);
                if !may_be_sent(code) {
                    return Err(WsError::CloseCode(code));
                }
                Event::Close { code: Some(code), reason: text(reason)? }
            }
        },
    })
}

/// Whether a close frame may carry this code. 1004, 1005, 1006 and 1015 stand for what no frame says; the rest of
/// the range below 3000 is not assigned.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
