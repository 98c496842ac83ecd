//! The console's own interface, the metrics, and the demonstration chat. `assets/README.md` says what each path takes
//! and answers.

use std::net::IpAddr;
use std::rc::Rc;

use evenkeel::{LoopStats, TURN_BUCKETS};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Denied, same_site};
use super::gather::{NoAnswer, OfLoop};
use super::home::Home;
use super::http::{Reply, reply, text, unavailable};
use super::{Server, assets};
use crate::metrics::{AppSample, Counted, Sample};
use crate::proto::head::query;
use crate::proto::percent::{self, Plus};
use crate::state::Publication;

const JSON: &str = "application/json";
/// Channels that the console lists.
const LISTED: usize = 100;
/// How long the console may follow a channel before it asks again, in seconds.
const FOLLOW: u64 = 60;

/// Microseconds: the upper bound of a bucket of turn times.
fn bound(bucket: usize) -> u64 {
    1 << bucket
}

fn refusal(status: u16, message: &str) -> Reply {
    reply(status, JSON, json!({ "error": message }).to_string())
}

fn denied(denied: Denied) -> Reply {
    match denied {
        Denied::Elsewhere(why) => refusal(403, why),
        Denied::Token => {
            let mut response = refusal(401, "a token is needed");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

impl Server {
    /// Answers everything that is not the HTTP API, health or metrics.
    pub(super) async fn answer_pages(
        self: &Rc<Self>,
        head: &Parts,
        path: &str,
        body: &[u8],
        client: IpAddr,
    ) -> Reply {
        let method = head.method.as_str();
        if let Some(rest) = path.strip_prefix("/console/") {
            let access = self.config().console_access();
            if let Err(why) =
                same_site(&head.headers).and_then(|()| self.allow(access, &head.headers, client))
            {
                self.refuse("console_access", &[]);
                return denied(why);
            }
            return match (method, rest) {
                ("GET", "state") => self.console_state().await,
                ("POST", "publish") => self.console_publish(head, body).await,
                ("POST", "auth") => self.console_auth(head, body),
                (_, "state" | "publish" | "auth") => refusal(405, "not by this method"),
                _ => refusal(404, "there is nothing here"),
            };
        }
        match (method, path) {
            ("POST", "/chat/auth") => self.chat_auth(head, body, client),
            ("GET" | "HEAD", _) => assets::file(path).unwrap_or_else(|| text(404, "there is nothing here")),
            _ => text(404, "there is nothing here"),
        }
    }

    /// A page of another site asks whether it may read a stream by `fetch` and send `Last-Event-ID`, as clients do
    /// that are not the browser's own `EventSource`.
    pub(super) fn answer_preflight(&self, head: &Parts, path: &str) -> Reply {
        let key = path.strip_prefix("/sse/").and_then(|key| percent::decode(key, Plus::Literal).ok());
        let app = key.and_then(|key| self.common().app_by_key(&key));
        let origin = head.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
        let fields = app.zip(origin).and_then(|(app, origin)| app.origins.cors(origin));
        let Some(fields) = fields else { return text(403, "this origin may not connect") };
        let mut response = reply(204, "text/plain; charset=utf-8", "");
        let headers = response.headers_mut();
        headers.remove(CONTENT_TYPE);
        for (name, value) in fields {
            headers
                .extend(HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok()));
        }
        headers.insert("access-control-allow-methods", HeaderValue::from_static("GET"));
        headers
            .insert("access-control-allow-headers", HeaderValue::from_static("Last-Event-ID, Cache-Control"));
        headers.insert("access-control-max-age", HeaderValue::from_static("600"));
        response
    }

    pub(super) async fn answer_metrics(self: &Rc<Self>, head: &Parts, client: IpAddr) -> Reply {
        if let Err(why) = self.allow(self.config().metrics_access(), &head.headers, client) {
            self.refuse("metrics_access", &[]);
            return denied(why);
        }
        match self.render_metrics().await {
            Ok(text) => reply(200, "text/plain; version=0.0.4; charset=utf-8", text),
            Err(NoAnswer) => unavailable(),
        }
    }

    async fn render_metrics(self: &Rc<Self>) -> Result<String, NoAnswer> {
        let loops = self.all_loops().await?;
        let snapshot = self.at_home(|_, home| home.state.borrow().snapshot()).await?;
        let sum = |of: fn(&LoopStats) -> u64| loops.iter().map(|one| of(&one.stats)).sum::<u64>();
        let turns: Vec<(f64, u64)> = (0..TURN_BUCKETS)
            .map(|i| (bound(i) as f64 / 1e6, loops.iter().map(|one| one.stats.turn_times[i]).sum()))
            .collect();
        // The histogram's buckets are all that is kept: the sum is that of their middles.
        let turns_seconds = turns.iter().map(|(bound, n)| bound * 0.75 * *n as f64).sum();
        let fallback = self.handle().fallback().map(|fallback| fallback.reason().to_string());
        let apps: Vec<AppSample> = snapshot.apps.iter().map(AppSample::from).collect();
        let counted = loops.iter().map(|one| one.counted.clone()).sum::<Counted>();
        let of_loops: u64 = loops.iter().filter_map(|one| one.descriptors).sum();
        let tables = loops.iter().filter(|one| one.descriptors.is_some()).count().max(1) as u64;
        let connections: Vec<u64> = loops.iter().map(|one| one.connections as u64).collect();
        Ok(counted.render(&Sample {
            apps: &apps,
            loops: &connections,
            turns: &turns,
            turns_seconds,
            accepted: sum(|stats| stats.accepted),
            accept_errors: sum(|stats| stats.accept_errors),
            shed: sum(|stats| stats.shed),
            bytes_in: sum(|stats| stats.bytes_in),
            bytes_out: sum(|stats| stats.bytes_out),
            panics: sum(|stats| stats.panics),
            resident_bytes: self.common().machine.resident(),
            open_fds: self.common().machine.descriptors().map(|own| own + of_loops),
            max_fds: Some(self.common().machine.max_descriptors() * tables),
            log_lines_lost: loops.iter().map(|one| one.log_lines_lost).sum(),
            backend: self.handle().backend().name(),
            fallback: fallback.as_deref().unwrap_or_default(),
        }))
    }

    async fn console_state(self: &Rc<Self>) -> Reply {
        let Ok(loops) = self.all_loops().await else { return unavailable() };
        let Ok(mut state) = self.at_home(|server, home| server.hub_state(home)).await else {
            return unavailable();
        };
        let refusals = loops.iter().map(|one| one.counted.clone()).sum::<Counted>().refusals;
        state["refusals"] = json!(refusals);
        state["loops"] = loops.iter().enumerate().map(loop_state).collect();
        reply(200, JSON, state.to_string())
    }

    /// What the state itself knows.
    fn hub_state(&self, home: &Home) -> Value {
        let hub = home.state.borrow();
        let snapshot = hub.snapshot();
        let apps: Vec<Value> = snapshot
            .apps
            .iter()
            .map(|app| {
                let config = hub.app_config(app.app);
                let refused: u64 = app.refusals.iter().map(|(_, n)| n).sum();
                json!({
                    "id": app.id,
                    "key": config.key,
                    "name": if app.name.is_empty() { &app.id } else { &app.name },
                    "connections": { "websocket": app.connections - app.streams, "sse": app.streams },
                    "channels": app.channels,
                    "messages_in": app.counters.published + app.counters.client_events,
                    "messages_out": app.counters.messages_out,
                    "refused": refused,
                })
            })
            .collect();
        let mut channels: Vec<Value> = Vec::new();
        let now = self.now();
        for app in &snapshot.apps {
            let wanted = crate::state::Info { subscription_count: true, ..Default::default() };
            for state in hub.channels(now, app.app, "", wanted).unwrap_or_default() {
                let users = hub.presence_users(app.app, &state.name).ok().map(|users| users.len());
                let subscriptions = state.subscription_count;
                channels.push(json!({
                    "app": app.id, "name": &*state.name, "subscriptions": subscriptions, "users": users,
                }));
            }
        }
        let channels_total = channels.len();
        channels.sort_by_key(|channel| std::cmp::Reverse(channel["subscriptions"].as_u64()));
        channels.truncate(LISTED);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": now as f64 / 1000.0,
            "backend": self.handle().backend().name(),
            "apps": apps,
            "channels_total": channels_total,
            "channels": channels,
            "process": { "rss_bytes": self.common().machine.resident(), "fds": self.common().machine.descriptors() },
        })
    }

    async fn console_publish(self: &Rc<Self>, head: &Parts, body: &[u8]) -> Reply {
        #[derive(Deserialize)]
        struct Asked {
            app: String,
            channel: String,
            event: String,
            data: String,
        }
        let asked: Asked = match read_json(head, body) {
            Ok(asked) => asked,
            Err(response) => return *response,
        };
        let Some(app) = self.common().app_by_id(&asked.app).map(|app| app.id) else {
            return refusal(404, "there is no such application");
        };
        let published = self.at_home(move |server, home| {
            let publication = Publication {
                name: &asked.event,
                channels: &[&asked.channel],
                data: &asked.data,
                ..Publication::default()
            };
            let now = server.now();
            server.with_state(home, |hub, out| hub.publish(now, app, &publication, out)).map(drop)
        });
        match published.await {
            Ok(Ok(())) => reply(200, JSON, "{}"),
            Ok(Err(why)) => refusal(why.http_status(), why.message()),
            Err(NoAnswer) => unavailable(),
        }
    }

    fn console_auth(&self, head: &Parts, body: &[u8]) -> Reply {
        #[derive(Deserialize)]
        struct Asked {
            app: String,
            channel: String,
        }
        let asked: Asked = match read_json(head, body) {
            Ok(asked) => asked,
            Err(response) => return *response,
        };
        let Some(app) = self.common().app_by_id(&asked.app) else {
            return refusal(404, "there is no such application");
        };
        let expires = self.unix_ms() / 1000 + FOLLOW;
        let auth = app.key.stream_auth(&[&asked.channel], expires);
        reply(200, JSON, json!({ "auth": auth, "expires": expires }).to_string())
    }

    /// Signs a visitor of the demonstration chat in to its one channel.
    fn chat_auth(&self, head: &Parts, body: &[u8], client: IpAddr) -> Reply {
        if !self.config().demo {
            return refusal(404, "there is no demonstration application");
        }
        let here = same_site(&head.headers)
            .and_then(|()| self.allow(crate::config::Access::Open, &head.headers, client));
        if let Err(why) = here {
            return denied(why);
        }
        let form = std::str::from_utf8(body).unwrap_or_default();
        let field = |name| query::get(form, name).ok().flatten().unwrap_or_default();
        let (socket, channel) = (field("socket_id"), field("channel_name"));
        let (user, name) = (field("user_id"), field("user_name"));
        if channel != "presence-chat" {
            return refusal(403, "only presence-chat is demonstrated");
        }
        let fits = |text: &str, most| !text.is_empty() && text.chars().count() <= most;
        if !fits(&user, 128) || !fits(&name, 40) || crate::state::SocketId::parse(&socket).is_none() {
            return refusal(
                400,
                "socket_id, user_id and user_name are needed, of at most 128 and 40 characters",
            );
        }
        let data = json!({ "user_id": user, "user_info": { "name": name } }).to_string();
        let Some(app) = self.common().apps.first() else { return refusal(404, "there is no application") };
        let auth = app.key.channel_auth(&socket, &channel, Some(&data));
        reply(200, JSON, json!({ "auth": auth, "channel_data": data }).to_string())
    }
}

/// How one loop is doing.
fn loop_state((index, of): (usize, &OfLoop)) -> Value {
    let stats = &of.stats;
    let total: u64 = stats.turn_times.iter().sum();
    let quantile = |q: f64| {
        let rank = (total as f64 * q).ceil() as u64;
        let mut seen = 0;
        (0..TURN_BUCKETS).find(|i| {
            seen += stats.turn_times[*i];
            seen >= rank
        })
    };
    json!({
        "id": index,
        "turns": stats.turns,
        "p50_us": quantile(0.5).map(bound),
        "p99_us": quantile(0.99).map(bound),
        "max_us": stats.longest_turn_us,
        "connections": of.connections,
        "tasks": stats.tasks,
        "timers": stats.armed,
    })
}

fn read_json<T: for<'a> Deserialize<'a>>(head: &Parts, body: &[u8]) -> Result<T, Box<Reply>> {
    let content_type =
        head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.split(';').next().is_none_or(|kind| kind.trim() != JSON) {
        return Err(Box::new(refusal(415, "send application/json")));
    }
    serde_json::from_slice(body).map_err(|error| Box::new(refusal(400, &error.to_string())))
}
