use super::*;

#[test]
fn an_event_is_encoded_once_for_each_transport_and_shared() {
    let mut world = World::new();
    let conns: Vec<u32> = (0..50).map(|_| world.connect()).collect();
    conns.iter().for_each(|conn| world.subscribe(*conn, "news"));
    world.sent.messages.clear();
    let before = ENCODINGS.get();
    world.publish("news", "x");
    assert_eq!(ENCODINGS.get() - before, 1);
    let shared = world.sent.messages[0].1.as_bytes().as_ptr();
    assert_eq!(world.sent.messages.len(), 50);
    assert!(world.sent.messages.iter().all(|(_, frame)| frame.as_bytes().as_ptr() == shared));
    let before = ENCODINGS.get();
    world.publish("nobody-there", "x");
    assert_eq!(ENCODINGS.get(), before);
}

#[test]
fn the_excluded_connection_gets_nothing_and_others_of_the_batch_do() {
    let mut world = World::new();
    let (a, b) = (world.connect(), world.connect());
    for conn in [a, b] {
        world.subscribe(conn, "x");
        world.subscribe(conn, "y");
        world.take(conn);
    }
    let id = world.socket_id(a);
    let event =
        Publication { name: "e", channels: &["x", "y", "x"], socket_id: Some(&id), ..Publication::default() };
    world.try_publish(&event).unwrap();
    assert!(world.take(a).is_empty());
    assert_eq!(world.take(b).len(), 2, "a channel named twice gets the event once");
    let unknown = Publication { socket_id: Some("123.456"), ..event };
    world.try_publish(&unknown).unwrap();
    assert_eq!(world.take(a).len(), 2);
    world.disconnect(a);
    let heir = world.connect();
    world.subscribe(heir, "x");
    world.take(heir);
    world.try_publish(&event).unwrap();
    assert_eq!(world.take(heir).len(), 1, "who has the place now is not excluded");
}

#[test]
fn i45_the_socket_id_of_another_application_excludes_nobody() {
    let mut world = World::new();
    world.add_app("2", "key2");
    let other = world.try_connect("key2", None).unwrap();
    world.subscribe_as(other, "key2", "x", None);
    world.take(other);
    let id = world.socket_id(other);
    let app = world.hub.app_by_key("key2").unwrap();
    let event = Publication { name: "e", channels: &["x"], socket_id: Some(&id), ..Publication::default() };
    world.try_publish(&event).unwrap();
    assert!(world.take(other).is_empty(), "it is not theirs at all");
    world.hub.publish(world.now, app, &Publication { socket_id: None, ..event }, &mut world.sent).unwrap();
    assert_eq!(world.take(other).len(), 1);
}

#[test]
fn i50_every_refusal_of_a_publication() {
    let mut world = World::new();
    let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (long, large) = ("e".repeat(201), "x".repeat(10_241));
    let good = Publication { name: "e", channels: &["c"], ..Publication::default() };
    for (event, refusal) in [
        (Publication { name: "", ..good }, Refusal::EventName),
        (Publication { name: "pusher:error", ..good }, Refusal::EventName),
        (Publication { name: "pusher_internal:member_added", ..good }, Refusal::EventName),
        (Publication { name: &long, ..good }, Refusal::EventNameTooLong),
        (Publication { data: &large, ..good }, Refusal::PayloadTooLarge),
        (Publication { channels: &[], ..good }, Refusal::NoChannels),
        (Publication { channels: &many, ..good }, Refusal::TooManyPublishChannels),
        (Publication { channels: &["ok", "not ok"], ..good }, Refusal::InvalidChannel),
        (Publication { channels: &[&long], ..good }, Refusal::ChannelNameTooLong),
        (Publication { socket_id: Some("x"), ..good }, Refusal::InvalidSocketId),
    ] {
        assert_eq!(world.try_publish(&event), Err(refusal));
        assert!(world.refusals().iter().any(|(counted, _)| *counted == refusal));
    }
    let edge = Publication { name: &long[1..], data: &large[1..], channels: &many[1..], ..good };
    assert!(world.try_publish(&edge).is_ok());
    let hub = &mut world.hub;
    assert_eq!(
        hub.publish_batch(world.now, world.app, &[good; 11], &mut world.sent),
        Err(Refusal::BatchTooLarge)
    );
    assert!(hub.publish_batch(world.now, world.app, &[good; 10], &mut world.sent).is_ok());
}

#[test]
fn a_batch_is_published_whole_or_not_at_all() {
    let mut world = World::new();
    let conn = world.connect();
    world.subscribe(conn, "c");
    world.take(conn);
    let good = Publication { name: "e", channels: &["c"], data: "1", ..Publication::default() };
    let bad = Publication { name: "", ..good };
    let hub = &mut world.hub;
    assert_eq!(hub.publish_batch(0, world.app, &[good, bad], &mut world.sent), Err(Refusal::EventName));
    assert!(world.take(conn).is_empty());
    let second = Publication { data: "2", ..good };
    world.hub.publish_batch(0, world.app, &[good, second], &mut world.sent).unwrap();
    assert_eq!(world.take_short(conn), ["e 1", "e 2"]);
}

#[test]
fn publishing_is_limited_by_rate() {
    let mut world = World::with(|limits| limits.publish_rate = Rate { per_second: 10, burst: 5 });
    let event = Publication { name: "e", channels: &["c"], ..Publication::default() };
    for _ in 0..5 {
        world.try_publish(&event).unwrap();
    }
    assert_eq!(world.try_publish(&event), Err(Refusal::PublishRate));
    world.now += 100;
    assert!(world.try_publish(&event).is_ok());
    assert_eq!(world.try_publish(&event), Err(Refusal::PublishRate));
}

#[test]
fn client_events_go_to_the_others_as_they_came() {
    let mut world = World::new();
    let (a, b) = (world.connect(), world.connect());
    world.join(a, "presence-r", "1");
    world.join(b, "presence-r", "2");
    world.subscribe(a, "private-p");
    world.subscribe(b, "private-p");
    world.sent.messages.clear();
    world.say(a, r#"{"event":"client-x","channel":"presence-r","data":{"n" : 1.0}}"#);
    world.say(a, r#"{"event":"client-x","channel":"private-p","data":"s"}"#);
    assert!(world.take(a).is_empty());
    assert_eq!(
        world.take(b),
        [
            r#"{"event":"client-x","channel":"presence-r","data":{"n" : 1.0},"user_id":"1"}"#,
            r#"{"event":"client-x","channel":"private-p","data":"s"}"#
        ]
    );
}

#[test]
fn i50_every_refusal_of_a_client_event() {
    let mut world = World::new();
    let (a, b) = (world.connect(), world.connect());
    for channel in ["news", "private-p", "private-encrypted-p"] {
        world.subscribe(a, channel);
        world.subscribe(b, channel);
    }
    world.sent.messages.clear();
    let event = |name: &str, channel: &str, size: usize| {
        format!(r#"{{"event":"{name}","channel":"{channel}","data":"{}"}}"#, "x".repeat(size - 2))
    };
    let long = format!("client-{}", "x".repeat(194));
    for (text, refusal) in [
        (event("client-x", "news", 2), Refusal::ClientEventChannel),
        (event("client-x", "private-encrypted-p", 2), Refusal::ClientEventChannel),
        (event("client-x", "#server-to-user-1", 2), Refusal::ClientEventChannel),
        (event("client-x", "private-other", 2), Refusal::NotSubscribed),
        (event("client-x", "a b", 2), Refusal::InvalidChannel),
        (event(&long, "private-p", 2), Refusal::EventNameTooLong),
        (event("client-x", "private-p", 10_241), Refusal::PayloadTooLarge),
    ] {
        world.say(a, &text);
        world.assert_refused(a, refusal);
    }
    assert!(world.take(b).is_empty());
    world.say(a, &event(&long[..200], "private-p", 10_240));
    assert_eq!(world.take(b).len(), 1);

    let mut world = World::with(|limits| limits.client_events = false);
    let conn = world.connect();
    world.subscribe(conn, "private-p");
    world.take(conn);
    world.say(conn, &event("client-x", "private-p", 2));
    world.assert_refused(conn, Refusal::ClientEventsDisabled);
}

#[test]
fn client_events_are_limited_by_rate_and_refused_with_4301() {
    let mut world = World::new();
    let (a, b) = (world.connect(), world.connect());
    world.subscribe(a, "private-p");
    world.subscribe(b, "private-p");
    world.sent.messages.clear();
    let text = r#"{"event":"client-x","channel":"private-p"}"#;
    for _ in 0..21 {
        world.say(a, text);
    }
    world.assert_refused(a, Refusal::ClientEventRate);
    assert_eq!((world.take(b).len(), Refusal::ClientEventRate.code()), (20, 4301));
    world.now += 100;
    world.say(a, text);
    world.say(a, text);
    assert_eq!((world.take(a).len(), world.take(b).len()), (1, 1));
    world.say(b, text);
    assert_eq!(world.take(a).len(), 1, "each connection has a limit of its own");
}
