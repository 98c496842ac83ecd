//! Whether a hub is sound, for tests and for the fuzz target of the hand-over: what must hold between any two operations,
//! and what becomes of bytes that may be a state.

#![allow(clippy::unwrap_used)]

pub(in crate::state) mod consistency;

use super::{AppConfig, AppId, Connect, Frame, Hub, Outbox, Publication, SessionId, Verifier, Wire};

/// An outbox of a hub whose connections may be anything, two of them the same.
struct Ignore;

impl Outbox for Ignore {
    type Conn = u32;
    fn send(&mut self, _to: u32, _frame: &Frame) {}
    fn close(&mut self, _to: u32, _code: u16, _reason: &'static str) {}
}

/// Takes no signature for right.
struct Strict;

impl Verifier for Strict {
    fn channel(&self, _: &AppConfig, _: &str, _: &str, _: Option<&str>, _: &str) -> bool {
        false
    }

    fn user(&self, _: &AppConfig, _: &str, _: &str, _: &str) -> bool {
        false
    }

    fn stream(&self, _: &AppConfig, _: &str, _: &str) -> bool {
        false
    }
}

/// A hub of another process with these applications, which has served nobody.
pub(crate) fn fresh<W: Wire>(configs: &[AppConfig]) -> Hub<u32, W> {
    let mut hub = Hub::new(fastrand::Rng::with_seed(99));
    for config in configs {
        hub.add_app(config.clone()).unwrap();
    }
    hub
}

/// Takes over the bytes. A refusal must leave the hub as it was; a hub that accepts them must live with them, and hand over
/// what another takes for the same.
pub(crate) fn try_take_over<W: Wire>(bytes: &[u8], configs: &[AppConfig], rng: &mut fastrand::Rng) -> bool {
    let mut hub: Hub<u32, W> = fresh(configs);
    let before = hub.hand_over(0).unwrap();
    if let Err(error) = hub.take_over(1_000, bytes) {
        assert!(!error.to_string().is_empty() && error.to_string().len() < 1_000);
        assert_eq!(hub.hand_over(0).unwrap(), before);
        return false;
    }
    consistency::check(&hub);
    passes_on(&hub, configs);
    let mut now = 1_000;
    let sessions: Vec<SessionId> = hub.sessions().map(|(id, _, _)| id).collect();
    for &session in &sessions {
        now += rng.u64(0..100);
        let text = r#"{"event":"pusher:unsubscribe","data":{"channel":"presence-r"}}"#;
        hub.receive(now, session, text, &Strict, &mut Ignore);
        hub.receive(now, session, r#"{"event":"client-x","channel":"private-p"}"#, &Strict, &mut Ignore);
        let join = r#"{"event":"pusher:subscribe","data":{"channel":"cache-a"}}"#;
        hub.receive(now, session, join, &Strict, &mut Ignore);
        let event = Publication { name: "e", channels: &["cache-a", "news"], ..Publication::default() };
        let _ = hub.publish(now, AppId(0), &event, &mut Ignore);
        let _ = hub.connect(now, &Connect { key: "key", protocol: None, conn: 1 }, &mut Ignore);
        hub.tick(now, &mut Ignore);
    }
    consistency::check(&hub);
    for (session, _, _) in hub.sessions().collect::<Vec<_>>() {
        if rng.bool() {
            hub.disconnect_moving(now, session, 10, &mut Ignore);
        } else {
            hub.disconnect(now, session, &mut Ignore);
        }
    }
    consistency::check(&hub);
    for _ in 0..100 {
        hub.tick(u64::MAX, &mut Ignore);
    }
    assert_eq!((hub.session_count(), hub.channels.len(), hub.seats.live()), (0, 0, 0));
    assert_eq!(hub.next_tick(u64::MAX), None);
    true
}

/// What was taken over and is handed over at the same moment is, from then on, the same bytes again and again.
fn passes_on<W: Wire>(hub: &Hub<u32, W>, configs: &[AppConfig]) {
    let bytes = hub.hand_over(1_000).unwrap();
    let mut next: Hub<u32, W> = fresh(configs);
    let taken = next.take_over(1_000, &bytes).unwrap();
    assert_eq!((taken.sessions, taken.channels), (hub.session_count(), hub.channels.len()));
    assert_eq!(next.hand_over(1_000).unwrap(), bytes);
}
