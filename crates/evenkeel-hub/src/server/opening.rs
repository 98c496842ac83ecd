//! A subscriber whose loop waits for the state's answer. It exists on loops that do not have the state themselves.

use std::net::IpAddr;
use std::rc::Rc;

use evenkeel::{Conn, ConnId};

use super::Server;
use super::conn::{Next, Role};
use super::link::Opened;
use super::stream::EventStream;
use super::websocket::WebSocket;
use crate::log::Value;

/// What is to become of the connection.
pub(super) enum Kind {
    WebSocket,
    /// With the field that lets a page read why it was refused.
    Stream {
        cors: Option<String>,
    },
}

/// Boxed, for it is soon over.
pub(super) struct Opening {
    kind: Kind,
    client: IpAddr,
    /// What the client has sent behind its request.
    rest: Vec<u8>,
}

impl Opening {
    /// Goes on with the answer, or waits for it without reading.
    pub(super) fn begin(
        server: &Rc<Server>,
        conn: &mut Conn<'_>,
        (kind, client): (Kind, IpAddr),
        answer: Option<Opened>,
    ) -> Next {
        let opening = Opening { kind, client, rest: Vec::new() };
        match answer {
            Some(answer) => Next::Become(opening.role(server, conn, answer)),
            None => {
                conn.pause();
                Next::Become(Role::Opening(Box::new(opening)))
            }
        }
    }

    /// What comes before the answer.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The answer has come: what the connection is from now on, and what the client has sent meanwhile.
    pub(super) fn finish(
        mut self,
        server: &Rc<Server>,
        conn: &mut Conn<'_>,
        answer: Opened,
    ) -> (Role, Vec<u8>) {
        conn.resume();
        let rest = std::mem::take(&mut self.rest);
        (self.role(server, conn, answer), rest)
    }

    fn role(self, server: &Rc<Server>, conn: &mut Conn<'_>, answer: Opened) -> Role {
        match (answer, self.kind) {
            (Ok(session), Kind::WebSocket) => WebSocket::opened(server, conn, session),
            (Ok(session), Kind::Stream { .. }) => EventStream::opened(server, conn, session),
            // The state has told the client, counted it, and closed the connection.
            (Err(refusal), Kind::WebSocket) => {
                server.refuse(refusal.name(), &[("client", Value::Display(&self.client))]);
                Role::Over
            }
            (Err(refusal), Kind::Stream { cors }) => {
                EventStream::refuse(server, conn, self.client, refusal, cors)
            }
        }
    }

    /// The connection ended before.
    pub(super) fn closed(&self, server: &Server, id: ConnId) {
        match server.answered(id) {
            Some(Ok(session)) => server.leave_session(session),
            Some(Err(refusal)) => server.refuse(refusal.name(), &[("client", Value::Display(&self.client))]),
            // It comes later and finds nobody.
            None => {}
        }
    }
}
