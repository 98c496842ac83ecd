//! Section 6: texts that are UTF-8 and texts that are not, however they are cut, and failing at the first wrong byte. The
//! sequences are those of Markus Kuhn's stress test for decoders.

use tungstenite::Message;

use crate::case::{Case, Cut, fragments, frame};

const VALID: &str = "Hello-µ@ßöäüàá-UTF-8!!";
/// "κόσμε" with an accent of the extended block, which takes three bytes.
const GREEK: &str = "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}";
/// Valid, then a surrogate, then valid.
const SURROGATE: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";

pub(crate) fn cases() -> Vec<Case> {
    [fragmented(), failing_fast(), sequences()].concat()
}

fn fragmented() -> Vec<Case> {
    let sends = |id: &str, parts: Vec<&[u8]>, text: &str| {
        Case::new(id).sends(Cut::Nowhere, fragments(0x01, parts), [Message::text(text)])
    };
    let (first, second) = VALID.as_bytes().split_at("Hello-µ@ßöä".len());
    vec![
        sends("6.1.1", vec![b""], ""),
        sends("6.1.2", vec![b"", b"", b""], ""),
        sends("6.1.3", vec![b"", b"in the middle", b""], "in the middle"),
        sends("6.2.1", vec![VALID.as_bytes()], VALID),
        sends("6.2.2", vec![first, second], VALID),
        sends("6.2.3", VALID.as_bytes().chunks(1).collect(), VALID),
        sends("6.2.4", GREEK.as_bytes().chunks(1).collect(), GREEK),
        Case::new("6.3.1").sends(Cut::Nowhere, [frame(0x81, SURROGATE)], []).closed(1007),
        Case::new("6.3.2").sends(Cut::Nowhere, fragments(0x01, SURROGATE.chunks(1)), []).closed(1007),
    ]
}

/// A text that is wrong before its end: the server says so although the rest is never sent. A ping shows that it has taken
/// the valid part. Inside a frame there is no place for one.
fn failing_fast() -> Vec<Case> {
    const WRONG: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited";
    let pong = || [Message::Pong(b"so far"[..].to_vec().into())];
    let frames = |id, valid: usize, wrong: usize| {
        Case::new(id)
            .sends(Cut::Nowhere, [frame(0x01, &WRONG[..valid]), frame(0x89, b"so far")], pong())
            .sends(Cut::Nowhere, [frame(0x00, &WRONG[valid..wrong])], [])
            .closed(1007)
    };
    let pieces = |id, valid: usize, wrong: usize| {
        let whole = frame(0x81, WRONG);
        let header = whole.len() - WRONG.len();
        let (first, second) = (&whole[..header + valid], &whole[header + valid..header + wrong]);
        Case::new(id).sends(Cut::BetweenFrames, [first.to_vec(), second.to_vec()], []).closed(1007)
    };
    // The whole of a wrong character, or up to the byte that makes it wrong.
    vec![frames("6.4.1", 11, 15), frames("6.4.2", 12, 13), pieces("6.4.3", 11, 15), pieces("6.4.4", 12, 13)]
}

/// Groups 6.5 to 6.23, each a list of texts.
fn sequences() -> Vec<Case> {
    let mut cases = Vec::new();
    for (group, sequences) in (5..).zip(groups()) {
        for (n, bytes) in (1..).zip(sequences) {
            let case = Case::new(format!("6.{group}.{n}"));
            let frames = [frame(0x81, &bytes)];
            cases.push(match String::from_utf8(bytes) {
                Ok(text) => case.sends(Cut::Nowhere, frames, [Message::text(text)]),
                Err(_) => case.sends(Cut::Nowhere, frames, []).closed(1007),
            });
        }
    }
    cases
}

fn groups() -> Vec<Vec<Vec<u8>>> {
    let owned = |group: &[&[u8]]| group.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>();
    let greek = GREEK.as_bytes();
    let mut groups = vec![
        ["hello$world", "hello¢world", "hello€world", "hello𤭢world", GREEK].map(|text| text.into()).to_vec(),
        (1..=greek.len()).map(|end| greek[..end].to_vec()).collect(),
        owned(&[b"\0", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
        owned(&[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
        owned(&[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
        owned(&[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
        owned(&[b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"]),
        stray_continuations(),
        [0xc0..=0xdf, 0xe0..=0xef, 0xf0..=0xf7, 0xf8..=0xfb, 0xfc..=0xfd]
            .map(|starts| starts.flat_map(|start| [start, b' ']).collect())
            .to_vec(),
    ];
    let cut_short = cut_short();
    let all_cut_short = cut_short.concat();
    groups.extend([cut_short, vec![all_cut_short], owned(&[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"])]);
    // A slash, the largest code of each length below, and zero, all longer than they need be.
    for (least, rest) in [(0xaf, 0x80), (0xbf, 0xbf), (0x80, 0x80)] {
        groups.push(overlong(least, rest));
    }
    groups.extend([surrogates(), pairs(), noncharacters()]);
    let specials =
        (0xfff9..=0xffff).filter_map(char::from_u32).map(|special| special.to_string().into_bytes());
    groups.push(specials.collect());
    groups
}

fn stray_continuations() -> Vec<Vec<u8>> {
    let alternating = |len| [0x80, 0xbf].into_iter().cycle().take(len).collect();
    let mut all = vec![vec![0x80], vec![0xbf]];
    all.extend((2..=6).map(alternating));
    all.push((0x80..=0xbf).collect());
    all
}

/// The smallest and the largest start of each length, with all continuations but the last.
fn cut_short() -> Vec<Vec<u8>> {
    let smallest = (0..5).zip([0xc0, 0xe0, 0xf0, 0xf8, 0xfc]).map(|(more, start)| (more, start, 0x80));
    let largest = (0..5).zip([0xdf, 0xef, 0xf7, 0xfb, 0xfd]).map(|(more, start)| (more, start, 0xbf));
    let bytes = |(more, start, rest)| std::iter::once(start).chain(std::iter::repeat_n(rest, more)).collect();
    smallest.chain(largest).map(bytes).collect()
}

/// One value in two to six bytes, `last` being the last: with continuations of zeros, or of the most that is overlong.
fn overlong(last: u8, rest: u8) -> Vec<Vec<u8>> {
    if rest == 0x80 {
        let zeros = |(more, start): (usize, u8)| [&[start][..], &vec![0x80; more], &[last]].concat();
        return (0..5).zip([0xc0, 0xe0, 0xf0, 0xf8, 0xfc]).map(zeros).collect();
    }
    let most = |(more, start): (usize, &[u8])| [start, &vec![rest; more], &[last]].concat();
    let starts: [&[u8]; 5] = [b"\xc1", b"\xe0\x9f", b"\xf0\x8f", b"\xf8\x87", b"\xfc\x83"];
    [0, 0, 1, 2, 3].into_iter().zip(starts).map(most).collect()
}

const HIGH: [[u8; 3]; 4] = [[0xed, 0xa0, 0x80], [0xed, 0xad, 0xbf], [0xed, 0xae, 0x80], [0xed, 0xaf, 0xbf]];

fn surrogates() -> Vec<Vec<u8>> {
    let low = [[0xed, 0xb0, 0x80], [0xed, 0xbe, 0x80], [0xed, 0xbf, 0xbf]];
    HIGH.iter().chain(&low).map(|surrogate| surrogate.to_vec()).collect()
}

fn pairs() -> Vec<Vec<u8>> {
    let low = [[0xed, 0xb0, 0x80], [0xed, 0xbf, 0xbf]];
    HIGH.iter().flat_map(|high| low.map(|low| [*high, low].concat())).collect()
}

/// The last two codes of each plane, which are valid although they are no characters.
fn noncharacters() -> Vec<Vec<u8>> {
    let codes = (0..=16).flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
    codes.filter_map(char::from_u32).map(|code| code.to_string().into_bytes()).collect()
}
