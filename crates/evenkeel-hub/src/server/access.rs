//! Who may use the console, the metrics and the demonstration.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};

use super::Server;
use crate::config::Access;

/// Why a request may not use a page of the server's own.
pub(super) enum Denied {
    /// A token is needed: 401.
    Token,
    /// Not from here: 403, with the reason.
    Elsewhere(&'static str),
}

impl Server {
    /// Checks a request against an access rule.
    pub(super) fn allow(
        &self,
        access: Access<'_>,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Result<(), Denied> {
        match access {
            Access::Nobody => {
                Err(Denied::Elsewhere("set a token in the configuration to use this off loopback"))
            }
            Access::Token(secret) => {
                let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
                let token = sent.and_then(|value| value.strip_prefix("Bearer "));
                if token.is_some_and(|token| secret.matches(token)) { Ok(()) } else { Err(Denied::Token) }
            }
            Access::Open if !client.is_loopback() => Err(Denied::Elsewhere("this is for loopback only")),
            Access::Open => from_this_machine(headers),
        }
    }
}

/// Without a token, only this machine may ask: not a proxy that nobody configured, and not a page of another site or a
/// name that was made to point here.
fn from_this_machine(headers: &HeaderMap) -> Result<(), Denied> {
    if headers.contains_key("x-forwarded-for") || headers.contains_key("forwarded") {
        return Err(Denied::Elsewhere("a proxy stands in front; configure it, and a token"));
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_loopback_host(host) {
        return Err(Denied::Elsewhere("without a token, use a loopback address or localhost"));
    }
    Ok(())
}

/// Refuses what a browser sends for a page of another site.
pub(super) fn same_site(headers: &HeaderMap) -> Result<(), Denied> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if matches!(text("sec-fetch-site"), Some("cross-site" | "same-site")) {
        return Err(Denied::Elsewhere("this page is of another site"));
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = text("host").unwrap_or_default();
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    if own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
        Ok(())
    } else {
        Err(Denied::Elsewhere("this page is of another site"))
    }
}

/// Whether a `Host` field names this machine by a loopback address, or as `localhost`.
fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (n.parse().expect("a name"), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn this_machine_is_known_by_loopback_names_only() {
        for good in ["localhost", "LOCALHOST:6001", "127.0.0.1:6001", "127.9.9.9", "[::1]:6001", "[::1]"] {
            assert!(is_loopback_host(good), "{good}");
        }
        for bad in
            ["", "example.com", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "[::2]:1"]
        {
            assert!(!is_loopback_host(bad), "{bad}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        assert!(same_site(&headers(&[("host", "localhost:1")])).is_ok());
        assert!(same_site(&headers(&[("host", "localhost:1"), ("origin", "http://localhost:1")])).is_ok());
        for bad in [
            headers(&[("host", "localhost:1"), ("origin", "http://evil.example")]),
            headers(&[("host", "localhost:1"), ("origin", "null")]),
            headers(&[("host", "localhost:1"), ("sec-fetch-site", "cross-site")]),
        ] {
            assert!(same_site(&bad).is_err());
        }
    }

    #[test]
    fn a_proxy_that_nobody_configured_is_not_this_machine() {
        assert!(from_this_machine(&headers(&[("host", "localhost")])).is_ok());
        assert!(
            from_this_machine(&headers(&[("host", "localhost"), ("x-forwarded-for", "1.2.3.4")])).is_err()
        );
        assert!(from_this_machine(&headers(&[("host", "evil.example")])).is_err());
    }
}
