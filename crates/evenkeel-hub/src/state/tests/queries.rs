use super::*;

const ALL: Info = Info { user_count: true, subscription_count: true, cache: true };

#[test]
fn channels_are_listed_by_prefix_with_what_is_asked_for() {
    let mut world = World::new();
    let conns = [(); 3].map(|()| world.connect());
    for (conn, user) in conns.into_iter().zip(["1", "1", "2"]) {
        world.join(conn, "presence-r", user);
        world.subscribe(conn, "news");
    }
    world.sign_in(conns[0], r#"{"id":"u"}"#);
    world.subscribe(conns[0], "#server-to-user-u");
    world.publish("only-history", "x");
    let mut names: Vec<String> = Vec::new();
    for state in world.hub.channels(world.now, world.app, "", Info::default()).unwrap() {
        assert!(state.occupied && state.user_count.is_none() && state.subscription_count.is_none());
        names.push(state.name.to_string());
    }
    names.sort();
    assert_eq!(names, ["news", "presence-r"]);
    let rooms = world.hub.channels(world.now, world.app, "presence-", ALL).unwrap();
    assert_eq!((rooms[0].user_count, rooms[0].subscription_count), (Some(2), Some(3)));
    assert_eq!(world.hub.channels(world.now, world.app, "", ALL), Err(Refusal::UserCountUnavailable));
    let snapshot = world.hub.snapshot().apps[0].clone();
    assert_eq!((snapshot.connections, snapshot.channels, snapshot.users, snapshot.streams), (3, 3, 1, 0));
}

#[test]
fn one_channel_is_described_even_when_nobody_is_there() {
    let mut world = World::new();
    let counts = Info { user_count: false, ..ALL };
    let ask = |world: &World, name: &str, info| world.hub.channel(world.now, world.app, name, info);
    let empty = ask(&world, "cache-a", counts).unwrap();
    assert_eq!((empty.occupied, empty.subscription_count, empty.cache), (false, Some(0), None));
    world.publish("cache-a", "{\"n\":1}");
    world.now += 1_500;
    let cached = ask(&world, "cache-a", counts).unwrap().cache.unwrap();
    assert_eq!((cached.data.as_str(), cached.ttl_s), ("{\"n\":1}", 1_799));
    assert_eq!(ask(&world, "news", ALL), Err(Refusal::UserCountUnavailable));
    assert_eq!(ask(&world, "presence-r", ALL).unwrap().user_count, Some(0));
    assert_eq!(ask(&world, "a b", counts), Err(Refusal::InvalidChannel));
    assert_eq!(world.hub.presence_users(world.app, "news"), Err(Refusal::NotPresence));
    assert!(world.hub.presence_users(world.app, "presence-r").unwrap().is_empty());
}

#[test]
fn a_publisher_learns_of_the_channels_what_they_have() {
    let mut world = World::new();
    let conn = world.connect();
    world.join(conn, "presence-r", "1");
    let event =
        Publication { name: "e", channels: &["presence-r", "news"], info: ALL, ..Publication::default() };
    let states = world.try_publish(&event).unwrap();
    let counts: Vec<_> = states.iter().map(|s| (&*s.name, s.user_count, s.subscription_count)).collect();
    assert_eq!(counts, [("presence-r", Some(1), Some(1)), ("news", None, Some(0))]);
}
