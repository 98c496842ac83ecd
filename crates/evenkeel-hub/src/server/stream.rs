//! A subscriber on an event stream (SSE).
//!
//! `GET /sse/APP_KEY?channel=NAME&channel=NAME` streams the events of these channels to a plain `EventSource`. Each
//! event's data is the JSON that a WebSocket client gets, `{"event":...,"channel":...,"data":...}`. Private channels need
//! `expires=UNIX_SECONDS&auth=KEY:HEX`, as [`crate::proto::auth`] documents. A client that comes back sends
//! `Last-Event-ID`, as browsers do by themselves, and gets what it missed.

use std::net::IpAddr;
use std::rc::Rc;

use evenkeel::Conn;

use super::common::App;
use super::conn::{Next, Role};
use super::crossing::StreamAsked;
use super::opening::{Kind, Opening};
use super::outbox::Peer;
use super::{Server, seconds};
use crate::log::Value;
use crate::proto::head::{RequestHead, query};
use crate::proto::origin::RequestOrigin;
use crate::proto::{reply, sse};
use crate::state::{Refusal, SessionId};

/// An event stream holds this and no buffer.
pub(super) struct EventStream {
    session: SessionId,
}

/// What a stream's query asks for.
struct Asked {
    channels: Vec<String>,
    auth: Option<String>,
    expires: String,
}

impl EventStream {
    /// Answers the request for a stream.
    pub(super) fn open(
        server: &Rc<Server>,
        conn: &mut Conn<'_>,
        head: &RequestHead<'_>,
        key: &str,
        client: IpAddr,
    ) -> Next {
        match Self::check(server, head, key) {
            Ok((asked, cors)) => {
                let peer = Peer { id: conn.id(), front: server.index(), stream: true };
                let answer = server.connect_stream(conn, peer, asked);
                Opening::begin(server, conn, (Kind::Stream { cors }, client), answer)
            }
            Err(refused) => {
                refused.answer(server, conn, client);
                Next::Become(Role::Over)
            }
        }
    }

    /// The state serves it.
    pub(super) fn opened(server: &Server, conn: &mut Conn<'_>, session: SessionId) -> Role {
        conn.notify_after(seconds(server.config().sse.heartbeat_seconds));
        Role::Stream(EventStream { session })
    }

    /// The state does not serve it.
    pub(super) fn refuse(
        server: &Server,
        conn: &mut Conn<'_>,
        client: IpAddr,
        refusal: Refusal,
        cors: Option<String>,
    ) -> Role {
        let refused = Refused::new(refusal.http_status(), refusal.name(), refusal.message());
        Refused { cors, ..refused }.answer(server, conn, client);
        Role::Over
    }

    /// What the loop can find out about a request by itself: what to ask the state for, and the field that lets a page
    /// read a refusal, once its origin is allowed.
    fn check(
        server: &Rc<Server>,
        head: &RequestHead<'_>,
        key: &str,
    ) -> Result<(Box<StreamAsked>, Option<String>), Refused> {
        let app = server.common().app_by_key(key);
        let origin = RequestOrigin::from_head(head);
        if app.is_some_and(|app| !app.origins.allow_request(origin)) {
            return Err(Refused::new(403, "origin", "this origin may not connect"));
        }
        let fields = match (app, origin) {
            (Some(app), RequestOrigin::Named(origin)) => app.origins.cors(origin),
            _ => None,
        };
        let cors = fields.map(|[(_, origin), _]| origin.to_owned());
        let with_cors = |refused| Refused { cors: cors.clone(), ..refused };
        let asked = asked(head).map_err(with_cors)?;
        let allowed = verify(app, &asked, server.unix_ms() / 1000).map_err(with_cors)?;
        let last_event_id = match sse::last_event_id(head) {
            Ok(id) => id.map(|id| id.into()),
            // A malformed id is one that the hub cannot know: a gap, not a refusal, so that a browser can go on.
            Err(_) => Some(String::new()),
        };
        let fields: &[(&str, &str)] = fields.as_ref().map_or(&[], |fields| fields.as_slice());
        let asked = StreamAsked {
            key: key.to_owned(),
            channels: asked.channels,
            auth: asked.auth,
            last_event_id,
            allowed,
            head: response_head(server, fields)?,
        };
        Ok((Box::new(asked), cors))
    }

    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// Keeps the stream open through proxies that cut silent connections, and finds out when the client is gone.
    pub(super) fn heartbeat(&mut self, server: &Server, conn: &mut Conn<'_>) {
        conn.write(sse::HEARTBEAT);
        conn.notify_after(seconds(server.config().sse.heartbeat_seconds));
    }
}

/// What a response begins with.
fn response_head(server: &Server, fields: &[(&str, &str)]) -> Result<Vec<u8>, Refused> {
    let mut response = Vec::new();
    let retry_ms = Some(u64::from(server.config().sse.retry_milliseconds));
    sse::response_head(fields, &mut response)
        .and_then(|()| sse::encode(&sse::Event { retry_ms, ..sse::Event::default() }, &mut response))
        .map_err(|_| Refused::new(400, "origin", "malformed origin"))?;
    Ok(response)
}

/// Reads the query. `channel` may be repeated; `channels` takes a list with commas, for names that have none.
fn asked(head: &RequestHead<'_>) -> Result<Asked, Refused> {
    let malformed = |_| Refused::new(400, "query_malformed", "the query cannot be decoded");
    let mut asked = Asked { channels: Vec::new(), auth: None, expires: String::new() };
    for pair in query::pairs(head.query().unwrap_or_default()) {
        let (name, value) = pair.map_err(malformed)?;
        match &*name {
            "channel" => asked.channels.push(value.into_owned()),
            "channels" => {
                asked.channels.extend(value.split(',').filter(|c| !c.is_empty()).map(str::to_owned))
            }
            "auth" => asked.auth = Some(value.into_owned()),
            "expires" => asked.expires = value.into_owned(),
            _ => {}
        }
    }
    Ok(asked)
}

/// Whether the signature allows all of the channels. A wrong one is refused, with what should have been signed.
fn verify(app: Option<&App>, asked: &Asked, now: u64) -> Result<bool, Refused> {
    let (Some(app), Some(auth)) = (app, &asked.auth) else { return Ok(false) };
    let channels: Vec<&str> = asked.channels.iter().map(String::as_str).collect();
    match app.key.verify_stream(&channels, &asked.expires, auth, now) {
        Ok(()) => Ok(true),
        Err(error) => Err(Refused::new(error.status(), error.label(), &error.to_string())),
    }
}

/// Why a stream is not served.
struct Refused {
    status: u16,
    reason: &'static str,
    message: String,
    cors: Option<String>,
}

impl Refused {
    fn new(status: u16, reason: &'static str, message: &str) -> Self {
        Refused { status, reason, message: message.to_owned(), cors: None }
    }

    fn answer(&self, server: &Server, conn: &mut Conn<'_>, client: IpAddr) {
        server.refuse(self.reason, &[("client", Value::Display(&client))]);
        let mut fields: Vec<(&str, &str)> = Vec::new();
        if self.status == 503 {
            fields.push(("Retry-After", "1"));
        }
        if let Some(origin) = &self.cors {
            fields.push(("Access-Control-Allow-Origin", origin));
        }
        conn.write(&reply::refusal(self.status, &fields, &self.message));
        conn.close_lingering();
    }
}
