//! One connection of the hub, whatever it is at the moment.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use evenkeel::{CloseReason, Conn, ConnId, Handler};

use super::Server;
use super::front::Front;
use super::opening::Opening;
use super::parting::Parting;
use super::seats::Seat;
use super::stream::EventStream;
use super::websocket::WebSocket;
use crate::log::{Level, Value};
use crate::metrics::Slow;
use crate::proto::addr::AddrKey;
use crate::proto::reply;

/// The handler of every connection: small, since there are very many and most are idle.
pub(super) struct HubConn {
    server: Option<Rc<Server>>,
    role: Role,
    seat: Seat,
    /// It is among the server's connections. One that could not even be opened never was.
    counted: bool,
}

const _: () = assert!(size_of::<HubConn>() <= 56, "an idle subscriber pays for every byte");

/// What the connection is.
pub(super) enum Role {
    /// Its request is not complete yet.
    Front(Box<Front>),
    /// Its loop waits for the state.
    Opening(Box<Opening>),
    WebSocket(WebSocket),
    Stream(EventStream),
    /// A subscriber that has left, and is to hear so.
    Parting(Box<Parting>),
    /// It has heard; only what is queued is still being sent.
    Parted,
    /// Turned away, and waited for: it has one of the places for that.
    TurnedAway,
    /// Answered or refused; only what is queued is still being sent.
    Over,
}

/// What a part of a connection's life leads to.
pub(super) enum Next {
    /// Goes on as it is.
    Stay,
    Become(Role),
    /// Everything so far was the first request, of the HTTP server: it goes there with these bytes.
    Http(Vec<u8>),
}

impl HubConn {
    /// A connection that has just been accepted from `peer`.
    pub(super) fn new(server: Option<Rc<Server>>, peer: Option<SocketAddr>) -> Self {
        let ip = peer.map_or(IpAddr::from([127, 0, 0, 1]), |peer| peer.ip().to_canonical());
        HubConn { server, role: Role::Front(Box::new(Front::new(ip))), seat: Seat::FREE, counted: false }
    }

    /// A connection that comes back from the HTTP server, counted and with a seat already.
    pub(super) fn returned(server: Rc<Server>, client: IpAddr, seat: Seat) -> Self {
        HubConn {
            server: Some(server),
            role: Role::Front(Box::new(Front::returned(client))),
            seat,
            counted: true,
        }
    }

    /// A connection that comes back from the HTTP server, counted and with a seat already, to be closed.
    pub(super) fn last(server: Rc<Server>, seat: Seat) -> Self {
        HubConn { server: Some(server), role: Role::Over, seat, counted: true }
    }

    fn admit(&mut self, server: &Server, conn: &mut Conn<'_>) {
        let Role::Front(front) = &self.role else { return };
        if front.is_returned() {
            return;
        }
        self.counted = true;
        let common = server.common();
        common.came(server.index());
        let peer = front.client();
        let refused = if common.starting.load(Ordering::Relaxed) {
            Some((503, "starting"))
        } else if common.connections() > common.max_connections {
            Some((503, "too_many_connections"))
        } else if !common.seats().admit(server.now()) {
            Some((503, "accept_rate"))
        } else {
            let seat = server.seat_for(peer);
            self.seat = seat.unwrap_or(Seat::FREE);
            seat.is_none().then_some((429, "connections_per_address"))
        };
        let Some((status, reason)) = refused else { return };
        server.refuse(reason, &[("client", Value::Display(&peer))]);
        conn.write(&reply::refusal(status, &[("Retry-After", "1")], &"too many connections"));
        self.role = if common.turn_away() {
            // It has a place of another kind now, and does not keep others out.
            self.counted = false;
            server.leave(self.seat);
            conn.close_lingering();
            Role::TurnedAway
        } else {
            conn.close();
            Role::Over
        };
    }

    /// The state's answer has come.
    fn answered(&mut self, server: &Rc<Server>, conn: &mut Conn<'_>) {
        let Some(answer) = server.answered(conn.id()) else { return };
        let Role::Opening(opening) = std::mem::replace(&mut self.role, Role::Over) else { return };
        let (role, rest) = opening.finish(server, conn, answer);
        self.role = role;
        if !rest.is_empty() {
            self.on_data(conn, &rest);
        }
    }

    fn go_on(&mut self, server: &Rc<Server>, conn: &mut Conn<'_>, next: Next, input: &[u8]) {
        match next {
            Next::Stay => {}
            Next::Become(role) => {
                self.role = role;
                if !input.is_empty() {
                    self.on_data(conn, input);
                }
            }
            Next::Http(first) => {
                let Role::Front(front) = &self.role else { return };
                let client = front.client();
                self.role = Role::Over;
                // One that is over already hears so itself, and leaves then.
                if let Some(stream) = conn.detach(&first) {
                    super::http::serve(server.clone(), stream, client, self.seat);
                }
            }
        }
    }
}

impl Server {
    /// A seat for a client, none if its address has as many as it may.
    pub(super) fn seat_for(&self, client: IpAddr) -> Option<Seat> {
        if client.is_loopback() || self.config().trusts_proxy(client) {
            return Some(Seat::FREE);
        }
        self.common().seats().take(AddrKey::from(client))
    }

    /// A connection is over, as far as admission is concerned.
    pub(super) fn leave(&self, seat: Seat) {
        self.common().left(self.index());
        if seat != Seat::FREE {
            self.common().seats().leave(seat);
        }
    }
}

impl Handler for HubConn {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        let Some(server) = self.server.clone() else { return conn.abort() };
        // The first bytes alone do not make a request: the deadline counts until it is complete.
        conn.message_started();
        self.admit(&server, conn);
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        let Some(server) = self.server.clone() else { return };
        match &mut self.role {
            Role::WebSocket(socket) => {
                if let Some(farewell) = socket.receive(&server, conn, bytes) {
                    self.role = server.part(conn, socket.session(), farewell);
                }
            }
            Role::Front(front) => {
                let mut input = bytes;
                let next = front.receive(&server, conn, &mut input, &mut self.seat);
                self.go_on(&server, conn, next, input);
            }
            Role::Opening(opening) => opening.keep(bytes),
            // A client of an event stream has nothing to say after its request.
            Role::Stream(_) => conn.close(),
            Role::Parting(_) | Role::Parted | Role::TurnedAway | Role::Over => {}
        }
    }

    fn on_notify(&mut self, conn: &mut Conn<'_>) {
        let Some(server) = self.server.clone() else { return };
        match &mut self.role {
            Role::WebSocket(socket) => socket.heartbeat(&server, conn),
            Role::Stream(stream) => stream.heartbeat(&server, conn),
            Role::Opening(_) => self.answered(&server, conn),
            Role::Parting(parting) => {
                if let Some(role) = parting.look(&server, conn) {
                    self.role = role;
                }
            }
            Role::Front(_) | Role::Parted | Role::TurnedAway | Role::Over => {}
        }
    }

    fn on_close(&mut self, id: ConnId, reason: &CloseReason) {
        let Some(server) = self.server.take() else { return };
        let session = match &self.role {
            Role::WebSocket(socket) => Some(socket.session()),
            Role::Stream(stream) => Some(stream.session()),
            Role::Front(front) => {
                front.closed(&server, reason);
                None
            }
            Role::Opening(opening) => {
                opening.closed(&server, id);
                None
            }
            Role::Parting(_) | Role::Parted => {
                server.count_close(reason);
                None
            }
            Role::TurnedAway => {
                server.common().turned_away_is_gone();
                None
            }
            Role::Over => None,
        };
        if let Some(session) = session {
            server.leave_session(session);
            server.count_close(reason);
        }
        if self.counted {
            server.leave(self.seat);
        }
    }
}

impl Server {
    /// Counts why a subscriber's connection ended, if it was for a limit.
    fn count_close(&self, reason: &CloseReason) {
        let slow = match reason {
            CloseReason::QueueFull => Some(Slow::Bytes),
            CloseReason::TooManyQueued => Some(Slow::Messages),
            CloseReason::QueueStalled => Some(Slow::Age),
            _ => None,
        };
        if let Some(slow) = slow {
            self.metrics.slow_consumers[slow].inc();
            self.refuse("slow_consumer", &[("why", Value::Text(reason.name()))]);
        } else if matches!(reason, CloseReason::MessageTimeout) {
            self.refuse("message_timeout", &[]);
        } else if self.log.enabled(Level::Debug) {
            self.note(Level::Debug, "closed", &[("why", Value::Display(reason))]);
        }
    }
}
