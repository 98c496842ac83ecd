use super::*;

#[test]
fn every_kind_of_channel_can_be_joined_with_its_signature() {
    let mut world = World::new();
    for channel in ["news", "private-a", "private-encrypted-a"] {
        let conn = world.connect();
        world.subscribe(conn, channel);
        assert_eq!(world.take_short(conn), ["subscription_succeeded"], "{channel}");
        world.publish(channel, "x");
        assert_eq!(world.take_short(conn), ["e x"], "{channel}");
        world.unsubscribe(conn, channel);
        world.publish(channel, "y");
        assert!(world.take(conn).is_empty(), "{channel}");
    }
    for channel in ["cache-a", "private-cache-a", "private-encrypted-cache-a"] {
        let conn = world.connect();
        world.subscribe(conn, channel);
        assert_eq!(world.take_short(conn), ["subscription_succeeded", "cache_miss"], "{channel}");
    }
    let conn = world.connect();
    world.join(conn, "presence-cache-a", "7");
    let expected = r#"subscription_succeeded {"presence":{"ids":["7"],"hash":{"7":{}},"count":1}}"#;
    assert_eq!(world.take_short(conn), [expected, "cache_miss"]);
    world.sign_in(conn, r#"{"id":"7"}"#);
    world.subscribe(conn, "#server-to-user-7");
    world.publish("#server-to-user-7", "hello");
    assert_eq!(world.take_short(conn)[1..], ["subscription_succeeded", "e hello"]);
}

#[test]
fn i45_no_signature_no_channel() {
    let mut world = World::new();
    let (conn, other) = (world.connect(), world.connect());
    let good = format!("key:{}:private-a", world.socket_id(conn));
    let others = format!("key:{}:private-a", world.socket_id(other));
    for channel in ["private-a", "private-encrypted-a", "private-cache-a", "presence-a"] {
        for auth in ["", "nonsense", &others] {
            let auth = quote(auth);
            let text =
                format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":{auth}}}}}"#);
            world.say(conn, &text);
            world.assert_refused(conn, Refusal::Unauthorized);
        }
        world.say(conn, &format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#));
        world.assert_refused(conn, Refusal::Unauthorized);
    }
    // A signature for one channel opens no other.
    let text =
        format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"private-b","auth":{}}}}}"#, quote(&good));
    world.say(conn, &text);
    world.assert_refused(conn, Refusal::Unauthorized);
    world.subscribe(conn, "#server-to-user-1");
    world.assert_refused(conn, Refusal::NotSignedIn);
    world.sign_in(conn, r#"{"id":"2"}"#);
    world.take(conn);
    world.subscribe(conn, "#server-to-user-1");
    world.assert_refused(conn, Refusal::NotSignedIn);
    for channel in ["private-a", "private-encrypted-a", "presence-a", "#server-to-user-1"] {
        world.publish(channel, "secret");
    }
    assert!(world.take(conn).is_empty());
}

#[test]
fn i50_wrong_channels_are_refused() {
    let mut world = World::with(|limits| limits.max_channels_per_connection = 3);
    let conn = world.connect();
    for (channel, refusal) in [
        (String::new(), Refusal::InvalidChannel),
        ("a b".into(), Refusal::InvalidChannel),
        ("a".repeat(201), Refusal::ChannelNameTooLong),
    ] {
        world.subscribe(conn, &channel);
        world.assert_refused(conn, refusal);
    }
    world.subscribe(conn, &"a".repeat(200));
    world.subscribe(conn, "b");
    world.subscribe(conn, "c");
    assert_eq!(world.take(conn).len(), 3);
    world.subscribe(conn, "b");
    world.assert_refused(conn, Refusal::AlreadySubscribed);
    world.subscribe(conn, "d");
    world.assert_refused(conn, Refusal::TooManyChannels);
    world.unsubscribe(conn, "b");
    world.subscribe(conn, "d");
    assert_eq!(world.take_short(conn), ["subscription_succeeded"]);
    world.unsubscribe(conn, "never-joined");
    assert!(world.take(conn).is_empty());
}

#[test]
fn a_refused_name_is_not_echoed_at_length() {
    let mut world = World::new();
    let conn = world.connect();
    world.subscribe(conn, &"é".repeat(30_000));
    assert!(world.take(conn)[0].len() < 1_000);
}

#[test]
fn a_cache_channel_sends_its_last_event_until_it_is_too_old() {
    let mut world = World::new();
    let publisher = world.connect();
    world.subscribe(publisher, "private-cache-a");
    world.publish("private-cache-a", "1");
    world.publish("private-cache-a", "2");
    world.say(publisher, r#"{"event":"client-x","channel":"private-cache-a","data":3}"#);
    world.disconnect(publisher);
    let late = world.connect();
    world.subscribe(late, "private-cache-a");
    assert_eq!(world.take_short(late), ["subscription_succeeded", "e 2"]);
    world.now += 30 * 60 * 1_000;
    world.tick();
    let later = world.connect();
    world.subscribe(later, "private-cache-a");
    assert_eq!(world.take_short(later), ["subscription_succeeded", "cache_miss"]);
}

#[test]
fn caches_are_bounded_by_bytes_and_the_oldest_goes_first() {
    let mut world = World::with(|limits| {
        limits.cache_bytes = 3_000;
        limits.history_count = 0;
    });
    for n in 0..50 {
        world.publish(&format!("cache-{n}"), "x");
        assert!(world.hub.snapshot().apps[0].cache_bytes <= 3_000);
    }
    let conn = world.connect();
    world.subscribe(conn, "cache-49");
    world.subscribe(conn, "cache-0");
    assert_eq!(
        world.take_short(conn),
        ["subscription_succeeded", "e x", "subscription_succeeded", "cache_miss"]
    );
    // An event that does not fit at all is not kept, and neither is its channel.
    let channels = world.hub.channels.len();
    world.publish("cache-large", &"x".repeat(5_000));
    assert_eq!(world.hub.snapshot().apps[0].cache_bytes, 0);
    assert!(world.hub.channels.len() < channels);
}

#[test]
fn subscription_counts_are_told_at_once_while_few_and_at_intervals_when_many() {
    let mut world = World::with(|limits| limits.subscription_count = true);
    let first = world.connect();
    world.subscribe(first, "news");
    assert_eq!(world.take_short(first)[1], r#"subscription_count {"subscription_count":1}"#);
    for _ in 0..99 {
        let conn = world.connect();
        world.subscribe(conn, "news");
    }
    assert_eq!(world.take(first).len(), 99);
    let more: Vec<u32> = (0..50).map(|_| world.connect()).collect();
    more.iter().for_each(|conn| world.subscribe(*conn, "news"));
    assert!(world.take(first).is_empty(), "the hundredth was told just now");
    assert_eq!(world.hub.next_tick(world.now), Some(world.now + 5_000));
    assert_eq!(world.hub.counts.len(), 1, "a channel waits once");
    world.now += 5_000;
    world.tick();
    assert_eq!(world.take_short(first), [r#"subscription_count {"subscription_count":150}"#]);
    world.tick();
    assert!(world.take(first).is_empty());
    world.disconnect(more[0]);
    world.now += 5_000;
    world.tick();
    assert_eq!(world.take_short(first), [r#"subscription_count {"subscription_count":149}"#]);
    more[1..].iter().for_each(|conn| world.disconnect(*conn));
    let told = world.take_short(first);
    assert_eq!(told.last().unwrap(), r#"subscription_count {"subscription_count":100}"#);
    assert_eq!(told.len(), 1, "only when they are few again: {told:?}");
}

#[test]
fn presence_channels_have_no_subscription_count() {
    let mut world = World::with(|limits| limits.subscription_count = true);
    let conn = world.connect();
    world.join(conn, "presence-a", "1");
    assert_eq!(world.take(conn).len(), 1);
}
