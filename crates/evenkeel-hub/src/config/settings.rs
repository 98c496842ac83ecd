//! Every option of the server. The documentation of a field is also its comment in `--print-default-config`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::secret::Secret;
use super::table::settings;
use crate::log;
use crate::proto::auth::AppKey;
use crate::proto::origin::Origins;
use crate::proto::proxy::Cidr;

settings! {
    /// The server itself. These options stand at the top of the file, in no table.
    pub struct ServerSettings {
        /// The addresses to listen on. Off loopback, and behind a proxy, there is no demonstration application, and the
        /// console and the metrics need a token.
        listen: Vec<SocketAddr> = vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6001)];
        /// The kernel interface of the event loop: "io_uring", "epoll", "epoll-lt", "poll", "select", or "auto" for the best
        /// that works. Where io_uring is refused, epoll runs, and the log says why.
        backend: String = "auto".to_owned();
        /// How many event loops serve, each on a thread of its own. 0: one for each processor that the server may use.
        loops: u32, in 0..=1024 = 0;
        /// How connections come to the loops: "acceptor" for one that accepts for all and hands each connection to the loop
        /// with the fewest, "reuse-port" for a listening socket for each loop, "shared" for one that all listen to.
        share: String = "acceptor".to_owned();
        /// Whether each loop has a descriptor table of its own, and so the limit of descriptors for itself. Where that is
        /// refused, as in some containers, the log says so.
        private_descriptors: bool = false;
        /// What stands before every path, such as "/realtime": for a proxy that passes the whole path on. Clients sign
        /// the path with the prefix.
        path_prefix: String = String::new();
        /// The token for the console. Without one, the console is served on loopback only.
        console_token: Option<Secret> = None;
        /// The token for /metrics, sent as "Authorization: Bearer TOKEN". Without one, they are served on loopback only.
        metrics_token: Option<Secret> = None;
        /// How long a client may hear nothing before it pings, in seconds. Told to clients.
        activity_timeout_seconds: u32, in 1..=3600 = 120;
        /// The server pings a connection that was silent for this many seconds.
        ping_interval_seconds: u32, in 1..=3600 = 30;
        /// A connection that does not answer a ping within this many seconds is closed.
        pong_timeout_seconds: u32, in 1..=600 = 10;
        /// How long a stopping server takes to close its connections, spread over this time, in seconds.
        drain_deadline_seconds: u32, in 0..=3600 = 30;
    }
}

settings! {
    /// What one client, and all of them together, may use of the server.
    pub struct LimitSettings {
        /// Connections at a time. 0: as many as the descriptor limit allows, less a reserve.
        max_connections: u32 = 0;
        /// Connections at a time from one IPv4 address or one IPv6 /64. Loopback and trusted proxies do not count; behind
        /// a trusted proxy the client's own address does. 0: no limit.
        max_connections_per_address: u32 = 256;
        /// New connections a second, in the long run. 0: no limit.
        accept_rate: u32 = 2000;
        /// The largest head of a request (request line and headers), in bytes.
        max_head_bytes: usize, in 1024..=65536 = 8192;
        /// How long a client has for a complete request head, in seconds, however it drips.
        handshake_deadline_seconds: u32, in 1..=300 = 10;
        /// The largest body of a request, in bytes. A batch of ten events of 10 kB, in which JSON writes every character
        /// as six, fits into the default.
        max_body_bytes: usize, in 1024..=16777216 = 655360;
        /// How long a client has for a whole body, in seconds.
        body_deadline_seconds: u32, in 1..=600 = 30;
        /// The slowest that a body may come after the first 5 seconds, in bytes a second.
        min_body_rate: u32 = 1024;
        /// The largest message from a client, in bytes, all its fragments together.
        max_message_bytes: usize, in 1024..=16777216 = 65536;
        /// A connection that leaves more than this many bytes unread is closed.
        max_queue_bytes: usize, in 4096..=67108864 = 262144;
        /// A connection that leaves more than this many messages unread is closed.
        max_queue_messages: u32, in 1..=1000000 = 1024;
        /// A connection that leaves a message unread for this many seconds is closed.
        max_queue_age_seconds: u32, in 1..=3600 = 10;
        /// All outgoing queues together may hold this share of the machine's memory, in percent.
        queue_memory_percent: u32, in 1..=90 = 25;
    }
}

settings! {
    /// Proxies in front of the server.
    pub struct ProxySettings {
        /// The addresses of proxies whose word on the client's address is taken (X-Forwarded-For, PROXY protocol).
        trusted: Vec<Cidr> = Vec::new();
        /// Whether trusted proxies begin each connection with a PROXY protocol header, version 1 or 2. Then they must.
        proxy_protocol: bool = false;
    }
}

settings! {
    /// Event streams (SSE) for plain clients.
    pub struct SseSettings {
        /// Whether to serve them.
        enabled: bool = true;
        /// A comment is sent on a stream that was silent for this many seconds, so that proxies keep it open.
        heartbeat_seconds: u32, in 1..=3600 = 15;
        /// How long a client waits before it reconnects, in milliseconds. Told to clients.
        retry_milliseconds: u32, in 100..=600000 = 3000;
        /// The history of all channels together, from which clients that reconnect get what they missed, in bytes. Each
        /// application says how much of it one channel may keep.
        max_history_bytes: usize = 67108864;
    }
}

settings! {
    /// What is written to standard error.
    pub struct LogSettings {
        /// "error", "warn", "info" or "debug".
        level: log::Level = log::Level::Info;
        /// "text" for people, "json" for machines.
        format: log::Format = log::Format::Text;
    }
}

settings! {
    /// One application: its credentials, and what its clients may do.
    pub struct AppSettings {
        /// The id, which stands in the paths of the HTTP API. The Python SDK wants digits only.
        id: String = String::new();
        /// The public key, which clients connect with.
        key: String = String::new();
        /// The secret, which your backend signs with. It belongs in no page.
        secret: Secret = Secret::default();
        /// Secrets that `secret` replaces. What is signed with them is still accepted; take them out once no backend
        /// signs with them.
        previous_secrets: Vec<Secret> = Vec::new();
        /// A name for people.
        name: String = String::new();
        /// A disabled application refuses connections and requests.
        enabled: bool = true;
        /// Connections at a time. 0: no limit but the server's.
        max_connections: u32 = 0;
        /// Channels that one connection may be subscribed to.
        max_channels_per_connection: u32, in 1..=100000 = 256;
        /// Whether clients may send events to each other (on private and presence channels).
        client_events: bool = false;
        /// Client events a second from one connection.
        client_event_rate: u32, in 1..=1000000 = 10;
        /// Client events from one connection at once.
        client_event_burst: u32, in 1..=1000000 = 20;
        /// Events published a second over HTTP. 0: no limit.
        publish_rate: u32 = 1000;
        /// The largest data of an event, in bytes.
        max_event_bytes: usize, in 1..=4194304 = 10240;
        /// The longest name of an event, in characters.
        max_event_name: usize, in 1..=1000 = 200;
        /// The longest name of a channel, in characters.
        max_channel_name: usize, in 16..=1000 = 200;
        /// Users on one presence channel.
        max_presence_members: u32, in 1..=100000 = 100;
        /// The largest user_info of a presence member, in bytes.
        max_user_info_bytes: usize, in 0..=65536 = 1024;
        /// The longest id of a user, in characters.
        max_user_id: usize, in 1..=1000 = 128;
        /// How long a cache channel keeps its last event, in seconds.
        cache_ttl_seconds: u32, in 1..=86400 = 1800;
        /// Messages that one channel keeps for clients that reconnect. 0: none.
        history_messages: u32, in 0..=100000 = 100;
        /// Bytes that one channel keeps for clients that reconnect.
        history_bytes: usize = 262144;
        /// How long a message is kept for clients that reconnect, in seconds.
        history_seconds: u32, in 0..=86400 = 120;
        /// Whether subscribers are told how many they are.
        subscription_counts: bool = false;
        /// Whether users may sign in.
        user_signin: bool = true;
        /// A connection that neither signed in nor joined a private or presence channel within this many seconds is
        /// closed. Not set: it may stay.
        signin_deadline_seconds: Option<u32>, in 1..=3600 = None;
        /// The origins of pages that may connect, such as `https://example.com` or `https://*.example.com`. None given:
        /// all. Clients that are not browsers send no origin and are not concerned.
        allowed_origins: Origins = Origins::any();
        /// How many signed requests are remembered, so that none can be replayed, at about 64 bytes each. 0: none. The
        /// SDKs sign in whole seconds, so the same event published twice within one second counts as a replay.
        replay_cache: usize, in 0..=10000000 = 0;
    }
}

impl AppSettings {
    /// The application that a server without any configuration has, on loopback only. Its secret is known to everyone.
    pub fn demonstration() -> Self {
        Self {
            id: "1001".to_owned(),
            key: "demo-key".to_owned(),
            secret: Secret::new(DEMO_SECRET),
            name: "Demonstration".to_owned(),
            client_events: true,
            ..Self::default()
        }
    }

    /// The secrets that signatures are accepted of, the present one first.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.secret).chain(&self.previous_secrets)
    }

    /// The key and the secrets, ready to verify with.
    pub fn app_key(&self) -> AppKey {
        let key = AppKey::new(&self.key, self.secret.expose());
        self.previous_secrets.iter().fold(key, |key, secret| key.with_previous(secret.expose()))
    }
}

/// The secret of the demonstration application.
pub(super) const DEMO_SECRET: &str = "demo-secret";
