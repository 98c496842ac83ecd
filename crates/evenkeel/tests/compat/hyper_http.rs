//! hyper's own clients and servers, HTTP/1 and HTTP/2, with state that is not `Send`.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::compat::hyper::{LocalExec, LoopTimer};
use evenkeel::net::{Limits, TcpStream};
use evenkeel::{Conn, Handle, Handler};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, client, server};

use crate::{on_every_backend, pair, pattern};

/// Sends back the body, and counts.
async fn echo(request: Request<Incoming>, count: Rc<Cell<u32>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    count.set(count.get() + 1);
    Ok(Response::new(Full::new(body)))
}

fn post(body: &[u8]) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::copy_from_slice(body));
    Request::post("http://localhost/").header("host", "localhost").body(body).unwrap()
}

const SIZES: [usize; 6] = [0, 1, 8191, 8192, 70_000, 3_000_000];

#[test]
fn http1_keeps_the_connection_and_every_byte() {
    on_every_backend(|| async {
        let (near, far) = pair().await;
        let count = Rc::new(Cell::new(0));
        let counting = count.clone();
        let served = evenkeel::spawn(
            server::conn::http1::Builder::new()
                .timer(LoopTimer)
                .serve_connection(far, service_fn(move |request| echo(request, counting.clone()))),
        );
        let (mut client, connection) = client::conn::http1::handshake(near).await.unwrap();
        let connection = evenkeel::spawn(connection);
        for size in SIZES {
            let sent = pattern(size);
            client.ready().await.unwrap();
            let response = client.send_request(post(&sent)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body == sent, "{size} bytes came back as {}", body.len());
        }
        drop(client);
        connection.await.unwrap().unwrap();
        served.await.unwrap().unwrap();
        assert_eq!(count.get() as usize, SIZES.len());
    });
}

#[test]
fn http2_runs_its_streams_on_the_loop() {
    on_every_backend(|| async {
        let (near, far) = pair().await;
        let count = Rc::new(Cell::new(0));
        let counting = count.clone();
        let served = evenkeel::spawn(
            server::conn::http2::Builder::new(LocalExec)
                .timer(LoopTimer)
                .keep_alive_interval(Duration::from_secs(5))
                .serve_connection(far, service_fn(move |request| echo(request, counting.clone()))),
        );
        let (client, connection) = client::conn::http2::Builder::new(LocalExec)
            .timer(LoopTimer)
            .keep_alive_interval(Duration::from_secs(5))
            .handshake(near)
            .await
            .unwrap();
        let connection = evenkeel::spawn(connection);
        let requests: Vec<_> = (0..16)
            .map(|n| {
                let mut client = client.clone();
                evenkeel::spawn(async move {
                    let sent = pattern(n * 20_000);
                    let response = client.send_request(post(&sent)).await.unwrap();
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    assert!(body == sent, "{} bytes came back as {}", sent.len(), body.len());
                })
            })
            .collect();
        for request in requests {
            request.await.unwrap();
        }
        drop(client);
        connection.await.unwrap().unwrap();
        served.await.unwrap().unwrap();
        assert_eq!(count.get(), 16);
    });
}

/// Answers in capital letters.
struct Loud(Rc<RefCell<Vec<u8>>>);

impl Handler for Loud {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        self.0.borrow_mut().extend(bytes);
        conn.write(&bytes.to_ascii_uppercase());
    }
}

#[test]
fn an_upgrade_hands_the_stream_and_the_unread_bytes_to_a_handler() {
    on_every_backend(|| async {
        let (mut near, far) = pair().await;
        let heard = Rc::new(RefCell::new(Vec::new()));
        let handler = Loud(heard.clone());
        let served = evenkeel::spawn(async move {
            let switch = service_fn(|_| async {
                let response = Response::builder().status(101).header("upgrade", "loud");
                response.header("connection", "upgrade").body(String::new())
            });
            let connection = server::conn::http1::Builder::new().serve_connection(far, switch);
            let parts = connection.without_shutdown().await.unwrap();
            let pool = Handle::current().pool(Limits::default());
            pool.adopt(parts.io, handler, &parts.read_buf).map_err(|_| "closed").unwrap();
        });
        // The peer does not wait for the answer: its first bytes come with the request.
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: loud\r\n\r\nearly ";
        near.write_all(request).await.unwrap();
        let head = read_until(&mut near, b"EARLY ").await;
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
        served.await.unwrap();
        near.write_all(b"late").await.unwrap();
        read_until(&mut near, b"LATE").await;
        assert_eq!(*heard.borrow(), b"early late");
    });
}

async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        let more = stream.read_with(|bytes, _| all.extend(bytes)).await.unwrap();
        assert!(more.is_some(), "the stream ended after {}", all.escape_ascii());
    }
    all
}

#[test]
fn a_head_that_does_not_come_is_a_timeout_and_one_that_comes_is_not() {
    on_every_backend(|| async {
        let (mut near, far) = pair().await;
        let began = evenkeel::time::now();
        let count = Rc::new(Cell::new(0));
        let counting = count.clone();
        let served = evenkeel::spawn(
            server::conn::http1::Builder::new()
                .timer(LoopTimer)
                .header_read_timeout(Duration::from_millis(40))
                .serve_connection(far, service_fn(move |request| echo(request, counting.clone()))),
        );
        near.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
        read_until(&mut near, b"\r\n\r\nhi").await;
        near.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
        let error = served.await.unwrap().unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert!(evenkeel::time::now() - began >= Duration::from_millis(40));
        assert_eq!(count.get(), 1);
        assert_eq!(Handle::current().stats().armed, 1, "only the test's own deadline is left");
    });
}

#[test]
fn a_peer_that_resets_ends_its_connection_and_leaves_nothing() {
    // More than the kernel holds.
    let body = Bytes::from(vec![7; 30_000_000]);
    on_every_backend(|| async {
        let before = Handle::current().stats();
        for _ in 0..20 {
            let (mut near, far) = pair().await;
            let body = body.clone();
            let service = service_fn(move |_| {
                let response = Response::new(Full::new(body.clone()));
                async { Ok::<_, Infallible>(response) }
            });
            let served = evenkeel::spawn(
                server::conn::http1::Builder::new().timer(LoopTimer).serve_connection(far, service),
            );
            near.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            read_some(&mut near).await;
            near.abort();
            served.await.unwrap().unwrap_err();
        }
        while Handle::current().stats().sources > before.sources {
            evenkeel::task::yield_now().await;
        }
        assert_eq!(Handle::current().stats().armed, before.armed);
        assert_eq!(Handle::current().stats().tasks, before.tasks);
    });
}

async fn read_some(stream: &mut TcpStream) {
    assert!(stream.read_with(|_, _| ()).await.unwrap().is_some());
}
