//! Stopping in an orderly way.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use evenkeel_hub::server::Drained;

use crate::support::{End, Frame, Hub, PATIENCE, Record, api_request, event, eventually, on_every_backend};

#[test]
fn i48_subscribers_are_told_to_come_back_over_the_time_and_nobody_is_let_in() {
    on_every_backend(|backend| {
        let mut hub = Hub::start(backend);
        let mut subscribers: Vec<_> = (0..20).map(|_| hub.ws()).collect();
        let mut streams: Vec<_> = (0..5).map(|_| hub.sse("channel=c")).collect();
        let mut kept = hub.http();
        assert_eq!(kept.get("/ready").text(), "ready\n");
        let mut kept_too = hub.http();
        assert_eq!(kept_too.get("/ready").status, 200);
        let started = Instant::now();
        let outcome = hub.drain(Duration::from_secs(3));
        // Newcomers are refused by the kernel, and by name on connections that are there.
        eventually("the listener is closed", || TcpStream::connect(hub.addr).is_err());
        let ready = kept.get("/ready");
        assert_eq!((ready.status, ready.text().as_str()), (503, "draining\n"));
        assert_eq!(ready.field("Connection"), Some("close"));
        kept.ends();
        let mut late = crate::support::Ws::upgraded(kept_too, "/app/key-a?protocol=7", "").unwrap();
        late.error(4200);
        late.closes(4200);
        let ended: Vec<Duration> = std::thread::scope(|scope| {
            let waits: Vec<_> = subscribers
                .iter_mut()
                .map(|ws| {
                    scope.spawn(move || {
                        ws.closes(4200);
                        started.elapsed()
                    })
                })
                .collect();
            waits.into_iter().map(|wait| wait.join().unwrap()).collect()
        });
        for sse in &mut streams {
            sse.is_caught_up();
            assert_eq!(sse.next(), Record::End(End::Orderly));
        }
        assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Drained::Completely);
        let (first, last) = (ended.iter().min().unwrap(), ended.iter().max().unwrap());
        assert!(*last - *first >= Duration::from_secs(1), "spread, not all at once: {ended:?}");
    });
}

#[test]
fn requests_under_way_are_finished_and_idle_connections_do_not_hold_up_a_drain() {
    on_every_backend(|backend| {
        let mut hub = Hub::start(backend);
        let mut idle: Vec<_> = (0..3).map(|_| hub.http()).collect();
        for http in &mut idle {
            assert_eq!(http.get("/health").status, 200);
        }
        let request = api_request("POST", "/apps/1/events", &event("c", "in time"));
        let mut under_way = hub.http();
        assert_eq!(under_way.get("/health").status, 200);
        under_way.send(&request[..request.len() - 5]);
        let mut first = hub.http();
        first.send(&request[..request.len() - 5]);
        eventually("all are with the HTTP server", || hub.metric("evenkeel_hub_http_connections") == 6);
        let outcome = hub.drain(Duration::from_secs(60));
        for http in &mut idle {
            assert_eq!(http.ends(), End::Orderly);
        }
        for mut http in [under_way, first] {
            http.send(&request[request.len() - 5..]);
            let answer = http.response();
            assert_eq!((answer.status, answer.field("Connection")), (200, Some("close")));
            assert_eq!(http.ends(), End::Orderly);
        }
        assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Drained::Completely);
    });
}

#[test]
fn a_drain_ends_at_its_deadline_with_those_that_do_not_leave() {
    on_every_backend(|backend| {
        let mut hub = Hub::start(backend);
        let mut under_way = hub.http();
        under_way.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n");
        let mut unfinished = hub.http();
        unfinished.send("GET /health HTTP/1.1\r\n");
        let mut ws = hub.ws();
        ws.is_served();
        let outcome = hub.drain(Duration::from_secs(1));
        ws.closes(4200);
        assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Drained::Forced { left: 2 });
        drop((under_way, unfinished));
    });
}

#[test]
fn a_drain_without_time_closes_all_at_once() {
    on_every_backend(|backend| {
        let mut hub = Hub::start(backend);
        let mut ws: Vec<_> = (0..5).map(|_| hub.ws()).collect();
        let outcome = hub.drain(Duration::ZERO);
        assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Drained::Forced { left: 5 });
        drop(ws.drain(..));
    });
    on_every_backend(|backend| {
        let mut hub = Hub::start(backend);
        let outcome = hub.drain(Duration::from_secs(60));
        assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Drained::Completely, "nobody is there");
    });
}

#[test]
fn a_subscriber_that_does_not_read_does_not_hold_up_the_others() {
    on_every_backend(|backend| {
        let mut hub = Hub::start(backend);
        let stalled = hub.ws();
        let mut others: Vec<_> = (0..3).map(|_| hub.ws()).collect();
        let outcome = hub.drain(Duration::from_secs(2));
        for ws in &mut others {
            assert!(matches!(ws.next(), Frame::Close(4200, _)));
            assert_eq!(ws.next(), Frame::End(End::Orderly));
        }
        assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Drained::Completely);
        drop(stalled);
    });
}
