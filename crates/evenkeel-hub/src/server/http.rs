//! Requests that are not subscriptions: hyper serves them, on our own stream, in a task of the loop.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use evenkeel::net::Stream;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};

use super::conn::HubConn;
use super::guarded::{Ending, Guarded, Refusal, Shared};
use super::home::Home;
use super::seats::Seat;
use super::succession::{ApiReply, ApiRequest};
use super::{MAX_BODIES, Server};
use crate::api;
use crate::log::Value;

/// A whole response.
pub(super) type Reply = Response<Full<Bytes>>;

/// A response of plain text.
pub(super) fn text(status: u16, body: &str) -> Reply {
    reply(status, "text/plain; charset=utf-8", format!("{body}\n"))
}

/// A response of any type.
pub(super) fn reply(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// The connections that hyper serves at the moment.
#[derive(Default)]
pub(super) struct Serving {
    connections: BTreeMap<u64, Rc<RefCell<Shared>>>,
    next: u64,
}

impl Serving {
    fn enter(&mut self, shared: Rc<RefCell<Shared>>) -> u64 {
        self.next += 1;
        self.connections.insert(self.next, shared);
        self.next
    }

    /// Lets every connection look again whether it may go on.
    pub(super) fn wake(&self) {
        self.connections.values().for_each(|shared| Shared::wake(shared));
    }
}

/// Serves a connection from its first request on, until it ends or turns to a subscription.
pub(super) fn serve(server: Rc<Server>, stream: Stream, client: IpAddr, seat: Seat) {
    evenkeel::spawn(async move {
        server.metrics.http_connections.inc();
        serve_until_done(&server, stream, client, seat).await;
        server.metrics.http_connections.dec();
    });
}

async fn serve_until_done(server: &Rc<Server>, stream: Stream, client: IpAddr, seat: Seat) {
    let shared = Rc::new(RefCell::new(Shared::default()));
    let entry = server.http.borrow_mut().enter(shared.clone());
    let io = Guarded::new(server.clone(), stream, shared.clone());
    let service = hyper::service::service_fn(|request| {
        let (server, shared) = (server.clone(), shared.clone());
        Box::pin(async move {
            let mut response = answer(&server, client, request, &shared).await;
            if server.common().is_ending() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Shared::response_finished(&shared);
            Ok::<_, Infallible>(response)
        })
    });
    // Deadlines are the guard's: it knows what the client owes.
    let mut connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .max_buf_size(64 << 10)
        .serve_connection(io, service);
    // An error is the client's doing: it broke off, or was too slow. The guard knows which. Hyper flushes its last
    // response only before it shuts the stream down, which `Guarded` leaves to whoever comes next.
    let _ = (&mut connection).await;
    server.http.borrow_mut().connections.remove(&entry);
    finish(server, connection.into_parts().io, &shared, client, seat);
}

/// What comes after hyper: another life at the front door, a last word, or nothing.
fn finish(server: &Rc<Server>, io: Guarded, shared: &RefCell<Shared>, client: IpAddr, seat: Seat) {
    let interrupted = io.is_interrupted();
    let (mut stream, ending, unpassed) = io.into_parts();
    match ending {
        Ending::Leave => {
            // It stays counted, and keeps its seat.
            let handler = HubConn::returned(server.clone(), client, seat);
            if server.pool().adopt(stream, handler, &unpassed).is_err() {
                server.leave(seat);
            }
            return;
        }
        Ending::Rejected(error) => {
            server.refuse(
                error.label(),
                &[("error", Value::Display(&error)), ("client", Value::Display(&client))],
            );
            let untold = Shared::take_refusal(shared).is_some();
            if let (true, Some(response)) = (untold, error.response()) {
                // Queued; it is flushed before the stream closes.
                let _ = stream.send(&response.into());
            }
        }
        Ending::TooSlow(reason) => server.refuse(reason, &[("client", Value::Display(&client))]),
        Ending::Client => {}
    }
    if interrupted {
        // Counted until its end.
        if let Ok(id) = server.pool().adopt(stream, HubConn::last(server.clone(), seat), &[]) {
            let _ = server.handle().close_lingering(id);
            return;
        }
    }
    server.leave(seat);
}

/// Memory of request bodies, given back when it is dropped.
struct Held<'a> {
    server: &'a Server,
    bytes: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.server.common().bodies.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Collects a body. What one may have has been checked; here is what all together may have.
async fn collect<'a>(
    server: &'a Server,
    mut body: Incoming,
    shared: &RefCell<Shared>,
) -> Result<(Vec<u8>, Held<'a>), Reply> {
    let (mut bytes, mut held) = (Vec::new(), Held { server, bytes: 0 });
    if let Some(expected) = body.size_hint().exact() {
        bytes.reserve_exact(expected.min(64 << 10) as usize);
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| broke_off(Shared::take_refusal(shared)))?;
        let Ok(data) = frame.into_data() else { continue };
        // Added first, so that loops which read at the same time see each other.
        let bodies = &server.common().bodies;
        held.bytes += data.len();
        if bodies.fetch_add(data.len(), Ordering::Relaxed) + data.len() > MAX_BODIES {
            let mut response = text(503, "too many requests are being read; try again");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            server.refuse("body_memory", &[]);
            return Err(response);
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, held))
}

/// The answer to a request whose body does not end.
fn broke_off(refusal: Option<Refusal>) -> Reply {
    match refusal {
        Some(Refusal::Framing(error)) => text(error.status(), &error.to_string()),
        Some(Refusal::SlowBody) => text(408, "the body came too slowly"),
        None => text(400, "the body broke off"),
    }
}

/// Sends the client elsewhere, for good.
fn moved(to: &str) -> Reply {
    let mut response = text(308, to);
    // A prefix is of characters that a header may hold: the configuration is checked.
    response.headers_mut().extend(HeaderValue::from_str(to).ok().map(|to| (LOCATION, to)));
    response
}

/// The answer to a method that a path does not have.
fn not_by(allowed: &'static str) -> Reply {
    let mut response = text(405, "not by this method");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

async fn answer(
    server: &Rc<Server>,
    client: IpAddr,
    request: Request<Incoming>,
    shared: &RefCell<Shared>,
) -> Reply {
    let (head, body) = request.into_parts();
    let (body, _held) = match collect(server, body, shared).await {
        Ok(collected) => collected,
        Err(response) => return response,
    };
    if api::serves(&server.config().server.path_prefix, head.uri.path()) {
        let request = ApiRequest {
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body,
        };
        let reply = server.task_at_home(|server| async move { server.answer_api(request).await }).await;
        return reply.ok().flatten().map_or_else(unavailable, api_reply);
    }
    let path = head.uri.path();
    let Some(path) = path.strip_prefix(server.config().server.path_prefix.as_str()) else {
        return text(404, "there is nothing here");
    };
    let get = matches!(head.method.as_str(), "GET" | "HEAD");
    match path {
        // The pages' addresses are relative to their own.
        "" if get => moved(&format!("{}/console", server.config().server.path_prefix)),
        _ if server.config().sse.enabled && path.starts_with("/sse/") && head.method == Method::OPTIONS => {
            server.answer_preflight(&head, path)
        }
        // A stream that is asked for by GET never comes here.
        _ if server.config().sse.enabled && path.starts_with("/sse/") && head.method != Method::GET => {
            not_by("GET, OPTIONS")
        }
        "/health" | "/ready" | "/metrics" if !get => not_by("GET, HEAD"),
        "/health" if get => text(200, "ok"),
        "/ready" if get && server.common().is_draining() => text(503, "draining"),
        "/ready" if get => text(200, "ready"),
        "/metrics" if get => server.answer_metrics(&head, client).await,
        _ => server.answer_pages(&head, path, &body, client).await,
    }
}

/// The answer when the loop that would know is overloaded.
pub(super) fn unavailable() -> Reply {
    let mut response = text(503, "the server is overloaded; try again in a second");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

impl Server {
    /// Answers the HTTP API, wherever the state is. None when that is in a process that has ended.
    async fn answer_api(self: Rc<Self>, request: ApiRequest) -> Option<ApiReply> {
        let home = self.home()?;
        loop {
            let Some(elsewhere) = home.elsewhere() else {
                return Some(self.answer_api_here(home, &request));
            };
            let reply = elsewhere.ask(request.clone()).await;
            // Without a reply the state may be back, as the new process has failed.
            if reply.is_some() || home.has_moved() {
                return reply;
            }
        }
    }

    /// Answers the HTTP API, where the state is.
    pub(super) fn answer_api_here(self: &Rc<Self>, home: &Home, request: &ApiRequest) -> ApiReply {
        let ApiRequest { method, path, query, body } = request;
        let request = api::Request { method, path, query, body, now: self.unix_ms() / 1000 };
        let answer = home.api.borrow_mut().handle(&mut super::broker::Hub { server: self, home }, &request);
        self.metrics.api_requests.inc((answer.operation, answer.status));
        if let Some(reason) = answer.refusal {
            self.refuse(reason, &[("operation", Value::Text(answer.operation))]);
        }
        ApiReply {
            status: answer.status,
            content_type: answer.content_type.to_owned(),
            body: answer.body,
            retry_after: answer.retry_after,
            allow: answer.allow.map(str::to_owned),
        }
    }
}

fn api_reply(answer: ApiReply) -> Reply {
    let mut response = reply(answer.status, "text/plain", answer.body);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&answer.content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    if let Some(seconds) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(methods) = &answer.allow {
        headers.extend(HeaderValue::from_str(methods).ok().map(|value| (ALLOW, value)));
    }
    response
}
