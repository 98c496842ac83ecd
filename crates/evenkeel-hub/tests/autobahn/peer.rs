//! The client: it runs one case over one connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tungstenite::{Error, Message, WebSocket};

use crate::case::{Case, Cut, End, Stage, frame};
use crate::servers::Server;

/// How long is waited for an answer. It is waited out in a failure only.
const PATIENCE: Duration = Duration::from_secs(20);

/// What tungstenite reads from. It writes the handshake; its own answers, such as that to a close, go nowhere: all else that
/// is sent is the case's.
struct Wire {
    stream: TcpStream,
    muted: bool,
    /// The end of the stream was read. A reset is none, which tungstenite does not tell.
    ended: bool,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.ended |= read == 0;
        Ok(read)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.muted { Ok(bytes.len()) } else { self.stream.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Runs a case on a connection of its own.
pub(crate) fn run(case: &Case, server: &Server) {
    let mut peer = connect(server);
    let id = &case.id;
    for stage in &case.stages {
        let sent = send(&mut peer.get_mut().stream, stage);
        // A server that has failed the connection may be gone before the rest is sent.
        assert!(sent.is_ok() || case.end != End::ByClient, "{id}: {sent:?}");
        let mut expected = stage.answers.clone();
        while !expected.is_empty() {
            let answer = peer.read().unwrap_or_else(|error| panic!("{id}: no answer but {error}"));
            let at = server.answers(&expected, &answer);
            let at = at.unwrap_or_else(|| panic!("{id}: {}, not {}", brief(&answer), brief(&expected[0])));
            expected.remove(at);
        }
    }
    let code = match case.end {
        End::ByClient => {
            peer.get_mut().stream.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
            Some(1000)
        }
        End::ByServer(code) => code,
    };
    match peer.read() {
        Ok(Message::Close(answer)) => assert_eq!(answer.map(|close| u16::from(close.code)), code, "{id}"),
        other => {
            panic!("{id}: closed with {code:?} expected, not {:?}", other.map(|message| brief(&message)))
        }
    }
    match peer.read() {
        Err(Error::ConnectionClosed) => assert!(peer.get_ref().ended, "{id}: the end is not orderly"),
        other => panic!("{id}: the end expected, not {:?}", other.map(|message| brief(&message))),
    }
}

fn connect(server: &Server) -> WebSocket<Wire> {
    let stream = TcpStream::connect_timeout(&server.addr, PATIENCE).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let url = format!("ws://{}{}", server.addr, server.path());
    let wire = Wire { stream, muted: false, ended: false };
    let (mut peer, _) = tungstenite::client::client(url, wire).unwrap();
    peer.get_mut().muted = true;
    if server.greets() {
        let greeting = peer.read().unwrap();
        assert!(greeting.to_text().unwrap().contains("connection_established"), "{greeting}");
    }
    peer
}

fn send(wire: &mut TcpStream, stage: &Stage) -> io::Result<()> {
    match stage.cut {
        Cut::Nowhere => wire.write_all(&stage.frames.concat()),
        Cut::BetweenFrames => stage.frames.iter().try_for_each(|frame| wire.write_all(frame)),
        Cut::Every(size) => stage.frames.concat().chunks(size).try_for_each(|piece| wire.write_all(piece)),
    }
}

/// A message for a failure's text.
fn brief(message: &Message) -> String {
    format!("{message:?}").chars().take(120).collect()
}
