//! Clients that are moved, and what the others see of it.

use super::*;

const GRACE: u64 = 5_000;

impl World {
    pub(super) fn move_away(&mut self, conn: u32, grace: u64) {
        self.hub.disconnect_moving(self.now, self.session(conn), grace, &mut self.sent);
    }

    fn users(&self) -> Vec<String> {
        self.hub.presence_users(self.app, "presence-r").unwrap()
    }
}

/// A world with a client that is in `presence-r` as `w` and watches `u` and `v`, and one that is `u` there.
fn watched() -> (World, u32, u32) {
    let mut world = World::with(|limits| limits.subscription_count = true);
    let [watcher, mover] = [(); 2].map(|()| world.connect());
    world.sign_in(watcher, r#"{"id":"w","watchlist":["u","v"]}"#);
    world.join(watcher, "presence-r", "w");
    come(&mut world, mover, "1");
    world.take(watcher);
    (world, watcher, mover)
}

/// What a client does once it is connected.
fn come(world: &mut World, conn: u32, info: &str) {
    world.sign_in(conn, r#"{"id":"u"}"#);
    let data = format!(r#"{{"user_id":"u","user_info":{info}}}"#);
    world.subscribe_as(conn, "key", "presence-r", Some(&data));
    world.subscribe(conn, "news");
}

#[test]
fn i46_a_client_that_is_moved_does_not_flap() {
    let (mut world, watcher, mover) = watched();
    for round in 0..5 {
        world.subscribe(watcher, "news");
        world.take(watcher);
        let mover = if round == 0 { mover } else { world.next_conn };
        world.move_away(mover, GRACE);
        assert!(world.hub.socket_id(world.session(mover)).is_none(), "the session has ended");
        consistency::check(&world.hub);
        assert_eq!(world.users(), ["w", "u"]);
        let count = r#"subscription_count {"subscription_count":1}"#;
        assert_eq!(world.take_short(watcher), [count], "a kept seat is no subscription");
        world.now += GRACE - 1;
        world.tick();
        let conn = world.connect();
        come(&mut world, conn, "2");
        assert!(world.take(conn)[1].contains(r#"\"u\":2"#), "the user's info is the one that it came with");
        let told = world.take_short(watcher);
        assert_eq!(told, [r#"subscription_count {"subscription_count":2}"#], "and nothing of the user");
        world.now += GRACE;
        world.tick();
        assert!(world.take(watcher).is_empty(), "the seat is not given up after the return");
        assert_eq!(world.hub.next_tick(world.now), None);
        consistency::check(&world.hub);
    }
}

#[test]
fn i46_who_does_not_come_back_is_gone_after_the_grace() {
    let (mut world, watcher, mover) = watched();
    world.move_away(mover, GRACE);
    world.take(watcher);
    assert_eq!(world.hub.next_tick(world.now), Some(world.now + GRACE));
    assert_eq!(world.hub.snapshot().apps[0].users, 2);
    world.now += GRACE;
    world.tick();
    let told = world.take_short(watcher);
    assert_eq!(told[0], r#"member_removed {"user_id":"u"}"#);
    assert!(told[1].contains("offline") && told.len() == 2, "{told:?}");
    assert_eq!((world.users(), world.hub.snapshot().apps[0].users), (vec!["w".to_owned()], 1));
    assert_eq!(world.hub.next_tick(world.now), None);
    consistency::check(&world.hub);
}

#[test]
fn a_channel_with_a_kept_seat_only_is_still_there() {
    let (mut world, watcher, mover) = watched();
    world.disconnect(watcher);
    world.move_away(mover, GRACE);
    let info = Info { user_count: true, subscription_count: true, cache: false };
    let state = world.hub.channel(world.now, world.app, "presence-r", info).unwrap();
    assert_eq!((state.occupied, state.user_count, state.subscription_count), (true, Some(1), Some(0)));
    assert_eq!(world.hub.channels(world.now, world.app, "presence-", info).unwrap(), [state]);
    assert_eq!((world.hub.snapshot().apps[0].channels, world.hub.channels.len()), (1, 1));
    let late = world.connect();
    world.join(late, "presence-r", "x");
    assert!(world.take_short(late)[0].contains(r#""ids":["x","u"]"#));
    world.disconnect(late);
    consistency::check(&world.hub);
    world.now += GRACE;
    world.tick();
    assert_eq!((world.hub.snapshot().apps[0].channels, world.hub.channels.len()), (0, 0));
    assert_eq!(world.hub.snapshot().apps[0].users, 0);
    consistency::check(&world.hub);
}

#[test]
fn a_seat_outlives_the_user_s_other_connections_and_not_the_longest_grace() {
    let (mut world, watcher, mover) = watched();
    let other = world.connect();
    come(&mut world, other, "3");
    world.move_away(mover, GRACE);
    world.disconnect(other);
    world.take(watcher);
    assert_eq!(world.users(), ["w", "u"], "one that goes does not end the wait for the other");
    let back = world.connect();
    come(&mut world, back, "4");
    world.move_away(back, 2 * GRACE);
    let back = world.connect();
    come(&mut world, back, "4");
    world.move_away(back, GRACE);
    world.now += GRACE;
    world.tick();
    assert!(!world.take_short(watcher).iter().any(|told| told.contains("online")));
    assert_eq!(world.users(), ["w"], "a return ends the longer wait too");
    consistency::check(&world.hub);
}

#[test]
fn a_full_channel_keeps_the_seat_free_for_its_user() {
    let mut world = World::with(|limits| limits.max_presence_members = 1);
    let [mover, other] = [(); 2].map(|()| world.connect());
    world.join(mover, "presence-r", "u");
    world.move_away(mover, GRACE);
    world.join(other, "presence-r", "x");
    world.assert_refused(other, Refusal::PresenceFull);
    world.join(other, "presence-r", "u");
    assert!(world.take_short(other)[0].contains(r#""ids":["u"]"#));
}

#[test]
fn moving_an_ended_session_or_one_without_a_user_keeps_nothing() {
    let mut world = World::new();
    let conn = world.connect();
    world.subscribe(conn, "news");
    world.move_away(conn, GRACE);
    world.move_away(conn, GRACE);
    assert_eq!((world.hub.seats.live(), world.hub.channels.len(), world.hub.session_count()), (0, 0, 0));
}

#[test]
fn the_queue_of_seats_does_not_grow_with_those_that_are_taken_again() {
    let (mut world, watcher, mut mover) = watched();
    for _ in 0..10_000 {
        world.move_away(mover, GRACE);
        mover = world.connect();
        come(&mut world, mover, "1");
        let idle = world.connect();
        world.join(idle, "presence-idle", "i");
        world.move_away(idle, u64::MAX);
        world.sent.messages.clear();
    }
    assert!(world.hub.seats.live() <= 1 && world.hub.seats.queued().count() < 200);
    consistency::check(&world.hub);
    world.disconnect(watcher);
}
