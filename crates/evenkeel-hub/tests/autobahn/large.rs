//! Sections 9 and 10: large messages, whole, in fragments and cut small; many round trips; a client that fragments by
//! itself. Sizes are a sixteenth of the suite's and round trips a twentieth, so that it takes seconds without optimisation.

use tungstenite::Message;

use crate::case::{Case, Cut, fragments, frame};

pub(crate) fn cases() -> Vec<Case> {
    [whole(), in_fragments(), cut_small(), round_trips(), fragmented_by_the_client()].concat()
}

/// A message of every kind with its sections' numbers: text, then binary.
const KINDS: [u8; 2] = [0x01, 0x02];

fn message(kind: u8, size: usize) -> Message {
    let pattern = |n: usize| b'a' + (n % 25) as u8;
    let bytes: Vec<u8> = (0..size).map(pattern).collect();
    if kind == 0x01 { Message::text(String::from_utf8(bytes).unwrap()) } else { Message::binary(bytes) }
}

fn payload(message: &Message) -> Vec<u8> {
    message.clone().into_data().to_vec()
}

fn whole() -> Vec<Case> {
    let mut cases = Vec::new();
    for (section, kind) in (1..).zip(KINDS) {
        for (n, kib) in (1..).zip([4, 16, 64, 256, 512, 1024]) {
            let message = message(kind, kib << 10);
            let frames = [frame(0x80 | kind, &payload(&message))];
            cases.push(Case::new(format!("9.{section}.{n}")).sends(Cut::Nowhere, frames, [message]));
        }
    }
    cases
}

fn in_fragments() -> Vec<Case> {
    let sizes = [64, 256, 1 << 10, 4 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10];
    let mut cases = Vec::new();
    for (section, kind) in (3..).zip(KINDS) {
        for (n, size) in (1..).zip(sizes) {
            let message = message(kind, 256 << 10);
            let frames = fragments(kind, payload(&message).chunks(size));
            cases.push(Case::new(format!("9.{section}.{n}")).sends(Cut::Nowhere, frames, [message]));
        }
    }
    cases
}

fn cut_small() -> Vec<Case> {
    let mut cases = Vec::new();
    for (section, kind) in (5..).zip(KINDS) {
        for (n, size) in (1..).zip([64, 128, 256, 512, 1024, 2048]) {
            let message = message(kind, 64 << 10);
            let frames = [frame(0x80 | kind, &payload(&message))];
            cases.push(Case::new(format!("9.{section}.{n}")).sends(Cut::Every(size), frames, [message]));
        }
    }
    cases
}

fn round_trips() -> Vec<Case> {
    let mut cases = Vec::new();
    for (section, kind) in (7..).zip(KINDS) {
        for (n, size) in (1..).zip([0, 16, 64, 256, 1024, 4096]) {
            let message = message(kind, size);
            let frames = [frame(0x80 | kind, &payload(&message))];
            let case = Case::new(format!("9.{section}.{n}"));
            let trip = |case: Case, _| case.sends(Cut::Nowhere, frames.clone(), [message.clone()]);
            cases.push((0..50).fold(case, trip));
        }
    }
    cases
}

fn fragmented_by_the_client() -> Vec<Case> {
    let message = message(0x01, 65_536);
    let frames = fragments(0x01, payload(&message).chunks(1300));
    vec![Case::new("10.1.1").sends(Cut::Nowhere, frames, [message])]
}
