//! Requests that are not subscriptions: hyper serves them, on our own stream, in a task of the loop.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;

use evenkeel::net::Stream;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};

use super::conn::HubConn;
use super::guarded::{Ending, Guarded, Shared};
use super::seats::Seat;
use super::{MAX_BODIES, Server, unix_ms};
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
    let io = Guarded::new(server.clone(), stream, shared.clone());
    let service = hyper::service::service_fn(|request| {
        let (server, shared) = (server.clone(), shared.clone());
        Box::pin(async move {
            let response = answer(&server, client, request).await;
            Shared::response_finished(&shared);
            Ok::<_, Infallible>(response)
        })
    });
    // Deadlines are the guard's: it knows what the client owes.
    let mut connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .max_buf_size(64 << 10)
        .serve_connection(io, service);
    // An error is the client's doing: it broke off, or was too slow. The guard knows which.
    let _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    finish(server, connection.into_parts().io, client, seat);
}

/// What comes after hyper: another life at the front door, a last word, or nothing.
fn finish(server: &Rc<Server>, io: Guarded, client: IpAddr, seat: Seat) {
    let (mut stream, ending, unpassed) = io.into_parts();
    match ending {
        Ending::Leave => {
            // It is counted again when its handler opens.
            server.connections.set(server.connections.get().saturating_sub(1));
            let handler = HubConn::returned(server.clone(), client, seat);
            if server.pool().adopt(stream, handler, &unpassed).is_err() {
                server.seats.borrow_mut().leave(seat);
            }
            return;
        }
        Ending::Rejected(error) => {
            server.refuse(error.label(), &[("error", Value::Display(&error)), ("client", Value::Display(&client))]);
            if let Some(response) = error.response() {
                // Queued; dropping the stream flushes it.
                let _ = stream.send(&response.into());
            }
        }
        Ending::TooSlow(reason) => server.refuse(reason, &[("client", Value::Display(&client))]),
        Ending::Client => {}
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
        self.server.bodies.set(self.server.bodies.get() - self.bytes);
    }
}

/// Collects a body. What one may have has been checked; here is what all together may have.
async fn collect<'a>(server: &'a Server, mut body: Incoming) -> Result<(Vec<u8>, Held<'a>), Reply> {
    let (mut bytes, mut held) = (Vec::new(), Held { server, bytes: 0 });
    if let Some(expected) = body.size_hint().exact() {
        bytes.reserve_exact(expected.min(64 << 10) as usize);
    }
    while let Some(frame) = body.frame().await {
        // The client broke off; nobody reads this answer.
        let frame = frame.map_err(|_| text(400, "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if server.bodies.get() + data.len() > MAX_BODIES {
            let mut response = text(503, "too many requests are being read; try again");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            server.refuse("body_memory", &[]);
            return Err(response);
        }
        server.bodies.set(server.bodies.get() + data.len());
        held.bytes += data.len();
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, held))
}

async fn answer(server: &Rc<Server>, client: IpAddr, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let (body, _held) = match collect(server, body).await {
        Ok(collected) => collected,
        Err(response) => return response,
    };
    let path = head.uri.path();
    if server.api.borrow().serves(path) {
        return answer_api(server, &head, &body);
    }
    let Some(path) = path.strip_prefix(server.config.server.path_prefix.as_str()) else {
        return text(404, "there is nothing here");
    };
    let get = matches!(head.method.as_str(), "GET" | "HEAD");
    match path {
        "/health" if get => text(200, "ok"),
        "/ready" if get && server.draining.get() => text(503, "draining"),
        "/ready" if get => text(200, "ready"),
        "/metrics" if get => server.answer_metrics(&head, client),
        _ => server.answer_pages(&head, path, &body, client),
    }
}

fn answer_api(server: &Rc<Server>, head: &hyper::http::request::Parts, body: &[u8]) -> Reply {
    let request = api::Request {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        body,
        now: unix_ms() / 1000,
    };
    let answer = server.api.borrow_mut().handle(&mut super::broker::Hub(server), &request);
    server.metrics.api_requests.inc((answer.operation, answer.status));
    if let Some(reason) = answer.refusal {
        server.refuse(reason, &[("operation", Value::Text(answer.operation))]);
    }
    let mut response = reply(answer.status, answer.content_type, answer.body);
    let headers = response.headers_mut();
    if let Some(seconds) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(methods) = answer.allow {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    response
}
