use super::*;

#[test]
fn a_connection_is_greeted_with_a_valid_socket_id() {
    let mut world = World::new();
    let conn = world.try_connect("key", Some("7")).unwrap();
    let greeting = json(&world.take(conn)[0]);
    assert_eq!(greeting["event"], "pusher:connection_established");
    let data = json(greeting["data"].as_str().unwrap());
    assert_eq!(data["socket_id"], world.socket_id(conn));
    assert_eq!(data["activity_timeout"], 120);
    assert!(SocketId::parse(data["socket_id"].as_str().unwrap()).is_some());
}

#[test]
fn socket_ids_do_not_repeat_when_a_place_is_reused() {
    let mut world = World::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1_000 {
        let conn = world.connect();
        assert!(seen.insert(world.socket_id(conn)));
        world.disconnect(conn);
    }
}

#[test]
fn i50_every_refusal_of_a_connection() {
    let mut world = World::with(|limits| limits.max_connections = 2);
    let disabled = world.add_app("2", "off");
    world.hub.set_enabled(0, disabled, false, &mut world.sent);
    let first = world.connect();
    for protocol in [None, Some("5"), Some("6"), Some("7")] {
        let conn = world.try_connect("key", protocol).unwrap();
        world.disconnect(conn);
    }
    let expect = |world: &mut World, key: &str, protocol, refusal: Refusal, code| {
        assert_eq!(world.try_connect(key, protocol), Err(refusal));
        let conn = world.next_conn;
        assert_eq!(world.sent.closed[&conn], code);
        let told = json(&world.take(conn)[0]);
        assert_eq!(told["data"]["code"], code);
    };
    expect(&mut world, "nobody", Some("7"), Refusal::UnknownApp, 4001);
    expect(&mut world, "off", Some("7"), Refusal::AppDisabled, 4003);
    for protocol in ["4", "8", "x", ""] {
        expect(&mut world, "key", Some(protocol), Refusal::UnsupportedProtocol, 4007);
    }
    let second = world.connect();
    expect(&mut world, "key", Some("7"), Refusal::OverCapacity, 4100);
    world.disconnect(second);
    world.hub.begin_drain();
    expect(&mut world, "key", Some("7"), Refusal::Draining, 4200);
    let snapshot = world.hub.snapshot();
    assert!(snapshot.draining);
    assert_eq!(snapshot.refusals, [(Refusal::UnknownApp, 1)]);
    assert_eq!(snapshot.apps[0].refusals.len(), 3);
    assert_eq!(snapshot.apps[1].refusals, [(Refusal::AppDisabled, 1)]);
    assert_eq!(
        world.hub.sessions().collect::<Vec<_>>(),
        [(world.session(first), first, Transport::WebSocket)]
    );
}

#[test]
fn applications_cannot_share_a_key_or_an_id() {
    let mut world = World::new();
    let hub = &mut world.hub;
    assert_eq!(hub.add_app(app_config("1", "k2")), Err(AppError::DuplicateId("1".into())));
    assert_eq!(hub.add_app(app_config("2", "key")), Err(AppError::DuplicateKey("key".into())));
    assert_eq!((hub.app_by_key("key"), hub.app_by_id("1")), (Some(world.app), Some(world.app)));
    assert_eq!((hub.app_by_key("1"), hub.app_by_id("key")), (None, None));
}

#[test]
fn pings_are_answered_and_pongs_are_not() {
    let mut world = World::new();
    let conn = world.connect();
    world.say(conn, r#"{"event":"pusher:ping","data":{}}"#);
    world.say(conn, r#"{"event":"pusher:pong","data":{}}"#);
    assert_eq!(world.take_short(conn), ["pong"]);
}

#[test]
fn i50_wrong_messages_are_answered_and_the_connection_lives() {
    let mut world = World::new();
    let conn = world.connect();
    for (text, refusal) in [
        ("nonsense".to_owned(), Refusal::Malformed),
        (r#"{"event":"pusher:unknown","data":{}}"#.to_owned(), Refusal::UnknownEvent),
        ("[".repeat(1_000), Refusal::TooDeep),
        (format!("[{}]", "1,".repeat(1_000)), Refusal::TooManyNodes),
    ] {
        world.say(conn, &text);
        world.assert_refused(conn, refusal);
    }
    world.say(conn, r#"{"event":"pusher:ping"}"#);
    assert_eq!(world.take_short(conn), ["pong"]);
}

#[test]
fn too_many_messages_close_the_connection() {
    let mut world = World::with(|limits| limits.message_rate = Rate { per_second: 10, burst: 5 });
    let conn = world.connect();
    for _ in 0..5 {
        world.say(conn, r#"{"event":"pusher:pong"}"#);
    }
    assert!(world.take(conn).is_empty());
    world.say(conn, r#"{"event":"pusher:pong"}"#);
    world.assert_refused(conn, Refusal::MessageRate);
    assert_eq!(world.sent.closed[&conn], 4301);
    assert_eq!(world.hub.session_count(), 0);
    world.say(conn, r#"{"event":"pusher:ping"}"#);
    world.disconnect(conn);
    assert!(world.take(conn).is_empty(), "a session that was closed is deaf and dumb");
}

#[test]
fn a_stale_session_cannot_touch_its_successor() {
    let mut world = World::new();
    let old = world.connect();
    world.disconnect(old);
    let new = world.connect();
    assert_eq!(world.session(old).0.index, world.session(new).0.index);
    world.subscribe(old, "news");
    world.disconnect(old);
    assert_eq!(world.hub.session_count(), 1);
    assert!(world.take(old).is_empty() && world.take(new).is_empty());
}

#[test]
fn connections_that_show_no_signature_in_time_are_closed() {
    let mut world = World::with(|limits| limits.authorization_deadline = 10_000);
    let [idle, public, private, user, gone] = [(); 5].map(|()| world.connect());
    world.subscribe(public, "news");
    world.subscribe(private, "private-a");
    world.sign_in(user, r#"{"id":"1"}"#);
    world.disconnect(gone);
    assert_eq!(world.hub.next_tick(world.now), Some(world.now + 10_000));
    world.now += 9_999;
    world.tick();
    assert!(world.sent.closed.is_empty());
    world.now += 1;
    world.tick();
    let mut closed: Vec<_> = world.sent.closed.iter().map(|(conn, code)| (*conn, *code)).collect();
    closed.sort_unstable();
    assert_eq!(closed, [(idle, 4009), (public, 4009)]);
    assert_eq!(world.hub.next_tick(world.now), None);
}

#[test]
fn disabling_an_application_closes_its_connections_and_no_others() {
    let mut world = World::new();
    let other = world.add_app("2", "key2");
    let mine = world.connect();
    let theirs = world.try_connect("key2", None).unwrap();
    world.hub.set_enabled(world.now, world.app, false, &mut world.sent);
    assert_eq!(world.sent.closed.get(&mine), Some(&4003));
    assert_eq!(world.sent.closed.get(&theirs), None);
    let event = Publication { name: "e", channels: &["c"], ..Publication::default() };
    assert_eq!(world.try_publish(&event), Err(Refusal::AppDisabled));
    assert!(world.hub.publish(world.now, other, &event, &mut world.sent).is_ok());
}

#[test]
fn a_hub_can_be_built_on_one_thread_and_moved_to_its_loop() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&World::new().hub);
}
