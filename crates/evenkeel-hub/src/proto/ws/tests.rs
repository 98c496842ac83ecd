#![allow(clippy::unwrap_used)]

mod oracle;

use super::frame::apply_mask;
use super::*;

/// A frame as a client sends it. `first` holds the final bit, the reserved bits and the opcode.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// What the decoder said, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Failed(WsError),
}

/// Feeds `pieces` one after the other and collects everything. Checks on the way that all input is used.
pub(crate) fn decode<'i>(
    decoder: &mut Decoder,
    limits: &Limits,
    pieces: impl IntoIterator<Item = &'i [u8]>,
) -> Vec<Heard> {
    let mut scratch = Vec::new();
    let mut heard = Vec::new();
    for mut input in pieces {
        loop {
            heard.push(match decoder.next(&mut input, limits, &mut scratch) {
                Ok(None) => break,
                Ok(Some(Event::Text(text))) => Heard::Text(text.to_owned()),
                Ok(Some(Event::Binary(data))) => Heard::Binary(data.to_vec()),
                Ok(Some(Event::Ping(data))) => Heard::Ping(data.to_vec()),
                Ok(Some(Event::Pong(data))) => Heard::Pong(data.to_vec()),
                Ok(Some(Event::Close { code, reason })) => Heard::Close(code, reason.to_owned()),
                Err(error) => Heard::Failed(error),
            });
        }
        assert!(input.is_empty(), "input left over");
    }
    heard
}

fn decode_all(bytes: &[u8]) -> Vec<Heard> {
    decode(&mut Decoder::new(), &Limits::default(), [bytes])
}

fn failure(bytes: &[u8]) -> WsError {
    match decode_all(bytes).as_slice() {
        [Heard::Failed(error)] => *error,
        other => panic!("expected one failure, heard {other:?}"),
    }
}

/// A stream with every kind of frame: whole, fragmented, interleaved with control frames, and each length form.
fn mixed_stream() -> (Vec<u8>, Vec<Heard>) {
    let medium = "m".repeat(126);
    let mut bytes = Vec::new();
    bytes.extend(client_frame(0x81, "gr\u{fc}\u{df} \u{1f600}".as_bytes()));
    bytes.extend(client_frame(0x82, b""));
    bytes.extend(client_frame(0x89, b"ping"));
    bytes.extend(client_frame(0x01, &"\u{1f600}".as_bytes()[..1]));
    bytes.extend(client_frame(0x89, b"inside"));
    bytes.extend(client_frame(0x00, b""));
    bytes.extend(client_frame(0x8a, b""));
    bytes.extend(client_frame(0x80, &"\u{1f600}".as_bytes()[1..]));
    bytes.extend(client_frame(0x81, medium.as_bytes()));
    bytes.extend(client_frame(0x02, &[0xff, 0xfe]));
    bytes.extend(client_frame(0x80, &[0xfd]));
    bytes.extend(client_frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e']));
    let heard = vec![
        Heard::Text("gr\u{fc}\u{df} \u{1f600}".to_owned()),
        Heard::Binary(vec![]),
        Heard::Ping(b"ping".to_vec()),
        Heard::Ping(b"inside".to_vec()),
        Heard::Pong(vec![]),
        Heard::Text("\u{1f600}".to_owned()),
        Heard::Text(medium),
        Heard::Binary(vec![0xff, 0xfe, 0xfd]),
        Heard::Close(Some(1000), "bye".to_owned()),
    ];
    (bytes, heard)
}

#[test]
fn idle_decoder_is_one_pointer_and_holds_no_heap() {
    assert_eq!(size_of::<Decoder>(), size_of::<usize>());
    let mut decoder = Decoder::new();
    let mut frame = client_frame(0x81, &[b'x'; 1000]);
    frame.extend(client_frame(0x01, b"first"));
    frame.extend(client_frame(0x80, b"last"));
    for piece in frame.chunks(7) {
        decode(&mut decoder, &Limits::default(), [piece]);
    }
    assert!(!decoder.in_message());
    assert_eq!(decoder.heap_size(), 0);
}

#[test]
fn every_single_split_gives_the_same_events() {
    let (bytes, expected) = mixed_stream();
    for at in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(decode(&mut Decoder::new(), &Limits::default(), [head, tail]), expected, "split at {at}");
    }
}

#[test]
fn every_piece_length_gives_the_same_events() {
    let (bytes, expected) = mixed_stream();
    for len in 1..=bytes.len() {
        assert_eq!(
            decode(&mut Decoder::new(), &Limits::default(), bytes.chunks(len)),
            expected,
            "pieces of {len}"
        );
    }
}

#[test]
fn in_message_from_the_first_byte_to_the_last() {
    let mut bytes = client_frame(0x01, b"ab");
    bytes.extend(client_frame(0x80, b"cd"));
    let mut decoder = Decoder::new();
    assert!(!decoder.in_message());
    for (at, byte) in bytes.iter().enumerate() {
        decode(&mut decoder, &Limits::default(), [std::slice::from_ref(byte)]);
        assert_eq!(decoder.in_message(), at + 1 < bytes.len(), "after byte {at}");
    }
}

#[test]
fn a_ping_inside_a_message_leaves_the_message_under_way() {
    let mut decoder = Decoder::new();
    let mut bytes = client_frame(0x01, b"ab");
    bytes.extend(client_frame(0x89, b"p"));
    assert_eq!(decode(&mut decoder, &Limits::default(), [&bytes[..]]), [Heard::Ping(b"p".to_vec())]);
    assert!(decoder.in_message());
}

#[test]
fn masks_of_all_lengths_and_offsets() {
    let mask = [1, 2, 3, 4];
    for len in 0..40 {
        for offset in 0..8 {
            let mut data = vec![0; len];
            apply_mask(&mut data, mask, offset);
            let expected: Vec<u8> = (0..len).map(|at| mask[(at + offset) % 4]).collect();
            assert_eq!(data, expected, "length {len}, offset {offset}");
        }
    }
}

#[test]
fn i50_protocol_errors_have_their_codes() {
    let unmasked = [0x81, 0x02, b'h', b'i'];
    let long_ping = [0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0];
    let cases: Vec<(Vec<u8>, WsError, u16)> = vec![
        (unmasked.to_vec(), WsError::Unmasked, 1002),
        (client_frame(0xc1, b""), WsError::ReservedBits, 1002),
        (client_frame(0xa1, b""), WsError::ReservedBits, 1002),
        (client_frame(0x91, b""), WsError::ReservedBits, 1002),
        (client_frame(0x83, b""), WsError::ReservedOpcode(3), 1002),
        (client_frame(0x87, b""), WsError::ReservedOpcode(7), 1002),
        (client_frame(0x8b, b""), WsError::ReservedOpcode(0xb), 1002),
        (client_frame(0x8f, b""), WsError::ReservedOpcode(0xf), 1002),
        (client_frame(0x09, b""), WsError::FragmentedControl, 1002),
        (client_frame(0x08, b""), WsError::FragmentedControl, 1002),
        (long_ping.to_vec(), WsError::ControlTooLong, 1002),
        (client_frame(0x80, b"x"), WsError::UnexpectedContinuation, 1002),
        (client_frame(0x00, b"x"), WsError::UnexpectedContinuation, 1002),
        ([client_frame(0x01, b"a"), client_frame(0x81, b"b")].concat(), WsError::MessageInterleaved, 1002),
        ([client_frame(0x02, b"a"), client_frame(0x02, b"b")].concat(), WsError::MessageInterleaved, 1002),
        (vec![0x81, 0xfe, 0, 125, 0, 0, 0, 0], WsError::LengthNotMinimal, 1002),
        (vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], WsError::LengthNotMinimal, 1002),
        (vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], WsError::LengthOutOfRange, 1002),
        (client_frame(0x81, &[0xc3]), WsError::InvalidUtf8, 1007),
        (client_frame(0x81, &[0xed, 0xa0, 0x80]), WsError::InvalidUtf8, 1007),
        (client_frame(0x88, &[3]), WsError::ClosePayload, 1002),
        (client_frame(0x88, &[0x03, 0xe8, 0xff]), WsError::InvalidUtf8, 1007),
    ];
    for (bytes, error, code) in cases {
        assert_eq!(failure(&bytes), error, "{bytes:x?}");
        assert_eq!(error.close_code(), code, "{error:?}");
        assert!(!error.to_string().is_empty());
        let split: Vec<Heard> = decode(&mut Decoder::new(), &Limits::default(), bytes.chunks(1));
        assert_eq!(split, [Heard::Failed(error)], "byte by byte: {bytes:x?}");
    }
}

#[test]
fn i50_close_codes() {
    for code in 0..=u16::MAX {
        let valid = matches!(code, 1000 | 1001 | 1002 | 1003 | 1007..=1014 | 3000..=4999);
        let heard = decode_all(&client_frame(0x88, &code.to_be_bytes()));
        let expected = if valid {
            Heard::Close(Some(code), String::new())
        } else {
            Heard::Failed(WsError::CloseCode(code))
        };
        assert_eq!(heard, [expected]);
    }
    assert_eq!(decode_all(&client_frame(0x88, b"")), [Heard::Close(None, String::new())]);
}

#[test]
fn control_payload_boundary() {
    assert_eq!(decode_all(&client_frame(0x89, &[7; 125])), [Heard::Ping(vec![7; 125])]);
    assert_eq!(failure(&client_frame(0x89, &[7; 126])), WsError::ControlTooLong);
}

#[test]
fn length_form_boundaries() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload = vec![b'x'; len];
        let heard = decode_all(&client_frame(0x82, &payload));
        assert_eq!(heard, [Heard::Binary(payload)], "length {len}");
    }
}

#[test]
fn message_limit_boundary_whole_and_fragmented() {
    let limits = Limits { max_message: 1000, max_fragments: 16 };
    let run = |frames: &[(u8, usize)]| {
        let bytes: Vec<u8> =
            frames.iter().flat_map(|(first, len)| client_frame(*first, &vec![b'x'; *len])).collect();
        decode(&mut Decoder::new(), &limits, [&bytes[..]])
    };
    let too_big = [Heard::Failed(WsError::MessageTooBig { limit: 1000 })];
    assert_eq!(run(&[(0x81, 1000)]), [Heard::Text("x".repeat(1000))]);
    assert_eq!(run(&[(0x81, 1001)]), too_big);
    assert_eq!(run(&[(0x01, 600), (0x80, 400)]), [Heard::Text("x".repeat(1000))]);
    assert_eq!(run(&[(0x01, 600), (0x80, 401)]), too_big);
    assert_eq!(WsError::MessageTooBig { limit: 1000 }.close_code(), 1009);
    // A control frame does not count towards the message.
    assert_eq!(run(&[(0x01, 1000), (0x89, 100), (0x80, 0)]).len(), 2);
}

#[test]
fn fragment_limit_boundary() {
    let run = |fragments: usize| {
        let mut bytes = client_frame(0x01, b"x");
        for _ in 2..fragments {
            bytes.extend(client_frame(0x00, b""));
        }
        bytes.extend(client_frame(0x80, b""));
        decode_all(&bytes)
    };
    assert_eq!(run(16), [Heard::Text("x".to_owned())]);
    assert_eq!(run(17), [Heard::Failed(WsError::TooManyFragments { limit: 16 })]);
    assert_eq!(WsError::TooManyFragments { limit: 16 }.close_code(), 1008);
}

#[test]
fn i50_a_declared_length_allocates_nothing() {
    let mut decoder = Decoder::new();
    let header = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    let heard = decode(&mut decoder, &Limits::default(), [&header[..]]);
    assert_eq!(heard, [Heard::Failed(WsError::MessageTooBig { limit: 65_536 })]);
    assert!(decoder.heap_size() < 512);

    let mut decoder = Decoder::new();
    let allowed = client_frame(0x82, &[0; 65_536]);
    decode(&mut decoder, &Limits::default(), [&allowed[..30]]);
    assert!(decoder.in_message());
    assert!(decoder.heap_size() < 512, "holds {} bytes for 20 that arrived", decoder.heap_size());
}

#[test]
fn i50_a_message_under_way_holds_little_more_than_its_limit() {
    for piece in [1, 1000, 3001, 40_000] {
        let mut decoder = Decoder::new();
        let frame = client_frame(0x02, &[0; 65_536]);
        let mut peak = 0;
        for bytes in frame.chunks(piece) {
            decode(&mut decoder, &Limits::default(), [bytes]);
            peak = peak.max(decoder.heap_size());
        }
        assert!(peak >= 65_536, "the message was held");
        assert!(peak <= 70 * 1024, "peak {peak} with pieces of {piece}");
    }
}

#[test]
fn invalid_utf8_fails_as_soon_as_it_shows() {
    // A surrogate: its second byte is already wrong.
    let bytes = client_frame(0x81, &[b'a', 0xed, 0xa0, 0x80, b'b']);
    let payload_at = bytes.len() - 5;
    let mut decoder = Decoder::new();
    assert_eq!(decode(&mut decoder, &Limits::default(), [&bytes[..payload_at + 2]]), []);
    let heard = decode(&mut decoder, &Limits::default(), [&bytes[payload_at + 2..payload_at + 3]]);
    assert_eq!(heard, [Heard::Failed(WsError::InvalidUtf8)]);

    // In the first of two fragments, long before the last.
    let bytes = client_frame(0x01, &[0xff]);
    assert_eq!(failure(&bytes), WsError::InvalidUtf8);
    // A character that the message's end cuts off.
    let bytes = [client_frame(0x01, b"a"), client_frame(0x80, &[0xf0, 0x9f])].concat();
    assert_eq!(failure(&bytes), WsError::InvalidUtf8);
}

#[test]
fn nothing_is_heard_after_an_end() {
    for end in [client_frame(0x88, b""), client_frame(0x83, b"")] {
        let mut decoder = Decoder::new();
        let bytes = [end, client_frame(0x81, b"late")].concat();
        assert_eq!(decode(&mut decoder, &Limits::default(), [&bytes[..]]).len(), 1);
        assert!(decoder.is_finished() && !decoder.in_message());
        assert_eq!(decode(&mut decoder, &Limits::default(), [&client_frame(0x81, b"later")[..]]), []);
    }
}

#[test]
fn scratch_is_reused_for_small_messages() {
    let mut decoder = Decoder::new();
    let mut scratch = Vec::with_capacity(256);
    let place = scratch.as_ptr();
    for _ in 0..100 {
        let frame = client_frame(0x81, &[b'x'; 200]);
        for mut piece in [&frame[..50], &frame[50..]] {
            while decoder.next(&mut piece, &Limits::default(), &mut scratch).unwrap().is_some() {}
        }
    }
    assert_eq!(scratch.as_ptr(), place);
}

#[test]
fn encodes_each_length_form() {
    for (len, header) in [
        (0, &[0x82, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 0xff, 0xff]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut out = Vec::new();
        binary(&vec![9; len], &mut out);
        assert_eq!(&out[..header.len()], header);
        assert_eq!(out.len(), header.len() + len);
        assert_eq!(FrameHeader::new(Opcode::Binary, len).as_bytes(), header);
    }
}

#[test]
fn close_reason_is_cut_at_a_character() {
    let mut out = Vec::new();
    close(Some(4100), &"\u{20ac}".repeat(50), &mut out);
    // 123 bytes are 41 euro signs of 3 bytes; one byte more in front makes it 40.
    assert_eq!(out.len(), 2 + 2 + 123);
    out.clear();
    close(Some(4100), &format!("x{}", "\u{20ac}".repeat(50)), &mut out);
    assert_eq!(out.len(), 2 + 2 + 121);
    assert!(std::str::from_utf8(&out[4..]).is_ok());
    out.clear();
    close(None, "ignored", &mut out);
    assert_eq!(out, [0x88, 0]);
}

#[test]
#[should_panic(expected = "control frame over 125 bytes")]
fn a_long_ping_is_our_mistake() {
    ping(&[0; 126], &mut Vec::new());
}
