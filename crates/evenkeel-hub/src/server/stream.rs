//! A subscriber on an event stream (SSE).
//!
//! `GET /sse/APP_KEY?channel=NAME&channel=NAME` streams the events of these channels to a plain `EventSource`. Each
//! event's data is the JSON that a WebSocket client gets, `{"event":...,"channel":...,"data":...}`. Private channels need
//! `expires=UNIX_SECONDS&auth=KEY:HEX`, as [`crate::proto::auth`] documents. A client that comes back sends
//! `Last-Event-ID`, as browsers do by themselves, and gets what it missed.

use std::net::IpAddr;
use std::rc::Rc;

use evenkeel::{Conn, Message};

use super::conn::{Next, Role};
use super::outbox::{Keys, Peer};
use super::{App, Server, seconds, unix_ms};
use crate::log::Value;
use crate::proto::head::{RequestHead, query};
use crate::proto::origin::RequestOrigin;
use crate::proto::{reply, sse};
use crate::state::{SessionId, StreamChannel, StreamConnect};

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
        match Self::try_open(server, conn, head, key) {
            Ok(session) => {
                conn.notify_after(seconds(server.config.sse.heartbeat_seconds));
                Next::Become(Role::Stream(EventStream { session }))
            }
            Err(Refused { status, reason, message, cors }) => {
                server.refuse(reason, &[("client", Value::Display(&client))]);
                let mut fields: Vec<(&str, &str)> = Vec::new();
                if status == 503 {
                    fields.push(("Retry-After", "1"));
                }
                if let Some(origin) = &cors {
                    fields.push(("Access-Control-Allow-Origin", origin));
                }
                conn.write(&reply::refusal(status, &fields, &message));
                conn.close();
                Next::Become(Role::Over)
            }
        }
    }

    fn try_open(
        server: &Rc<Server>,
        conn: &mut Conn<'_>,
        head: &RequestHead<'_>,
        key: &str,
    ) -> Result<SessionId, Refused> {
        let app = server.app_by_key(key);
        let origin = RequestOrigin::from_head(head);
        if app.is_some_and(|app| !app.origins.allow_request(origin)) {
            return Err(Refused::new(403, "origin", "this origin may not connect"));
        }
        let cors = match (app, origin) {
            (Some(app), RequestOrigin::Named(origin)) => app.origins.cors(origin),
            _ => None,
        };
        // A page may read why it was refused, once its origin is allowed.
        let with_cors = |mut refused: Refused| {
            refused.cors = cors.map(|[(_, origin), _]| origin.to_owned());
            refused
        };
        let asked = asked(head).map_err(with_cors)?;
        let allowed = verify(app, &asked).map_err(with_cors)?;
        let last = sse::last_event_id(head);
        // A malformed id is one that the hub cannot know: a gap, not a refusal, so that a browser can go on.
        let last = match &last {
            Ok(id) => id.as_deref(),
            Err(_) => Some(""),
        };
        let auth = asked.auth.as_deref();
        let channels: Vec<_> = asked.channels.iter().map(|name| StreamChannel { name, auth }).collect();
        let peer = Peer { id: conn.id(), stream: true };
        let request = StreamConnect { key, channels: &channels, last_event_id: last, conn: peer };
        let (now, keys) = (server.now(), Keys { server, stream_allowed: allowed });
        let (result, first) = server.with_hub(|hub, out| {
            out.hold(peer);
            let result = hub.connect_stream(now, &request, &keys, out);
            (result, out.release())
        });
        let connected = result.map_err(|refusal| {
            with_cors(Refused::new(refusal.http_status(), refusal.name(), refusal.message()))
        })?;
        let mut response = Vec::new();
        let fields: &[(&str, &str)] = cors.as_ref().map_or(&[], |fields| fields.as_slice());
        let retry = sse::Event {
            retry_ms: Some(u64::from(server.config.sse.retry_milliseconds)),
            ..sse::Event::default()
        };
        sse::response_head(fields, &mut response)
            .and_then(|()| sse::encode(&retry, &mut response))
            .map_err(|_| Refused::new(400, "origin", "malformed origin"))?;
        conn.write(&response);
        for frame in first {
            conn.send(&Message::from(frame.into_shared()));
        }
        Ok(connected.session)
    }

    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// Keeps the stream open through proxies that cut silent connections, and finds out when the client is gone.
    pub(super) fn heartbeat(&mut self, server: &Server, conn: &mut Conn<'_>) {
        conn.write(sse::HEARTBEAT);
        conn.notify_after(seconds(server.config.sse.heartbeat_seconds));
    }
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
fn verify(app: Option<&App>, asked: &Asked) -> Result<bool, Refused> {
    let (Some(app), Some(auth)) = (app, &asked.auth) else { return Ok(false) };
    let channels: Vec<&str> = asked.channels.iter().map(String::as_str).collect();
    match app.key.verify_stream(&channels, &asked.expires, auth, unix_ms() / 1000) {
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
}
