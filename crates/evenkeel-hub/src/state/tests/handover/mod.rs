//! A hub that takes over from another is the other.

mod changes;
mod garbage;
mod twins;

use super::*;
use crate::state::judge::{fresh, try_take_over};

/// The configurations of a world's applications.
fn configs(world: &World) -> Vec<AppConfig> {
    world.hub.apps().map(|app| world.hub.app_config(app).clone()).collect()
}

/// What the world's hub hands over.
fn written(world: &World) -> String {
    String::from_utf8(world.hub.hand_over(world.now).unwrap()).unwrap()
}

impl World {
    /// The world in which another process, whose clock shows `now` and which has this configuration, has taken over.
    fn replaced(&self, now: u64, configs: &[AppConfig]) -> (World, TakenOver<u32>) {
        let bytes = self.hub.hand_over(self.now).unwrap();
        let mut hub = fresh(configs);
        let taken = hub.take_over(now, &bytes).unwrap();
        consistency::check(&hub);
        let app = hub.app_by_id("1").unwrap();
        let (next_conn, sessions) = (self.next_conn, self.sessions.clone());
        (World { hub, sent: Sent::default(), now, app, next_conn, sessions }, taken)
    }

    /// The world in which nothing but the process and its clock has changed.
    fn succeeded(&self, now: u64) -> World {
        let (world, taken) = self.replaced(now, &configs(self));
        assert!(taken.refused.is_empty() && taken.dropped_apps.is_empty());
        assert_eq!((taken.sessions, taken.channels), (self.hub.session_count(), self.hub.channels.len()));
        world
    }
}

#[test]
fn i44_a_stream_that_comes_back_after_the_restart_misses_nothing() {
    let mut world = World::new();
    let (conn, _) = world.stream(&["news", "cache-c"], None).unwrap();
    world.publish("news", "seen");
    world.publish("cache-c", "cached");
    let events = world.take(conn);
    let last = events[events.len() - 2].split_once('|').unwrap().0.to_owned();
    world.publish("news", "before");
    let mut world = world.succeeded(5);
    world.publish("news", "after");
    assert_eq!(world.take_short(conn), ["e after"], "the connection in the old process is served on");
    world.disconnect(conn);
    let (back, connected) = world.stream(&["news", "cache-c"], Some(&last)).unwrap();
    assert_eq!((connected.replayed, connected.gaps), (3, 0));
    assert_eq!(world.take_short(back)[3..6], ["e cached", "e before", "e after"]);
    let (new, _) = world.stream(&["cache-c"], None).unwrap();
    assert_eq!(world.take_short(new)[2], "e cached");
}

#[test]
fn socket_ids_and_handles_mean_what_they_meant_and_new_ones_are_new() {
    let mut world = World::new();
    let conns: Vec<u32> = (0..50).map(|_| world.connect()).collect();
    for conn in &conns {
        world.subscribe(*conn, "news");
        world.take(*conn);
    }
    conns.iter().filter(|conn| *conn % 3 == 0).for_each(|conn| world.disconnect(*conn));
    let mut seen: std::collections::HashSet<String> =
        world.sessions.values().map(|(_, socket_id)| socket_id.clone()).collect();
    let mut world = world.succeeded(0);
    for conn in conns {
        let session = SessionId::from_bits(world.session(conn).to_bits());
        let socket_id = world.hub.socket_id(session).map(|id| id.to_string());
        assert_eq!(socket_id, (conn % 3 != 0).then(|| world.socket_id(conn)));
        let (own, except) = (conn % 3 != 0, world.socket_id(conn));
        let event = Publication { name: "e", channels: &["news"], data: "x", ..Publication::default() };
        world.try_publish(&Publication { socket_id: Some(&except), ..event }).unwrap();
        assert!(world.take(conn).is_empty());
        assert_eq!(world.sent.messages.len(), if own { 33 } else { 34 });
        world.sent.messages.clear();
    }
    for _ in 0..50 {
        let conn = world.connect();
        assert!(seen.insert(world.socket_id(conn)));
    }
    for conn in [3, 6, 9] {
        world.disconnect(conn);
    }
    assert_eq!(world.hub.session_count(), 34 + 50, "an ended session's handle ends nobody else's");
}

#[test]
fn i46_i48_a_whole_restart_is_seen_by_nobody() {
    let mut world = World::new();
    let conns: Vec<u32> = (0..20).map(|_| world.connect()).collect();
    let arrive = |world: &mut World, conn: u32, user: u32| {
        let watchlist: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        world.sign_in(conn, &format!(r#"{{"id":"{user}","watchlist":{watchlist:?}}}"#));
        world.join(conn, "presence-r", &user.to_string());
    };
    conns.iter().zip(0..).for_each(|(conn, user)| arrive(&mut world, *conn, user));
    let mut world = world.succeeded(77);
    // They are closed one after another; each comes back a little later, and some while others are still away.
    let mut away = std::collections::VecDeque::new();
    let mut back = Vec::new();
    for (conn, user) in conns.iter().zip(0..) {
        world.now += 250;
        world.tick();
        world.move_away(*conn, 5_000);
        away.push_back(user);
        if away.len() > 7 {
            let (conn, user) = (world.connect(), away.pop_front().unwrap());
            arrive(&mut world, conn, user);
            world.take(conn);
            back.push(conn);
        }
        let told = back.iter().chain(&conns[user as usize + 1..]).flat_map(|conn| world.take(*conn));
        assert_eq!(told.count(), 0, "nobody is told of anybody");
        assert_eq!(world.hub.presence_users(world.app, "presence-r").unwrap().len(), 20);
        // A restart in the middle of a restart.
        if user == 10 {
            world = world.succeeded(1_000_000);
        }
    }
    world.now += 5_000;
    world.tick();
    assert_eq!(world.hub.presence_users(world.app, "presence-r").unwrap().len(), 13);
    let told = world.take_short(back[0]);
    assert_eq!(told.iter().filter(|text| text.starts_with("member_removed")).count(), 7);
    consistency::check(&world.hub);
}

#[test]
fn five_thousand_sessions_are_a_few_megabytes() {
    let mut world = World::new();
    for n in 0..5_000 {
        let conn = world.connect();
        world.subscribe(conn, "all");
        world.subscribe(conn, &format!("private-own-{n}"));
        world.join(conn, &format!("presence-{}", n % 97), &n.to_string());
        world.sign_in(conn, &format!(r#"{{"id":"{n}","watchlist":["{}"]}}"#, n + 1));
        world.sent.messages.clear();
    }
    let size = world.hub.hand_over(world.now).unwrap().len();
    assert!(size < 4 << 20, "{size}");
    world.succeeded(0);
}

#[test]
fn draining_is_not_carried_over() {
    let mut world = World::new();
    world.hub.begin_drain();
    let mut world = world.succeeded(0);
    assert!(world.try_connect("key", None).is_ok());
}
