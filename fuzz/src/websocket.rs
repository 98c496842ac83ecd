//! Frames of a WebSocket client: the same as tungstenite hears, and the way back.

use std::io::{self, Cursor, Read, Write};

use evenkeel_hub::proto::ws::{self, Decoder, Event, Limits, WsError};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use crate::pieces::cuts;

const LIMITS: Limits = Limits { max_message: 20_000, max_fragments: 1_000 };

/// What a reader heard, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Failed(WsError),
}

/// Reads the frames, in each way to cut them, and compares.
pub fn run(bytes: &[u8]) {
    let whole = decode([bytes]);
    for pieces in cuts(bytes) {
        assert_eq!(decode(pieces), whole, "in pieces it is something else");
    }
    agrees_with_tungstenite(bytes, &whole);
    comes_back(&whole);
}

fn decode<'i>(pieces: impl IntoIterator<Item = &'i [u8]>) -> Vec<Heard> {
    let (mut decoder, mut scratch, mut heard) = (Decoder::new(), Vec::new(), Vec::new());
    let mut seen = 0;
    for mut input in pieces {
        seen += input.len();
        loop {
            heard.push(match decoder.next(&mut input, &LIMITS, &mut scratch) {
                Ok(None) => break,
                Ok(Some(Event::Text(text))) => Heard::Text(text.to_owned()),
                Ok(Some(Event::Binary(data))) => Heard::Binary(data.to_vec()),
                Ok(Some(Event::Ping(data))) => Heard::Ping(data.to_vec()),
                Ok(Some(Event::Pong(data))) => Heard::Pong(data.to_vec()),
                Ok(Some(Event::Close { code, reason })) => Heard::Close(code, reason.to_owned()),
                Err(error) => Heard::Failed(error),
            });
            let ended = matches!(heard.last(), Some(Heard::Close(..) | Heard::Failed(_)));
            assert_eq!(ended, decoder.is_finished());
        }
        assert!(input.is_empty(), "input is left over");
        // What has arrived, never what was declared; and nothing between two messages.
        assert!(decoder.heap_size() <= 2 * seen + 512, "{} bytes are held", decoder.heap_size());
        assert_eq!(decoder.heap_size() > 0, decoder.in_message() || decoder.is_finished());
        assert!(scratch.len() <= LIMITS.max_message);
    }
    heard
}

fn agrees_with_tungstenite(bytes: &[u8], ours: &[Heard]) {
    let (mut bytes, mut heard, mut differs) = (bytes.to_vec(), ours, false);
    if let Some((Heard::Failed(error), before)) = ours.split_last() {
        heard = before;
        // It takes lengths that are not as short as they can be, and it counts in other ways.
        differs = matches!(
            error,
            WsError::LengthNotMinimal
                | WsError::LengthOutOfRange
                | WsError::ControlTooLong
                | WsError::MessageTooBig { .. }
                | WsError::TooManyFragments { .. }
        );
        // It looks at a frame once that is complete.
        bytes.resize(bytes.len() + LIMITS.max_message + 14, 0);
    }
    let (theirs, they_failed) = tungstenite_hears(bytes);
    if differs {
        assert!(theirs.starts_with(heard), "theirs {theirs:?}, ours {ours:?}");
    } else {
        assert_eq!((heard, heard.len() < ours.len()), (&theirs[..], they_failed), "ours {ours:?}");
    }
}

fn tungstenite_hears(bytes: Vec<u8>) -> (Vec<Heard>, bool) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.max_message))
        .max_frame_size(Some(LIMITS.max_message));
    let mut server = WebSocket::from_raw_socket(Wire::new(bytes), Role::Server, Some(config));
    let mut heard = Vec::new();
    loop {
        match server.read() {
            Ok(Message::Text(text)) => heard.push(Heard::Text(text.to_string())),
            Ok(Message::Binary(data)) => heard.push(Heard::Binary(data.to_vec())),
            Ok(Message::Ping(data)) => heard.push(Heard::Ping(data.to_vec())),
            Ok(Message::Pong(data)) => heard.push(Heard::Pong(data.to_vec())),
            // So it reports a code that may not be sent.
            Ok(Message::Close(Some(frame))) if frame.reason == "Protocol violation" => return (heard, true),
            Ok(Message::Close(frame)) => {
                let (code, reason) = frame.map_or((None, String::new()), |CloseFrame { code, reason }| {
                    (Some(code.into()), reason.to_string())
                });
                heard.push(Heard::Close(code, reason));
                return (heard, false);
            }
            Ok(other) => panic!("unexpected {other:?}"),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (heard, false);
            }
            Err(_) => return (heard, true),
        }
    }
}

/// What was heard is sent as a server sends it, and a tungstenite client hears the same.
fn comes_back(heard: &[Heard]) {
    let mut out = Vec::new();
    for heard in heard {
        match heard {
            Heard::Text(text) => ws::text(text, &mut out),
            Heard::Binary(data) => ws::binary(data, &mut out),
            Heard::Ping(data) => ws::ping(data, &mut out),
            Heard::Pong(data) => ws::pong(data, &mut out),
            Heard::Close(code, reason) => ws::close(*code, reason, &mut out),
            Heard::Failed(error) => ws::close(Some(error.close_code()), "", &mut out),
        }
    }
    let mut client = WebSocket::from_raw_socket(Wire::new(out), Role::Client, None);
    for heard in heard {
        let expected = match heard {
            Heard::Text(text) => Message::text(text.clone()),
            Heard::Binary(data) => Message::binary(data.clone()),
            Heard::Ping(data) => Message::Ping(data.clone().into()),
            Heard::Pong(data) => Message::Pong(data.clone().into()),
            Heard::Close(None, _) => Message::Close(None),
            Heard::Close(Some(code), reason) => {
                Message::Close(Some(CloseFrame { code: (*code).into(), reason: reason.clone().into() }))
            }
            Heard::Failed(error) => {
                Message::Close(Some(CloseFrame { code: error.close_code().into(), reason: "".into() }))
            }
        };
        assert_eq!(client.read().expect("a frame of ours is understood"), expected);
    }
}

/// A transport that reads from one buffer and writes to another. At the end of its input it would block.
struct Wire {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Wire {
    fn new(input: Vec<u8>) -> Wire {
        Wire { input: Cursor::new(input), output: Vec::new() }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
