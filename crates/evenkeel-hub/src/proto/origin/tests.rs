#![allow(clippy::unwrap_used)]

use super::*;
use crate::proto::head::Limits;

fn origins(rules: &[&str]) -> Origins {
    Origins::parse(rules.iter().copied()).unwrap()
}

#[test]
fn exact_origins_compare_scheme_host_and_port() {
    let list = origins(&[
        "https://Example.com",
        "http://localhost:3000",
        "capacitor://localhost",
        "https://[::1]:8443",
    ]);
    for allowed in [
        "https://example.com",
        "https://example.com:443",
        "HTTPS://EXAMPLE.COM",
        "http://localhost:3000",
        "capacitor://localhost",
        "https://[::1]:8443",
    ] {
        assert!(list.allow(allowed), "{allowed}");
    }
    for denied in [
        "http://example.com",
        "https://example.com:444",
        "https://www.example.com",
        "https://example.com.evil.test",
        "https://evil-example.com",
        "https://example.com/",
        "https://example.com@evil.test",
        "https://user@example.com",
        "https://example.com evil",
        "https://example.com\u{0}",
        "http://localhost",
        "http://127.0.0.1:3000",
        "http://localhost:03000x",
        "http://localhost:99999",
        "http://localhost:",
        "null",
        "",
        "*",
        "example.com",
        "://example.com",
    ] {
        assert!(!list.allow(denied), "{denied}");
    }
}

#[test]
fn wildcards_match_names_below_and_nothing_else() {
    let list = origins(&["https://*.example.com", "http://*.test:8080"]);
    for allowed in [
        "https://a.example.com",
        "https://a.b.example.com",
        "https://A.Example.com:443",
        "http://x.test:8080",
    ] {
        assert!(list.allow(allowed), "{allowed}");
    }
    for denied in [
        "https://example.com",
        "https://.example.com",
        "https://aexample.com",
        "http://a.example.com",
        "https://a.example.com:8443",
        "https://a.example.com.evil.test",
        "https://evil.test/.example.com",
        "https://evil.test#.example.com",
        "https://*.example.com",
        "http://x.test",
        "https://127.0.0.1",
        "null",
        "",
    ] {
        assert!(!list.allow(denied), "{denied}");
    }
}

#[test]
fn null_is_allowed_only_by_name_or_by_any() {
    assert!(origins(&["null"]).allow("null"));
    assert!(Origins::any().allow("null"));
    assert!(!origins(&["https://example.com"]).allow("null"));
    assert!(!origins(&["null"]).allow("https://example.com"));
    assert!(!Origins::default().allow("https://example.com"));
    assert_eq!(Origins::any(), origins(&["*"]));
    assert!(!Origins::any().allow("not an origin"));
}

#[test]
fn i50_rules_that_are_no_origins_are_refused() {
    for bad in [
        "",
        "example.com",
        "https://",
        "https://*",
        "https://*.",
        "https://a.*.b",
        "https://a/",
        "https://a:x",
        "https://a,b",
        "*.a",
        "nul",
    ] {
        let error = Origins::parse(["https://ok.test", bad]).unwrap_err();
        assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
    }
}

#[test]
fn rules_are_written_as_they_are_read() {
    let rules = [
        "*",
        "null",
        "https://example.com",
        "http://localhost:3000",
        "https://*.example.com:8443",
        "capacitor://localhost",
        "https://[::1]",
    ];
    let written: Vec<String> = origins(&rules).rules().map(|rule| rule.to_string()).collect();
    assert_eq!(written, rules);
    let written: Vec<String> =
        origins(&["HTTPS://Example.com:443", "http://a:443"]).rules().map(|rule| rule.to_string()).collect();
    assert_eq!(written, ["https://example.com", "http://a:443"]);
}

fn with_head<T>(fields: &str, look: impl FnOnce(RequestOrigin<'_>) -> T) -> T {
    let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let head = RequestHead::parse(text.as_bytes(), &Limits::default()).unwrap();
    look(RequestOrigin::from_head(&head))
}

#[test]
fn requests_by_their_origin_field() {
    let list = origins(&["https://good.test"]);
    let allowed = |fields: &str| with_head(fields, |origin| list.allow_request(origin));
    assert!(allowed(""));
    assert!(allowed("Origin: https://good.test\r\n"));
    assert!(!allowed("Origin: https://evil.test\r\n"));
    assert!(!allowed("Origin: null\r\n"));
    assert!(!allowed("Origin: http://192.0.2.1\r\n"));
    assert!(!allowed("Origin:\r\n"));
    assert!(!allowed("Origin: https://good.test\r\nOrigin: https://good.test\r\n"));
    assert!(!allowed("Origin: https://good.test, https://good.test\r\n"));
    assert!(!allowed("Origin: \u{fc}\r\n"));
}

#[test]
fn same_host_by_the_host_field() {
    let same = |origin, host| RequestOrigin::Named(origin).is_same_host(host);
    assert!(same("https://a.test", "a.test"));
    assert!(same("https://a.test", "A.test:443"));
    assert!(same("http://a.test:6001", "a.test:6001"));
    assert!(!same("http://a.test:6001", "a.test"));
    assert!(!same("https://evil.test", "a.test"));
    assert!(!same("null", "a.test"));
    assert!(!RequestOrigin::Absent.is_same_host("a.test"));
}

#[test]
fn cors_fields_name_the_origin_or_everyone() {
    let list = origins(&["https://*.good.test"]);
    let [allow, vary] = list.cors("https://a.good.test").unwrap();
    assert_eq!(allow, ("Access-Control-Allow-Origin", "https://a.good.test"));
    assert_eq!(vary, ("Vary", "Origin"));
    assert!(list.cors("https://evil.test").is_none());
    assert!(list.cors("https://a.good.test\r\nX: y").is_none());
    assert_eq!(Origins::any().cors("https://evil.test").unwrap()[0].1, "*");
}
