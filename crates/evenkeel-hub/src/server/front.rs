//! The front door: from the first byte of a connection to the decision what it is.

use std::net::IpAddr;

use evenkeel::{CloseReason, Conn};

use super::Server;
use super::conn::{Next, Role};
use super::seats::Seat;
use super::stream::EventStream;
use super::websocket::WebSocket;
use crate::log::Value;
use crate::proto::head::{HeadReader, RequestHead};
use crate::proto::percent::{self, Plus};
use crate::proto::proxy::header::{self, Endpoints};
use crate::proto::proxy::{ForwardedBy, client_address};
use crate::proto::reply;

/// A connection whose first request is not complete. Boxed: only the few that are in this state pay for it.
pub(super) struct Front {
    reader: HeadReader,
    /// The client's own address, as far as it is known.
    client: IpAddr,
    /// A PROXY header, as far as it has come; none once it is complete or if none is expected.
    proxied: Option<Vec<u8>>,
    /// The peer is the proxy, not the client.
    started: bool,
    /// It was admitted before, for an earlier request.
    returned: bool,
}

impl Front {
    pub(super) fn new(peer: IpAddr) -> Self {
        Front { reader: HeadReader::new(), client: peer, proxied: None, started: false, returned: false }
    }

    pub(super) fn returned(client: IpAddr) -> Self {
        Front { returned: true, started: true, ..Front::new(client) }
    }

    pub(super) fn client(&self) -> IpAddr {
        self.client
    }

    pub(super) fn is_returned(&self) -> bool {
        self.returned
    }

    /// Takes what has arrived. What it leaves in `input` is for whatever comes next.
    pub(super) fn receive(
        &mut self,
        server: &std::rc::Rc<Server>,
        conn: &mut Conn<'_>,
        input: &mut &[u8],
        seat: &mut Seat,
    ) -> Next {
        if !std::mem::replace(&mut self.started, true)
            && server.config().proxy.proxy_protocol
            && server.config().trusts_proxy(self.client)
        {
            self.proxied = Some(Vec::new());
        }
        let held;
        if let Some(mut so_far) = self.proxied.take() {
            so_far.extend_from_slice(input);
            match header::parse(&so_far) {
                Ok(None) => {
                    *input = &[];
                    self.proxied = Some(so_far);
                    return Next::Stay;
                }
                Ok(Some(proxy)) => {
                    if let Endpoints::Inet { source, .. } = proxy.endpoints {
                        self.client = source.ip().to_canonical();
                    }
                    if !self.take_seat(server, conn, seat) {
                        return Next::Become(Role::Over);
                    }
                    so_far.drain(..proxy.len);
                    held = so_far;
                    let mut rest = held.as_slice();
                    let next = self.read_head(server, conn, &mut rest, seat);
                    // What is behind the head in the same bytes cannot outlive `held`: it goes with the decision.
                    *input = &[];
                    return self.with_rest(server, conn, next, rest);
                }
                Err(error) => {
                    server.refuse("proxy_header", &[("error", Value::Display(&error))]);
                    conn.abort();
                    return Next::Become(Role::Over);
                }
            }
        }
        self.read_head(server, conn, input, seat)
    }

    /// Bytes that came behind a head in the piece that also held the PROXY header.
    fn with_rest(
        &mut self,
        server: &std::rc::Rc<Server>,
        conn: &mut Conn<'_>,
        next: Next,
        rest: &[u8],
    ) -> Next {
        match next {
            Next::Become(Role::WebSocket(mut socket)) if !rest.is_empty() => {
                let farewell = socket.receive(server, conn, rest);
                Next::Become(match farewell {
                    Some(farewell) => server.part(conn, socket.session(), farewell),
                    None => Role::WebSocket(socket),
                })
            }
            Next::Become(Role::Stream(stream)) if !rest.is_empty() => {
                // As in `on_data`: after its request it has nothing to say.
                conn.close();
                Next::Become(Role::Stream(stream))
            }
            Next::Become(Role::Opening(mut opening)) => {
                opening.keep(rest);
                Next::Become(Role::Opening(opening))
            }
            other => other,
        }
    }

    fn read_head(
        &mut self,
        server: &std::rc::Rc<Server>,
        conn: &mut Conn<'_>,
        input: &mut &[u8],
        seat: &mut Seat,
    ) -> Next {
        let mut reader = std::mem::take(&mut self.reader);
        let next = match reader.next(input, &server.common().head_limits) {
            Ok(None) => {
                self.reader = reader;
                return Next::Stay;
            }
            Ok(Some(head)) => self.route(server, conn, &head, input, seat),
            Err(error) => {
                server.refuse(error.label(), &[("error", Value::Display(&error))]);
                conn.write(&error.response());
                conn.close_lingering();
                Next::Become(Role::Over)
            }
        };
        conn.message_done();
        next
    }

    fn route(
        &mut self,
        server: &std::rc::Rc<Server>,
        conn: &mut Conn<'_>,
        head: &RequestHead<'_>,
        input: &mut &[u8],
        seat: &mut Seat,
    ) -> Next {
        if !self.returned {
            let (by, before) = (ForwardedBy::XForwardedFor, self.client);
            self.client = client_address(before, &server.config().proxy.trusted, by, head.values(by.field()));
            if self.client != before && !self.take_seat(server, conn, seat) {
                return Next::Become(Role::Over);
            }
        }
        match server.classify(head) {
            Class::WebSocket(_) | Class::Stream(_) if server.is_state_late() => {
                server.refuse("state_overloaded", &[("client", Value::Display(&self.client))]);
                let why = "the server is overloaded; try again in a second";
                conn.write(&reply::refusal(503, &[("Retry-After", "1")], &why));
                conn.close_lingering();
                Next::Become(Role::Over)
            }
            Class::WebSocket(key) => WebSocket::open(server, conn, head, &key, self.client),
            Class::Stream(key) => EventStream::open(server, conn, head, &key, self.client),
            Class::Http => {
                let mut first = head.bytes().to_vec();
                first.extend_from_slice(input);
                *input = &[];
                Next::Http(first)
            }
        }
    }

    /// The client's own address became known: its seat is taken now, and the proxy's needs none.
    fn take_seat(&self, server: &Server, conn: &mut Conn<'_>, seat: &mut Seat) -> bool {
        server.common().seats().leave(std::mem::replace(seat, Seat::FREE));
        if let Some(own) = server.seat_for(self.client) {
            *seat = own;
            return true;
        }
        server.refuse("connections_per_address", &[("client", Value::Display(&self.client))]);
        conn.write(&reply::refusal(429, &[("Retry-After", "1")], &"too many connections"));
        conn.close_lingering();
        false
    }

    /// The connection ended before its request was complete.
    pub(super) fn closed(&self, server: &Server, reason: &CloseReason) {
        if matches!(reason, CloseReason::MessageTimeout) {
            server.refuse("handshake_timeout", &[("client", Value::Display(&self.client))]);
        }
    }
}

/// What a request asks for, by its head.
pub(super) enum Class {
    /// A WebSocket of the application with this key.
    WebSocket(String),
    /// An event stream of the application with this key.
    Stream(String),
    Http,
}

impl Server {
    /// Decides what a request is: a subscription, or one for the HTTP server.
    pub(super) fn classify(&self, head: &RequestHead<'_>) -> Class {
        let Some(path) = head.path().strip_prefix(self.config().server.path_prefix.as_str()) else {
            return Class::Http;
        };
        let decoded = |key: &str| percent::decode(key, Plus::Literal).map(|key| key.into_owned());
        if let Some(key) = path.strip_prefix("/app/")
            && let (false, Ok(key)) = (key.contains('/'), decoded(key))
        {
            return Class::WebSocket(key);
        }
        if self.config().sse.enabled
            && let Some(key) = path.strip_prefix("/sse/")
            && let (true, false, Ok(key)) = (head.method() == "GET", key.contains('/'), decoded(key))
        {
            return Class::Stream(key);
        }
        Class::Http
    }
}
