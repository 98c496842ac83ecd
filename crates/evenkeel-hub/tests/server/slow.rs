//! Subscribers that do not read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evenkeel::Backend;

use crate::support::{
    End, Frame, Http, Hub, PATIENCE, Record, Sse, Ws, api_request, config, connect_narrowly, event,
    eventually, on_every_backend,
};

/// Floods a channel that some read and one does not, until that one is gone, and checks what the others got.
fn one_is_stalled(
    backend: Backend,
    limits: &str,
    why: &str,
    size: usize,
    stalled: fn(&Hub) -> std::net::TcpStream,
) {
    let hub = Hub::with(backend, &config("", "publish_rate = 0", &format!("[limits]\n{limits}")));
    let mut others: Vec<Ws> = (0..3).map(|_| hub.ws()).collect();
    others.iter_mut().for_each(|ws| drop(ws.subscribe("flood")));
    let mut sse = hub.sse("channel=flood");
    sse.is_caught_up();
    let stalled = stalled(&hub);
    let (name, gone) =
        (format!("evenkeel_hub_slow_consumers_total{{reason=\"{why}\"}}"), AtomicBool::new(false));
    let padding = "x".repeat(size);
    std::thread::scope(|scope| {
        for ws in &mut others {
            scope.spawn(move || {
                let mut expected = 0_u64;
                loop {
                    let data = ws.event("news")["data"].take();
                    let data = data.as_str().unwrap();
                    if data == "last" {
                        break;
                    }
                    assert_eq!(
                        data.split(' ').next(),
                        Some(&*expected.to_string()),
                        "I44: each once, in order"
                    );
                    expected += 1;
                }
            });
        }
        scope.spawn(|| {
            let mut expected = 0_u64;
            while let Some(n) = sse.event()["data"].as_str().filter(|data| *data != "last") {
                assert_eq!(n.split(' ').next(), Some(&*expected.to_string()));
                expected += 1;
            }
        });
        let mut publisher = hub.http();
        let (mut n, started) = (0_u64, Instant::now());
        while !gone.load(Ordering::Relaxed) {
            assert!(started.elapsed() < PATIENCE, "the stalled subscriber is never closed; {n} messages");
            let body = event("flood", &format!("{n} {padding}"));
            assert_eq!(publisher.api("POST", "/apps/1/events", &body).status, 200);
            n += 1;
            if n.is_multiple_of(16) {
                gone.store(hub.metric(&name) == 1, Ordering::Relaxed);
            }
        }
        assert_eq!(publisher.api("POST", "/apps/1/events", &event("flood", "last")).status, 200);
    });
    assert_eq!(hub.refusals("slow_consumer"), 1);
    others.iter_mut().for_each(Ws::is_served);
    drop(stalled);
}

/// A narrow WebSocket that subscribes and reads no more.
fn stalled_ws(hub: &Hub) -> std::net::TcpStream {
    let mut ws = Ws::on(Http::on(connect_narrowly(hub.addr)), "/app/key-a?protocol=7", "");
    ws.subscribe("flood");
    ws.stream
}

fn stalled_sse(hub: &Hub) -> std::net::TcpStream {
    let mut sse = Sse::on(Http::on(connect_narrowly(hub.addr)), "/sse/key-a?channel=flood", "").ok().unwrap();
    sse.is_caught_up();
    sse.stream
}

#[test]
fn i47_a_stalled_subscriber_is_closed_by_bytes() {
    let limits = "max_queue_bytes = 131072\nmax_queue_messages = 1000000\nmax_queue_age_seconds = 60";
    on_every_backend(|backend| one_is_stalled(backend, limits, "bytes", 5_000, stalled_ws));
    on_every_backend(|backend| one_is_stalled(backend, limits, "bytes", 5_000, stalled_sse));
}

#[test]
fn i47_a_stalled_subscriber_is_closed_by_messages() {
    let limits = "max_queue_messages = 20\nmax_queue_bytes = 10000000\nmax_queue_age_seconds = 60";
    on_every_backend(|backend| one_is_stalled(backend, limits, "messages", 2_000, stalled_ws));
}

#[test]
fn i47_a_stalled_subscriber_is_closed_by_age() {
    let limits = "max_queue_age_seconds = 1\nmax_queue_bytes = 60000000\nmax_queue_messages = 1000000";
    on_every_backend(|backend| one_is_stalled(backend, limits, "age", 200, stalled_ws));
}

#[test]
fn i47_memory_of_a_stalled_subscriber_comes_back() {
    // The process is shared by all tests, so it is the loop's queues that are looked at: history and caches are off.
    on_every_backend(|backend| {
        let limits = "[limits]\nmax_queue_bytes = 1000000";
        let hub = Hub::with(backend, &config("", "publish_rate = 0\nhistory_messages = 0", limits));
        let stalled: Vec<_> = (0..5).map(|_| stalled_ws(&hub)).collect();
        let mut publisher = hub.http();
        let body = event("flood", &"x".repeat(8_000));
        for _ in 0..200 {
            assert_eq!(publisher.api("POST", "/apps/1/events", &body).status, 200);
        }
        let name = "evenkeel_hub_slow_consumers_total{reason=\"bytes\"}";
        eventually("all are closed", || hub.metric(name) == 5);
        eventually("none is counted", || {
            hub.metric("evenkeel_hub_connections{app=\"1\",transport=\"websocket\"}") == 0
        });
        assert_eq!(hub.metric("evenkeel_hub_channels{app=\"1\"}"), 0);
        drop(stalled);
    });
}

#[test]
fn a_subscriber_that_pauses_within_the_limits_misses_nothing() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut ws = Ws::on(Http::on(connect_narrowly(hub.addr)), "/app/key-a?protocol=7", "");
        ws.subscribe("flood");
        let padding = "x".repeat(1_000);
        let requests: String = (0..100)
            .map(|n| api_request("POST", "/apps/1/events", &event("flood", &format!("{n} {padding}"))))
            .collect();
        let mut publisher = hub.http();
        publisher.send(&requests);
        (0..100).for_each(|_| assert_eq!(publisher.response().status, 200));
        for n in 0..100 {
            assert!(ws.event("news")["data"].as_str().unwrap().starts_with(&format!("{n} ")));
        }
        ws.is_served();
    });
}

#[test]
fn what_a_closed_subscriber_was_sent_before_still_arrives() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut ws = Ws::on(Http::on(connect_narrowly(hub.addr)), "/app/key-a?protocol=7", "");
        ws.subscribe("flood");
        let padding = "x".repeat(2_000);
        for n in 0..60 {
            assert_eq!(hub.publish("flood", &format!("{n} {padding}")).status, 200);
        }
        // It asks for the end while much is queued; the queue is flushed first.
        ws.send_bytes(&crate::support::client_frame(0x88, &1000_u16.to_be_bytes()));
        std::thread::park_timeout(Duration::from_millis(20));
        for n in 0..60 {
            assert!(ws.event("news")["data"].as_str().unwrap().starts_with(&format!("{n} ")));
        }
        assert!(matches!(ws.next(), Frame::Close(1000, _)));
        assert_eq!(ws.next(), Frame::End(End::Orderly));
        let mut sse = hub.sse("channel=flood");
        sse.is_caught_up();
        hub.publish("flood", "1");
        sse.event();
        sse.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(sse.next(), Record::End(End::Orderly));
    });
}
