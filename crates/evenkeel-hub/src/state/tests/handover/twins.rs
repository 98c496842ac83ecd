//! Two hubs, one that goes on and one that took over from it: the same operations have the same effects on both.

use super::*;

const KEYS: [&str; 3] = ["key", "key2", "key3"];
const CHANNELS: [&str; 8] = [
    "news",
    "cache-a",
    "private-p",
    "private-cache-p",
    "presence-r",
    "presence-cache-r",
    "#server-to-user-u1",
    "private-encrypted-e",
];

/// A world with three applications whose limits are so small that random operations meet them.
pub(super) fn small_world() -> World {
    let change = |limits: &mut Limits| {
        limits.subscription_count = true;
        (limits.subscription_count_threshold, limits.subscription_count_interval) = (3, 700);
        (limits.history_count, limits.history_ttl) = (6, 4_000);
        (limits.cache_ttl, limits.cache_bytes) = (3_000, 2_000);
        limits.client_event_rate = Rate { per_second: 1, burst: 3 };
        limits.message_rate = Rate { per_second: 2, burst: 30 };
        limits.publish_rate = Rate { per_second: 5, burst: 20 };
        limits.max_presence_members = 4;
        limits.max_connections = 25;
    };
    let mut world = World::with(change);
    for (id, key) in [("2", KEYS[1]), ("3", KEYS[2])] {
        let mut config = app_config(id, key);
        change(&mut config.limits);
        config.limits.authorization_deadline = 2_000;
        world.hub.add_app(config).unwrap();
    }
    world
}

fn alive(world: &World) -> Vec<u32> {
    let there = |conn: &&u32| world.hub.socket_id(world.session(**conn)).is_some();
    let mut conns: Vec<u32> = world.sessions.keys().filter(there).copied().collect();
    conns.sort_unstable();
    conns
}

fn connect(world: &mut World, rng: &mut fastrand::Rng) {
    if rng.u8(0..4) > 0 {
        let _ = world.try_connect(KEYS[rng.usize(0..3)], None);
        return;
    }
    let mut channels = ["news", "cache-a", "private-p", "private-cache-p"];
    rng.shuffle(&mut channels);
    let position = world.hub.apps[0].position;
    let seen = EventId { sequence: position.sequence.saturating_sub(rng.u64(0..10)), ..position };
    let last = rng.bool().then(|| seen.to_string());
    let _ = world.stream(&channels[..rng.usize(1..4)], last.as_deref());
}

fn enter(world: &mut World, rng: &mut fastrand::Rng, conn: u32) {
    let key = KEYS[world.hub.sessions[world.session(conn).0.index].app.0 as usize];
    let channel = CHANNELS[rng.usize(0..CHANNELS.len())];
    let user = rng.u8(0..6);
    match rng.u8(0..4) {
        0 => {
            let data =
                format!(r#"{{"id":"u{user}","user_info":{{"n":1}},"watchlist":["u1","u2","x{user}"]}}"#);
            let auth = format!("{key}:{}::user::{data}", world.socket_id(conn));
            let (auth, data) = (quote(&auth), quote(&data));
            let text = format!(r#"{{"event":"pusher:signin","data":{{"auth":{auth},"user_data":{data}}}}}"#);
            world.say(conn, &text);
        }
        _ if channel.starts_with("presence-") && rng.u8(0..4) > 0 => {
            let data = format!(r#"{{"user_id":"u{user}","user_info":{{"c":{conn}}}}}"#);
            world.subscribe_as(conn, key, channel, Some(&data));
        }
        _ => world.subscribe_as(conn, key, channel, None),
    }
}

fn publish(world: &mut World, rng: &mut fastrand::Rng, conns: &[u32]) {
    let app = AppId(rng.u16(0..3));
    let (a, b) = (CHANNELS[rng.usize(0..CHANNELS.len())], CHANNELS[rng.usize(0..CHANNELS.len())]);
    let except = rng.choice(conns).filter(|_| rng.bool()).map(|conn| world.socket_id(*conn));
    let data = "x".repeat(rng.usize(0..300));
    let info = Info { user_count: true, subscription_count: true, cache: true };
    let channels = [a, b];
    let event =
        Publication { name: "e", channels: &channels, data: &data, socket_id: except.as_deref(), info };
    let states = world.hub.publish(world.now, app, &event, &mut world.sent);
    world.sent.messages.push((0, format!("{states:?}").into_bytes().into()));
}

/// One random operation. What it is depends on `rng` and on what the two hubs should have in common.
pub(super) fn act(world: &mut World, rng: &mut fastrand::Rng) {
    world.now += rng.u64(0..200);
    let conns = alive(world);
    let Some(&conn) = rng.choice(&conns) else { return connect(world, rng) };
    let channel = CHANNELS[rng.usize(0..CHANNELS.len())];
    match rng.u8(0..32) {
        0..5 | 7 => connect(world, rng),
        5 => world.disconnect(conn),
        6 => world.move_away(conn, rng.u64(0..3_000)),
        8..18 => enter(world, rng, conn),
        18..20 => world.unsubscribe(conn, channel),
        20..26 => publish(world, rng, &conns),
        26..28 => {
            world.say(conn, &format!(r#"{{"event":"client-x","channel":"{channel}","data":"{conn}"}}"#))
        }
        28 if rng.u8(0..4) == 0 => {
            let user = format!("u{}", rng.u8(0..6));
            world.hub.terminate_user(world.now, AppId(rng.u16(0..3)), &user, &mut world.sent);
        }
        29 => world.now += rng.u64(0..1_500),
        _ => world.tick(),
    }
}

/// Compares what the two sent, and drops it.
fn compare(one: &mut World, other: &mut World) {
    let frames = |world: &mut World| {
        let sent = std::mem::take(&mut world.sent.messages);
        let text = |frame: &Frame| String::from_utf8(frame.as_bytes().to_vec()).unwrap();
        sent.iter().map(|(to, frame)| (*to, text(frame))).collect::<Vec<_>>()
    };
    assert_eq!(frames(one), frames(other));
    assert_eq!(one.sent.closed, other.sent.closed);
}

/// Compares what the two say of themselves.
fn compare_state(one: &World, other: &World) {
    assert_eq!(format!("{:?}", one.hub.snapshot()), format!("{:?}", other.hub.snapshot()));
    for app in one.hub.apps() {
        for channel in ["presence-r", "presence-cache-r"] {
            assert_eq!(one.hub.presence_users(app, channel), other.hub.presence_users(app, channel));
        }
    }
    // A dead entry in a queue of the one may be due sooner.
    if let Some(due) = other.hub.next_tick(other.now) {
        let sooner = one.hub.next_tick(one.now).expect("the other has something to do");
        assert!(sooner - one.now <= due - other.now);
    }
    consistency::check(&one.hub);
    consistency::check(&other.hub);
}

/// The parts of a state that must be met when hubs are handed over, as they are written.
const PARTS: [&str; 10] = [
    "count_queued",
    "count_due",
    "\"kept\"",
    "kept_online\":[[",
    "deadlines\":[[",
    "\"stream\":true",
    "\"client_events\":1",
    "\"watchlist\"",
    "\"cached\"",
    "null,{\"generation\"",
];

/// Returns what was handed over.
fn run(seed: u64, steps: usize, start: impl Fn(u64) -> u64) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = small_world();
    for _ in 0..rng.usize(steps / 4..steps) {
        act(&mut world, &mut rng);
    }
    if start(world.now) < world.now {
        // What is due already has an order of its own, which a clock that shows less cannot tell.
        world.tick();
    }
    world.sent = Sent::default();
    let mut twin = world.succeeded(start(world.now));
    let handed_over = written(&world);
    assert_eq!(handed_over, written(&twin), "nothing is lost, and nothing comes to it");
    compare_state(&world, &twin);
    for step in 0..steps {
        let mut same = rng.clone();
        act(&mut world, &mut rng);
        act(&mut twin, &mut same);
        compare(&mut world, &mut twin);
        if step % 40 == 0 {
            compare_state(&world, &twin);
        }
    }
    compare_state(&world, &twin);
    assert_eq!(written(&world), written(&twin));
    handed_over
}

#[test]
fn i44_i46_a_hub_that_took_over_does_what_the_other_would_have_done() {
    let mut met = [0; PARTS.len()];
    for seed in 0..80 {
        let handed_over =
            if seed % 2 == 0 { run(seed, 400, |now| now + 12_345) } else { run(seed, 400, |_| 0) };
        for (part, met) in PARTS.iter().zip(&mut met) {
            *met += u32::from(handed_over.contains(part));
        }
    }
    assert!(met.iter().all(|met| *met >= 5), "{PARTS:?} were met {met:?} times");
}
