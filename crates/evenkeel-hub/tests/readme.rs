//! The README names every reason for which something is refused, and no other.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use evenkeel_hub::api::ApiError;
use evenkeel_hub::api::types::Refusal as BrokerRefusal;
use evenkeel_hub::proto::auth::AuthError;
use evenkeel_hub::proto::auth::request::RequestError;
use evenkeel_hub::proto::guard::GuardError;
use evenkeel_hub::proto::head::HeadError;
use evenkeel_hub::state::Refusal;

/// The first cells of the table of reasons.
fn documented() -> BTreeSet<String> {
    let text = include_str!("../README.md");
    let section = text.split("\n## ").find(|section| section.starts_with("Refusals\n")).unwrap();
    let mut reasons = BTreeSet::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (reason, _) = row.split_once("` |").unwrap();
        assert!(reasons.insert(reason.to_owned()), "{reason} stands there twice");
    }
    reasons
}

/// All source text of the hub but its tests.
fn sources(folder: &Path, out: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                sources(&path, out);
            }
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            out.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The text literals that directly follow `call`, which may have a number as its first argument.
fn literals_after<'s>(source: &'s str, call: &str) -> Vec<&'s str> {
    let behind = source.split(call).skip(1);
    let first = behind.map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || ", ".contains(c)));
    first.filter_map(|rest| rest.strip_prefix('"')?.split('"').next()).collect()
}

#[test]
fn every_reason_is_documented() {
    let documented = documented();
    let text = String::new;
    let mut reasons: BTreeSet<&str> = Refusal::all().map(Refusal::name).collect();
    for error in [
        AuthError::Missing,
        AuthError::ChannelName,
        AuthError::ExpiryMalformed,
        AuthError::Expired { seconds_ago: 1 },
        AuthError::ExpiryTooFar { limit_seconds: 1 },
    ] {
        reasons.insert(error.label());
    }
    for error in [
        RequestError::Query(""),
        RequestError::Missing(""),
        RequestError::Version { sent: text() },
        RequestError::TimestampMalformed,
        RequestError::BodyMd5 { sent: text(), computed: text() },
        RequestError::Replayed,
    ] {
        reasons.insert(error.label());
    }
    for error in [
        ApiError::NoSuchPath,
        ApiError::Method { allow: "" },
        ApiError::PathEncoding,
        ApiError::NoSuchApp { id: text() },
        ApiError::BodyTooLarge { limit: 1 },
        ApiError::ChannelCount,
        ApiError::UserId,
        ApiError::UnknownInfo { name: text() },
        ApiError::CacheNeedsCacheChannel,
        ApiError::Refused(BrokerRefusal::Overloaded { retry_after: 1 }),
        ApiError::Refused(BrokerRefusal::RateLimited { retry_after: 1 }),
    ] {
        reasons.insert(error.label());
    }
    for error in
        [GuardError::Head(HeadError::Host), GuardError::BodyTooLarge { limit: 1 }, GuardError::Trailer]
    {
        reasons.insert(error.label());
    }
    let mut server = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server"), &mut server);
    let written = ["refuse(", "Refused::new(", "TooSlow("].map(|call| literals_after(&server, call));
    assert!(written[0].len() > 10 && written[1].len() > 2, "the server's own reasons are found: {written:?}");
    reasons.extend(written.iter().flatten());
    for reason in reasons {
        assert!(documented.contains(reason), "{reason} is not in the README");
    }
}

#[test]
fn no_reason_is_documented_that_nothing_gives() {
    let mut source = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut source);
    for reason in documented() {
        assert!(source.contains(&format!("\"{reason}\"")), "{reason} is in the README only");
    }
}

#[test]
fn one_cause_has_one_reason_on_every_way_in() {
    let quoted = String::new;
    for auth in [
        AuthError::Missing,
        AuthError::Malformed,
        AuthError::WrongKey { sent: quoted() },
        AuthError::Signature { string_to_sign: quoted() },
    ] {
        assert_eq!(auth.label(), Refusal::Unauthorized.name(), "{auth:?}");
    }
    for request in [
        RequestError::Missing("auth_key"),
        RequestError::UnknownKey { sent: quoted() },
        RequestError::Signature { string_to_sign: quoted() },
    ] {
        assert_eq!(ApiError::from(request).label(), Refusal::Unauthorized.name());
    }
    assert_eq!(AuthError::ChannelName.label(), Refusal::InvalidChannel.name());
    assert_eq!(ApiError::NoSuchApp { id: quoted() }.label(), Refusal::UnknownApp.name());
    assert_eq!(ApiError::Disabled.label(), Refusal::AppDisabled.name());
    assert_eq!(ApiError::DataTooLarge { given: 2, limit: 1 }.label(), Refusal::PayloadTooLarge.name());
    let body = GuardError::BodyTooLarge { limit: 1 };
    assert_eq!(ApiError::BodyTooLarge { limit: 1 }.label(), body.label());
    assert_eq!(GuardError::Head(HeadError::Host).label(), HeadError::Host.label());
}
