//! The loop that has the state. It performs what connections ask, its own at once and those of other loops as their
//! commands come, so that there is one order of all that happens.
//!
//! The state is not spread over the loops: what takes time is to receive and to send, which every loop does for its own
//! connections, while the state spends about a microsecond on a message however many receive it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel::signal::{Signal, Signals};
use evenkeel::{Handle, RemoteError};

use super::Server;
use super::common::Common;
use super::crossing::{Batch, Command, StreamAsked};
use super::outbox::{Codec, Effects, Keys, Peer};
use super::succession::{Channel, Elsewhere};
use crate::api::Api;
use crate::state::{Connect, Hub, Refusal, SessionId, StreamChannel, StreamConnect};

/// Which loop has the state.
pub(super) const HOME: usize = 0;
/// How long until a loop whose mailbox is full is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(10);
/// What may be on its way to a loop before publishing is refused, in bytes: a million messages, or fewer that are large.
const MAX_UNDELIVERED: usize = 64 << 20;

/// The state and what goes out from it.
pub(super) struct Home {
    pub(super) state: RefCell<Hub<Peer, Codec>>,
    pub(super) api: RefCell<Api>,
    /// For each loop, what has not been sent to it.
    outgoing: RefCell<Vec<Batch>>,
    common: Arc<Common>,
    /// Something is in `outgoing`.
    dirty: Cell<bool>,
    /// A flush is to come at the end of the turn.
    scheduled: Cell<bool>,
    /// Listened for since before anybody was told that the hub serves.
    signals: Cell<Option<Signals>>,
    /// A flush is to come for a loop that had no room.
    retrying: Cell<bool>,
    /// Set while the state is in another process, or on its way there.
    elsewhere: RefCell<Option<Rc<Elsewhere>>>,
    /// The process whose state this was, while it has connections. For the state its loops come after this one's.
    predecessor: RefCell<Option<Rc<Channel>>>,
    /// There is such a process, and it cannot be told anything yet: what it is to be told is kept.
    expecting: Cell<bool>,
}

impl Home {
    /// The loops are those of `common`, and after them `others` of a process before this one.
    pub(super) fn new(state: Hub<Peer, Codec>, api: Api, others: usize, common: Arc<Common>) -> Home {
        Home {
            state: RefCell::new(state),
            api: RefCell::new(api),
            outgoing: RefCell::new((0..common.loops() + others).map(|_| Batch::default()).collect()),
            common,
            dirty: Cell::new(false),
            scheduled: Cell::new(false),
            retrying: Cell::new(false),
            signals: Cell::default(),
            elsewhere: RefCell::default(),
            predecessor: RefCell::default(),
            expecting: Cell::new(others > 0),
        }
    }

    /// The signals that end or replace the hub, listened for from the first call on.
    pub(super) fn signals(&self) -> io::Result<Signals> {
        match self.signals.take() {
            Some(signals) => Ok(signals),
            None => Signals::new(&[Signal::Terminate, Signal::Interrupt, Signal::User2]),
        }
    }

    pub(super) fn keep_signals(&self, signals: Signals) {
        self.signals.set(Some(signals));
    }

    /// Whether nothing is to be done here any more.
    pub(super) fn has_moved(&self) -> bool {
        self.elsewhere.borrow().is_some()
    }

    pub(super) fn elsewhere(&self) -> Option<Rc<Elsewhere>> {
        self.elsewhere.borrow().clone()
    }

    pub(super) fn move_to(&self, elsewhere: Rc<Elsewhere>) {
        *self.elsewhere.borrow_mut() = Some(elsewhere);
    }

    pub(super) fn come_back(&self) {
        self.elsewhere.borrow_mut().take();
    }

    pub(super) fn has_predecessor(&self) -> bool {
        self.predecessor.borrow().is_some()
    }

    pub(super) fn set_predecessor(&self, channel: Option<Rc<Channel>>) {
        *self.predecessor.borrow_mut() = channel;
        self.expecting.set(false);
        // What was kept.
        self.dirty.set(true);
    }

    /// Every subscriber that the state here knows.
    pub(super) fn peers(&self) -> Vec<Peer> {
        self.state.borrow().sessions().map(|(_, peer, _)| peer).collect()
    }

    /// Adds effects that come from another process.
    pub(super) fn append(&self, front: u16, batch: Batch) {
        self.outgoing(front, |out| out.append(batch));
    }

    /// Adds to what goes out to a loop.
    pub(super) fn outgoing(&self, front: u16, add: impl FnOnce(&mut Batch)) {
        if let Some(batch) = self.outgoing.borrow_mut().get_mut(usize::from(front)) {
            let before = batch.weight;
            add(batch);
            // From here on, and not from when it is sent: what a full mailbox has no room for waits here.
            self.common.to_deliver(front, batch.weight - before);
            self.dirty.set(true);
        }
    }

    /// Sees to it that what went out is sent, once for all of a turn.
    pub(super) fn schedule(&self, server: &Server) {
        if !self.dirty.get() || self.scheduled.replace(true) {
            return;
        }
        let this = server.weak();
        server.handle().defer(move || {
            let Some(server) = this.upgrade() else { return };
            if let Some(home) = server.home() {
                home.flush(&server);
            }
        });
    }

    /// Sends each loop what it is to do, in one message.
    pub(super) fn flush(&self, server: &Rc<Server>) {
        self.scheduled.set(false);
        self.dirty.set(false);
        let mut full = false;
        let fronts = self.outgoing.borrow().len();
        for front in 0..fronts {
            let batch = std::mem::take(&mut self.outgoing.borrow_mut()[front]);
            if batch.is_empty() {
                continue;
            }
            let own = server.common().loops();
            if front >= own {
                match &*self.predecessor.borrow() {
                    Some(channel) => channel.send_effects((front - own) as u16, batch),
                    None if self.expecting.get() => self.outgoing.borrow_mut()[front] = batch,
                    // With it all of its connections are gone.
                    None => {}
                }
                continue;
            }
            if front == usize::from(server.index()) {
                server.perform(batch);
                continue;
            }
            if let Err(batch) = cross(server, front, batch, |server, batch| server.perform(batch)) {
                // Nothing has been added meanwhile.
                self.outgoing.borrow_mut()[front] = batch;
                full = true;
            }
        }
        // One timer, however often others are served meanwhile.
        if full && !self.retrying.replace(true) {
            let this = server.weak();
            server.handle().after(RETRY, move || {
                let Some(server) = this.upgrade() else { return };
                if let Some(home) = server.home() {
                    home.retrying.set(false);
                    home.flush(&server);
                }
            });
        }
    }
}

/// Hands a value to another loop; gives it back if that has no room for it now. With a loop that has ended it is lost, as
/// all of its connections are.
pub(super) fn cross<T: Send + 'static>(
    server: &Server,
    to: usize,
    value: T,
    arrive: fn(&Rc<Server>, T),
) -> Result<(), T> {
    let Some(remote) = server.common().remotes().get(to) else { return Ok(()) };
    let parcel = Arc::new(Mutex::new(Some(value)));
    let sent = parcel.clone();
    let take = |parcel: &Mutex<Option<T>>| parcel.lock().unwrap_or_else(PoisonError::into_inner).take();
    let call = move |handle: &Handle| {
        if let (Some(server), Some(value)) = (handle.local::<Server>(), take(&sent)) {
            arrive(&server, value);
        }
    };
    match remote.run(call) {
        Err(RemoteError::Full) => take(&parcel).map_or(Ok(()), Err),
        _ => Ok(()),
    }
}

impl Server {
    /// Calls the state with somewhere to put its effects. Only on the loop that has it.
    pub(super) fn with_state<R>(
        &self,
        home: &Home,
        call: impl FnOnce(&mut Hub<Peer, Codec>, &mut Effects<'_>) -> R,
    ) -> R {
        let mut effects = Effects::new(self, home);
        let mut hub = home.state.borrow_mut();
        hub.set_overloaded(self.is_overloaded());
        call(&mut hub, &mut effects)
    }

    /// Performs what another loop's connections ask.
    pub(super) fn execute(self: &Rc<Self>, (front, commands): (u16, Vec<Command>)) {
        let Some(home) = self.home() else { return };
        if let Some(elsewhere) = home.elsewhere() {
            return elsewhere.pass_on(front, commands);
        }
        let weight = commands.iter().map(Command::weight).sum::<usize>();
        for command in commands {
            match command {
                Command::Connect { peer, key, protocol } => {
                    let result = self.connect_here(home, peer, &key, protocol.as_deref());
                    home.outgoing(front, |out| out.opened(peer.id, result));
                }
                Command::Stream { peer, asked } => {
                    let result = self.connect_stream_here(home, peer, &asked, |frame| {
                        home.outgoing(front, |out| out.send(peer.id, &frame));
                    });
                    home.outgoing(front, |out| out.opened(peer.id, result));
                }
                Command::Message { session, text } => self.message_here(home, session, &text),
                Command::Leave { session } => self.leave_here(home, session),
            }
        }
        home.outgoing(front, |out| out.processed += weight);
        home.flush(self);
    }

    pub(super) fn connect_here(
        &self,
        home: &Home,
        peer: Peer,
        key: &str,
        protocol: Option<&str>,
    ) -> Result<SessionId, Refusal> {
        let (now, request) = (self.now(), Connect { key, protocol, conn: peer });
        self.with_state(home, |hub, out| hub.connect(now, &request, out))
    }

    /// Opens a stream. What it is sent first, beginning with the response's head, goes to `first`.
    pub(super) fn connect_stream_here(
        &self,
        home: &Home,
        peer: Peer,
        asked: &StreamAsked,
        mut first: impl FnMut(crate::state::Frame),
    ) -> Result<SessionId, Refusal> {
        let auth = asked.auth.as_deref();
        let channels: Vec<_> = asked.channels.iter().map(|name| StreamChannel { name, auth }).collect();
        let request = StreamConnect {
            key: &asked.key,
            channels: &channels,
            last_event_id: asked.last_event_id.as_deref(),
            conn: peer,
        };
        let keys = Keys { common: self.common(), stream_allowed: asked.allowed };
        let now = self.now();
        let (result, frames) = self.with_state(home, |hub, out| {
            out.hold(peer);
            let result = hub.connect_stream(now, &request, &keys, out);
            (result, out.release())
        });
        let connected = result?;
        first(asked.head.clone().into());
        frames.into_iter().for_each(first);
        Ok(connected.session)
    }

    pub(super) fn message_here(&self, home: &Home, session: SessionId, text: &str) {
        let keys = Keys { common: self.common(), stream_allowed: false };
        let now = self.now();
        self.with_state(home, |hub, out| hub.receive(now, session, text, &keys, out));
    }

    pub(super) fn leave_here(&self, home: &Home, session: SessionId) {
        let now = self.now();
        self.with_state(home, |hub, out| hub.disconnect(now, session, out));
    }

    /// Whether so much is on its way to some loop that no more is to be published.
    pub(super) fn is_overloaded(&self) -> bool {
        self.common().undelivered() > MAX_UNDELIVERED
    }
}
