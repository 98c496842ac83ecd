//! Taking over with another configuration than the old one.

use super::*;

/// A world with two applications, each with a session in `news` and in `presence-r`; the connections of both.
fn two_apps() -> (World, [u32; 2]) {
    let mut world = World::new();
    world.add_app("2", "key2");
    let conns = ["key", "key2"].map(|key| {
        let conn = world.try_connect(key, None).unwrap();
        world.subscribe_as(conn, key, "news", None);
        world.subscribe_as(conn, key, "presence-r", Some(r#"{"user_id":"u"}"#));
        conn
    });
    world.sent = Sent::default();
    (world, conns)
}

fn refused(conn: u32, refusal: Refusal) -> RefusedSession<u32> {
    RefusedSession { conn, transport: Transport::WebSocket, refusal }
}

#[test]
fn i48_sessions_of_an_application_that_is_gone_are_returned() {
    let (world, [kept, gone]) = two_apps();
    let (mut world, taken) = world.replaced(9, &configs(&world)[..1]);
    assert_eq!(taken.refused, [refused(gone, Refusal::UnknownApp)]);
    assert_eq!((taken.sessions, taken.channels, &taken.dropped_apps[..]), (1, 2, &["2".to_owned()][..]));
    assert_eq!(world.hub.snapshot().refusals, [(Refusal::UnknownApp, 1)]);
    world.publish("news", "x");
    assert_eq!(world.take_short(kept), ["e x"]);
    world.disconnect(gone);
    let new = world.connect();
    assert_eq!(world.hub.session_count(), 2);
    world.disconnect(gone);
    assert_eq!(world.hub.socket_id(world.session(new)).unwrap().to_string(), world.socket_id(new));
    consistency::check(&world.hub);
}

#[test]
fn i48_sessions_of_an_application_that_is_disabled_are_returned() {
    let (world, [gone, kept]) = two_apps();
    let mut changed = configs(&world);
    changed[0].enabled = false;
    let (world, taken) = world.replaced(9, &changed);
    assert_eq!(taken.refused, [refused(gone, Refusal::AppDisabled)]);
    assert_eq!((taken.sessions, taken.channels), (1, 2));
    assert!(world.hub.socket_id(world.session(kept)).is_some());
    assert!(world.sent.messages.is_empty() && world.sent.closed.is_empty());
}

#[test]
fn applications_are_matched_by_id_and_new_ones_begin_afresh() {
    let (mut world, [first, second]) = two_apps();
    world.publish("news", "1");
    let mut changed = configs(&world);
    changed[1].key = "another".to_owned();
    changed.insert(0, app_config("3", "key3"));
    changed.swap(1, 2);
    let (mut world, taken) = world.replaced(9, &changed);
    assert!(taken.refused.is_empty() && taken.dropped_apps.is_empty());
    let snapshot = world.hub.snapshot();
    let of = |app: &AppSnapshot| (app.id.clone(), app.connections, app.counters.published);
    assert_eq!(
        snapshot.apps.iter().map(of).collect::<Vec<_>>(),
        [("3".to_owned(), 0, 0), ("2".to_owned(), 1, 0), ("1".to_owned(), 1, 1)]
    );
    world.publish("news", "2");
    assert_eq!((world.take_short(first), world.take_short(second)), (vec!["e 2".to_owned()], vec![]));
    // Epochs never repeat, not even for an application that is added after others have gone.
    world.add_app("4", "key4");
    let mut epochs: Vec<u64> = world.hub.apps.iter().map(|app| app.position.epoch).collect();
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 4);
}

#[test]
fn smaller_limits_end_nothing_and_hold_for_newcomers() {
    let (mut world, [conn, _]) = two_apps();
    for n in 0..10 {
        world.publish("news", &n.to_string());
        world.publish("cache-c", &n.to_string());
    }
    let old = world.hub.apps[0].position;
    let mut changed = configs(&world);
    let limits = &mut changed[0].limits;
    (limits.max_connections, limits.max_channels_per_connection) = (1, 1);
    (limits.max_channel_name, limits.max_presence_members) = (3, 1);
    (limits.history_count, limits.history_ttl, limits.cache_ttl) = (4, 1_000, 500);
    let (mut world, taken) = world.replaced(9, &changed);
    assert!(taken.refused.is_empty());
    consistency::check(&world.hub);
    world.sent = Sent::default();
    assert_eq!(world.try_connect("key", None), Err(Refusal::OverCapacity));
    let kept = |world: &World| {
        world.hub.channels.iter().map(|(_, channel)| channel.past.events.len()).max().unwrap_or(0)
    };
    assert_eq!(kept(&world), 4);
    world.now += 500;
    world.tick();
    assert_eq!((kept(&world), world.hub.apps[0].caches.bytes), (4, 0));
    world.now += 500;
    world.tick();
    assert_eq!(kept(&world), 0);
    let last = EventId { sequence: old.sequence - 1, ..old }.to_string();
    world.hub.apps[0].config.limits.max_connections = 0;
    let error = world.stream(&["cache-c"], Some(&last));
    assert_eq!(error, Err(Refusal::ChannelNameTooLong));
    world.hub.apps[0].config.limits.max_channel_name = 200;
    let (_, connected) = world.stream(&["cache-c"], Some(&last)).unwrap();
    assert_eq!((connected.replayed, connected.gaps), (0, 1), "what was trimmed is a gap");
    world.unsubscribe(conn, "presence-r");
    consistency::check(&world.hub);
}

#[test]
fn deadlines_go_on_and_keep_to_the_new_limit() {
    let mut world = World::with(|limits| limits.authorization_deadline = 10_000);
    let [early, late, fine] = [(); 3].map(|()| {
        world.now += 3_000;
        world.connect()
    });
    world.subscribe(fine, "private-p");
    let due = |world: &World| world.hub.apps[0].deadlines.iter().map(|(due, _)| *due).collect::<Vec<_>>();
    assert_eq!(due(&world.succeeded(100)), [100 + 4_000, 100 + 7_000]);
    let mut changed = configs(&world);
    changed[0].limits.authorization_deadline = 5_000;
    let (mut shorter, _) = world.replaced(100, &changed);
    assert_eq!(due(&shorter), [100 + 4_000, 100 + 5_000]);
    shorter.now += 5_000;
    shorter.tick();
    assert_eq!(shorter.sent.closed, HashMap::from([(early, 4009), (late, 4009)]));
    changed[0].limits.authorization_deadline = 0;
    assert!(due(&world.replaced(100, &changed).0).is_empty());
}

#[test]
fn a_bucket_goes_on_and_one_whose_rate_has_changed_is_full() {
    let mut world = World::with(|limits| limits.message_rate = Rate { per_second: 1, burst: 3 });
    let conn = world.connect();
    let ping = |world: &mut World| world.say(conn, r#"{"event":"pusher:ping","data":{}}"#);
    (0..3).for_each(|_| ping(&mut world));
    let mut same = world.succeeded(0);
    ping(&mut same);
    assert_eq!(same.sent.closed[&conn], Refusal::MessageRate.code());
    let mut changed = configs(&world);
    changed[0].limits.message_rate = Rate { per_second: 1, burst: 2 };
    let (mut other, _) = world.replaced(0, &changed);
    (0..2).for_each(|_| ping(&mut other));
    assert!(other.sent.closed.is_empty());
}
