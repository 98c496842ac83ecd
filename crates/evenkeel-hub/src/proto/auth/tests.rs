#![allow(clippy::unwrap_used)]
//! The expected signatures come from the protocol's documentation and from requests that the unmodified Node and Python
//! SDKs sent to a recording server (`tests/data`), so nothing here is checked against itself.

use serde_json::Value;

use super::replay::{ReplayCache, Replayed};
use super::request::{Query, Request, RequestError, TIMESTAMP_TOLERANCE_SECONDS};
use super::stream::MAX_LIFETIME_SECONDS;
use super::*;

/// When the SDKs' requests were recorded.
const RECORDED_AT: u64 = 1_700_000_000;

fn docs() -> AppKey {
    AppKey::new("278d425bdf160c739803", "7ad3773142a6692b25b8")
}

fn demo() -> AppKey {
    AppKey::new("demo-key", "demo-secret")
}

fn verify(
    app: &AppKey,
    method: &str,
    path: &str,
    query: &str,
    body: &[u8],
    now: u64,
) -> Result<request::Verified, RequestError> {
    let query = Query::parse(query)?;
    app.verify_request(&Request { method, path, query: &query, body }, now)
}

fn error_of(result: Result<request::Verified, RequestError>) -> RequestError {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    }
}

#[test]
fn channel_and_user_vectors_of_the_documentation() {
    let app = docs();
    let auth = |hex: &str| format!("{}:{hex}", app.key());
    let private = auth("58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4");
    // The documentation's example used another name in earlier years; clients' test suites have both.
    let presence = auth("31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80");
    let earlier = auth("afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c");
    let user = auth("4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba");
    let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
    let earlier_data = r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;
    assert_eq!(app.verify_channel("1234.1234", "private-foobar", None, &private), Ok(()));
    assert_eq!(app.verify_channel("1234.1234", "presence-foobar", Some(data), &presence), Ok(()));
    assert_eq!(app.verify_channel("1234.1234", "presence-foobar", Some(earlier_data), &earlier), Ok(()));
    assert_eq!(app.verify_user("1234.1234", r#"{"id":"12345"}"#, &user), Ok(()));
    assert_eq!(app.channel_auth("1234.1234", "presence-foobar", Some(data)), presence);
    assert_eq!(app.user_auth("1234.1234", r#"{"id":"12345"}"#), user);
}

#[test]
fn channel_and_user_vectors_of_the_sdks() {
    for recorded in [
        include_str!("../../../tests/data/auth-python.json"),
        include_str!("../../../tests/data/auth-node.json"),
    ] {
        let recorded: Value = serde_json::from_str(recorded).unwrap();
        let text = |kind: &str, name: &str| recorded[kind][name].as_str().unwrap().to_owned();
        let app = demo();
        assert_eq!(app.verify_channel("123.456", "private-room", None, &text("channel", "auth")), Ok(()));
        let data = text("presence", "channel_data");
        let auth = text("presence", "auth");
        assert_eq!(app.verify_channel("123.456", "presence-x", Some(&data), &auth), Ok(()));
        assert_eq!(app.verify_user("123.456", &text("user", "user_data"), &text("user", "auth")), Ok(()));
        if recorded.get("encrypted").is_some() {
            let auth = text("encrypted", "auth");
            assert_eq!(app.verify_channel("123.456", "private-encrypted-z", None, &auth), Ok(()));
        }
    }
}

#[test]
fn i45_a_channel_signature_is_good_for_nothing_else() {
    let app = docs();
    let auth = app.channel_auth("1.2", "private-a", None);
    let data = Some(r#"{"user_id":"1"}"#);
    assert_eq!(app.verify_channel("1.2", "private-a", None, &auth), Ok(()));
    for (socket, channel, data) in [
        ("1.3", "private-a", None),
        ("1.2", "private-b", None),
        ("1.2", "private-", None),
        ("1.2", "private-a", data),
        ("1.2", "presence-a", None),
    ] {
        let refused = app.verify_channel(socket, channel, data, &auth).unwrap_err();
        assert!(
            matches!(refused, AuthError::Signature { .. }) && refused.label() == UNAUTHORIZED,
            "{refused:?}"
        );
    }
    assert!(app.verify_user("1.2", "private-a", &auth).is_err());
    assert!(app.verify_stream(&["private-a"], "1", &auth, 0).is_err());
    // The same bytes, read as another channel with other data.
    let presence = app.channel_auth("1.2", "presence-a", Some("{}:x"));
    assert_eq!(app.verify_channel("1.2", "presence-a:{}", Some("x"), &presence), Err(AuthError::ChannelName));
    // Another application's secret under our key, and our secret under another key.
    let other = AppKey::new(app.key(), "other").channel_auth("1.2", "private-a", None);
    assert!(app.verify_channel("1.2", "private-a", None, &other).is_err());
    let other = AppKey::new("other", "7ad3773142a6692b25b8").channel_auth("1.2", "private-a", None);
    assert_eq!(
        app.verify_channel("1.2", "private-a", None, &other),
        Err(AuthError::WrongKey { sent: "other".into() })
    );
}

#[test]
fn i50_every_malformed_auth_is_an_error_that_explains() {
    let app = docs();
    let good = app.channel_auth("1.2", "private-a", None);
    let check = |auth: &str| app.verify_channel("1.2", "private-a", None, auth);
    assert_eq!(check(""), Err(AuthError::Missing));
    assert_eq!(check("nonsense"), Err(AuthError::Malformed));
    let wrong = AuthError::Signature { string_to_sign: "1.2:private-a".into() };
    assert_eq!(check(&format!("{}:", app.key())), Err(wrong.clone()));
    assert_eq!(check(&good[..good.len() - 1]), Err(wrong.clone()));
    assert_eq!(check(&format!("{good}0")), Err(wrong.clone()));
    assert_eq!(check(&format!("{}é", &good[..good.len() - 2])), Err(wrong.clone()));
    assert_eq!(check(&good.to_uppercase().replace(&app.key().to_uppercase(), app.key())), Ok(()));
    for index in app.key().len() + 1..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[index] = if bytes[index] == b'0' { b'1' } else { b'0' };
        assert_eq!(check(&String::from_utf8(bytes).unwrap()), Err(wrong.clone()), "digit {index}");
    }
    let message = wrong.to_string();
    assert!(message.contains("\"1.2:private-a\""), "{message}");
}

#[test]
fn no_error_and_no_debug_output_has_a_secret_or_the_right_signature() {
    let app = AppKey::new("key", "very-secret");
    let right = app.sign(&["1.2:private-a"]).to_hex();
    let refused = app.verify_channel("1.2", "private-a", None, "key:00").unwrap_err();
    let shown = format!("{refused} {refused:?} {app:?}");
    assert!(!shown.contains("very-secret") && !shown.contains(&right), "{shown}");
}

#[test]
fn long_or_hostile_strings_to_sign_are_cut_and_escaped_in_errors() {
    let app = docs();
    let data = format!("\u{1b}[2J\n{}", "x".repeat(100_000));
    let refused =
        app.verify_channel("1.2", "presence-a", Some(&data), "278d425bdf160c739803:00").unwrap_err();
    let shown = refused.to_string();
    assert!(shown.len() < 2 * QUOTED_BYTES && shown.contains(r"presence-a:\u{1b}[2J\n"), "{shown}");
}

#[test]
fn a_secret_can_be_replaced_without_a_gap() {
    let old = AppKey::new("key", "old");
    let new = AppKey::new("key", "new");
    let both = AppKey::new("key", "new").with_previous("old");
    for signer in [&old, &new] {
        let auth = signer.channel_auth("1.2", "private-a", None);
        assert_eq!(both.verify_channel("1.2", "private-a", None, &auth), Ok(()));
        let query = signer.sign_request("GET", "/c", &[], b"", RECORDED_AT);
        assert!(verify(&both, "GET", "/c", &query, b"", RECORDED_AT).is_ok());
        assert_eq!(
            both.verify_stream(
                &["a"],
                "1700000001",
                &signer.stream_auth(&["a"], RECORDED_AT + 1),
                RECORDED_AT
            ),
            Ok(())
        );
    }
    assert_eq!(
        both.user_auth("1.2", "{}"),
        new.user_auth("1.2", "{}"),
        "nothing new is signed with the old one"
    );
    let auth = AppKey::new("key", "older").channel_auth("1.2", "private-a", None);
    assert!(both.verify_channel("1.2", "private-a", None, &auth).is_err());
    assert!(
        new.verify_channel("1.2", "private-a", None, &old.channel_auth("1.2", "private-a", None)).is_err()
    );
}

#[test]
fn request_vector_of_the_documentation() {
    let query = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
                 &body_md5=ec365a775a4cd0599faeb73354201b6f\
                 &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    let verified = verify(&docs(), "POST", "/apps/3/events", query, body, 1_353_088_179).unwrap();
    assert_eq!(verified.timestamp, 1_353_088_179);
}

/// Every request that the SDKs sent: (method, path, query, body).
fn recorded_requests() -> Vec<(String, String, String, String)> {
    let files = [
        include_str!("../../../tests/data/requests-python.json"),
        include_str!("../../../tests/data/requests-node.json"),
    ];
    let requests = files.iter().flat_map(|file| serde_json::from_str::<Vec<Value>>(file).unwrap());
    requests
        .map(|request| {
            let field = |name: &str| request[name].as_str().unwrap().to_owned();
            (field("method"), field("path"), field("query"), field("body"))
        })
        .collect()
}

#[test]
fn every_request_that_the_sdks_send_is_accepted() {
    let requests = recorded_requests();
    assert_eq!(requests.len(), 22);
    for (method, path, query, body) in requests {
        if let Err(error) = verify(&demo(), &method, &path, &query, body.as_bytes(), RECORDED_AT) {
            panic!("{method} {path}?{query}: {error}");
        }
    }
}

#[test]
fn any_change_to_a_signed_request_is_refused() {
    let app = demo();
    let check = |method: &str, path: &str, query: &str, body: &[u8]| {
        verify(&app, method, path, query, body, RECORDED_AT).is_ok()
    };
    for (method, path, query, body) in recorded_requests() {
        let body = body.as_bytes();
        let other = if method == "GET" { "POST" } else { "GET" };
        assert!(!check(other, &path, &query, body), "method");
        for index in 0..path.len() {
            let mut changed = path.clone().into_bytes();
            changed[index] ^= 1;
            if let Ok(changed) = String::from_utf8(changed) {
                assert!(!check(&method, &changed, &query, body), "path {changed}");
            }
            assert!(!check(&method, &path[..index], &query, body), "path cut at {index}");
        }
        for index in 0..query.len() {
            let mut changed = query.clone().into_bytes();
            // The lowest bit: bit 5 would only change the case of a key or of a hexadecimal digit.
            changed[index] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert!(!check(&method, &path, &changed, body), "query {changed}");
        }
        assert!(!check(&method, &path, &format!("{query}&info=user_count2"), body), "an added parameter");
        for index in 0..body.len() {
            let mut changed = body.to_vec();
            changed[index] ^= 1;
            assert!(!check(&method, &path, &query, &changed), "body byte {index}");
        }
        assert!(!check(&method, &path, &query, &[body, b" "].concat()), "a longer body");
        assert!(body.is_empty() || !check(&method, &path, &query, b""), "no body");
    }
}

#[test]
fn a_body_needs_its_md5_even_when_all_else_is_signed() {
    let app = demo();
    let query = app.sign_request("POST", "/apps/1/events", &[], b"", RECORDED_AT);
    let refused = error_of(verify(&app, "POST", "/apps/1/events", &query, b"{}", RECORDED_AT));
    assert_eq!(refused, RequestError::Missing("body_md5"));
    let query = app.sign_request("POST", "/apps/1/events", &[], b"{}", RECORDED_AT);
    let refused = error_of(verify(&app, "POST", "/apps/1/events", &query, b"[]", RECORDED_AT));
    assert_eq!(refused.label(), "auth_body_md5");
    assert!(refused.to_string().contains("99914b932bd37a50b983c5e7c90ae93b"), "{refused}");
}

#[test]
fn the_clock_may_differ_by_ten_minutes_and_no_more() {
    let app = demo();
    let query = app.sign_request("GET", "/apps/1/channels", &[], b"", RECORDED_AT);
    let at = |now| verify(&app, "GET", "/apps/1/channels", &query, b"", now);
    for now in [RECORDED_AT - TIMESTAMP_TOLERANCE_SECONDS, RECORDED_AT + TIMESTAMP_TOLERANCE_SECONDS] {
        assert!(at(now).is_ok());
    }
    let late = error_of(at(RECORDED_AT + 601));
    assert_eq!(late, RequestError::Timestamp { behind: true, by: 601 });
    assert!(late.to_string().contains("601 s behind"), "{late}");
    let early = error_of(at(RECORDED_AT - 601));
    assert!(early.to_string().contains("601 s ahead of"), "{early}");
    assert!(error_of(at(0)).to_string().contains("1700000000 s ahead"));
}

#[test]
fn i50_broken_queries_are_refused_by_what_is_wrong_with_them() {
    let app = demo();
    let base = "auth_key=demo-key&auth_timestamp=1700000000&auth_version=1.0&auth_signature=00";
    let refused = |query: &str| error_of(verify(&app, "GET", "/x", query, b"", RECORDED_AT));
    for name in ["auth_key", "auth_timestamp", "auth_version", "auth_signature"] {
        let without: Vec<&str> = base.split('&').filter(|pair| !pair.starts_with(name)).collect();
        assert_eq!(refused(&without.join("&")), RequestError::Missing(name));
    }
    assert_eq!(refused(&base.replace("1.0", "2.0")).label(), "auth_version");
    let bidi = RequestError::UnknownKey { sent: r"a\u{202e}b".into() };
    assert_eq!(refused(&base.replace("demo-key", "a%E2%80%AEb")), bidi);
    for stamp in ["", "-1", "+1700000000", "1e9", "1700000000.0", "99999999999999999999999", "１７"] {
        let query = base.replace("1700000000", &stamp.replace('+', "%2B"));
        assert_eq!(refused(&query), RequestError::TimestampMalformed, "{stamp}");
    }
    for extra in ["&a=%", "&a=%ff", "&a=1%26b=2", "&a%3Db=1", "&a=%0A", "&a=1&A=2", "&auth_key=x"] {
        assert_eq!(refused(&format!("{base}{extra}")).label(), "query_malformed", "{extra}");
    }
    let many: String = (0..100).map(|n| format!("&p{n}=1")).collect();
    assert_eq!(refused(&format!("{base}{many}")).label(), "query_malformed");
    assert_eq!(
        refused(base),
        RequestError::Signature {
            string_to_sign: "GET\\n/x\\nauth_key=demo-key&auth_timestamp=1700000000&auth_version=1.0".into()
        }
    );
}

#[test]
fn a_value_cannot_swallow_its_neighbour() {
    // "info=a" signed together with "filter_by_prefix=x" must not pass as the one parameter "filter_by_prefix=x&info=a".
    let app = demo();
    let query = app.sign_request("GET", "/c", &[("filter_by_prefix", "x"), ("info", "a")], b"", RECORDED_AT);
    assert!(verify(&app, "GET", "/c", &query, b"", RECORDED_AT).is_ok());
    let merged = query.replace("x&info=a", "x%26info%3Da");
    assert_ne!(merged, query);
    assert_eq!(error_of(verify(&app, "GET", "/c", &merged, b"", RECORDED_AT)).label(), "query_malformed");
}

#[test]
fn values_and_paths_are_signed_decoded_but_never_across_segments() {
    let app = demo();
    let query = app.sign_request("GET", "/c", &[("filter_by_prefix", "a=b,c")], b"", RECORDED_AT);
    let escaped = query.replace("a=b,c", "a%3Db%2Cc");
    assert!(verify(&app, "GET", "/c", &escaped, b"", RECORDED_AT).is_ok());
    let query = app.sign_request("GET", "/users/a b", &[], b"", RECORDED_AT);
    assert!(verify(&app, "GET", "/users/a%20b", &query, b"", RECORDED_AT).is_ok());
    let query = app.sign_request("GET", "/users/a/b", &[], b"", RECORDED_AT);
    assert!(verify(&app, "GET", "/users/a%2Fb", &query, b"", RECORDED_AT).is_err());
    let query = app.sign_request("GET", "/users/a\n", &[], b"", RECORDED_AT);
    assert!(verify(&app, "GET", "/users/a%0A", &query, b"", RECORDED_AT).is_err());
    // Escaped for signing too, as some SDKs do: then the path as sent is the one that counts.
    let query = app.sign_request("GET", "/users/a%2Fb", &[], b"", RECORDED_AT);
    assert!(verify(&app, "GET", "/users/a%2Fb", &query, b"", RECORDED_AT).is_ok());
}

#[test]
fn a_replay_is_refused_until_its_time_is_over() {
    let app = demo();
    let mut cache = ReplayCache::new(100);
    let signed = |name: &str, at| {
        let query = app.sign_request("POST", "/e", &[("n", name)], b"{}", at);
        verify(&app, "POST", "/e", &query, b"{}", at).unwrap()
    };
    let request = signed("1", RECORDED_AT);
    assert_eq!(cache.admit(&request, RECORDED_AT), Ok(()));
    assert_eq!(cache.admit(&request, RECORDED_AT + 600), Err(Replayed));
    assert_eq!(cache.admit(&signed("2", RECORDED_AT), RECORDED_AT), Ok(()));
    assert_eq!(cache.len(), 2);
    // After 600 s the timestamp itself refuses it, and the memory is given back.
    assert_eq!(cache.admit(&signed("3", RECORDED_AT + 601), RECORDED_AT + 601), Ok(()));
    assert_eq!(cache.len(), 1);
    assert_eq!(cache.forgotten_early(), 0);
}

#[test]
fn i41_the_replay_cache_is_bounded_and_says_when_it_forgets() {
    let app = demo();
    let mut cache = ReplayCache::new(10);
    for n in 0..100 {
        let query = app.sign_request("GET", "/e", &[("n", &n.to_string())], b"", RECORDED_AT + n);
        let request = verify(&app, "GET", "/e", &query, b"", RECORDED_AT + n).unwrap();
        assert_eq!(cache.admit(&request, RECORDED_AT + n), Ok(()));
        assert!(cache.len() <= 10 && !cache.is_empty());
        assert_eq!(cache.admit(&request, RECORDED_AT + n), Err(Replayed), "the newest are kept");
    }
    assert_eq!(cache.forgotten_early(), 90);
}

#[test]
fn a_stream_is_bound_to_its_channels_and_its_time() {
    let app = demo();
    // Computed with: printf 'sse:1700000060:news:private-a,b' | openssl dgst -sha256 -hmac demo-secret
    let auth = "demo-key:32911bdc776e66b052ad00dded418a4e342656ff72de87e69971779d72541058";
    let check = |channels: &[&str], expires: &str, now| app.verify_stream(channels, expires, auth, now);
    let (both, expires) = (["news", "private-a,b"], "1700000060");
    assert_eq!(app.stream_auth(&both, 1_700_000_060), auth);
    assert_eq!(check(&both, expires, RECORDED_AT), Ok(()));
    assert_eq!(check(&["private-a,b", "news", "news"], expires, RECORDED_AT), Ok(()));
    for channels in
        [&["news"] as &[&str], &["private-a,b"], &["news", "private-a", "b"], &[], &["news,private-a,b"]]
    {
        let refused = check(channels, expires, RECORDED_AT).unwrap_err();
        assert!(matches!(refused, AuthError::Signature { .. }), "{channels:?}: {refused:?}");
    }
    assert_eq!(check(&["news:private-a,b"], expires, RECORDED_AT), Err(AuthError::ChannelName));
    let later = check(&both, "1700000061", RECORDED_AT).unwrap_err();
    assert!(matches!(later, AuthError::Signature { .. }), "{later:?}");
    for malformed in ["", "x", "-1", "+1700000060", "99999999999999999999999999"] {
        assert_eq!(check(&both, malformed, RECORDED_AT), Err(AuthError::ExpiryMalformed));
    }
    assert_eq!(check(&both, expires, 1_700_000_059), Ok(()));
    assert_eq!(check(&both, expires, 1_700_000_060), Err(AuthError::Expired { seconds_ago: 0 }));
    assert_eq!(check(&both, expires, 1_700_000_065), Err(AuthError::Expired { seconds_ago: 5 }));
    let too_far = AuthError::ExpiryTooFar { limit_seconds: MAX_LIFETIME_SECONDS };
    assert_eq!(check(&both, expires, 1_700_000_060 - MAX_LIFETIME_SECONDS), Ok(()));
    assert_eq!(check(&both, expires, 1_700_000_059 - MAX_LIFETIME_SECONDS), Err(too_far));
    assert_eq!(app.verify_stream(&both, expires, "", RECORDED_AT), Err(AuthError::Missing));
}
