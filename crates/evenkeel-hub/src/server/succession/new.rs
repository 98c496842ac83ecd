//! The new process: takes over sockets and state, serves, and brings the old process's clients over.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::inherit::{self, Predecessor, SuccessionError};

use super::channel::{Channel, Incoming};
use super::wire::{Frame, Reader, ToNew, ToOld, message};
use crate::log::{Level, Value};
use crate::server::Server;
use crate::server::crossing::Command;
use crate::server::drain::{COME_BACK, due, step};
use crate::server::home::Home;
use crate::server::outbox::{Codec, Peer};
use crate::server::seconds;
use crate::state::{Hub, Outbox, SessionId, TakenOver};

/// How long the old process may take to hand over its sockets, and each piece of its state.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long others go on seeing a user who is brought over, in milliseconds: clients come back after about a second.
const GRACE: u64 = 15_000;

/// What the process was started with: sockets of a service manager, or all that a running hub has.
#[derive(Debug, Default)]
pub struct Inheritance {
    predecessor: Option<Predecessor>,
    sockets: Vec<Handed>,
}

/// Listening sockets for one address.
#[derive(Debug)]
struct Handed {
    /// The address as the old process's configuration has it; none from a service manager.
    label: Option<String>,
    addr: Option<SocketAddr>,
    sockets: Vec<OwnedFd>,
}

impl Inheritance {
    /// Takes what this process has inherited. Blocks for a moment, before any loop runs.
    ///
    /// # Errors
    /// When it was to inherit something and that makes no sense; the message says what.
    pub fn take() -> io::Result<Inheritance> {
        let mut sockets: Vec<Handed> = Vec::new();
        for socket in inherit::listen_fds()? {
            let addr = socket.addr().socket_addr();
            sockets.push(Handed { label: None, addr, sockets: vec![socket.into()] });
        }
        let mut predecessor = inherit::predecessor()?;
        if let Some(old) = &mut predecessor {
            for handed in old.sockets(PATIENCE)? {
                let label = Some(String::from_utf8_lossy(&handed.label).into_owned());
                sockets.push(Handed { label, addr: None, sockets: handed.sockets });
            }
        }
        Ok(Inheritance { predecessor, sockets })
    }

    /// The sockets for an address of the configuration; none if it is to be bound.
    pub(in super::super) fn sockets(&mut self, configured: SocketAddr) -> Vec<OwnedFd> {
        let text = configured.to_string();
        let of = |handed: &Handed| match &handed.label {
            Some(label) => *label == text,
            None => handed.addr == Some(configured),
        };
        let Some(at) = self.sockets.iter().position(of) else { return Vec::new() };
        self.sockets.swap_remove(at).sockets
    }

    /// Those that a service manager has passed for addresses that the configuration does not name. What an old process has
    /// listened to and this one does not is closed.
    pub(in super::super) fn rest(&mut self) -> Vec<Vec<OwnedFd>> {
        let rest = std::mem::take(&mut self.sockets).into_iter();
        rest.filter(|handed| handed.label.is_none()).map(|handed| handed.sockets).collect()
    }

    pub(in super::super) fn predecessor(&mut self) -> Option<Predecessor> {
        self.predecessor.take()
    }
}

/// The state has arrived.
pub(in super::super) struct Arrived {
    socket: UnixStream,
    reader: Reader,
    /// How many loops the old process has. For the state they come after this one's.
    pub(in super::super) fronts: u16,
    taken: TakenOver<Peer>,
    predecessor: Option<Predecessor>,
}

/// Gets the state from the old process, for a server with so many loops. Blocks.
pub(in super::super) fn take_over(
    mut predecessor: Predecessor,
    state: &mut Hub<Peer, Codec>,
    loops: u16,
) -> io::Result<Arrived> {
    let mut socket = predecessor.channel().ok_or_else(|| io::Error::other("the channel is in use"))?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(&message(&ToOld::Give))?;
    let mut reader = Reader::default();
    let fronts = match read(&mut socket, &mut reader)? {
        Frame::Message(ToNew::Fronts(fronts)) => fronts,
        _ => return Err(io::Error::other("the old process does not say how many loops it has")),
    };
    let Frame::State(bytes) = read(&mut socket, &mut reader)? else {
        return Err(io::Error::other("the old process does not give its state"));
    };
    let mut taken = state.take_over(0, &bytes).map_err(io::Error::other)?;
    let renamed = |peer: Peer| Peer { front: peer.front.saturating_add(loops), ..peer };
    state.rename_connections(renamed);
    for refused in &mut taken.refused {
        refused.conn = renamed(refused.conn);
    }
    Ok(Arrived { socket, reader, fronts, taken, predecessor: Some(predecessor) })
}

fn read(socket: &mut UnixStream, reader: &mut Reader) -> io::Result<Frame<ToNew>> {
    let mut piece = vec![0; 64 << 10];
    loop {
        if let Some(frame) = reader.next()? {
            return Ok(frame);
        }
        match socket.read(&mut piece)? {
            0 => return Err(io::Error::other("the old process ended before it had given its state")),
            n => reader.push(&piece[..n]),
        }
    }
}

impl Arrived {
    /// The channel to the old process.
    pub(in super::super) fn channel(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// This process listens: says so to the old one, for which there is no way back then.
    pub(in super::super) fn ready(&mut self) -> io::Result<()> {
        match self.predecessor.take().map_or(Ok(()), Predecessor::ready) {
            // It has ended in the last moment, and this process serves.
            Ok(()) | Err(SuccessionError::Orphaned) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Goes on with what the old process passes on, and brings its clients over.
    pub(in super::super) fn serve(self, server: &Rc<Server>, home: &Home) -> io::Result<()> {
        let Arrived { socket, reader, taken, .. } = self;
        let (channel, incoming) = Channel::open(socket, reader)?;
        home.set_predecessor(Some(channel.clone()));
        let fields = [
            ("sessions", Value::Number(taken.sessions as u64)),
            ("channels", Value::Number(taken.channels as u64)),
        ];
        server.note(Level::Info, "took over from the process before", &fields);
        server.with_state(home, |_, out| {
            for refused in &taken.refused {
                out.close(refused.conn, refused.refusal.code(), refused.refusal.message());
            }
        });
        let hurry = Rc::new(Cell::new(false));
        evenkeel::spawn(hear(server.clone(), incoming, channel.clone(), hurry.clone())).detach();
        evenkeel::spawn(bring_over(server.clone(), channel, hurry)).detach();
        Ok(())
    }
}

/// Does what the old process's connections ask, until it ends.
async fn hear(server: Rc<Server>, mut incoming: Incoming, channel: Rc<Channel>, hurry: Rc<Cell<bool>>) {
    let Some(home) = server.home() else { return };
    let own = server.common().loops() as u16;
    let reason = loop {
        match incoming.next::<ToNew>().await {
            Ok(Some(Frame::Message(ToNew::Commands { front, commands }))) => {
                let front = front.saturating_add(own);
                let commands = commands.into_iter().map(|command| of_front(command, front)).collect();
                server.execute((front, commands));
            }
            Ok(Some(Frame::Message(ToNew::Ask { id, request }))) => {
                let reply = server.answer_api_here(home, &request);
                channel.send(message(&ToOld::Answer { id, reply }));
            }
            Ok(Some(Frame::Message(ToNew::Hurry))) => hurry.set(true),
            Ok(Some(_)) => break "it says what it has said already".to_owned(),
            Ok(None) => break "its last connection has ended".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    channel.end();
    home.set_predecessor(None);
    let now = server.now();
    server.with_state(home, |hub, out| {
        for (session, _) in moved(hub, own) {
            hub.disconnect_moving(now, session, GRACE, out);
        }
    });
    server.note(Level::Info, "the process before is gone", &[("why", Value::Text(&reason))]);
}

fn of_front(mut command: Command, of: u16) -> Command {
    match &mut command {
        Command::Connect { peer, .. } | Command::Stream { peer, .. } => peer.front = of,
        Command::Message { .. } | Command::Leave { .. } => {}
    }
    command
}

/// The sessions whose connections are in the old process.
fn moved(hub: &Hub<Peer, Codec>, own: u16) -> VecDeque<(SessionId, Peer)> {
    hub.sessions().filter(|(_, peer, _)| peer.front >= own).map(|(id, peer, _)| (id, peer)).collect()
}

/// Closes the old process's clients one after another, so that they come back to this one; all at once when the old one is
/// in a hurry.
async fn bring_over(server: Rc<Server>, channel: Rc<Channel>, hurry: Rc<Cell<bool>>) {
    let Some(home) = server.home() else { return };
    let own = server.common().loops() as u16;
    let spread = seconds(server.config().server.drain_deadline_seconds) * 9 / 10;
    let started = evenkeel::time::now();
    let mut waiting = moved(&home.state.borrow(), own);
    let total = waiting.len();
    let mut told = false;
    while home.has_predecessor() {
        let elapsed = match hurry.get() {
            true => spread,
            false => evenkeel::time::now().saturating_duration_since(started),
        };
        if waiting.is_empty() && elapsed >= spread {
            // Those that connected there meanwhile.
            waiting = moved(&home.state.borrow(), own);
        }
        let left = total.saturating_sub(due(total, elapsed, spread));
        let now = server.now();
        server.with_state(home, |hub, out| {
            while waiting.len() > left
                && let Some((session, peer)) = waiting.pop_front()
            {
                if hub.socket_id(session).is_some() {
                    out.close(peer, COME_BACK, "the server was replaced: come back");
                    hub.disconnect_moving(now, session, GRACE, out);
                }
            }
        });
        if waiting.is_empty() && !std::mem::replace(&mut told, true) {
            channel.send(message(&ToOld::Last));
        }
        step().await;
    }
}
