//! How a connection reaches the state, wherever that is, and how the state's effects reach the connections of a loop.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use evenkeel::{Conn, ConnId, Message};

use super::Server;
use super::crossing::{Batch, Command, Effect, StreamAsked};
use super::home::{HOME, Home, cross};
use super::outbox::Peer;
use super::parting::Waiting;
use crate::state::{Refusal, SessionId};

/// What a loop may have sent to the state that the state has not done, in bytes: past it, its clients are not read from.
const MAX_AHEAD: usize = 1 << 20;

/// From where on newcomers are turned away, in bytes: those who are there are not read from by then.
const MAX_AHEAD_OF_NEWCOMERS: usize = 2 * MAX_AHEAD;

/// What is written to any one client before the kernel is asked to take it, in bytes: what one turn brings may be more than a
/// client's queue may hold.
const MAX_WRITTEN: usize = 64 << 10;

/// What the state answered to a connection.
pub(super) type Opened = Result<SessionId, Refusal>;

/// A loop's way to the state on another loop.
#[derive(Default)]
pub(super) struct Link {
    /// Commands that have not been sent; they are once a turn.
    commands: RefCell<Vec<Command>>,
    scheduled: Cell<bool>,
    /// What the state has not done, by weight.
    ahead: Cell<usize>,
    /// What it has done since the loop began, by weight.
    done: Cell<u64>,
    /// Connections that wait for what they said to be done.
    parting: RefCell<Waiting>,
    /// Connections that are not read from until the state catches up.
    paused: RefCell<Vec<ConnId>>,
    /// Answers that their connections have not seen.
    opened: RefCell<BTreeMap<(u64, u32), Opened>>,
    /// The most that any one client was sent since the kernel was asked to take it, in bytes and in messages.
    written: Cell<(usize, usize)>,
}

impl Link {
    /// How much the state has done.
    pub(super) fn done(&self) -> u64 {
        self.done.get()
    }

    /// How much that will be when everything said so far is done; `id` is notified then. None if it is.
    pub(super) fn wait_for_all(&self, id: ConnId) -> Option<u64> {
        let ahead = self.ahead.get();
        (ahead > 0).then(|| {
            let after = self.done.get() + ahead as u64;
            self.parting.borrow_mut().push_back((after, id));
            after
        })
    }

    /// The state has done so much more. Returns who waited for that.
    fn progressed(&self, processed: usize) -> Vec<ConnId> {
        let processed = processed.min(self.ahead.get());
        self.ahead.set(self.ahead.get() - processed);
        self.done.set(self.done.get() + processed as u64);
        let mut parting = self.parting.borrow_mut();
        let ready = parting.iter().take_while(|(after, _)| *after <= self.done.get()).count();
        parting.drain(..ready).map(|(_, id)| id).collect()
    }
}

impl Server {
    /// The state, if it is on this loop and in this process, and nothing that was said before is still on its way to it: a
    /// state that has come back, since its successor failed, hears that first.
    fn working_home(&self) -> Option<&Home> {
        self.home().filter(|home| !home.has_moved() && self.link().ahead.get() == 0)
    }

    /// Asks the state to serve a WebSocket. The answer, if it is here already; else it comes by `on_notify`, and then
    /// [`answered`](Self::answered) has it.
    pub(super) fn connect(&self, peer: Peer, key: &str, protocol: Option<&str>) -> Option<Opened> {
        if let Some(home) = self.working_home() {
            return Some(self.connect_here(home, peer, key, protocol));
        }
        self.command(Command::Connect { peer, key: key.to_owned(), protocol: protocol.map(str::to_owned) });
        None
    }

    /// As [`connect`](Self::connect), for a stream. It is sent what it gets first.
    pub(super) fn connect_stream(
        &self,
        conn: &mut Conn<'_>,
        peer: Peer,
        asked: Box<StreamAsked>,
    ) -> Option<Opened> {
        if let Some(home) = self.working_home() {
            return Some(self.connect_stream_here(home, peer, &asked, |frame| {
                conn.send(&Message::from(frame.into_shared()));
            }));
        }
        self.command(Command::Stream { peer, asked });
        None
    }

    /// Passes on a client's message.
    pub(super) fn message(&self, session: SessionId, text: &str) {
        match self.working_home() {
            Some(home) => self.message_here(home, session, text),
            None => self.command(Command::Message { session, text: text.to_owned() }),
        }
    }

    /// A subscriber is gone.
    pub(super) fn leave_session(&self, session: SessionId) {
        match self.working_home() {
            Some(home) => self.leave_here(home, session),
            None => self.command(Command::Leave { session }),
        }
    }

    /// Stops reading from a client if this loop is too far ahead of the state. Whether it did.
    pub(super) fn keep_pace(&self, conn: &mut Conn<'_>) -> bool {
        let ahead = self.link().ahead.get() > MAX_AHEAD;
        if ahead {
            conn.pause();
            self.link().paused.borrow_mut().push(conn.id());
        }
        ahead
    }

    /// Whether the state is so late that nobody more can be served: a newcomer costs memory until the state has heard of it,
    /// even if it has gone again.
    pub(super) fn is_state_late(&self) -> bool {
        self.link().ahead.get() > MAX_AHEAD_OF_NEWCOMERS
    }

    /// The state's answer to a connection, once.
    pub(super) fn answered(&self, id: ConnId) -> Option<Opened> {
        self.link().opened.borrow_mut().remove(&id.to_bits())
    }

    fn command(&self, command: Command) {
        let link = self.link();
        link.ahead.set(link.ahead.get() + command.weight());
        link.commands.borrow_mut().push(command);
        if !link.scheduled.replace(true) {
            let this = self.weak();
            self.handle().defer(move || {
                if let Some(server) = this.upgrade() {
                    server.send_commands();
                }
            });
        }
    }

    fn send_commands(self: &Rc<Self>) {
        let link = self.link();
        link.scheduled.set(false);
        let commands = std::mem::take(&mut *link.commands.borrow_mut());
        let refused = cross(self, HOME, (self.index(), commands), |server, sent| server.execute(sent));
        if let Err((_, commands)) = refused {
            // Nothing has been added meanwhile. They are tried again with whatever comes next, and in any case soon.
            *link.commands.borrow_mut() = commands;
            link.scheduled.set(true);
            let this = self.weak();
            self.handle().after(super::home::RETRY, move || {
                if let Some(server) = this.upgrade() {
                    server.send_commands();
                }
            });
        }
    }

    /// Performs what the state asks of this loop's connections.
    pub(super) fn perform(self: &Rc<Self>, batch: Batch) {
        for effect in batch.effects {
            match effect {
                Effect::Send { to, frame } => {
                    let message = Message::from(frame.into_shared());
                    self.make_room(message.len());
                    for id in to {
                        // A connection that is gone has said so.
                        let _ = self.handle().send(id, &message);
                    }
                }
                Effect::Close { to, stream, code, reason } => self.close_here(to, stream, code, &reason),
                Effect::Opened { to, result } => self.opened(to, result),
            }
        }
        self.common().delivered(self.index(), batch.weight);
        let link = self.link();
        for id in link.progressed(batch.processed) {
            // One that is gone waits for nothing.
            let _ = self.handle().notify(id);
        }
        if link.ahead.get() <= MAX_AHEAD / 2 {
            for id in std::mem::take(&mut *link.paused.borrow_mut()) {
                let _ = self.handle().resume(id);
            }
        }
    }

    /// Before a message of so many bytes is sent to any number of this loop's clients: the kernel is asked to take what they
    /// were sent before, when that and this may be too much for one's queue. So the limits of the queues count what a client
    /// does not read, and not what comes in one turn.
    pub(super) fn make_room(&self, len: usize) {
        let limits = &self.config().limits;
        let (most_bytes, most) = (limits.max_queue_bytes / 2, limits.max_queue_messages as usize / 2);
        let (bytes, messages) = self.link().written.get();
        let full = bytes + len > MAX_WRITTEN.min(most_bytes) || messages + 1 > most;
        if full && messages > 0 {
            self.handle().flush();
        }
        self.link().written.set(if full { (len, 1) } else { (bytes + len, messages + 1) });
    }

    fn opened(&self, to: ConnId, result: Opened) {
        self.link().opened.borrow_mut().insert(to.to_bits(), result);
        if self.handle().notify(to).is_err() {
            self.abandoned(to);
        }
    }

    /// A connection ended while it waited for the state's answer: if that is here, it is undone, else when it comes.
    pub(super) fn abandoned(&self, id: ConnId) {
        if let Some(Ok(session)) = self.answered(id) {
            self.leave_session(session);
        }
    }
}
