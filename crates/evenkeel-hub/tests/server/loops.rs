//! One state and several loops: what crosses between them, and what becomes of it when one of them is late.
//!
//! Of the loops, 0 has the state.

use std::io::{ErrorKind, Write};
use std::sync::Barrier;
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Http, Hub, Sse, TOKEN, Ws, api_request, client_frame, config, event, eventually, on_each_backend,
    on_every_backend, reset, sse_request, upgrade,
};

/// As `config`, for so many loops.
fn on_loops(loops: usize, app: &str, rest: &str) -> String {
    config(&format!("loops = {loops}"), app, rest)
}

/// A request that publishes so many events of this size at once.
fn batch(channel: &str, events: usize, size: usize) -> String {
    let one = json!({ "name": "news", "channel": channel, "data": "x".repeat(size) });
    api_request("POST", "/apps/1/batch_events", &json!({ "batch": vec![one; events] }).to_string())
}

#[test]
fn i44_a_channel_over_all_loops_hears_four_publishers_in_their_order() {
    const EACH: usize = 60;
    on_each_backend(|backend| {
        for loops in [1, 2, 4] {
            let app = "publish_rate = 0\nclient_event_rate = 1000000\nclient_event_burst = 1000000";
            let hub = Hub::with(backend, &on_loops(loops, app, ""));
            let mut subscribers: Vec<Ws> = (0..8).map(|_| hub.ws()).collect();
            subscribers.iter_mut().for_each(|ws| drop(ws.subscribe("private-c")));
            let together = Barrier::new(4);
            std::thread::scope(|scope| {
                for publisher in 0..4 {
                    let (hub, together) = (&hub, &together);
                    scope.spawn(move || {
                        let index = publisher % loops;
                        if publisher < 2 {
                            let mut http = hub.http();
                            together.wait();
                            for n in 0..EACH {
                                let body = event("private-c", &format!("{publisher} {n} {index}"));
                                assert_eq!(http.api("POST", "/apps/1/events", &body).status, 200);
                            }
                        } else {
                            let mut ws = hub.ws();
                            ws.subscribe("private-c");
                            together.wait();
                            for n in 0..EACH {
                                let data = format!("{publisher} {n} {index}");
                                let event =
                                    json!({"event": "client-x", "channel": "private-c", "data": data});
                                ws.send(&event.to_string());
                            }
                            // Behind what others publish meanwhile.
                            ws.send_event("pusher:ping", &json!({}));
                            while ws.message()["event"] != "pusher:pong" {}
                        }
                    });
                }
            });
            for ws in &mut subscribers {
                let mut next = [0; 4];
                while next != [EACH; 4] {
                    let message = ws.message();
                    let mut words = message["data"].as_str().unwrap().split(' ').map(|n| n.parse().unwrap());
                    let (publisher, n): (usize, usize) = (words.next().unwrap(), words.next().unwrap());
                    assert_eq!(n, next[publisher], "each once, in the order of its publisher");
                    next[publisher] += 1;
                }
                ws.is_served();
            }
        }
    });
}

/// Publishes a burst that the state's loop performs in one turn, and expects that subscribers who read get all of it.
fn a_burst_arrives(limits: &str, batches: usize, size: usize) {
    on_each_backend(|backend| {
        let rest = format!("[limits]\n{limits}");
        let hub = Hub::with(backend, &on_loops(2, "publish_rate = 0\nhistory_messages = 0", &rest));
        let mut subscribers = [hub.ws_on_loop(0), hub.ws_on_loop(1)];
        subscribers.iter_mut().for_each(|ws| drop(ws.subscribe("c")));
        let mut publishers: Vec<Http> = (0..batches).map(|_| hub.on_loop(1)).collect();
        std::thread::scope(|scope| {
            let readers = subscribers
                .iter_mut()
                .map(|ws| scope.spawn(move || (0..10 * batches).for_each(|_| drop(ws.event("news")))));
            let readers: Vec<_> = readers.collect();
            let blocked = hub.block(0);
            let before = hub.stats(1).bytes_in;
            let request = batch("c", 10, size);
            publishers.iter_mut().for_each(|http| http.send(&request));
            let all = before + (batches * request.len()) as u64;
            eventually("all is read", || hub.stats(1).bytes_in >= all);
            drop(blocked);
            publishers.iter_mut().for_each(|http| assert_eq!(http.response().status, 200));
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
        subscribers.iter_mut().for_each(Ws::is_served);
        assert_eq!(hub.refusals("slow_consumer"), 0);
    });
}

#[test]
fn i47_a_burst_of_many_bytes_does_not_make_who_reads_a_slow_consumer() {
    a_burst_arrives("max_queue_bytes = 131072", 8, 4_500);
}

#[test]
fn i47_a_burst_of_many_messages_does_not_make_who_reads_a_slow_consumer() {
    a_burst_arrives("max_queue_messages = 40", 12, 700);
}

#[test]
fn i41_what_waits_for_a_loop_that_is_stuck_is_bounded_and_publishing_goes_on_after_it() {
    on_each_backend(|backend| {
        let hub = Hub::with(backend, &on_loops(2, "publish_rate = 0\nhistory_messages = 0", ""));
        let (mut near, mut far) = (hub.ws_on_loop(0), hub.ws_on_loop(1));
        far.subscribe("far");
        let mut http = hub.on_loop(0);
        let request = batch("far", 10, 9_000);
        let blocked = hub.block(1);
        let mut published = 0;
        let refused = loop {
            http.send(&request);
            let answer = http.response();
            if answer.status != 200 {
                break answer;
            }
            published += 10 * 9_000;
            assert!(published < 100 << 20, "so much may wait, and more");
        };
        assert_eq!((refused.status, refused.field("Retry-After")), (503, Some("1")));
        near.is_served();
        near.subscribe("private-near");
        near.send(r#"{"event":"client-x","channel":"private-near","data":1}"#);
        near.error(4301);
        http.send(&format!(
            "POST /console/publish HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: 56\r\n\r\n\
             {{\"app\":\"1\",\"channel\":\"near\",\"event\":\"news\",\"data\":\"123\"}}"
        ));
        assert_eq!(http.response().status, 503);
        drop(blocked);
        eventually("publishing goes on", || {
            http.send_api("POST", "/apps/1/events", &event("near", "1"));
            http.response().status == 200
        });
        near.subscribe("near");
        assert_eq!(hub.publish("near", "2").status, 200);
        near.event("news");
        assert!(hub.refusals("loop_overloaded") >= 1);
    });
}

#[test]
fn a_full_mailbox_costs_one_timer_and_nothing_is_lost_or_reordered() {
    on_each_backend(|backend| {
        let hub = Hub::with(backend, &on_loops(3, "publish_rate = 0", ""));
        let (mut late, mut other) = (hub.ws_on_loop(1), hub.ws_on_loop(2));
        late.subscribe("c");
        let mut http = hub.on_loop(0);
        let blocked = hub.block(1);
        while hub.remote(1).run(|_| ()).is_ok() {}
        let before = hub.stats(0).armed;
        for n in 0..100 {
            let body = event("c", &n.to_string());
            assert_eq!(http.api("POST", "/apps/1/events", &body).status, 200);
            other.is_served();
        }
        let armed = hub.stats(0).armed;
        assert!(armed <= before + 5, "{before} timers before, {armed} now");
        drop(blocked);
        for n in 0..100 {
            assert_eq!(late.event("news")["data"], n.to_string());
        }
        late.is_served();
    });
}

#[test]
fn a_loop_whose_state_is_late_stops_reading_and_goes_on_after_it() {
    on_each_backend(|backend| {
        let hub = Hub::with(backend, &on_loops(2, "", "[limits]\nhandshake_deadline_seconds = 1"));
        let mut ws = hub.ws_on_loop(1);
        let mut neighbour = hub.ws_on_loop(1);
        let mut stream = ws.stream.try_clone().unwrap();
        let ping = json!({ "event": "pusher:ping", "data": "x".repeat(60_000) }).to_string();
        let frames = client_frame(0x81, ping.as_bytes()).repeat(400);
        let blocked = hub.block(0);
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut sent = 0;
        let refused = loop {
            match stream.write(&frames[sent..]) {
                Ok(n) => sent += n,
                Err(error) => break error,
            }
            assert!(sent < frames.len(), "everything is read");
        };
        assert!(matches!(refused.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{refused}");
        // A message is incomplete, but it is not the client who is late with it.
        std::thread::park_timeout(Duration::from_millis(2_500));
        drop(blocked);
        stream.set_write_timeout(Some(crate::support::PATIENCE)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| stream.write_all(&frames[sent..]).unwrap());
            (0..400).for_each(|_| drop(ws.event("pusher:pong")));
        });
        ws.is_served();
        neighbour.is_served();
    });
}

#[test]
fn i36_who_leaves_before_the_state_has_answered_leaves_nothing_behind() {
    on_each_backend(|backend| {
        let hub = Hub::with(backend, &on_loops(2, "", ""));
        let connections: Vec<Http> = (0..12).map(|_| hub.on_loop(1)).collect();
        let blocked = hub.block(0);
        let before = hub.stats(1).bytes_in;
        let mut kept = Vec::new();
        for (n, mut http) in connections.into_iter().enumerate() {
            match n % 3 {
                0 => http.send(&sse_request("/sse/key-a?channel=c", "")),
                1 => http.send(&upgrade("/app/key-a?protocol=7", "")),
                _ => http.send(&upgrade("/app/no-such-key?protocol=7", "")),
            }
            if n >= 6 {
                // Behind the request, before the answer.
                http.send_bytes(&client_frame(
                    0x81,
                    br#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#,
                ));
            }
            match n % 4 {
                0 => reset(http.stream),
                1 => drop(http),
                2 => {
                    http.stream.shutdown(std::net::Shutdown::Write).unwrap();
                    kept.push(http);
                }
                _ => kept.push(http),
            }
        }
        // What those that are kept have sent, at least: each is longer than this.
        eventually("they wait", || hub.stats(1).bytes_in >= before + 6 * 100);
        drop(blocked);
        drop(kept);
        hub.comes_to_rest();
        eventually("no session is left", || {
            hub.metric("evenkeel_hub_connections{app=\"1\",transport=\"websocket\"}") == 0
                && hub.metric("evenkeel_hub_connections{app=\"1\",transport=\"sse\"}") == 0
                && hub.metric("evenkeel_hub_channels{app=\"1\"}") == 0
        });
    });
}

#[test]
fn i36_a_storm_of_comings_and_goings_leaves_nothing_behind() {
    on_each_backend(|backend| {
        for loops in [1, 2, 4] {
            let hub = Hub::with(backend, &on_loops(loops, "publish_rate = 0", "[limits]\naccept_rate = 0"));
            let mut canary = hub.canary();
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let hub = &hub;
                    scope.spawn(move || (0..30).for_each(|n| come_and_go(hub, thread * 30 + n)));
                }
            });
            canary.sings();
            drop(canary);
            hub.comes_to_rest();
            eventually("no session is left", || {
                hub.metric("evenkeel_hub_connections{app=\"1\",transport=\"websocket\"}") == 0
                    && hub.metric("evenkeel_hub_channels{app=\"1\"}") == 0
            });
        }
    });
}

/// A client that subscribes, leaves, publishes, and ends at one of many moments in one of several ways.
fn come_and_go(hub: &Hub, n: usize) {
    let subscribe = client_frame(0x81, br#"{"event":"pusher:subscribe","data":{"channel":"storm"}}"#);
    let unsubscribe = client_frame(0x81, br#"{"event":"pusher:unsubscribe","data":{"channel":"storm"}}"#);
    let mut http = hub.http();
    let all = if n.is_multiple_of(5) {
        sse_request("/sse/key-a?channel=storm", "").into_bytes()
    } else {
        let before = if n % 5 == 1 { "GET /health HTTP/1.1\r\nHost: h\r\n\r\n" } else { "" };
        let frames = [subscribe, unsubscribe].concat().repeat(5);
        [before.as_bytes(), upgrade("/app/key-a?protocol=7", "").as_bytes(), &frames].concat()
    };
    // The server may have had enough of it.
    let left_out = if n.is_multiple_of(5) { 0 } else { n % 97 };
    let _ = http.stream.write_all(&all[..all.len() - left_out]);
    if n.is_multiple_of(3) {
        assert_eq!(hub.publish("storm", "1").status, 200);
    }
    match n % 4 {
        0 => reset(http.stream),
        1 => {
            let _ = http.stream.shutdown(std::net::Shutdown::Write);
            let _ = crate::support::read_to_end(&mut http.stream);
        }
        2 => drop(http),
        _ => drop(http.response_head()),
    }
}

#[test]
fn limits_of_the_whole_process_hold_over_all_loops() {
    on_every_backend(|backend| {
        let rest =
            "[proxy]\ntrusted = ['127.0.0.1']\n[limits]\nmax_connections_per_address = 6\naccept_rate = 0";
        let hub = Hub::with(backend, &on_loops(4, "", rest));
        for _ in 0..3 {
            let held = std::sync::Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for _ in 0..20 {
                    scope.spawn(|| {
                        let from = "X-Forwarded-For: 10.0.0.1\r\n";
                        match Ws::upgraded(hub.http(), "/app/key-a?protocol=7", from) {
                            Ok(ws) => held.lock().unwrap().push(ws),
                            Err(refused) => assert_eq!(refused.status, 429),
                        }
                    });
                }
            });
            assert_eq!(held.into_inner().unwrap().len(), 6, "as many as it may, on whichever loops");
            hub.comes_to_rest();
        }
    });
}

#[test]
fn the_metrics_say_that_a_loop_does_not_answer_and_what_it_has_counted_afterwards() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &on_loops(3, "", ""));
        let (mut one, mut two) = (hub.ws_on_loop(1), hub.ws_on_loop(2));
        // Each is counted by its own loop.
        one.send_bytes(&client_frame(0x82, b"binary"));
        one.closes(1003);
        two.send_bytes(&client_frame(0x82, b"binary"));
        two.closes(1003);
        hub.refused("websocket_protocol", 2);
        let mut sse = Sse::on(hub.on_loop(0), "/sse/key-a?channel=c", "").unwrap();
        sse.is_caught_up();
        let mut http = hub.on_loop(2);
        let blocked = hub.block(1);
        http.send(&format!("GET /metrics HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"));
        assert_eq!(http.response().status, 503);
        assert_eq!(http.get("/health").status, 200);
        drop(blocked);
        assert_eq!(hub.metric("evenkeel_hub_connections{app=\"1\",transport=\"sse\"}"), 1);
    });
}
