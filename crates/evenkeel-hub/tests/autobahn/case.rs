//! What a case is, and how it changes for a server that does not echo.

use tungstenite::Message;

/// One connection. By default the client closes it when all stages are over.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// As the suite numbers it.
    pub(crate) id: String,
    pub(crate) stages: Vec<Stage>,
    pub(crate) end: End,
}

/// What is sent at once. The next stage begins when all answers are there.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) cut: Cut,
    pub(crate) answers: Vec<Message>,
}

/// How the bytes of a stage are cut into writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Nowhere,
    BetweenFrames,
    /// Into pieces of so many bytes.
    Every(usize),
}

/// How the connection ends, always with an orderly end of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client closes with 1000 and is answered with the same.
    ByClient,
    /// The server sends this close frame next, be it an answer to a client's in the last stage or because the client broke
    /// the protocol.
    ByServer(Option<u16>),
}

impl Case {
    pub(crate) fn new(id: impl Into<String>) -> Case {
        Case { id: id.into(), stages: Vec::new(), end: End::ByClient }
    }

    pub(crate) fn sends(
        mut self,
        cut: Cut,
        frames: impl Into<Vec<Vec<u8>>>,
        answers: impl Into<Vec<Message>>,
    ) -> Case {
        self.stages.push(Stage { frames: frames.into(), cut, answers: answers.into() });
        self
    }

    /// The server closes with this code.
    pub(crate) fn closed(mut self, code: u16) -> Case {
        self.end = End::ByServer(Some(code));
        self
    }

    pub(crate) fn closed_without_code(mut self) -> Case {
        self.end = End::ByServer(None);
        self
    }
}

/// A frame as a client sends it: masked, of the shortest length. `first` has the final bit, the reserved bits and the opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0xa5, 0x00, 0x5a, 0xff];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// A message in fragments. `opcode` is that of the first.
pub(crate) fn fragments<'p>(opcode: u8, parts: impl IntoIterator<Item = &'p [u8]>) -> Vec<Vec<u8>> {
    let parts: Vec<&[u8]> = parts.into_iter().collect();
    let last = parts.len() - 1;
    let first_byte = |n| if n == 0 { opcode } else { 0 } | if n == last { 0x80 } else { 0 };
    parts.iter().enumerate().map(|(n, part)| frame(first_byte(n), part)).collect()
}

/// The hub's limits, which its tests of frames prove one by one.
const LONGEST: usize = 64 << 10;
const MOST_FRAGMENTS: usize = 16;

/// The case as it goes with the hub, if it says something there. The hub speaks a protocol of texts, which the suite's
/// texts are not: it answers each with an error and goes on. It refuses binary messages, and such as are larger than
/// its limit.
pub(crate) fn as_the_hub_sees_it(case: &Case) -> Option<Case> {
    let mut case = case.clone();
    let round_trips = case.stages.len() > 2;
    let fragments = case.stages.iter().any(|stage| stage.frames.len() > MOST_FRAGMENTS);
    // Of many pings in one piece only the last is answered.
    let pings = |stage: &Stage| stage.answers.iter().filter(|answer| answer.is_pong()).count();
    if round_trips || fragments || case.stages.iter().any(|stage| pings(stage) > 1) {
        return None;
    }
    let data: Vec<&Message> = case.stages.iter().flat_map(|stage| &stage.answers).collect();
    let offence = data.iter().find_map(|answer| match answer {
        answer if answer.len() > LONGEST => Some(1009),
        Message::Binary(_) => Some(1003),
        _ => None,
    });
    if let Some(code) = offence {
        if data.len() > 1 {
            return None;
        }
        case.stages[0].answers.clear();
        case = case.closed(code);
    }
    Some(case)
}
