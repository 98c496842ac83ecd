//! A subscriber on a WebSocket.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::Conn;

use super::conn::{Next, Role};
use super::opening::{Kind, Opening};
use super::outbox::Peer;
use super::parting::Farewell;
use super::{Server, seconds};
use crate::log::Value;
use crate::proto::head::{RequestHead, query};
use crate::proto::origin::RequestOrigin;
use crate::proto::{reply, ws};
use crate::state::SessionId;

/// Control frames that a client may send in one second.
const CONTROLS_PER_SECOND: u8 = 20;

/// A WebSocket between messages holds this and no buffer.
pub(super) struct WebSocket {
    decoder: ws::Decoder,
    session: SessionId,
    /// When the client was last heard, in milliseconds of the server's clock, wrapping.
    heard: u32,
    /// The second in which control frames were last counted, wrapping, and how many they were.
    second: u8,
    controls: u8,
    /// A ping is on its way.
    pinged: bool,
    /// A message is incomplete and has a deadline.
    owing: bool,
}

impl WebSocket {
    /// Answers an upgrade and greets the client.
    pub(super) fn open(
        server: &Rc<Server>,
        conn: &mut Conn<'_>,
        head: &RequestHead<'_>,
        key: &str,
        client: IpAddr,
    ) -> Next {
        let upgrade = match ws::Upgrade::from_head(head) {
            Ok(upgrade) => upgrade,
            Err(error) => {
                server.refuse("websocket_handshake", &[("error", Value::Display(&error))]);
                conn.write(&error.response());
                conn.close_lingering();
                return Next::Become(Role::Over);
            }
        };
        let app = server.common().app_by_key(key);
        if app.is_some_and(|app| !app.origins.allow_request(RequestOrigin::from_head(head))) {
            server.refuse("origin", &[("client", Value::Display(&client))]);
            conn.write(&reply::refusal(403, &[], &"this origin may not connect"));
            conn.close_lingering();
            return Next::Become(Role::Over);
        }
        let mut response = Vec::new();
        upgrade.respond(None, &mut response);
        conn.write(&response);
        let peer = Peer { id: conn.id(), front: server.index(), stream: false };
        let protocol = query::get(head.query().unwrap_or_default(), "protocol").ok().flatten();
        let answer = server.connect(peer, key, protocol.as_deref());
        Opening::begin(server, conn, (Kind::WebSocket, client), answer)
    }

    /// The state serves it.
    pub(super) fn opened(server: &Server, conn: &mut Conn<'_>, session: SessionId) -> Role {
        conn.notify_after(seconds(server.config().server.ping_interval_seconds));
        Role::WebSocket(WebSocket {
            decoder: ws::Decoder::new(),
            session,
            heard: server.now() as u32,
            second: 0,
            controls: 0,
            pinged: false,
            owing: false,
        })
    }

    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// Takes what has arrived: any number of frames, cut anywhere. What is returned is the last that the client is to hear.
    #[must_use]
    pub(super) fn receive(
        &mut self,
        server: &Server,
        conn: &mut Conn<'_>,
        mut bytes: &[u8],
    ) -> Option<Farewell> {
        let now = server.now();
        self.heard = now as u32;
        self.pinged = false;
        let mut scratch = server.scratch.take();
        let (mut pong, mut completed) = (None, false);
        let farewell = loop {
            match self.decoder.next(&mut bytes, &server.common().message_limits, &mut scratch) {
                Ok(None) => break None,
                Ok(Some(ws::Event::Text(text))) => {
                    completed = true;
                    server.message(self.session, text);
                }
                Ok(Some(ws::Event::Binary(_))) => {
                    break Some(fail(server, 1003, "binary messages are not part of the protocol"));
                }
                Ok(Some(ws::Event::Ping(payload))) => {
                    // Of many pings in one piece only the last is answered, as the RFC allows.
                    pong = Some(payload.to_vec());
                    if !self.count_control(now) {
                        break Some(fail(server, 1008, "too many control frames"));
                    }
                }
                Ok(Some(ws::Event::Pong(_))) => {
                    if !self.count_control(now) {
                        break Some(fail(server, 1008, "too many control frames"));
                    }
                }
                Ok(Some(ws::Event::Close { code, .. })) => {
                    let mut frame = Vec::new();
                    ws::close(code, "", &mut frame);
                    // Nothing comes from a client behind this.
                    break Some(Farewell { frame, lingers: false });
                }
                Err(error) => {
                    break Some(fail(server, error.close_code(), &error.to_string()));
                }
            }
        };
        server.scratch.set(scratch);
        if let Some(payload) = pong {
            let mut frame = Vec::new();
            ws::pong(&payload, &mut frame);
            conn.write(&frame);
        }
        if farewell.is_some() {
            return farewell;
        }
        self.mind_the_rest(conn, completed);
        if completed && server.keep_pace(conn) {
            // What is incomplete has its deadline when it is read on: until then it is not the client who is late.
            conn.message_done();
            self.owing = false;
        }
        None
    }

    /// An incomplete message has a deadline, from its first byte to its last. The one that is incomplete now is
    /// another than before if any was `completed` since.
    fn mind_the_rest(&mut self, conn: &mut Conn<'_>, completed: bool) {
        let owing = self.decoder.in_message();
        if owing && (completed || !self.owing) {
            conn.message_started();
        } else if !owing && self.owing {
            conn.message_done();
        }
        self.owing = owing;
    }

    fn count_control(&mut self, now: u64) -> bool {
        let second = (now / 1000) as u8;
        if second != self.second {
            (self.second, self.controls) = (second, 0);
        }
        self.controls = self.controls.saturating_add(1);
        self.controls <= CONTROLS_PER_SECOND
    }

    /// Comes when the client may have been silent for too long: pings it, or closes it after an unanswered ping.
    pub(super) fn heartbeat(&mut self, server: &Server, conn: &mut Conn<'_>) {
        let settings = &server.config().server;
        let silent = Duration::from_millis(u64::from((server.now() as u32).wrapping_sub(self.heard)));
        let (interval, answer) =
            (seconds(settings.ping_interval_seconds), seconds(settings.pong_timeout_seconds));
        if self.pinged && silent >= interval + answer {
            server.refuse("pong_timeout", &[]);
            let mut frame = Vec::new();
            ws::close(Some(4201), "no pong in time", &mut frame);
            conn.write(&frame);
            // Who says nothing is not waited for.
            conn.close();
        } else if !self.pinged && silent >= interval {
            self.pinged = true;
            let mut frame = Vec::new();
            ws::ping(b"", &mut frame);
            conn.write(&frame);
            conn.notify_after(answer);
        } else {
            let due = if self.pinged { interval + answer } else { interval };
            conn.notify_after(due.saturating_sub(silent).max(Duration::from_millis(1)));
        }
    }
}

/// The client broke the protocol of the WebSocket itself.
fn fail(server: &Server, code: u16, why: &str) -> Farewell {
    let fields = [("code", Value::Number(code.into())), ("error", Value::Text(why))];
    server.refuse("websocket_protocol", &fields);
    let mut frame = Vec::new();
    ws::close(Some(code), why, &mut frame);
    Farewell { frame, lingers: true }
}
