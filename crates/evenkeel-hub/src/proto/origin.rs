//! Which web pages may talk to the hub.
//!
//! A browser lets any page open a WebSocket to any server and tells the server the page's origin; refusing the
//! others is the server's part (cross-site WebSocket hijacking). For event streams and the HTTP API the same list
//! decides which pages may read the answer (CORS).
//!
//! ```
//! use evenkeel_hub::proto::origin::Origins;
//!
//! let origins = Origins::parse(["https://example.com", "https://*.example.org"]).unwrap();
//! assert!(origins.allow("https://example.com"));
//! assert!(origins.allow("https://shop.example.org"));
//! assert!(!origins.allow("https://example.com.evil.test"));
//! ```

use std::fmt;

use crate::proto::head::RequestHead;

/// An allow-list of origins. An empty one allows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    rules: Vec<Rule>,
}

/// One line of an allow-list. `Display` writes what [`Origins::parse`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Any,
    /// The opaque origin of sandboxed frames, local files and some redirects, which anyone can take on.
    Null,
    Exact(Origin),
    /// Every name below the origin's host, but not the host itself.
    Below(Origin),
}

/// Lower-case, and with the port that the scheme implies filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// A rule of an allow-list that is no origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginError {
    rule: String,
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an origin: write \"https://example.com\", \"https://*.example.com\", \"null\" or \"*\"",
            self.rule
        )
    }
}

impl std::error::Error for OriginError {}

/// The origin that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOrigin<'b> {
    /// No `Origin` field: not a browser, or a page reading from its own server.
    Absent,
    /// The value of the only `Origin` field.
    Named(&'b str),
    /// Several fields, or bytes that are not text.
    Malformed,
}

impl<'b> RequestOrigin<'b> {
    /// The origin in a request's head.
    #[must_use]
    pub fn from_head(head: &RequestHead<'b>) -> RequestOrigin<'b> {
        let mut values = head.values("origin");
        match (values.next().map(std::str::from_utf8), values.next()) {
            (None, _) => RequestOrigin::Absent,
            (Some(Ok(origin)), None) => RequestOrigin::Named(origin),
            _ => RequestOrigin::Malformed,
        }
    }

    /// Whether the page was loaded from the host that it now talks to, by the request's `Host` field. The schemes are
    /// not compared, since a proxy may have taken off the encryption; ports are, the scheme's own where none is named.
    #[must_use]
    pub fn is_same_host(&self, host: &str) -> bool {
        let RequestOrigin::Named(origin) = self else { return false };
        let Some(origin) = Origin::parse(origin) else { return false };
        Origin::parse(&format!("{}://{host}", origin.scheme)).is_some_and(|own| own == origin)
    }
}

impl Origins {
    /// A list that allows every origin.
    #[must_use]
    pub fn any() -> Origins {
        Origins { rules: vec![Rule::Any] }
    }

    /// Reads rules: `*` for every origin, `null` for the opaque one, an origin such as `https://example.com:8443`, or
    /// `https://*.example.com` for every name below that host at any depth.
    ///
    /// # Errors
    ///
    /// The first rule that is none of these.
    pub fn parse<'r>(rules: impl IntoIterator<Item = &'r str>) -> Result<Origins, OriginError> {
        let rules = rules
            .into_iter()
            .map(|rule| Rule::parse(rule).ok_or_else(|| OriginError { rule: rule.to_owned() }))
            .collect::<Result<_, _>>()?;
        Ok(Origins { rules })
    }

    /// The rules as text that [`Origins::parse`] reads, in order.
    pub fn rules(&self) -> impl Iterator<Item = impl fmt::Display> {
        self.rules.iter()
    }

    /// Whether a page of this origin may talk to us. `origin` is the value of an `Origin` field.
    #[must_use]
    pub fn allow(&self, origin: &str) -> bool {
        let parsed = Origin::parse(origin);
        self.rules.iter().any(|rule| match (rule, &parsed) {
            (Rule::Any, parsed) => parsed.is_some() || origin == "null",
            (Rule::Null, _) => origin == "null",
            (Rule::Exact(own), Some(origin)) => own == origin,
            (Rule::Below(parent), Some(origin)) => origin.is_below(parent),
            (_, None) => false,
        })
    }

    /// Whether this request may go on. A request without an origin may: no page in a browser sent it across sites,
    /// and any other client could name whatever origin it likes.
    #[must_use]
    pub fn allow_request(&self, origin: RequestOrigin<'_>) -> bool {
        match origin {
            RequestOrigin::Absent => true,
            RequestOrigin::Named(origin) => self.allow(origin),
            RequestOrigin::Malformed => false,
        }
    }

    /// The fields that let the page read the response. They never allow credentials. None when the origin is not
    /// allowed; then the response may still be sent, and the browser keeps it from the page.
    #[must_use]
    pub fn cors<'o>(&self, origin: &'o str) -> Option<[(&'static str, &'o str); 2]> {
        if !self.allow(origin) {
            return None;
        }
        let value = if self.rules.contains(&Rule::Any) { "*" } else { origin };
        Some([("Access-Control-Allow-Origin", value), ("Vary", "Origin")])
    }
}

impl Rule {
    fn parse(rule: &str) -> Option<Rule> {
        match rule {
            "*" => return Some(Rule::Any),
            "null" => return Some(Rule::Null),
            _ => {}
        }
        let (scheme, host) = rule.split_once("://")?;
        match host.strip_prefix("*.") {
            Some(parent) => Origin::parse(&format!("{scheme}://{parent}")).map(Rule::Below),
            None => Origin::parse(rule).map(Rule::Exact),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Origin { scheme, host, port }, below) = match self {
            Rule::Any => return f.write_str("*"),
            Rule::Null => return f.write_str("null"),
            Rule::Exact(origin) => (origin, ""),
            Rule::Below(parent) => (parent, "*."),
        };
        write!(f, "{scheme}://{below}{host}")?;
        match port {
            Some(port) if implied_port(scheme) != Some(*port) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

impl Origin {
    /// Reads `scheme://host[:port]` and nothing else: no path, no user, no wildcard.
    fn parse(text: &str) -> Option<Origin> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme_is_valid = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if !scheme_is_valid || !is_host(host) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let port = match port {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None => implied_port(&scheme),
        };
        Some(Origin { scheme, host: host.to_ascii_lowercase(), port })
    }

    fn is_below(&self, parent: &Origin) -> bool {
        let label = self.host.strip_suffix(&parent.host).and_then(|rest| rest.strip_suffix('.'));
        self.scheme == parent.scheme
            && self.port == parent.port
            && label.is_some_and(|label| !label.is_empty())
    }
}

/// The port of an origin that names none.
fn implied_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(literal) => {
            literal.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
        }
        None => {
            let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && !host.starts_with('.') && host.bytes().all(is_host_byte)
        }
    }
}

#[cfg(test)]
mod tests;
