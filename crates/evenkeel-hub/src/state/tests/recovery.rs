//! Streams that come and go at random: what they get is checked against what was published.

use super::*;

const CHANNELS: [&str; 4] = ["a", "cache-b", "private-c", "d"];

/// A client that remembers what an `EventSource` remembers, and what it saw of each channel.
#[derive(Default)]
struct Client {
    conn: Option<u32>,
    last_id: Option<String>,
    /// The number of the latest event that it saw in each channel, or that its first stream began after. After a gap it
    /// knows none until the next event.
    seen: HashMap<&'static str, Option<u64>>,
    gaps: usize,
    replayed: usize,
}

impl Client {
    /// Takes events off the wire and checks each: never one twice or out of order, and none skipped without a gap.
    fn read(&mut self, events: &[String]) {
        let mut gaps = std::collections::HashSet::new();
        for event in events {
            let (id, body) = event.split_once('|').unwrap();
            let message = json(body);
            let channel =
                message["channel"].as_str().and_then(|c| CHANNELS.iter().find(|known| **known == c));
            match (message["event"].as_str().unwrap(), channel) {
                ("evenkeel:gap", Some(channel)) => drop(gaps.insert(*channel)),
                ("e", Some(channel)) => {
                    let number: u64 = message["data"].as_str().unwrap().parse().unwrap();
                    if let Some(before) = self.seen.insert(channel, Some(number)).flatten() {
                        assert!(number > before, "{channel}: {number} after {before}");
                        // A gap excuses the first skip only.
                        let excused = number == before + 1 || gaps.contains(channel);
                        assert!(excused, "{channel}: {number} after {before}, no gap");
                    }
                    gaps.remove(channel);
                }
                _ => {}
            }
            if !id.is_empty() {
                self.last_id = Some(id.to_owned());
            }
        }
        // Announced gaps without a following event: the client fetches the state, and knows no number any more.
        self.gaps += gaps.len();
        for channel in gaps {
            self.seen.insert(channel, None);
        }
    }
}

fn run(seed: u64, change: impl FnOnce(&mut Limits), keep_channels: bool) -> (usize, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::with(|limits| {
        limits.publish_rate = Rate { per_second: 1 << 20, burst: 1 << 20 };
        change(limits);
    });
    if keep_channels {
        let keeper = world.connect();
        CHANNELS.iter().for_each(|channel| world.subscribe(keeper, channel));
    }
    let mut published: HashMap<&str, u64> = HashMap::new();
    let mut clients: Vec<Client> = (0..5).map(|_| Client::default()).collect();
    for _ in 0..4_000 {
        world.now += rng.u64(0..50);
        let client = &mut clients[rng.usize(0..5)];
        match rng.u8(0..10) {
            0 => connect(&mut world, client, &published, &mut rng),
            1 => {
                if let Some(conn) = client.conn.take() {
                    // What was sent reaches the client up to some event, and then the connection breaks.
                    let events = world.take(conn);
                    let arrived = if rng.bool() { events.len() } else { rng.usize(0..=events.len()) };
                    client.read(&events[..arrived]);
                    world.disconnect(conn);
                }
            }
            2 => world.tick(),
            _ => {
                let channel = CHANNELS[rng.usize(0..4)];
                let number = published.entry(channel).or_insert(0);
                *number += 1;
                world.publish(channel, &number.to_string());
            }
        }
    }
    for client in &mut clients {
        if client.conn.is_none() {
            connect(&mut world, client, &published, &mut rng);
        }
        let events = world.take(client.conn.unwrap());
        client.read(&events);
        for channel in CHANNELS {
            let (seen, last) = (client.seen[channel], published.get(channel).copied().unwrap_or(0));
            assert!(
                seen.is_none_or(|seen| seen == last),
                "{channel}: the end was missed: {seen:?} of {last}"
            );
        }
    }
    let state = &world.hub.apps[0];
    let kept: usize = world.hub.channels.iter().map(|(_, channel)| channel.past.bytes).sum();
    assert_eq!(state.history.bytes, kept);
    (clients.iter().map(|c| c.gaps).sum(), clients.iter().map(|c| c.replayed).sum())
}

fn connect(world: &mut World, client: &mut Client, published: &HashMap<&str, u64>, rng: &mut fastrand::Rng) {
    if client.conn.is_some() {
        return;
    }
    let fresh = client.last_id.is_none();
    let mut channels = CHANNELS;
    rng.shuffle(&mut channels);
    let (conn, connected) = world.stream(&channels, client.last_id.as_deref()).unwrap();
    client.conn = Some(conn);
    client.replayed += connected.replayed;
    if fresh {
        // A cache channel sends its last event again, if it still has it.
        let cached = world.hub.channels.iter().any(|(_, channel)| channel.past.cached.is_some());
        for channel in CHANNELS {
            let number = published.get(channel).copied().unwrap_or(0);
            let again = u64::from(channel == "cache-b" && number > 0 && cached);
            client.seen.insert(channel, Some(number - again));
        }
    }
}

#[test]
fn i44_streams_that_come_back_miss_nothing_when_all_is_kept() {
    for seed in 0..10 {
        let all = |limits: &mut Limits| {
            (limits.history_count, limits.history_ttl) = (100_000, u64::MAX);
            (limits.history_channel_bytes, limits.history_bytes) = (1 << 30, 1 << 30);
        };
        let (gaps, replayed) = run(seed, all, false);
        assert_eq!(gaps, 0);
        assert!(replayed > 100);
    }
}

#[test]
fn i44_streams_that_come_back_learn_of_every_gap() {
    let mut total = 0;
    for seed in 0..10 {
        total += run(seed, |limits| limits.history_count = 5, false).0;
        total += run(seed, |limits| limits.history_ttl = 300, seed % 2 == 0).0;
        total += run(seed, |limits| limits.history_channel_bytes = 2_000, false).0;
        total += run(seed, |limits| limits.history_bytes = 5_000, seed % 2 == 0).0;
        total += run(seed, |limits| limits.history_count = 0, true).0;
    }
    assert!(total > 0, "no gap was ever left open at the end of what a client read");
}

#[test]
fn history_is_bounded_in_count_bytes_and_age() {
    let mut world = World::with(|limits| (limits.history_count, limits.history_bytes) = (3, 10_000));
    for n in 0..10_000 {
        world.now += 1;
        world.publish(&format!("c{}", n % 50), "x");
        assert!(world.hub.apps[0].history.bytes <= 10_000);
    }
    for (_, channel) in world.hub.channels.iter() {
        assert!(channel.past.events.len() <= 3);
    }
    assert!(world.hub.channels.len() < 40, "channels that lost their history are freed");
    let due = world.hub.next_tick(world.now).unwrap();
    assert!(due > world.now && due <= world.now + 2 * 60 * 1_000);
    world.now += 2 * 60 * 1_000;
    while world.hub.next_tick(world.now).is_some() {
        world.tick();
    }
    assert_eq!((world.hub.apps[0].history.bytes, world.hub.channels.len()), (0, 0));
}
