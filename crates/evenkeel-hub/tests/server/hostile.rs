//! Everything at once: many clients that misbehave in random ways, and some that do not.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;

use crate::support::{
    Canary, Http, Hub, api_request, client_frame, config, connect, event, on_each_backend, reset,
    sse_request, upgrade,
};

const HOSTILE: usize = 300;
const CROWDS: usize = 6;
const BEHAVED: usize = 20;

/// Something that a client may begin with.
fn beginning(rng: &mut Rng) -> Vec<u8> {
    let subscribe = br#"{"event":"pusher:subscribe","data":{"channel":"flooded"}}"#;
    match rng.u8(0..9) {
        0 => upgrade("/app/key-a?protocol=7", "").into_bytes(),
        1 | 2 => {
            let mut bytes = upgrade("/app/key-a?protocol=7", "").into_bytes();
            bytes.extend(client_frame(0x81, subscribe));
            for _ in 0..rng.usize(0..40) {
                let first =
                    *rng.choice([0x81, 0x01, 0x00, 0x80, 0x82, 0x88, 0x89, 0x8a, 0xff].iter()).unwrap();
                let payload: Vec<u8> = (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect();
                bytes.extend(client_frame(first, &payload));
            }
            bytes
        }
        3 => sse_request("/sse/key-a?channel=flooded", "").into_bytes(),
        4 => api_request("POST", "/apps/1/events", &event("flooded", &"x".repeat(rng.usize(0..9_000))))
            .into_bytes(),
        5 => api_request("POST", "/apps/1/events", &event("flooded", "x"))
            .repeat(rng.usize(1..30))
            .into_bytes(),
        6 => format!("GET /health HTTP/1.1\r\nHost: h\r\n\r\n{}", upgrade("/app/key-a", "")).into_bytes(),
        7 => b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec(),
        _ => (0..rng.usize(0..3_000)).map(|_| rng.u8(..)).collect(),
    }
}

/// One client's whole life. It may be cut off at any time.
fn misbehave(rng: &mut Rng, mut stream: TcpStream) {
    let mut bytes = beginning(rng);
    if rng.bool() {
        bytes.truncate(rng.usize(0..=bytes.len()));
    }
    if rng.u8(0..4) == 0 && !bytes.is_empty() {
        let at = rng.usize(0..bytes.len());
        bytes[at] = rng.u8(..);
    }
    let piece = *rng.choice([1, 7, 100, 100_000].iter()).unwrap();
    for part in bytes.chunks(piece).take(400) {
        if stream.write_all(part).is_err() {
            return;
        }
    }
    match rng.u8(0..6) {
        0 => reset(stream),
        1 => drop(stream.shutdown(Shutdown::Write)),
        2 => drop(stream.shutdown(Shutdown::Read)),
        // Waits for whatever comes, for a moment.
        3 | 4 => {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
            while std::io::Read::read(&mut stream, &mut [0; 999]).is_ok_and(|n| n > 0) {}
        }
        _ => {}
    }
}

#[test]
fn i36_i38_well_behaved_clients_do_not_notice_a_crowd_that_is_not() {
    on_each_backend(|backend| {
        let limits =
            "[limits]\nmax_queue_messages = 100\nbody_deadline_seconds = 2\nhandshake_deadline_seconds = 5";
        let hub = Hub::with(backend, &config("", "publish_rate = 0", limits));
        let behaved: Vec<Canary> = (0..BEHAVED).map(|_| hub.canary()).collect();
        let over = AtomicBool::new(false);
        let sung = std::thread::scope(|scope| {
            let crowds: Vec<_> = (0..CROWDS)
                .map(|crowd| {
                    let addr = hub.addr;
                    scope.spawn(move || {
                        let mut rng = Rng::with_seed(7_000 + crowd as u64);
                        for _ in 0..HOSTILE / CROWDS {
                            misbehave(&mut rng, connect(addr));
                        }
                    })
                })
                .collect();
            let over = &over;
            let choirs: Vec<_> = behaved
                .into_iter()
                .map(|mut canary| {
                    scope.spawn(move || {
                        let mut times = 0;
                        while !over.load(Ordering::Relaxed) || times < 5 {
                            canary.sings();
                            times += 1;
                            std::thread::park_timeout(Duration::from_millis(10));
                        }
                        times
                    })
                })
                .collect();
            crowds.into_iter().for_each(|crowd| crowd.join().unwrap());
            over.store(true, Ordering::Relaxed);
            choirs.into_iter().map(|choir| choir.join().unwrap()).sum::<u64>()
        });
        assert!(sung >= 5 * BEHAVED as u64);
        assert_eq!(hub.metric("evenkeel_hub_panics_total"), 0);
        hub.comes_to_rest();
        assert_eq!(hub.metric("evenkeel_hub_channels{app=\"1\"}"), 0);
        assert_eq!(hub.metric("evenkeel_hub_connections{app=\"1\",transport=\"websocket\"}"), 0);
    });
}

#[test]
fn i24_a_firehose_does_not_starve_a_ping() {
    on_each_backend(|backend| {
        let hub = Hub::with(backend, &config("", "publish_rate = 0", ""));
        let mut canary = hub.canary();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (hub, over) = (&hub, &over);
                scope.spawn(move || {
                    let requests = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
                    let mut http = Http::on(connect(hub.addr));
                    while !over.load(Ordering::Relaxed) {
                        http.send(&requests);
                        (0..100).for_each(|_| assert_eq!(http.response().status, 200));
                    }
                });
            }
            (0..30).for_each(|_| canary.sings());
            over.store(true, Ordering::Relaxed);
        });
    });
}
