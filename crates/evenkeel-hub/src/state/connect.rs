//! A connection from its first message to its last.

use super::Hub;
use super::app::{App, AppId};
use super::ids::SocketId;
use super::limits::Bucket;
use super::outbox::{Event, Outbox, Transport, Verifier, Wire};
use super::refusal::Refusal;
use super::session::{Session, SessionId, Subscriptions};
use super::slab::Key;
use crate::proto::message::{self, ClientMessage, MessageError};

/// The oldest and newest versions of the protocol whose clients this hub serves.
const PROTOCOLS: std::ops::RangeInclusive<u32> = 5..=7;

/// A WebSocket connection that asks to be served.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a, C> {
    /// The application's key, from the path.
    pub key: &'a str,
    /// The `protocol` of the query. Clients that leave it out are served.
    pub protocol: Option<&'a str>,
    /// The server's handle.
    pub conn: C,
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Refusal {
        match error {
            MessageError::Malformed => Refusal::Malformed,
            MessageError::TooDeep => Refusal::TooDeep,
            MessageError::TooManyNodes => Refusal::TooManyNodes,
            MessageError::UnknownEvent => Refusal::UnknownEvent,
        }
    }
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// Accepts a WebSocket connection and greets it.
    ///
    /// The server has checked the origin ([`crate::proto::origin`]) and done the handshake: clients learn why
    /// they are refused from a close code only.
    ///
    /// # Errors
    /// Refusals of connections; the connection has then been told and closed.
    pub fn connect<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        request: &Connect<'_, C>,
        out: &mut O,
    ) -> Result<SessionId, Refusal> {
        let admitted = self.admit(request.key).and_then(|app| match request.protocol {
            Some(text) if !text.parse().is_ok_and(|version| PROTOCOLS.contains(&version)) => {
                Err(self.count_refusal(Some(app), Refusal::UnsupportedProtocol))
            }
            _ => Ok(app),
        });
        match admitted {
            Ok(app) => {
                let key = self.open(now, app, request.conn, Transport::WebSocket);
                self.greet(key, out);
                Ok(SessionId(key))
            }
            Err(refusal) => {
                let event = Event::new(message::error(refusal.code(), refusal.message()), None);
                out.send(request.conn, event.frame::<W>(Transport::WebSocket));
                out.close(request.conn, refusal.code(), refusal.message());
                Err(refusal)
            }
        }
    }

    /// Takes one text message from a client and does what it asks.
    pub fn receive<V: Verifier, O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        id: SessionId,
        text: &str,
        verifier: &V,
        out: &mut O,
    ) {
        let index = id.0.index;
        if self.sessions.get(id.0).is_none() {
            return;
        }
        let session = &mut self.sessions[index];
        let app = &mut self.apps[session.app.0 as usize];
        app.counters.messages_in += 1;
        if !session.messages.take(now, app.config.limits.message_rate, 1) {
            self.close(now, index, Refusal::MessageRate, out);
            return;
        }
        let done = match message::parse(text) {
            Ok(ClientMessage::Ping) => {
                self.reply(index, message::pong(), out);
                Ok(())
            }
            Ok(ClientMessage::Pong) => Ok(()),
            Ok(ClientMessage::Subscribe(request)) => {
                self.subscribe(now, index, &request, verifier, out);
                Ok(())
            }
            Ok(ClientMessage::Unsubscribe(channel)) => {
                self.unsubscribe(now, index, &channel, out);
                Ok(())
            }
            Ok(ClientMessage::SignIn(request)) => self.sign_in(index, &request, verifier, out),
            Ok(ClientMessage::ClientEvent { event, channel, data }) => {
                self.client_event(now, index, &event, &channel, data, out)
            }
            Err(error) => Err(error.into()),
        };
        if let Err(refusal) = done {
            self.refuse(index, refusal, out);
        }
    }

    /// Ends a session whose connection is gone. Does nothing for one that has ended.
    pub fn disconnect<O: Outbox<Conn = C>>(&mut self, now: u64, id: SessionId, out: &mut O) {
        if self.sessions.get(id.0).is_some() {
            self.end(now, id.0.index, out);
        }
    }

    /// The application that `key` may connect to.
    pub(super) fn admit(&mut self, key: &str) -> Result<AppId, Refusal> {
        let app = self.app_by_key(key);
        let state: Option<&App> = app.map(|app| &self.apps[app.0 as usize]);
        let refusal = match state {
            None => Refusal::UnknownApp,
            Some(state) if !state.config.enabled => Refusal::AppDisabled,
            _ if self.draining => Refusal::Draining,
            Some(state) if is_full(state) => Refusal::OverCapacity,
            Some(_) => return app.ok_or(Refusal::UnknownApp),
        };
        Err(self.count_refusal(app, refusal))
    }

    /// Makes a session.
    pub(super) fn open(&mut self, now: u64, app: AppId, conn: C, transport: Transport) -> Key {
        // The upper half of the pseudo-random number.
        let tag = (self.keyed.number(self.socket_ids) >> 32) as u32;
        self.socket_ids += 1;
        let key = self.sessions.insert(Session {
            conn,
            subscriptions: Subscriptions::None,
            user: None,
            messages: Bucket::default(),
            client_events: Bucket::default(),
            tag,
            app,
            transport,
            authorized: false,
        });
        let state = &mut self.apps[app.0 as usize];
        state.connections += 1;
        state.streams += u32::from(transport == Transport::Sse);
        state.counters.connections += 1;
        if state.config.limits.authorization_deadline > 0 {
            let due = now.saturating_add(state.config.limits.authorization_deadline);
            state.deadlines.push_back((due, key));
        }
        key
    }

    /// Sends `pusher:connection_established`.
    pub(super) fn greet<O: Outbox<Conn = C>>(&mut self, key: Key, out: &mut O) {
        let session = &self.sessions[key.index];
        let socket_id = SocketId { tag: session.tag, index: key.index }.to_string();
        let timeout = self.apps[session.app.0 as usize].config.limits.activity_timeout_s;
        self.reply(key.index, message::connection_established(&socket_id, timeout), out);
    }

    /// Sends one message to one session.
    pub(super) fn reply<O: Outbox<Conn = C>>(&mut self, index: u32, json: String, out: &mut O) {
        let session = &self.sessions[index];
        out.send(session.conn, Event::new(json, None).frame::<W>(session.transport));
        self.apps[session.app.0 as usize].counters.messages_out += 1;
    }

    /// Counts a refusal and tells the session of it with `pusher:error`.
    pub(super) fn refuse<O: Outbox<Conn = C>>(&mut self, index: u32, refusal: Refusal, out: &mut O) {
        self.count_refusal(Some(self.sessions[index].app), refusal);
        self.reply(index, message::error(refusal.code(), refusal.message()), out);
    }

    /// Refuses the session itself: tells it, closes its connection and ends it.
    pub(super) fn close<O: Outbox<Conn = C>>(&mut self, now: u64, index: u32, refusal: Refusal, out: &mut O) {
        debug_assert!(refusal.closes(), "{refusal:?} does not close");
        self.refuse(index, refusal, out);
        out.close(self.sessions[index].conn, refusal.code(), refusal.message());
        self.end(now, index, out);
    }

    /// Counts a refusal and returns it. The hub counts its own; this is for what the layers above refuse (a signature of
    /// the HTTP API) and for those of queries, which change nothing.
    pub fn count_refusal(&mut self, app: Option<AppId>, refusal: Refusal) -> Refusal {
        match app {
            Some(app) => self.apps[app.0 as usize].refusals.add(refusal),
            None => self.refusals.add(refusal),
        }
        refusal
    }

    /// Closes connections that were not authorized in time.
    pub(super) fn enforce_deadlines<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        app: AppId,
        budget: usize,
        out: &mut O,
    ) {
        for _ in 0..budget {
            let deadlines = &mut self.apps[app.0 as usize].deadlines;
            let Some(&(due, key)) = deadlines.front() else { return };
            if due > now {
                return;
            }
            deadlines.pop_front();
            if deadlines.is_empty() {
                deadlines.shrink_to(64);
            }
            if self.sessions.get(key).is_some_and(|session| !session.authorized) {
                self.close(now, key.index, Refusal::AuthorizationTimeout, out);
            }
        }
    }

    /// Takes the session out of everything it is in. Costs in proportion to its own subscriptions and watched users.
    pub(super) fn end<O: Outbox<Conn = C>>(&mut self, now: u64, index: u32, out: &mut O) {
        loop {
            let count = self.sessions[index].subscriptions.as_slice().len() as u32;
            if count == 0 {
                break;
            }
            self.leave(now, index, count - 1, out);
        }
        self.sign_out(index, out);
        if let Some(Session { app, transport, .. }) = self.sessions.remove(index) {
            let state = &mut self.apps[app.0 as usize];
            state.connections -= 1;
            state.streams -= u32::from(transport == Transport::Sse);
        }
    }
}

fn is_full(app: &App) -> bool {
    let most = app.config.limits.max_connections;
    most > 0 && app.connections >= most
}
