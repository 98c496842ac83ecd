//! Query strings and signatures: decoding against a second decoder; what is signed is accepted, and what was changed on
//! the way is not.

use evenkeel_hub::proto::auth::AppKey;
use evenkeel_hub::proto::auth::replay::ReplayCache;
use evenkeel_hub::proto::auth::request::{Query, Request};
use evenkeel_hub::proto::head::query;
use evenkeel_hub::proto::percent::{Plus, decode};

use crate::pieces::parts;

const NOW: u64 = 1_700_000_000;

/// A query string, a path, and a body, in this order, with zero bytes between them.
pub fn run(bytes: &[u8]) {
    let [raw, path, body] = parts(bytes);
    let (Ok(raw), Ok(path)) = (std::str::from_utf8(raw), std::str::from_utf8(path)) else { return };
    for text in [raw, path] {
        percent(text);
    }
    pairs(raw);
    let key = AppKey::new("key", "the secret").with_previous("the old one");
    if let Ok(query) = Query::parse(raw) {
        let request = Request { method: "POST", path, query: &query, body };
        // Nobody who does not know the secret finds it.
        assert!(key.verify_request(&request, NOW).is_err());
        signed(&key, path, &query, raw, body);
    }
    subscriptions(&key, raw, path);
}

fn percent(text: &str) {
    for plus in [Plus::Literal, Plus::Space] {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        let mut broken = false;
        while let [first, after @ ..] = rest {
            rest = after;
            match (first, plus) {
                (b'%', _) => {
                    let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                    let Some(digits) = digits else {
                        broken = true;
                        break;
                    };
                    let digits = std::str::from_utf8(digits).unwrap_or_default();
                    bytes.push(u8::from_str_radix(digits, 16).expect("these are digits"));
                    rest = &after[2..];
                }
                (b'+', Plus::Space) => bytes.push(b' '),
                _ => bytes.push(*first),
            }
        }
        let expected = if broken { None } else { String::from_utf8(bytes).ok() };
        assert_eq!(decode(text, plus).ok().as_deref(), expected.as_deref());
    }
}

fn pairs(raw: &str) {
    let decoded: Result<Vec<_>, _> = query::pairs(raw).collect();
    let Ok(decoded) = decoded else { return };
    assert_eq!(decoded.len(), raw.split('&').filter(|pair| !pair.is_empty()).count());
    for (name, value) in &decoded {
        let first = decoded.iter().find(|pair| pair.0 == *name).map(|pair| &*pair.1);
        assert_eq!(query::get(raw, name).ok().flatten().as_deref(), first);
        assert!(name.len() + value.len() <= raw.len());
    }
}

/// A request with these parameters is signed, sent, and accepted once; with any byte of it changed it is not.
fn signed(key: &AppKey, path: &str, query: &Query, raw: &str, body: &[u8]) {
    let names: Vec<String> =
        query::pairs(raw).filter_map(|pair| Some(pair.ok()?.0.to_ascii_lowercase())).collect();
    let taken =
        |name: &str| name.starts_with("auth_") || name == "body_md5" || name.contains(['%', '+', '&']);
    let values = |name: &String| Some((name.clone(), query.get(name)?.to_owned()));
    let parameters: Vec<(String, String)> =
        names.iter().filter(|name| !taken(name)).filter_map(values).collect();
    if parameters.iter().any(|(_, value)| value.contains(['%', '+', '&'])) || parameters.len() > 50 {
        return;
    }
    let borrowed: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (&**name, &**value)).collect();
    let sent = key.sign_request("POST", path, &borrowed, body, NOW);
    let verify = |method: &str, path: &str, query: &str, body: &[u8], now: u64| {
        let query = Query::parse(query).map_err(|error| error.to_string())?;
        let request = Request { method, path, query: &query, body };
        key.verify_request(&request, now).map_err(|error| error.to_string())
    };
    let verified = match verify("POST", path, &sent, body, NOW + 600) {
        Ok(verified) => verified,
        Err(error) => panic!("{error} of {sent:?}"),
    };
    let mut seen = ReplayCache::new(4);
    assert!(seen.admit(&verified, NOW).is_ok() && seen.admit(&verified, NOW).is_err());
    assert!(verify("GET", path, &sent, body, NOW).is_err());
    assert!(verify("POST", &format!("{path}x"), &sent, body, NOW).is_err());
    assert!(verify("POST", path, &sent, &[body, b"x"].concat(), NOW).is_err());
    assert!(verify("POST", path, &format!("{sent}&more"), body, NOW).is_err());
    assert!(verify("POST", path, &sent, body, NOW + 601).is_err());
    assert!(verify("POST", path, &sent, body, NOW - 601).is_err());
}

/// Signatures of subscriptions: `one` stands for a socket's id, `other` for a channel or for data.
fn subscriptions(key: &AppKey, one: &str, other: &str) {
    let stranger = AppKey::new("key", "another secret");
    for data in [None, Some(one)] {
        let auth = key.channel_auth("1.2", other, data);
        let accepted = key.verify_channel("1.2", other, data, &auth);
        assert_eq!(accepted.is_ok(), !other.contains(':'), "{other:?}");
        assert!(stranger.verify_channel("1.2", other, data, &auth).is_err());
        assert!(key.verify_channel("1.3", other, data, &auth).is_err());
        assert!(key.verify_channel("1.2", other, data, other).is_err());
    }
    let auth = key.user_auth("1.2", one);
    assert!(key.verify_user("1.2", one, &auth).is_ok());
    assert!(key.verify_user("1.2", &format!("{one} "), &auth).is_err());
    assert!(key.verify_user("1.2", one, other).is_err());
    let channels: Vec<&str> = one.split(',').collect();
    let auth = key.stream_auth(&channels, NOW + 60);
    let expires = (NOW + 60).to_string();
    let verify = |channels: &[&str], expires: &str, now| key.verify_stream(channels, expires, &auth, now);
    assert_eq!(verify(&channels, &expires, NOW).is_ok(), !one.contains(':'));
    assert!(verify(&channels, &expires, NOW + 60).is_err());
    assert!(
        verify(&[&channels[..], &["one-more"]].concat(), &expires, NOW).is_err()
            || channels.contains(&"one-more")
    );
    assert!(verify(&channels, other, NOW).is_err() || other == expires);
}
