#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::types::{CachedEvent, Event, Info, Published, Refusal};
use super::*;
use crate::config::{LimitSettings, MAX_BATCH, MAX_CHANNELS, Secret};
use crate::proto::auth::UNAUTHORIZED;

const NOW: u64 = 1_700_000_000;

/// An event as the broker got it: application, name, channels, data, excluded connection.
type Got = (String, String, Vec<String>, String, Option<String>);

/// Records what it is asked, and answers from a fixed state.
#[derive(Default)]
struct Recorder {
    events: Vec<Got>,
    calls: usize,
    terminated: Vec<(String, String)>,
    refuse: Option<Refusal>,
}

impl Broker for Recorder {
    fn publish(&mut self, app: &str, events: &[Event<'_>]) -> Result<Vec<Published>, Refusal> {
        self.calls += 1;
        if let Some(refusal) = &self.refuse {
            return Err(refusal.clone());
        }
        let mut published = Vec::new();
        for event in events {
            self.events.push((
                app.to_owned(),
                event.name.to_string(),
                event.channels.clone(),
                event.data.to_string(),
                event.except.clone(),
            ));
            let asked = event.channels.iter().filter(|_| !event.info.is_empty());
            published.push(Published {
                attributes: asked.map(|channel| attributes(channel, event.info)).collect(),
            });
        }
        Ok(published)
    }

    fn channels(&self, _: &str, prefix: &str, info: Info) -> Result<Vec<(String, Attributes)>, Refusal> {
        Ok(["room", "presence-x", "private-a"]
            .iter()
            .filter(|name| name.starts_with(prefix))
            .map(|name| ((*name).to_owned(), attributes(name, info)))
            .collect())
    }

    fn channel(&self, _: &str, channel: &str, info: Info) -> Result<ChannelState, Refusal> {
        Ok(ChannelState {
            occupied: true,
            attributes: attributes(channel, info),
            cache: info.cache.then(|| CachedEvent { data: "{\"a\":1}".into(), ttl: 60 }),
        })
    }

    fn users(&self, _: &str, _: &str) -> Result<Vec<String>, Refusal> {
        match &self.refuse {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(vec!["u1".into(), "\"2".into()]),
        }
    }

    fn terminate(&mut self, app: &str, user: &str) -> usize {
        self.terminated.push((app.to_owned(), user.to_owned()));
        1
    }
}

fn attributes(channel: &str, info: Info) -> Attributes {
    Attributes {
        user_count: (info.user_count && names::is_presence(channel)).then_some(2),
        subscription_count: info.subscription_count.then_some(3),
    }
}

fn settings() -> [AppSettings; 3] {
    let disabled = AppSettings {
        id: "3".into(),
        key: "off-key".into(),
        secret: Secret::new("off-secret"),
        enabled: false,
        ..AppSettings::default()
    };
    let careful = AppSettings {
        id: "2".into(),
        key: "careful-key".into(),
        secret: Secret::new("careful-secret"),
        replay_cache: 100,
        ..AppSettings::default()
    };
    [AppSettings::demonstration(), careful, disabled]
}

fn api() -> Api {
    Api::new(&settings(), "", LimitSettings::default().max_body_bytes)
}

/// Sends a request as it is.
fn send(broker: &mut Recorder, method: &str, path: &str, query: &str, body: &[u8]) -> Response {
    api().handle(broker, &Request { method, path, query, body, now: NOW })
}

/// Signs a request for the demonstration application and sends it.
fn ask(broker: &mut Recorder, method: &str, path: &str, query: &[(&str, &str)], body: &str) -> Response {
    let query =
        AppKey::new("demo-key", "demo-secret").sign_request(method, path, query, body.as_bytes(), NOW);
    send(broker, method, path, &query, body.as_bytes())
}

fn publish(body: &str) -> (Response, Vec<Got>) {
    let mut broker = Recorder::default();
    let response = ask(&mut broker, "POST", "/apps/1001/events", &[], body);
    (response, broker.events)
}

fn refusal(response: &Response) -> (u16, &'static str) {
    assert_eq!(response.content_type, "text/plain; charset=utf-8");
    assert!(response.body.ends_with('\n') && response.body.trim_end().len() > 10, "{:?}", response.body);
    (response.status, response.refusal.unwrap())
}

fn body_of(response: &Response) -> Value {
    assert_eq!((response.status, response.content_type), (200, "application/json"), "{}", response.body);
    serde_json::from_str(&response.body).unwrap()
}

#[test]
fn every_request_that_the_sdks_send_is_answered() {
    let mut broker = Recorder::default();
    let files = [
        include_str!("../../tests/data/requests-python.json"),
        include_str!("../../tests/data/requests-node.json"),
    ];
    for request in files.iter().flat_map(|file| serde_json::from_str::<Vec<Value>>(file).unwrap()) {
        let field = |name: &str| request[name].as_str().unwrap();
        let (path, query) = (field("path"), field("query"));
        let response = send(&mut broker, field("method"), path, query, field("body").as_bytes());
        let expected = if path == "/apps/1001/x" { 404 } else { 200 };
        assert_eq!(response.status, expected, "{path}?{query}: {}", response.body);
    }
    assert_eq!(broker.terminated.len(), 3);
    assert_eq!(broker.terminated[0], ("1001".into(), "user-7".into()), "Python names no application");
    assert_eq!(broker.terminated[2].1, "a b é");
    assert!(broker.events.iter().any(|event| event.2 == ["#server-to-user-user-7"]));
    assert!(broker.events.iter().any(|event| event.3 == "{\"hello\":\"wörld\"}"));
    assert!(broker.events.iter().any(|event| event.3 == "{\"hello\": \"wörld\"}"), "Python's own spacing");
}

#[test]
fn an_event_reaches_the_broker_as_it_was_sent() {
    let (response, events) = publish(
        r#"{"name":"e","channels":["a","b","a"],"data":"{\"x\": \"\\u00e9\"}","socket_id":"1.2","new":[1]}"#,
    );
    assert_eq!(response.body, "{}");
    let data = r#"{"x": "\u00e9"}"#.to_owned();
    assert_eq!(events, [("1001".into(), "e".into(), vec!["a".into(), "b".into()], data, Some("1.2".into()))]);
    let (_, events) = publish(r#"{"name":"e","channel":"a","data":"","socket_id":null}"#);
    assert_eq!(events[0], ("1001".into(), "e".into(), vec!["a".into()], String::new(), None));
}

#[test]
fn data_that_is_no_string_is_passed_on_as_it_came() {
    for (data, text) in [(r#"{"b": 1.0, "a":[]}"#, r#"{"b": 1.0, "a":[]}"#), ("null", "null"), ("1e2", "1e2")]
    {
        let (_, events) = publish(&format!(r#"{{"name":"e","channel":"a","data": {data} }}"#));
        assert_eq!(events[0].3, text);
    }
}

#[test]
fn info_comes_back_for_each_channel() {
    let (response, _) = publish(
        r#"{"name":"e","channels":["room","presence-x"],"data":"","info":"user_count, subscription_count"}"#,
    );
    let expected = json!({"channels": {
        "room": {"subscription_count": 3},
        "presence-x": {"user_count": 2, "subscription_count": 3},
    }});
    assert_eq!(body_of(&response), expected);
}

#[test]
fn a_batch_is_published_in_order_with_its_info() {
    let mut broker = Recorder::default();
    let body = r#"{"batch":[{"name":"a","channel":"room","data":"1"},
                            {"name":"b","channel":"presence-x","data":"2","info":"user_count"}]}"#;
    let response = ask(&mut broker, "POST", "/apps/1001/batch_events", &[], body);
    assert_eq!(body_of(&response), json!({"batch": [{}, {"user_count": 2}]}));
    let names: Vec<&str> = broker.events.iter().map(|event| event.1.as_str()).collect();
    assert_eq!((names, broker.calls), (vec!["a", "b"], 1));
    let body = r#"{"batch":[{"name":"a","channel":"room","data":"1"}]}"#;
    assert_eq!(ask(&mut broker, "POST", "/apps/1001/batch_events", &[], body).body, "{}");
    assert_eq!(ask(&mut broker, "POST", "/apps/1001/batch_events", &[], r#"{"batch":[]}"#).status, 200);
}

#[test]
fn a_batch_with_one_wrong_event_publishes_nothing() {
    let mut broker = Recorder::default();
    for wrong in [
        r#"{"name":"b","channel":"no spaces","data":"2"}"#,
        r#"{"name":"b","channels":["a","b"],"data":"2"}"#,
        r#"{"name":"b","data":"2"}"#,
    ] {
        let body = format!(r#"{{"batch":[{{"name":"a","channel":"room","data":"1"}},{wrong}]}}"#);
        assert_eq!(ask(&mut broker, "POST", "/apps/1001/batch_events", &[], &body).status, 400);
    }
    assert_eq!(broker.calls, 0);
}

#[test]
fn channels_are_listed_and_described() {
    let mut broker = Recorder::default();
    let mut get = |path: &str, query: &[(&str, &str)]| body_of(&ask(&mut broker, "GET", path, query, ""));
    let all = json!({"channels": {"room": {}, "presence-x": {}, "private-a": {}}});
    assert_eq!(get("/apps/1001/channels", &[]), all);
    let query = [("filter_by_prefix", "presence-"), ("info", "user_count")];
    assert_eq!(get("/apps/1001/channels", &query), json!({"channels": {"presence-x": {"user_count": 2}}}));
    let query = [("filter_by_prefix", "nothing")];
    assert_eq!(get("/apps/1001/channels", &query), json!({"channels": {}}));
    assert_eq!(get("/apps/1001/channels/room", &[]), json!({"occupied": true}));
    let query = [("info", "subscription_count,user_count")];
    let described = json!({"occupied": true, "user_count": 2, "subscription_count": 3});
    assert_eq!(get("/apps/1001/channels/presence-x", &query), described);
    let cached = json!({"occupied": true, "cache": {"data": "{\"a\":1}", "ttl": 60}});
    assert_eq!(get("/apps/1001/channels/private-cache-x", &[("info", "cache")]), cached);
    let users = json!({"users": [{"id": "u1"}, {"id": "\"2"}]});
    assert_eq!(get("/apps/1001/channels/presence-x/users", &[]), users);
}

#[test]
fn i50_wrong_questions_are_refused_by_name() {
    let mut broker = Recorder::default();
    let mut get = |path: &str, query: &[(&str, &str)]| refusal(&ask(&mut broker, "GET", path, query, ""));
    let presence = (400, "user_count_unavailable");
    assert_eq!(get("/apps/1001/channels", &[("info", "user_count")]), presence);
    assert_eq!(get("/apps/1001/channels", &[("info", "user_count"), ("filter_by_prefix", "pre")]), presence);
    assert_eq!(get("/apps/1001/channels/room", &[("info", "user_count")]), presence);
    assert_eq!(get("/apps/1001/channels/room", &[("info", "cache")]), (400, "cache_unavailable"));
    assert_eq!(get("/apps/1001/channels/room", &[("info", "x")]), (400, "unknown_info"));
    assert_eq!(get("/apps/1001/channels", &[("info", "cache")]), (400, "unknown_info"));
    assert_eq!(get("/apps/1001/channels/room/users", &[]), (400, "not_presence"));
    assert_eq!(get("/apps/1001/channels/a%20b", &[]), (400, "invalid_channel"));
    assert_eq!(get("/apps/1001/channels/%23server-to-user-1", &[]), (400, "invalid_channel"));
    assert_eq!(get("/apps/9/channels", &[]), (404, "unknown_app"));
    assert_eq!(get("/apps/1001/nothing", &[]), (404, "no_such_path"));
    assert_eq!(get("/apps/1001/channels/%", &[]), (400, "path_encoding"));
    let wrong_method = ask(&mut broker, "GET", "/apps/1001/events", &[], "");
    assert_eq!((refusal(&wrong_method), wrong_method.allow), ((405, "method"), Some("POST")));
}

#[test]
fn i50_wrong_events_are_refused_by_name_and_never_published() {
    let with = |name: &str, value: Value| {
        let mut event = json!({"name": "e", "channel": "a", "data": "d"});
        event[name] = value;
        event.to_string()
    };
    let many = |n: usize| json!((0..n).map(|n| format!("c{n}")).collect::<Vec<_>>());
    let without_channel =
        |channels: Value| json!({"name": "e", "data": "", "channels": channels}).to_string();
    for (body, status, label) in [
        ("not json".into(), 400, "malformed"),
        ("{}".into(), 400, "malformed"),
        ("[]".into(), 400, "malformed"),
        (r#"["e","d","a",null,null,null]"#.into(), 400, "malformed"),
        (r#"{"name":"e","channel":"a","data":"d"} x"#.into(), 400, "malformed"),
        (r#"{"name":"e","name":"f","channel":"a","data":"d"}"#.into(), 400, "malformed"),
        (r#"{"name":"e","channel":"a","data":"\ud800"}"#.into(), 400, "malformed"),
        (r#"{"name":"e","channel":"a"}"#.into(), 400, "malformed"),
        (with("name", json!(1)), 400, "malformed"),
        (with("name", json!("")), 400, "event_name"),
        (with("name", json!("é".repeat(201))), 400, "event_name_too_long"),
        (with("name", json!("pusher:subscribe")), 400, "event_name"),
        (with("name", json!("pusher_internal:member_removed")), 400, "event_name"),
        (with("channel", json!("")), 400, "invalid_channel"),
        (with("channel", json!("a b")), 400, "invalid_channel"),
        (with("channel", json!("a:b")), 400, "invalid_channel"),
        (with("channel", json!("#other")), 400, "invalid_channel"),
        (with("channel", json!("#server-to-user-")), 400, "invalid_channel"),
        (with("channel", json!("#server-to-user-\u{202e}")), 400, "invalid_user_id"),
        (with("channel", json!(format!("#server-to-user-{}", "x".repeat(129)))), 413, "user_id_too_long"),
        (with("channel", json!("x".repeat(201))), 400, "channel_name_too_long"),
        (with("channels", json!(["b"])), 400, "channel_count"),
        (without_channel(json!([])), 400, "channel_count"),
        (without_channel(many(MAX_CHANNELS + 1)), 400, "too_many_publish_channels"),
        (with("socket_id", json!("")), 400, "invalid_socket_id"),
        (with("socket_id", json!("1")), 400, "invalid_socket_id"),
        (with("socket_id", json!("1.2.3")), 400, "invalid_socket_id"),
        (with("socket_id", json!("1.2\n")), 400, "invalid_socket_id"),
        (with("info", json!("everything")), 400, "unknown_info"),
        (with("data", json!("x".repeat(10_241))), 413, "payload_too_large"),
        (with("data", json!(vec![1; 1000])), 400, "too_many_nodes"),
        ("[".repeat(60_000), 400, "too_deep"),
        (with("x", json!("y".repeat(655_360))), 413, "body_too_large"),
    ] {
        let (response, events) = publish(&body);
        let head: String = body.chars().take(80).collect();
        assert_eq!(refusal(&response), (status, label), "{head}: {}", response.body);
        assert!(response.body.len() < 700, "{}", response.body);
        assert!(events.is_empty());
    }
    let batch = json!({"batch": vec![json!({"name": "e", "channel": "a", "data": ""}); MAX_BATCH + 1]});
    let response = ask(&mut Recorder::default(), "POST", "/apps/1001/batch_events", &[], &batch.to_string());
    assert_eq!(refusal(&response), (400, "batch_too_large"));
}

#[test]
fn the_limits_themselves_are_allowed() {
    let channels: Vec<String> = (0..MAX_CHANNELS).map(|n| format!("{n:0>200}")).collect();
    let body = json!({"name": "é".repeat(200), "channels": channels, "data": "x".repeat(10_240)});
    let (response, events) = publish(&body.to_string());
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!((events[0].2.len(), events[0].3.len()), (100, 10_240));
    let batch =
        json!({"batch": vec![json!({"name": "e", "channel": "a", "data": "x".repeat(10_240)}); MAX_BATCH]});
    let mut broker = Recorder::default();
    let response = ask(&mut broker, "POST", "/apps/1001/batch_events", &[], &batch.to_string());
    assert_eq!((response.status, broker.events.len()), (200, MAX_BATCH));
}

/// Asserts that a request was refused for its signature, and that the developer is told what is wrong with it.
fn assert_unauthorized(response: &Response, why: &str) {
    assert_eq!(refusal(response), (401, UNAUTHORIZED));
    assert!(response.body.contains(why), "{}", response.body);
}

#[test]
fn i45_another_applications_key_opens_nothing() {
    let mut broker = Recorder::default();
    let body = br#"{"name":"e","channel":"a","data":"d"}"#;
    let sign = |key: &str, secret: &str, path: &str| {
        AppKey::new(key, secret).sign_request("POST", path, &[], body, NOW)
    };
    let query = sign("careful-key", "careful-secret", "/apps/1001/events");
    let response = send(&mut broker, "POST", "/apps/1001/events", &query, body);
    assert_unauthorized(&response, "No such application key");
    let query = sign("demo-key", "careful-secret", "/apps/1001/events");
    let response = send(&mut broker, "POST", "/apps/1001/events", &query, body);
    assert_unauthorized(&response, "Invalid signature");
    assert!(response.body.contains("POST\\n/apps/1001/events\\nauth_key=demo-key"), "{}", response.body);
    let query = sign("demo-key", "demo-secret", "/apps/1001/events");
    assert_unauthorized(
        &send(&mut broker, "POST", "/apps/2/events", &query, body),
        "No such application key",
    );
    assert_unauthorized(&send(&mut broker, "POST", "/apps/1001/events", "", body), "auth_key is missing");
    assert_eq!(
        refusal(&send(&mut broker, "POST", "/apps/1001/events", "a=%", body)),
        (400, "query_malformed")
    );
    let query = sign("nobody", "demo-secret", "/users/u/terminate_connections");
    let path = "/users/u/terminate_connections";
    assert_unauthorized(&send(&mut broker, "POST", path, &query, body), "No such application key");
    assert_unauthorized(&send(&mut broker, "POST", path, "", body), "auth_key is missing");
    assert_eq!((broker.calls, broker.terminated.len()), (0, 0));
}

#[test]
fn a_disabled_application_is_refused_only_to_its_owner() {
    let mut broker = Recorder::default();
    let owner = AppKey::new("off-key", "off-secret").sign_request("GET", "/apps/3/channels", &[], b"", NOW);
    assert_eq!(refusal(&send(&mut broker, "GET", "/apps/3/channels", &owner, b"")), (403, "app_disabled"));
    let stranger = AppKey::new("off-key", "guess").sign_request("GET", "/apps/3/channels", &[], b"", NOW);
    assert_unauthorized(&send(&mut broker, "GET", "/apps/3/channels", &stranger, b""), "Invalid signature");
}

#[test]
fn a_replayed_publish_is_refused_where_that_is_asked_for() {
    let mut broker = Recorder::default();
    let body = br#"{"name":"e","channel":"a","data":"d"}"#;
    for (id, key, secret, second) in
        [("1001", "demo-key", "demo-secret", 200), ("2", "careful-key", "careful-secret", 401)]
    {
        let mut api = api();
        let path = format!("/apps/{id}/events");
        let query = AppKey::new(key, secret).sign_request("POST", &path, &[], body, NOW);
        let request = Request { method: "POST", path: &path, query: &query, body, now: NOW };
        assert_eq!(api.handle(&mut broker, &request).status, 200);
        assert_eq!(api.handle(&mut broker, &request).status, second);
        let path = format!("/apps/{id}/channels");
        let query = AppKey::new(key, secret).sign_request("GET", &path, &[], b"", NOW);
        let request = Request { method: "GET", path: &path, query: &query, body: b"", now: NOW };
        assert_eq!(api.handle(&mut broker, &request).status, 200);
        assert_eq!(api.handle(&mut broker, &request).status, 200, "asking twice is no harm");
    }
}

#[test]
fn i48_a_refused_publish_says_when_to_come_back() {
    for (refuse, status, label) in [
        (Refusal::RateLimited { retry_after: 2 }, 429, "publish_rate"),
        (Refusal::Overloaded { retry_after: 7 }, 503, "overloaded"),
    ] {
        let mut broker = Recorder { refuse: Some(refuse), ..Recorder::default() };
        let response =
            ask(&mut broker, "POST", "/apps/1001/events", &[], r#"{"name":"e","channel":"a","data":""}"#);
        assert_eq!(refusal(&response), (status, label));
        let seconds = response.retry_after.unwrap();
        assert!(response.body.contains(&format!("{seconds} s")), "{}", response.body);
    }
}

#[test]
fn what_only_the_broker_knows_is_passed_on() {
    let refuse = Some(Refusal::Invalid { label: "other", message: "The moon is in the wrong phase".into() });
    let mut broker = Recorder { refuse, ..Recorder::default() };
    let response = ask(&mut broker, "GET", "/apps/1001/channels/presence-x/users", &[], "");
    assert_eq!((refusal(&response), response.retry_after), ((400, "other"), None));
    assert_eq!(response.body, "The moon is in the wrong phase\n");
}

#[test]
fn a_prefix_belongs_to_the_signed_path() {
    let mut api = Api::new(&settings(), "/hub", 1 << 20);
    let mut broker = Recorder::default();
    assert!(
        serves("/hub", "/hub/apps/1001/events")
            && !serves("/hub", "/apps/1001/events")
            && !serves("/hub", "/hub/metrics")
    );
    let mut ask = |signed: &str| {
        let query = AppKey::new("demo-key", "demo-secret").sign_request("GET", signed, &[], b"", NOW);
        let path = "/hub/apps/1001/channels";
        api.handle(&mut broker, &Request { method: "GET", path, query: &query, body: b"", now: NOW }).status
    };
    assert_eq!(ask("/hub/apps/1001/channels"), 200);
    assert_eq!(ask("/apps/1001/channels"), 401);
}

#[test]
fn i50_no_request_whatever_panics_or_goes_without_an_answer() {
    let mut seed = 7_u64;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    let mut mutate = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..below(4) {
            let at = below(bytes.len().max(1));
            match below(3) {
                0 => bytes.insert(at.min(bytes.len()), b"\"\\[]{},:/%&=\0\n1e\xff"[below(17)]),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(bytes.len() / 2)),
            }
        }
        bytes
    };
    let body = r#"{"name":"e","channels":["presence-a","b"],"data":"{\"x\":\"\u00e9\"}","socket_id":"1.2","info":"user_count"}"#;
    let batch = format!(r#"{{"batch":[{body},{{"name":"e","channel":"a","data":[1,{{"a":null}}]}}]}}"#);
    let paths = [
        "events",
        "batch_events",
        "channels",
        "channels/presence-a",
        "channels/presence-a/users",
        "users/%20/terminate_connections",
    ];
    let key = AppKey::new("demo-key", "demo-secret");
    let mut broker = Recorder::default();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..20_000 {
        let path = String::from_utf8_lossy(&mutate(&format!("/apps/1001/{}", paths[round % paths.len()])))
            .into_owned();
        let body = mutate(if round % 2 == 0 { body } else { &batch });
        let method = if round % 6 < 2 || round % 6 == 5 { "POST" } else { "GET" };
        let info = String::from_utf8_lossy(&mutate("user_count,cache")).into_owned();
        let mut query = key.sign_request(method, &path, &[("info", &info)], &body, NOW);
        if round % 5 == 0 {
            query = String::from_utf8_lossy(&mutate(&query)).into_owned();
        }
        let response = send(&mut broker, method, &path, &query, &body);
        assert_eq!(response.status == 200, response.refusal.is_none());
        assert!(!response.body.trim_end().contains(text::is_unsafe), "{:?}", response.body);
        seen.insert((response.status, response.refusal));
    }
    assert!(seen.len() > 12, "too few kinds of answers to mean anything: {seen:?}");
}

#[test]
fn operations_are_labelled_for_metrics() {
    let mut broker = Recorder::default();
    assert_eq!(ask(&mut broker, "GET", "/apps/1001/channels", &[], "").operation, "channels");
    assert_eq!(ask(&mut broker, "GET", "/apps/1001/events", &[], "").operation, "unknown");
    assert_eq!(send(&mut broker, "POST", "/apps/1001/events", "", b"").operation, "publish");
}
