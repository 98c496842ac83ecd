//! The codec against tungstenite, which was written by others from the same RFC.

#![allow(clippy::unwrap_used)]

use std::io::{self, Cursor, Read, Write};

use fastrand::Rng;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Message, WebSocket};

use super::{Heard, client_frame, decode};
use crate::proto::ws::*;

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

fn random_pieces<'b>(bytes: &'b [u8], rng: &mut Rng) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let longest = if rng.bool() { 4 } else { rest.len() };
        let (piece, tail) = rest.split_at(rng.usize(1..=longest.min(rest.len())));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

fn random_text(rng: &mut Rng, longest: usize) -> String {
    let len = rng.usize(0..=longest);
    std::iter::repeat_with(|| rng.char(..)).take(len).collect()
}

fn random_bytes(rng: &mut Rng, longest: usize) -> Vec<u8> {
    let len = rng.usize(0..=longest);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

#[test]
fn hears_what_a_tungstenite_client_sends() {
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let mut client = WebSocket::from_raw_socket(Wire::new(Vec::new()), Role::Client, None);
        let mut expected = Vec::new();
        for _ in 0..rng.usize(1..20) {
            send_random(&mut client, &mut rng, &mut expected);
        }
        let reason = random_text(&mut rng, 30);
        let code = rng.u16(3000..5000);
        client.close(Some(CloseFrame { code: code.into(), reason: reason.clone().into() })).unwrap();
        expected.push(Heard::Close(Some(code), reason));

        let bytes = client.get_ref().output.clone();
        let pieces = random_pieces(&bytes, &mut rng);
        assert_eq!(decode(&mut Decoder::new(), &Limits::default(), pieces), expected, "seed {seed}");
    }
}

fn send_random(client: &mut WebSocket<Wire>, rng: &mut Rng, expected: &mut Vec<Heard>) {
    let longest = if rng.u8(..) < 20 { 15_000 } else { 200 };
    match rng.u8(0..5) {
        0 => {
            let text = random_text(rng, longest);
            client.send(Message::text(text.clone())).unwrap();
            expected.push(Heard::Text(text));
        }
        1 => {
            let data = random_bytes(rng, longest);
            client.send(Message::binary(data.clone())).unwrap();
            expected.push(Heard::Binary(data));
        }
        2 => {
            let data = random_bytes(rng, 125);
            client.send(Message::Ping(data.clone().into())).unwrap();
            expected.push(Heard::Ping(data));
        }
        3 => {
            let data = random_bytes(rng, 125);
            client.send(Message::Pong(data.clone().into())).unwrap();
            expected.push(Heard::Pong(data));
        }
        _ => {
            // Fragments of a text, cut anywhere, with a ping between them.
            let text = random_text(rng, longest);
            let cut = rng.usize(0..=text.len());
            let (first, last) = text.as_bytes().split_at(cut);
            let fragment = |opcode, bytes: &[u8], is_final| {
                Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(opcode), is_final))
            };
            client.send(fragment(Data::Text, first, false)).unwrap();
            client.send(Message::Ping(b"between".to_vec().into())).unwrap();
            client.send(fragment(Data::Continue, last, true)).unwrap();
            expected.push(Heard::Ping(b"between".to_vec()));
            expected.push(Heard::Text(text));
        }
    }
}

#[test]
fn a_tungstenite_client_hears_what_we_send() {
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..rng.usize(1..20) {
            let longest = if rng.u8(..) < 20 { 100_000 } else { 200 };
            match rng.u8(0..4) {
                0 => {
                    let sent = random_text(&mut rng, longest);
                    text(&sent, &mut bytes);
                    expected.push(Message::text(sent));
                }
                1 => {
                    let sent = random_bytes(&mut rng, longest);
                    binary(&sent, &mut bytes);
                    expected.push(Message::binary(sent));
                }
                2 => {
                    let sent = random_bytes(&mut rng, 125);
                    ping(&sent, &mut bytes);
                    expected.push(Message::Ping(sent.into()));
                }
                _ => {
                    let sent = random_bytes(&mut rng, 125);
                    pong(&sent, &mut bytes);
                    expected.push(Message::Pong(sent.into()));
                }
            }
        }
        close(Some(4100), "over capacity", &mut bytes);
        expected.push(Message::Close(Some(CloseFrame { code: 4100.into(), reason: "over capacity".into() })));

        let mut client = WebSocket::from_raw_socket(Wire::new(bytes), Role::Client, None);
        for message in expected {
            assert_eq!(client.read().unwrap(), message, "seed {seed}");
        }
    }
}

/// Frames in a random order, most of them legal: both sides must agree on every message and on where it ends.
#[test]
fn i50_agrees_with_tungstenite_on_random_frames() {
    let mut failures = 0;
    for seed in 0..5000 {
        let mut rng = Rng::with_seed(seed);
        let mut bytes = Vec::new();
        for _ in 0..rng.usize(1..10) {
            let opcode = *rng.choice(&[0, 0, 0, 1, 1, 2, 9, 10, 9, 10, 1, 2, 0, 3, 0xb][..]).unwrap();
            let is_final = if opcode > 7 { rng.u8(0..20) > 0 } else { rng.bool() };
            let reserved = if rng.u8(0..60) == 0 { 0x40 } else { 0 };
            let payload: &[u8] = match rng.u8(0..12) {
                0 => b"",
                1 => &[0xf0, 0x9f],
                2 => &[0x98, 0x80],
                3 => &[0xff],
                4 => &[b'y'; 130],
                _ => b"abc",
            };
            bytes.extend(client_frame(u8::from(is_final) << 7 | reserved | opcode, payload));
        }
        let pieces = random_pieces(&bytes, &mut rng);
        let mut ours = decode(&mut Decoder::new(), &Limits::default(), pieces);
        let failed = matches!(ours.last(), Some(Heard::Failed(_)));
        if failed {
            ours.pop();
        }
        failures += usize::from(failed);
        let (theirs, they_failed) = tungstenite_server_hears(bytes);
        assert_eq!((ours, failed), (theirs, they_failed), "seed {seed}");
    }
    assert!(failures > 500, "the streams are not wild enough: {failures} failed");
    assert!(failures < 4800, "the streams are not tame enough: {failures} failed");
}

fn tungstenite_server_hears(bytes: Vec<u8>) -> (Vec<Heard>, bool) {
    let mut server = WebSocket::from_raw_socket(Wire::new(bytes), Role::Server, None);
    let mut heard = Vec::new();
    loop {
        match server.read() {
            Ok(Message::Text(text)) => heard.push(Heard::Text(text.to_string())),
            Ok(Message::Binary(data)) => heard.push(Heard::Binary(data.to_vec())),
            Ok(Message::Ping(data)) => heard.push(Heard::Ping(data.to_vec())),
            Ok(Message::Pong(data)) => heard.push(Heard::Pong(data.to_vec())),
            Ok(other) => panic!("unexpected {other:?}"),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (heard, false);
            }
            Err(_) => return (heard, true),
        }
    }
}
