//! Frames that break the WebSocket protocol or its limits.

use std::time::Duration;

use crate::support::{End, Frame, Hub, client_frame, config, on_every_backend, read_more};

/// What a client sends, and the code with which it is closed.
fn offences() -> Vec<(&'static str, Vec<u8>, u16)> {
    let unmasked = b"\x81\x02hi".to_vec();
    let declared = |len: u64| [&[0x81, 0xff][..], &len.to_be_bytes(), &[1, 2, 3, 4]].concat();
    let mut fragments = client_frame(0x01, b"x");
    (0..16).for_each(|_| fragments.extend(client_frame(0x00, b"x")));
    let mut empty_fragments = client_frame(0x01, b"");
    (0..16).for_each(|_| empty_fragments.extend(client_frame(0x00, b"")));
    vec![
        ("unmasked", unmasked, 1002),
        ("first reserved bit", client_frame(0xc1, b"x"), 1002),
        ("third reserved bit", client_frame(0x91, b"x"), 1002),
        ("reserved opcode", client_frame(0x83, b"x"), 1002),
        ("reserved control opcode", client_frame(0x8b, b""), 1002),
        ("fragmented ping", client_frame(0x09, b""), 1002),
        ("long ping", client_frame(0x89, &[b'x'; 126]), 1002),
        ("continuation of nothing", client_frame(0x80, b"x"), 1002),
        ("message in a message", [client_frame(0x01, b"x"), client_frame(0x81, b"x")].concat(), 1002),
        ("length not minimal", vec![0x81, 0xfe, 0, 1, 1, 2, 3, 4, 0], 1002),
        ("length out of range", declared(1 << 63), 1002),
        ("the longest length", declared((1 << 63) - 1), 1009),
        ("one byte too long", declared(65_537), 1009),
        ("too long in parts", [client_frame(0x01, &[b'x'; 65_536]), client_frame(0x80, b"x")].concat(), 1009),
        ("too many fragments", fragments, 1008),
        ("too many empty fragments", empty_fragments, 1008),
        ("not UTF-8", client_frame(0x81, b"\xff"), 1007),
        ("not UTF-8, early", client_frame(0x01, b"\xed\xa0"), 1007),
        ("half a character", client_frame(0x81, b"\xe2\x82"), 1007),
        ("binary", client_frame(0x82, b"x"), 1003),
        ("close of one byte", client_frame(0x88, b"x"), 1002),
        ("close code that must not be sent", client_frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("close reason not UTF-8", client_frame(0x88, b"\x03\xe8\xff"), 1007),
    ]
}

#[test]
fn i50_frames_that_break_the_protocol_are_closed_with_their_code() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        let offences = offences();
        for (n, (what, bytes, code)) in offences.iter().enumerate() {
            for piece in [bytes.len(), 1.max(bytes.len() / 40)] {
                let mut ws = hub.ws();
                for part in bytes.chunks(piece) {
                    if !crate::support::try_write(&mut ws.stream, part) {
                        break;
                    }
                }
                match ws.next() {
                    Frame::Close(got, _) => assert_eq!(got, *code, "{what}"),
                    other => panic!("{what}: {other:?}"),
                }
                assert_eq!(ws.next(), Frame::End(End::Orderly), "{what}");
            }
            hub.refused("websocket_protocol", 2 * n as u64 + 2);
        }
        canary.sings();
    });
}

#[test]
fn nothing_is_served_behind_a_broken_frame() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut ws = hub.ws();
        let ping = client_frame(0x81, br#"{"event":"pusher:ping"}"#);
        ws.send_bytes(&[&ping[..], &client_frame(0x82, b"x"), &ping, &client_frame(0x89, b"p")].concat());
        ws.event("pusher:pong");
        assert!(matches!(ws.next(), Frame::Close(1003, _)));
        assert_eq!(ws.next(), Frame::End(End::Orderly));
        hub.refused("websocket_protocol", 1);
    });
}

#[test]
fn the_largest_message_in_the_most_fragments_is_read() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut ws = hub.ws();
        let text = format!(r#"{{"event":"pusher:ping","data":"{}"}}"#, "x".repeat(65_536 - 33));
        assert_eq!(text.len(), 65_536);
        let mut bytes = Vec::new();
        for (n, part) in text.as_bytes().chunks(4096).enumerate() {
            bytes.extend(client_frame(
                if n == 0 {
                    0x01
                } else if n == 15 {
                    0x80
                } else {
                    0x00
                },
                part,
            ));
            // Control frames may come between.
            bytes.extend(client_frame(0x8a, b""));
        }
        ws.send_bytes(&bytes);
        ws.event("pusher:pong");
        ws.is_served();
    });
}

#[test]
fn pings_are_answered_the_latest_of_many() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut ws = hub.ws();
        ws.send_bytes(&client_frame(0x89, b"alone"));
        assert_eq!(ws.next(), Frame::Pong(b"alone".to_vec()));
        ws.send_bytes(
            &[client_frame(0x89, b"one"), client_frame(0x89, b"two"), client_frame(0x89, b"")].concat(),
        );
        assert_eq!(ws.next(), Frame::Pong(Vec::new()));
        ws.is_served();
    });
}

#[test]
fn a_flood_of_control_frames_is_closed() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        for (n, opcode) in [0x89, 0x8a].into_iter().enumerate() {
            let mut ws = hub.ws();
            ws.send_bytes(&client_frame(opcode, b"flood").repeat(1000));
            ws.closes(1008);
            hub.refused("websocket_protocol", n as u64 + 1);
        }
        canary.sings();
    });
}

#[test]
fn a_message_that_is_never_complete_ends_at_its_deadline() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", "[limits]\nhandshake_deadline_seconds = 1"));
        let mut canary = hub.canary();
        let whole = client_frame(0x81, br#"{"event":"pusher:ping"}"#);
        let parts = [whole[..1].to_vec(), whole[..whole.len() - 1].to_vec(), client_frame(0x01, b"{")];
        let mut slow: Vec<_> = parts.iter().map(|part| (hub.ws(), part)).collect();
        for (ws, part) in &mut slow {
            ws.is_served();
            ws.send_bytes(part);
        }
        for (mut ws, _) in slow {
            assert_eq!(ws.next(), Frame::End(End::Reset));
        }
        hub.refused("message_timeout", 3);
        canary.sings();
    });
}

#[test]
fn the_deadline_is_of_each_message_and_not_of_their_overlap() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", "[limits]\nhandshake_deadline_seconds = 1"));
        let mut ws = hub.ws();
        let whole = client_frame(0x81, br#"{"event":"pusher:ping"}"#);
        let (begin, end) = whole.split_at(9);
        ws.send_bytes(begin);
        // There is always a message under way, and none for longer than a step.
        for _ in 0..12 {
            std::thread::park_timeout(Duration::from_millis(250));
            ws.send_bytes(&[end, begin].concat());
            ws.event("pusher:pong");
        }
        ws.send_bytes(end);
        ws.event("pusher:pong");
        assert_eq!(hub.refusals("message_timeout"), 0);
    });
}

#[test]
fn the_close_handshake_is_answered_and_the_end_is_orderly() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        for (payload, answered) in [
            (&b"\x03\xe8bye"[..], Some(1000)),
            (b"\x03\xe9", Some(1001)),
            (b"\x0f\xa0", Some(4000)),
            (b"", None),
        ] {
            let mut ws = hub.ws();
            let ping = client_frame(0x81, br#"{"event":"pusher:ping"}"#);
            // What comes behind the close is ignored.
            ws.send_bytes(&[client_frame(0x88, payload), ping].concat());
            match (ws.next(), answered) {
                (Frame::Close(code, reason), Some(expected)) => assert_eq!((code, &*reason), (expected, "")),
                (Frame::Close(1005, _), None) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(ws.next(), Frame::End(End::Orderly));
        }
    });
}

#[test]
fn a_silent_client_is_pinged_and_closed_if_it_does_not_answer() {
    on_every_backend(|backend| {
        let top = "ping_interval_seconds = 1\npong_timeout_seconds = 1";
        let hub = Hub::with(backend, &config(top, "", ""));
        let (mut alive, mut dead) = (hub.ws(), hub.ws());
        assert_eq!(dead.next(), Frame::Ping(Vec::new()));
        for _ in 0..2 {
            assert_eq!(alive.next(), Frame::Ping(Vec::new()));
            alive.send_bytes(&client_frame(0x8a, b""));
        }
        dead.closes(4201);
        hub.refused("pong_timeout", 1);
        alive.is_served();
    });
}

#[test]
fn i36_clients_that_vanish_at_any_byte_leave_nothing() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        let subscribe = client_frame(0x81, br#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#);
        for at in (0..=subscribe.len()).step_by(5) {
            let mut ws = hub.ws();
            ws.send_bytes(&subscribe[..at]);
            if at % 2 == 0 {
                crate::support::reset(ws.stream);
            } else {
                ws.stream.shutdown(std::net::Shutdown::Write).unwrap();
                while read_more(&mut ws.stream, &mut Vec::new()).is_none() {}
            }
        }
        canary.sings();
        drop(canary);
        hub.comes_to_rest();
        assert_eq!(hub.metric("evenkeel_hub_channels{app=\"1\"}"), 0);
    });
}
