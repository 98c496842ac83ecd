//! What predecessor and successor say to each other, over a real socket: whatever comes is a frame or an error, and no
//! descriptor stays open.

use evenkeel::fuzzing::{Received, receive, send};

use crate::pieces::cuts;

/// Frames as the other side sends them. They come whole, in pieces, and with as many descriptors as the first one says.
pub fn run(bytes: &[u8]) {
    // More than the socket holds would have to be read meanwhile.
    let bytes = &bytes[..bytes.len().min(4_000)];
    let before = open_descriptors();
    let (expected, ends_well) = frames(bytes);
    let [_, uneven] = cuts(bytes);
    let pieces: Vec<(&[u8], usize)> = uneven.into_iter().map(|piece| (piece, 0)).collect();
    for pieces in [&[(bytes, 0)][..], &pieces] {
        let (received, error) = receive(pieces);
        assert_eq!((&received, error.is_none()), (&expected, ends_well), "{error:?}");
    }
    with_descriptors(bytes);
    for frame in &expected {
        let back = send(frame).expect("what was received can be sent");
        assert_eq!(back.as_ref(), Some(frame));
    }
    assert_eq!(open_descriptors(), before, "descriptors stay open");
}

/// The frames without descriptors, and whether they are followed by the end and nothing else.
fn frames(mut bytes: &[u8]) -> (Vec<Received>, bool) {
    let mut frames = Vec::new();
    while let [kind, length, count, _, rest @ ..] = bytes {
        let Some((text, rest)) = rest.split_at_checked(usize::from(*length)) else { return (frames, false) };
        if !b"HSER".contains(kind) || *count != 0 {
            return (frames, false);
        }
        frames.push(Received { kind: *kind, text: text.to_vec(), descriptors: 0 });
        bytes = rest;
    }
    (frames, bytes.is_empty())
}

/// As many descriptors as the first frame says come with it, or one more.
fn with_descriptors(bytes: &[u8]) {
    let [_, _, count, ..] = bytes else { return };
    let count = usize::from(*count % 100);
    for sent in [count, count + 1] {
        let (received, _) = receive(&[(bytes, sent)]);
        let total: usize = received.iter().map(|frame| frame.descriptors).sum();
        assert!(total == 0 || total == sent, "{total} of {sent} descriptors came");
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
