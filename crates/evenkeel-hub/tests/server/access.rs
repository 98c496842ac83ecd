//! Who may use the console, the metrics and the demonstration.

use evenkeel_hub::config::{Config, Sources};
use evenkeel_hub::proto::auth::AppKey;

use crate::support::{Hub, Response, TOKEN, config, on_every_backend};

/// Asks with header fields of its own choice.
fn ask(hub: &Hub, line: &str, fields: &str, body: &str) -> Response {
    let mut http = hub.http();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    http.send(&format!("{line} HTTP/1.1\r\n{fields}{length}Connection: close\r\n\r\n{body}"));
    let response = http.response();
    http.ends();
    response
}

const HERE: &str = "Host: localhost\r\n";

/// What no page of another site and no unknown proxy may send.
const FOREIGN: &[&str] = &[
    "Host: evil.example\r\n",
    "Host: 127.0.0.1.evil.example\r\n",
    "Host: localhost\r\nOrigin: https://evil.example\r\n",
    "Host: localhost\r\nOrigin: null\r\n",
    "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
    "Host: localhost\r\nSec-Fetch-Site: same-site\r\n",
    "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n",
    "Host: localhost\r\nForwarded: for=192.0.2.1\r\n",
];

fn without_tokens() -> String {
    config("", "", "")
        .lines()
        .filter(|line| !line.contains("_token"))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn without_a_token_the_console_is_for_this_machine_only() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &without_tokens());
        for host in [HERE, "Host: 127.0.0.1:6001\r\n", "Host: [::1]\r\n"] {
            let state = ask(&hub, "GET /console/state", host, "");
            assert_eq!(state.status, 200, "{host}");
            let state: serde_json::Value = serde_json::from_slice(&state.body).unwrap();
            assert_eq!(state["apps"][0]["id"], "1");
            assert_eq!(ask(&hub, "GET /metrics", host, "").status, 200);
        }
        for (n, fields) in FOREIGN.iter().enumerate() {
            assert_eq!(ask(&hub, "GET /console/state", fields, "").status, 403, "{fields}");
            hub.refused("console_access", n as u64 + 1);
        }
        // The metrics are no page, so what browsers say of pages is no matter.
        for fields in [FOREIGN[0], FOREIGN[6], FOREIGN[7]] {
            assert_eq!(ask(&hub, "GET /metrics", fields, "").status, 403, "{fields}");
        }
        hub.refused("metrics_access", 3);
        // Health is for everyone.
        assert_eq!(ask(&hub, "GET /health", FOREIGN[0], "").status, 200);
        assert_eq!(ask(&hub, "GET /console/nothing", HERE, "").status, 404);
        assert_eq!(ask(&hub, "POST /console/state", HERE, "").status, 405);
    });
}

#[test]
fn with_a_token_it_is_needed_and_enough() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let bearer = |token: &str| format!("{HERE}Authorization: Bearer {token}\r\n");
        let wrong = [
            String::new(),
            "x".into(),
            TOKEN[..TOKEN.len() - 1].into(),
            format!("{TOKEN}x"),
            TOKEN.to_uppercase(),
        ];
        for path in ["/console/state", "/metrics"] {
            for token in &wrong {
                let refused = ask(&hub, &format!("GET {path}"), &bearer(token), "");
                assert_eq!(
                    (refused.status, refused.field("WWW-Authenticate")),
                    (401, Some("Bearer")),
                    "{token}"
                );
            }
            let basic = format!("{HERE}Authorization: Basic {TOKEN}\r\n");
            assert_eq!(ask(&hub, &format!("GET {path}"), &basic, "").status, 401);
            assert_eq!(ask(&hub, &format!("GET {path}"), HERE, "").status, 401);
            assert_eq!(ask(&hub, &format!("GET {path}"), &bearer(TOKEN), "").status, 200);
        }
        let elsewhere = format!("Host: hub.example\r\nAuthorization: Bearer {TOKEN}\r\n");
        assert_eq!(ask(&hub, "GET /console/state", &elsewhere, "").status, 200);
        let page = format!("{elsewhere}Origin: https://evil.example\r\n");
        assert_eq!(ask(&hub, "GET /console/state", &page, "").status, 403, "another site, token or not");
    });
}

#[test]
fn an_exposed_server_without_tokens_has_no_console() {
    on_every_backend(|backend| {
        let toml = without_tokens().replace("[log]", "[proxy]\ntrusted = ['127.0.0.1']\n[log]");
        let hub = Hub::with(backend, &toml);
        for fields in [
            HERE,
            &format!("{HERE}Authorization: Bearer \r\n"),
            "Host: localhost\r\nX-Forwarded-For: 127.0.0.1\r\n",
        ] {
            assert_eq!(ask(&hub, "GET /console/state", fields, "").status, 403);
            assert_eq!(ask(&hub, "GET /metrics", fields, "").status, 403);
        }
        assert_eq!(ask(&hub, "POST /chat/auth", HERE, "socket_id=1.1").status, 404);
        assert_eq!(ask(&hub, "GET /health", HERE, "").status, 200);
    });
}

#[test]
fn the_console_publishes_and_signs_for_its_own_pages_only() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &without_tokens());
        let mut ws = hub.ws();
        ws.subscribe("private-a");
        let json = format!("{HERE}Content-Type: application/json\r\n");
        let body = r#"{"app":"1","channel":"private-a","event":"news","data":"from the console"}"#;
        assert_eq!(ask(&hub, "POST /console/publish", &json, body).status, 200);
        assert_eq!(ws.event("news")["data"], "from the console");
        for (fields, body, status) in [
            (HERE, body, 415),
            ("Host: localhost\r\nContent-Type: text/plain\r\n", body, 415),
            (&json, "{", 400),
            (&json, r#"{"app":"9","channel":"a","event":"news","data":""}"#, 404),
            (&json, r#"{"app":"1","channel":"a b","event":"news","data":""}"#, 400),
        ] {
            assert_eq!(ask(&hub, "POST /console/publish", fields, body).status, status, "{body}");
        }
        let body = r#"{"app":"1","channel":"private-a"}"#;
        for path in ["/console/publish", "/console/auth"] {
            let foreign = format!("{json}Origin: http://evil.example\r\n");
            assert_eq!(ask(&hub, &format!("POST {path}"), &foreign, body).status, 403);
        }
        let signed = ask(&hub, "POST /console/auth", &json, body);
        let signed: serde_json::Value = serde_json::from_slice(&signed.body).unwrap();
        let query = format!(
            "channel=private-a&expires={}&auth={}",
            signed["expires"],
            signed["auth"].as_str().unwrap()
        );
        hub.sse(&query).is_caught_up();
        ws.is_served();
    });
}

#[test]
fn the_demonstration_signs_visitors_in_to_its_one_channel() {
    on_every_backend(|backend| {
        let toml = "listen = ['127.0.0.1:0']\n[log]\nlevel = 'error'\n";
        let demo = Config::load(&Sources { file: Some(("hub.toml", toml)), ..Sources::default() }).unwrap();
        assert!(demo.demo);
        let hub = Hub::from_config(backend, demo);
        let form = format!("{HERE}Content-Type: application/x-www-form-urlencoded\r\n");
        let mut ws = crate::support::Ws::open(hub.addr, "demo-key");
        let body = |channel: &str, user: &str| {
            format!("socket_id={}&channel_name={channel}&user_id={user}&user_name=A%20Visitor", ws.socket_id)
        };
        let answer = ask(&hub, "POST /chat/auth", &form, &body("presence-chat", "u1"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let data = answer["channel_data"].as_str().unwrap();
        let expected =
            AppKey::new("demo-key", "demo-secret").channel_auth(&ws.socket_id, "presence-chat", Some(data));
        assert_eq!(answer["auth"], expected);
        for (body, status) in [
            (body("presence-other", "u1"), 403),
            (body("private-chat", "u1"), 403),
            (body("presence-chat", ""), 400),
            (body("presence-chat", &"x".repeat(129)), 400),
            ("socket_id=1:2&channel_name=presence-chat&user_id=u&user_name=n".to_owned(), 400),
            (String::from("%ff"), 403),
        ] {
            assert_eq!(ask(&hub, "POST /chat/auth", &form, &body).status, status, "{body}");
        }
        for fields in FOREIGN {
            assert_eq!(
                ask(&hub, "POST /chat/auth", fields, &body("presence-chat", "u1")).status,
                403,
                "{fields}"
            );
        }
        ws.send_event(
            "pusher:subscribe",
            &serde_json::json!({
                "channel": "presence-chat", "auth": answer["auth"], "channel_data": data,
            }),
        );
        ws.event("pusher_internal:subscription_succeeded");
        drop(ws);
        // With applications of its own a server demonstrates nothing.
        let own = Hub::start(backend);
        assert_eq!(ask(&own, "POST /chat/auth", &form, "socket_id=1.1").status, 404);
    });
}
