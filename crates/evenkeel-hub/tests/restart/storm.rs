//! Clients of every kind that come, go and publish all the time, while the program is replaced again and again.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use evenkeel::Backend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::site::{Site, settings};
use super::tally::{Session, Tally};
use crate::support::{
    End, Frame, Http, Record, Sse, Ws, api_request, client_frame, event, eventually, on_every_backend,
    read_more,
};

/// What all clients of a storm share.
struct Storm {
    addr: std::net::SocketAddr,
    tally: Tally,
    /// Publishers end.
    over: AtomicBool,
    /// Connections of every kind that were served.
    connections: AtomicUsize,
    /// Connections that were closed between two requests.
    closed_idle: AtomicUsize,
    /// Subscribers that were told to come back.
    moved: AtomicUsize,
}

impl Storm {
    fn on(site: &Site) -> Storm {
        Storm {
            addr: site.addr,
            tally: Tally::default(),
            over: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            closed_idle: AtomicUsize::new(0),
            moved: AtomicUsize::new(0),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn connected(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
    }

    /// Publishes on one connection for as long as that is kept open, and on another then.
    fn publishes(&self, publisher: usize) {
        let mut kept: Option<TcpStream> = None;
        for n in 1.. {
            if self.is_over() {
                return;
            }
            let start = self.tally.now();
            let body = event("c", &format!("{publisher} {n}"));
            loop {
                let mut stream = kept.take().unwrap_or_else(|| {
                    self.connected();
                    crate::support::connect(self.addr)
                });
                match request(&mut stream, &api_request("POST", "/apps/1/events", &body)) {
                    Some(answer) => {
                        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                        let closes = answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
                        kept = (!closes).then_some(stream);
                        break;
                    }
                    // Not a byte came, so it must not have been served; if it was, subscribers get it twice.
                    None => self.closed_idle.fetch_add(1, Ordering::SeqCst),
                };
            }
            self.tally.published((publisher, n), start);
        }
    }

    /// Publishes each time on a connection of its own, which must be served.
    fn publishes_anew(&self, publisher: usize) {
        for n in 1.. {
            if self.is_over() {
                return;
            }
            let start = self.tally.now();
            let mut http = Http::connect(self.addr);
            let answer = http.api("POST", "/apps/1/events", &event("c", &format!("{publisher} {n}")));
            assert_eq!(answer.status, 200, "{answer:?}");
            self.connected();
            self.tally.published((publisher, n), start);
        }
    }

    /// Follows the channel, and comes back whenever it is told to, until a message says that it is over.
    fn follows(&self) {
        loop {
            let mut ws = Ws::open(self.addr, "key-a");
            self.connected();
            ws.ask_to_subscribe("c", None);
            let mut session = None;
            let over = self.follows_on(&mut ws, &mut session);
            if let Some(session) = &session {
                self.tally.check(session);
            }
            if over {
                return;
            }
            self.moved.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// True when it is over, false when the client is to come back.
    fn follows_on(&self, ws: &mut Ws, session: &mut Option<Session>) -> bool {
        loop {
            match ws.next() {
                Frame::Text(text) => {
                    if !self.takes(&text, session) {
                        return true;
                    }
                }
                Frame::Ping(payload) => ws.send_bytes(&client_frame(0x8a, &payload)),
                Frame::Close(code, reason) => {
                    assert_eq!(code, 4200, "{reason}");
                    assert_eq!(ws.next(), Frame::End(End::Orderly));
                    return false;
                }
                other => panic!("{other:?} without a close code"),
            }
        }
    }

    /// False for the last message of all.
    fn takes(&self, text: &str, session: &mut Option<Session>) -> bool {
        let message: Value = serde_json::from_str(text).unwrap();
        match session {
            None => {
                assert_eq!(message["event"], "pusher_internal:subscription_succeeded", "{message}");
                *session = Some(self.tally.session());
                true
            }
            Some(session) => session.takes(&message),
        }
    }

    /// Follows the channel by event streams, each of which goes on where the last has ended: as if they were one.
    fn streams(&self) {
        let (mut last_id, mut session): (Option<String>, Option<Session>) = (None, None);
        loop {
            let fields = last_id.as_ref().map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
            let mut sse = Sse::open(self.addr, "/sse/key-a?channel=c", &fields);
            sse.last_id = last_id;
            self.connected();
            loop {
                match sse.next() {
                    Record::Event(message) if message["event"] == "news" => {
                        // A stream that has not been caught up can have replayed nothing yet.
                        let session = session.as_mut().unwrap();
                        if !session.takes(&message) {
                            return self.tally.check(session);
                        }
                    }
                    Record::Event(message) => {
                        assert_ne!(message["event"], "evenkeel:gap", "{message}");
                        if message["event"] == "pusher_internal:subscription_succeeded" && session.is_none() {
                            session = Some(self.tally.session());
                        }
                    }
                    Record::Comment | Record::Retry(_) => {}
                    Record::End(end) => {
                        assert_eq!(end, End::Orderly);
                        break;
                    }
                }
            }
            last_id = sse.last_id;
            self.moved.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Connects, subscribes, leaves, and again.
    fn comes_and_goes(&self) {
        while !self.is_over() {
            let mut ws = Ws::open(self.addr, "key-a");
            self.connected();
            ws.ask_to_subscribe("d", None);
            match ws.next() {
                Frame::Text(text) => assert!(text.contains("subscription_succeeded"), "{text}"),
                Frame::Close(4200, _) => continue,
                other => panic!("{other:?}"),
            }
            ws.send_bytes(&client_frame(0x88, &1000_u16.to_be_bytes()));
            match ws.next() {
                Frame::Close(1000 | 4200, _) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Ends it: publishers first, then, by the last message, all who follow.
    fn ends(&self, following: &[std::thread::ScopedJoinHandle<'_, ()>]) {
        eventually("all who follow have heard that it is over", || {
            let mut http = Http::connect(self.addr);
            assert_eq!(http.api("POST", "/apps/1/events", &event("c", "over")).status, 200);
            following.iter().all(std::thread::ScopedJoinHandle::is_finished)
        });
    }
}

/// Sends a request; the whole answer. None when the connection had been closed and nothing came.
fn request(stream: &mut TcpStream, text: &str) -> Option<String> {
    if stream.write_all(text.as_bytes()).is_err() {
        return None;
    }
    let mut answer = Vec::new();
    loop {
        let ended = read_more(stream, &mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return Some(text);
            }
        }
        match ended {
            None => {}
            Some(_) if answer.is_empty() => return None,
            Some(end) => panic!("{end:?} within an answer: {text}"),
        }
    }
}

#[test]
fn i48_replaced_thrice_in_a_storm_and_nobody_is_refused_cut_off_or_passed_over() {
    on_every_backend(|backend| {
        let app = "publish_rate = 0\nhistory_messages = 100000\nhistory_bytes = 100000000";
        let top = "drain_deadline_seconds = 1\nloops = 2";
        let mut site = Site::configured(&settings(backend, top, app));
        let storm = Storm::on(&site);
        std::thread::scope(|scope| {
            let storm = &storm;
            let mut following: Vec<_> = (0..4).map(|_| scope.spawn(|| storm.follows())).collect();
            following.extend((0..3).map(|_| scope.spawn(|| storm.streams())));
            let mut others: Vec<_> = (0..2).map(|_| scope.spawn(|| storm.comes_and_goes())).collect();
            others.extend((0..2).map(|n| scope.spawn(move || storm.publishes(n))));
            others.push(scope.spawn(|| storm.publishes_anew(2)));
            for n in 1..=3 {
                let before = storm.tally.count();
                eventually("it storms", || storm.tally.count() >= before + 20);
                site.replace_wholly();
                eventually("all have been moved", || storm.moved.load(Ordering::SeqCst) >= n * 4);
            }
            let before = storm.tally.count();
            eventually("it storms still", || storm.tally.count() >= before + 20);
            storm.over.store(true, Ordering::SeqCst);
            others.into_iter().for_each(|thread| thread.join().unwrap());
            storm.ends(&following);
            following.into_iter().for_each(|thread| thread.join().unwrap());
        });
        let of = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        eprintln!(
            "{backend}: {} messages, {} connections, {} moved, {} closed between requests",
            storm.tally.count(),
            of(&storm.connections),
            of(&storm.moved),
            of(&storm.closed_idle),
        );
    });
}

/// How many clients the crowd has: few enough for a small machine, unless it is said otherwise.
fn crowd() -> usize {
    std::env::var("EVENKEEL_HUB_TEST_CLIENTS").map_or(1000, |clients| clients.parse().unwrap())
}

/// Clients of one thread in the crowd.
struct Part {
    clients: Vec<(Ws, Option<Session>)>,
}

impl Storm {
    fn joins_the_crowd(&self) -> (Ws, Option<Session>) {
        let mut ws = Ws::open(self.addr, "key-a");
        self.connected();
        ws.ask_to_subscribe("c", None);
        (ws, None)
    }

    /// Serves clients until each has heard that it is over.
    fn serves(&self, mut part: Part) {
        while !part.clients.is_empty() {
            let ready = readable(&part.clients);
            for at in ready.into_iter().rev() {
                if !self.reads(&mut part.clients[at]) {
                    let (_, session) = part.clients.swap_remove(at);
                    self.tally.check(&session.unwrap());
                }
            }
        }
    }

    /// Takes what has come to a client, which comes back if it is told to. False when it has heard that it is over.
    fn reads(&self, client: &mut (Ws, Option<Session>)) -> bool {
        let (ws, session) = client;
        let mut frame = ws.next();
        loop {
            match frame {
                Frame::Text(text) if !self.takes(&text, session) => return false,
                Frame::Text(_) => {}
                Frame::Ping(payload) => ws.send_bytes(&client_frame(0x8a, &payload)),
                Frame::Close(code, reason) => {
                    assert_eq!(code, 4200, "{reason}");
                    assert_eq!(ws.next(), Frame::End(End::Orderly));
                    if let Some(session) = session {
                        self.tally.check(session);
                    }
                    self.moved.fetch_add(1, Ordering::SeqCst);
                    *client = self.joins_the_crowd();
                    return true;
                }
                other => panic!("{other:?} without a close code"),
            }
            match ws.parse() {
                Some(next) => frame = next,
                None => return true,
            }
        }
    }
}

/// Which clients have something to read, in their order.
fn readable(clients: &[(Ws, Option<Session>)]) -> Vec<usize> {
    let mut fds: Vec<_> = clients.iter().map(|(ws, _)| PollFd::new(&ws.stream, PollFlags::IN)).collect();
    let patience = Timespec { tv_sec: crate::support::PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut fds, Some(&patience)).unwrap();
    assert!(ready > 0, "a crowd of {} that nothing comes to", clients.len());
    let ready = fds.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty());
    ready.map(|(at, _)| at).collect()
}

#[test]
fn i48_a_crowd_is_moved_under_a_steady_publish_and_nobody_misses_anything() {
    [Backend::Epoll, Backend::IoUring].into_iter().for_each(crowd_is_moved);
}

fn crowd_is_moved(backend: Backend) {
    let clients = crowd();
    let app = "publish_rate = 0\nhistory_messages = 100000\nhistory_bytes = 100000000";
    // Of so many clients in so few threads some are slow on a busy machine, which is not what is tried here.
    let top = "drain_deadline_seconds = 5\nloops = 2\nping_interval_seconds = 3600\n\
               [limits]\naccept_rate = 0\nmax_queue_age_seconds = 600";
    let mut site = Site::configured(&settings(backend, top, app));
    let storm = Storm::on(&site);
    std::thread::scope(|scope| {
        let storm = &storm;
        let threads = 8;
        let parts: Vec<_> = (0..threads)
            .map(|n| {
                let own = clients * (n + 1) / threads - clients * n / threads;
                scope.spawn(move || {
                    storm.serves(Part { clients: (0..own).map(|_| storm.joins_the_crowd()).collect() })
                })
            })
            .collect();
        eventually("all are there", || storm.connections.load(Ordering::SeqCst) >= clients);
        // No faster than a stream gets it, which misses nothing.
        let publisher = scope.spawn(move || steadily(storm));
        let before = storm.tally.count();
        eventually("it is published", || storm.tally.count() >= before + 5);
        let old = site.replace();
        assert_eq!(site.ended(old), Some(0));
        // A crowd may take its time, as long as it moves.
        let moved = || storm.moved.load(Ordering::SeqCst);
        while moved() < clients {
            let before = moved();
            eventually(&format!("of {clients} clients more than {before} are moved"), || moved() > before);
        }
        let before = storm.tally.count();
        eventually("it is published still", || storm.tally.count() >= before + 5);
        storm.over.store(true, Ordering::SeqCst);
        publisher.join().unwrap();
        storm.ends(&parts);
    });
    let moved = storm.moved.load(Ordering::SeqCst);
    eprintln!("{backend}, {clients} clients: {} messages, {moved} moved", storm.tally.count());
}

/// Publishes one message after another, each when a stream has got the one before.
fn steadily(storm: &Storm) {
    let mut sse = Sse::open(storm.addr, "/sse/key-a?channel=c", "");
    sse.is_caught_up();
    for n in 1.. {
        if storm.is_over() {
            return;
        }
        let start = storm.tally.now();
        let text = format!("0 {n}");
        let answer = Http::connect(storm.addr).api("POST", "/apps/1/events", &event("c", &text));
        assert_eq!(answer.status, 200, "{answer:?}");
        storm.tally.published((0, n), start);
        loop {
            match sse.next() {
                Record::Event(message) if message["event"] == "news" => {
                    assert_eq!(message["data"], json!(text), "nothing is missed");
                    break;
                }
                Record::End(_) => {
                    let id = sse.last_id.as_ref().map(|id| format!("Last-Event-ID: {id}\r\n"));
                    let next = Sse::open(storm.addr, "/sse/key-a?channel=c", &id.unwrap_or_default());
                    let id = std::mem::replace(&mut sse, next).last_id;
                    sse.last_id = sse.last_id.take().or(id);
                }
                _ => {}
            }
        }
    }
}
