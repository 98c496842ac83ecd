use super::*;

/// Everything that the hub keeps for what peers make, in entries that memory is held for.
fn held(hub: &Hub<u32, Readable>) -> usize {
    let of_apps =
        hub.apps.iter().map(|app| app.channels.capacity() + app.users.capacity() + app.deadlines.capacity());
    hub.sessions.capacity() + hub.channels.capacity() + hub.counts.capacity() + of_apps.sum::<usize>()
}

/// The same budget as `session::tests` reckons from sizes, here from the memory that is really held.
#[test]
fn ten_thousand_idle_subscribers_hold_at_most_200_bytes_each() {
    use std::mem::size_of;
    type Conn = [u64; 2];
    struct Ignore;
    impl Outbox for Ignore {
        type Conn = Conn;
        fn send(&mut self, _to: Conn, _frame: &Frame) {}
        fn close(&mut self, _to: Conn, _code: u16, _reason: &'static str) {}
    }
    let mut hub: Hub<Conn, Readable> = Hub::new(fastrand::Rng::with_seed(1));
    hub.add_app(app_config("1", "key")).unwrap();
    for n in 0..10_000 {
        let request = Connect { key: "key", protocol: None, conn: [n; 2] };
        let session = hub.connect(0, &request, &mut Ignore).unwrap();
        let text = r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#;
        hub.receive(0, session, text, &Echo, &mut Ignore);
    }
    assert!(
        hub.sessions
            .iter()
            .all(|(_, session)| matches!(session.subscriptions, session::Subscriptions::One(_)))
    );
    let members: usize = hub.channels.iter().map(|(_, channel)| channel.members.capacity()).sum();
    let bytes = hub.sessions.capacity() * size_of::<slab::Entry<Session<Conn>>>()
        + members * size_of::<channel::Member>()
        + hub.apps[0].deadlines.capacity() * size_of::<(u64, Key)>();
    assert!(hub.session_count() == 10_000 && bytes <= 200 * 10_000, "{} bytes each", bytes / 10_000);
}

#[test]
fn memory_returns_after_a_hundred_thousand_subscriptions_one_by_one() {
    let mut world = World::with(|limits| limits.message_rate = Rate { per_second: 1 << 20, burst: 1 << 20 });
    let conn = world.connect();
    for n in 0..100_000 {
        let channel = format!("c{n}");
        world.subscribe(conn, &channel);
        world.unsubscribe(conn, &channel);
        world.sent.messages.clear();
    }
    assert_eq!(world.hub.channels.len(), 0);
    assert!(held(&world.hub) < 300, "{}", held(&world.hub));
}

#[test]
fn memory_returns_when_a_crowd_leaves() {
    let mut world = World::new();
    let conns: Vec<u32> = (0..5_000).map(|_| world.connect()).collect();
    for (n, conn) in conns.iter().enumerate() {
        world.subscribe(*conn, "all");
        world.subscribe(*conn, &format!("own-{n}"));
        world.join(*conn, &format!("presence-{}", n % 97), &n.to_string());
        world.sign_in(*conn, &format!(r#"{{"id":"{n}","watchlist":["{}"]}}"#, n + 1));
        world.sent.messages.clear();
    }
    let full = held(&world.hub);
    assert_eq!(world.hub.channels.len(), 1 + 5_000 + 97);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut order = conns;
    rng.shuffle(&mut order);
    for conn in order {
        world.disconnect(conn);
        world.sent.messages.clear();
    }
    assert_eq!((world.hub.channels.len(), world.hub.session_count()), (0, 0));
    assert!(full > 15_000 && held(&world.hub) < 500, "{full}, then {}", held(&world.hub));
}

#[test]
fn the_history_queue_does_not_grow_with_what_is_no_longer_kept() {
    let mut world = World::with(|limits| {
        limits.history_count = 2;
        limits.publish_rate = Rate { per_second: 1 << 20, burst: 1 << 20 };
    });
    for _ in 0..100_000 {
        world.publish("cache-busy", "x");
    }
    let printed =
        format!("{:?}", world.hub.apps[0].history).len() + format!("{:?}", world.hub.apps[0].caches).len();
    assert!(printed < 40_000, "{printed}");
}
