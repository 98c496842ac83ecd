//! Random operations, held against a naive model that says for each what every connection is to be sent, in order.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const KEYS: [&str; 3] = ["key", "key2", "key3"];
const CHANNELS: [&str; 9] = [
    "news",
    "sport",
    "cache-a",
    "private-p",
    "private-cache-p",
    "private-encrypted-e",
    "presence-r",
    "presence-cache-r",
    "private-q",
];

/// A connection as the model knows it: its application and its channels, with the user on presence channels.
struct Peer {
    app: usize,
    channels: BTreeMap<&'static str, Option<String>>,
}

#[derive(Default)]
struct Model {
    peers: BTreeMap<u32, Peer>,
    cached: HashMap<(usize, &'static str), String>,
    /// What each connection is to be sent, in order.
    expected: BTreeMap<u32, Vec<String>>,
}

impl Model {
    fn expect(&mut self, conn: u32, token: String) {
        self.expected.entry(conn).or_default().push(token);
    }

    fn members(&self, app: usize, channel: &str) -> Vec<u32> {
        let inside = |peer: &Peer| peer.app == app && peer.channels.contains_key(channel);
        self.peers.iter().filter(|(_, peer)| inside(peer)).map(|(conn, _)| *conn).collect()
    }

    fn users(&self, app: usize, channel: &str) -> BTreeSet<String> {
        let of = |conn: u32| self.peers[&conn].channels[channel].clone();
        self.members(app, channel).into_iter().filter_map(of).collect()
    }

    fn subscribe(&mut self, conn: u32, channel: &'static str, user: Option<String>) {
        let app = self.peers[&conn].app;
        if self.peers[&conn].channels.contains_key(channel) {
            return self.expect(conn, format!("error {channel}"));
        }
        let others = self.members(app, channel);
        let before = self.users(app, channel);
        self.peers.get_mut(&conn).unwrap().channels.insert(channel, user.clone());
        let users: Vec<String> = self.users(app, channel).into_iter().collect();
        self.expect(conn, format!("ack {channel} {}", users.join(",")));
        if channel.contains("cache-") {
            let cached = self.cached.get(&(app, channel)).cloned();
            self.expect(conn, cached.unwrap_or_else(|| format!("miss {channel}")));
        }
        if let Some(user) = user.filter(|user| !before.contains(user)) {
            others.into_iter().for_each(|other| self.expect(other, format!("added {channel} {user}")));
        }
    }

    fn unsubscribe(&mut self, conn: u32, channel: &str) {
        let peer = self.peers.get_mut(&conn).unwrap();
        let app = peer.app;
        let Some(user) = peer.channels.remove(channel) else { return };
        if let Some(user) = user.filter(|user| !self.users(app, channel).contains(user)) {
            for other in self.members(app, channel) {
                self.expect(other, format!("removed {channel} {user}"));
            }
        }
    }

    fn disconnect(&mut self, conn: u32) {
        let channels: Vec<&str> = self.peers[&conn].channels.keys().copied().collect();
        channels.iter().for_each(|channel| self.unsubscribe(conn, channel));
        self.peers.remove(&conn);
        self.expected.remove(&conn);
    }

    fn event(&mut self, app: usize, channel: &'static str, token: String, except: Option<u32>) {
        for conn in self.members(app, channel) {
            if Some(conn) != except {
                self.expect(conn, token.clone());
            }
        }
    }
}

/// A message in the words of the model.
fn token(text: &str) -> String {
    let message = json(text);
    let channel = message["channel"].as_str().unwrap_or("");
    let inner = |key: &str| json(message["data"].as_str().unwrap())[key].clone();
    match message["event"].as_str().unwrap() {
        "pusher_internal:subscription_succeeded" => {
            let ids = inner("presence")["ids"].as_array().cloned().unwrap_or_default();
            let ids: BTreeSet<String> = ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
            format!("ack {channel} {}", ids.into_iter().collect::<Vec<_>>().join(","))
        }
        "pusher:subscription_error" => format!("error {channel}"),
        "pusher:error" => format!("error {}", message["data"]["message"]),
        "pusher:cache_miss" => format!("miss {channel}"),
        "pusher_internal:member_added" => format!("added {channel} {}", inner("user_id").as_str().unwrap()),
        "pusher_internal:member_removed" => {
            format!("removed {channel} {}", inner("user_id").as_str().unwrap())
        }
        name => format!(
            "{name} {channel} {} {}",
            message["data"].as_str().unwrap(),
            message["user_id"].as_str().unwrap_or("-")
        ),
    }
}

struct Run {
    world: World,
    model: Model,
    apps: [AppId; 3],
    rng: fastrand::Rng,
    /// Each connection's own idea of who is on its presence channels, from what it was sent.
    views: HashMap<(u32, String), BTreeSet<String>>,
    published: u64,
    /// Whether the last step was a disconnection. The order in which it leaves its channels is not defined.
    left: bool,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut world = World::new();
        let apps = [world.app, world.add_app("2", "key2"), world.add_app("3", "key3")];
        Run {
            world,
            model: Model::default(),
            apps,
            rng: fastrand::Rng::with_seed(seed),
            views: HashMap::new(),
            published: 0,
            left: false,
        }
    }

    fn any_conn(&mut self) -> Option<u32> {
        let count = self.model.peers.len();
        if count == 0 { None } else { self.model.peers.keys().nth(self.rng.usize(0..count)).copied() }
    }

    fn step(&mut self) {
        self.world.now += self.rng.u64(0..300);
        self.left = false;
        let channel = CHANNELS[self.rng.usize(0..CHANNELS.len())];
        let conn = self.any_conn();
        match (self.rng.u8(0..20), conn) {
            (0..2, _) | (_, None) => self.connect(),
            (2, Some(conn)) => {
                self.left = true;
                self.world.disconnect(conn);
                self.model.disconnect(conn);
                self.world.take(conn);
            }
            (3..9, Some(conn)) => self.subscribe(conn, channel),
            (9..12, Some(conn)) => {
                self.world.unsubscribe(conn, channel);
                self.model.unsubscribe(conn, channel);
            }
            (12..17, Some(conn)) => self.publish(channel, conn),
            (17..19, Some(conn)) => self.client_event(conn, channel),
            _ => self.world.tick(),
        }
    }

    fn connect(&mut self) {
        let app = self.rng.usize(0..3);
        if self.model.peers.len() < 40 {
            let conn = self.world.try_connect(KEYS[app], None).unwrap();
            self.world.take(conn);
            self.model.peers.insert(conn, Peer { app, channels: BTreeMap::new() });
        }
    }

    fn subscribe(&mut self, conn: u32, channel: &'static str) {
        let app = self.model.peers[&conn].app;
        let user = channel.starts_with("presence-").then(|| format!("u{}@{app}", self.rng.u8(0..6)));
        let data = user.as_ref().map(|user| format!(r#"{{"user_id":"{user}"}}"#));
        self.world.subscribe_as(conn, KEYS[app], channel, data.as_deref());
        self.model.subscribe(conn, channel, user);
    }

    fn publish(&mut self, channel: &'static str, conn: u32) {
        let app = self.rng.usize(0..3);
        self.published += 1;
        let data = format!("@{app} {}", self.published);
        let except = self.rng.bool().then(|| self.world.socket_id(conn));
        let event = Publication {
            name: "e",
            channels: &[channel],
            data: &data,
            socket_id: except.as_deref(),
            info: Info::default(),
        };
        self.world.hub.publish(self.world.now, self.apps[app], &event, &mut self.world.sent).unwrap();
        let token = format!("e {channel} {data} -");
        if channel.contains("cache-") {
            self.model.cached.insert((app, channel), token.clone());
        }
        let excluded = (except.is_some() && self.model.peers[&conn].app == app).then_some(conn);
        self.model.event(app, channel, token, excluded);
    }

    fn client_event(&mut self, conn: u32, channel: &'static str) {
        let app = self.model.peers[&conn].app;
        self.published += 1;
        let data = format!("@{app} {}", self.published);
        self.world.now += 200;
        self.world.say(conn, &format!(r#"{{"event":"client-x","channel":"{channel}","data":"{data}"}}"#));
        let allowed = channel.starts_with("presence-")
            || (channel.starts_with("private-") && !channel.starts_with("private-encrypted-"));
        let refusal = |refusal: Refusal| format!("error \"{}\"", refusal.message());
        if !allowed {
            return self.model.expect(conn, refusal(Refusal::ClientEventChannel));
        }
        let Some(user) = self.model.peers[&conn].channels.get(channel).cloned() else {
            return self.model.expect(conn, refusal(Refusal::NotSubscribed));
        };
        let token = format!("client-x {channel} {data} {}", user.as_deref().unwrap_or("-"));
        self.model.event(app, channel, token, Some(conn));
    }

    /// Compares what every connection was sent with what the model says, and moves the connections' own views on.
    fn check(&mut self) {
        let conns: Vec<u32> = self.model.peers.keys().copied().collect();
        for conn in conns {
            let mut got: Vec<String> = self.world.take(conn).iter().map(|text| token(text)).collect();
            let mut expected = self.model.expected.remove(&conn).unwrap_or_default();
            if self.left {
                got.sort();
                expected.sort();
            }
            assert_eq!(got, expected, "connection {conn}");
            let app = self.model.peers[&conn].app;
            for token in &got {
                let label = token.split_once('@').map(|(_, rest)| rest.as_bytes()[0] - b'0');
                assert!(label.is_none_or(|label| usize::from(label) == app), "{conn} of {app} got {token}");
                self.look(conn, token);
            }
        }
        assert!(self.world.sent.messages.is_empty(), "nobody else is sent anything");
        assert!(self.model.expected.values().all(Vec::is_empty));
    }

    fn look(&mut self, conn: u32, token: &str) {
        let words: Vec<&str> = token.splitn(3, ' ').collect();
        if let [what, channel, users] = words[..]
            && channel.starts_with("presence-")
        {
            let view = self.views.entry((conn, channel.to_owned())).or_default();
            match what {
                "ack" => *view = users.split(',').map(str::to_owned).collect(),
                "added" => assert!(view.insert(users.to_owned()), "{token} twice"),
                "removed" => assert!(view.remove(users), "{token} for nobody"),
                _ => {}
            }
        }
    }

    /// Compares the state that the hub tells with the model's, and with what the connections believe.
    fn check_state(&self) {
        consistency::check(&self.world.hub);
        let info = Info { subscription_count: true, ..Info::default() };
        for (app, id) in self.apps.into_iter().enumerate() {
            let mut occupied = 0;
            for channel in CHANNELS {
                let members = self.model.members(app, channel);
                let state = self.world.hub.channel(self.world.now, id, channel, info).unwrap();
                assert_eq!(state.subscription_count, Some(members.len() as u32), "{channel}");
                occupied += u32::from(!members.is_empty());
                if channel.starts_with("presence-") {
                    let users = self.world.hub.presence_users(id, channel).unwrap();
                    let users: BTreeSet<String> = users.into_iter().collect();
                    assert_eq!(users, self.model.users(app, channel));
                    for conn in members {
                        assert_eq!(self.views[&(conn, channel.to_owned())], users, "{conn} on {channel}");
                    }
                }
            }
            let snapshot = &self.world.hub.snapshot().apps[app];
            let connections = self.model.peers.values().filter(|peer| peer.app == app).count();
            assert_eq!((snapshot.connections as usize, snapshot.channels), (connections, occupied));
            let channels = self.world.hub.channels.iter().filter(|(_, channel)| channel.app == id);
            let (mut cached, mut kept) = (0, 0);
            for (_, channel) in channels {
                cached += channel.past.cached.as_ref().map_or(0, |event| event.cost());
                kept += channel.past.events.iter().map(|event| event.cost()).sum::<usize>();
            }
            assert_eq!((snapshot.cache_bytes, snapshot.history_bytes), (cached, kept));
        }
    }
}

#[test]
fn i44_i45_i46_random_operations_agree_with_a_naive_model() {
    for seed in 0..30 {
        let mut run = Run::new(seed);
        for step in 0..3_000 {
            run.step();
            run.check();
            if step % 50 == 0 {
                run.check_state();
            }
        }
        run.check_state();
        assert!(run.published > 500);
    }
}

/// Whatever clients say, the hub answers or ignores it, and stays consistent.
#[test]
fn i50_random_messages_do_no_harm() {
    let mut world = World::new();
    let mut rng = fastrand::Rng::with_seed(50);
    let texts = [
        r#"{"event":"pusher:subscribe","data":{"channel":"presence-a","auth":"k","channel_data":"{\"user_id\":1}"}}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#,
        r#"{"event":"pusher:unsubscribe","data":{"channel":"news"}}"#,
        r#"{"event":"pusher:signin","data":{"auth":"k","user_data":"{\"id\":\"1\"}"}}"#,
        r#"{"event":"client-x","channel":"private-a","data":{}}"#,
        r#"{"event":"pusher:ping","data":{}}"#,
    ];
    let mut conn = world.connect();
    for _ in 0..30_000 {
        world.now += 20;
        let mut text: Vec<char> = texts[rng.usize(0..texts.len())].chars().collect();
        for _ in 0..rng.usize(0..4) {
            let at = rng.usize(0..text.len());
            text[at] = rng.char('\0'..='\u{ff}');
        }
        world.say(conn, &text.into_iter().collect::<String>());
        if rng.u8(0..50) == 0 {
            world.disconnect(conn);
            conn = world.connect();
        }
        world.sent.messages.clear();
    }
    world.disconnect(conn);
    assert_eq!((world.hub.session_count(), world.hub.channels.len()), (0, 0));
    assert!(world.refusals().iter().map(|(_, count)| count).sum::<u64>() > 1_000);
}
