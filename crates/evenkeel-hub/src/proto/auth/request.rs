//! Signed HTTP requests.
//!
//! The string to sign is `METHOD\nPATH\nQUERY`, where QUERY is every parameter but `auth_signature`, keys in lower case,
//! sorted by key, values decoded. Because the values are decoded, a value with `&` in it would make two different
//! requests share one string. No parameter of the API needs one, so [`Query::parse`] refuses what would be ambiguous
//! instead of guessing: `&` or control characters anywhere, `=` in a key, and a key given twice.

use std::fmt;

use md5::{Digest, Md5};

use super::super::head::query;
use super::super::percent::{self, Plus};
use super::stream::parse_unix_seconds;
use super::{AppKey, Signature, UNAUTHORIZED, hex, quoted};

/// How far `auth_timestamp` may be from our clock, in seconds, either way.
pub const TIMESTAMP_TOLERANCE_SECONDS: u64 = 600;

/// The only `auth_version` there is.
pub const AUTH_VERSION: &str = "1.0";

/// More parameters than this are refused. The API has ten.
const MAX_PARAMETERS: usize = 64;

/// The parameters of a request's query, decoded, sorted by key, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Parses what follows the `?`. Keys are lower-cased, as they are for signing.
    ///
    /// # Errors
    /// [`RequestError::Query`] for broken escapes, and for all that would make the string to sign ambiguous.
    pub fn parse(raw: &str) -> Result<Self, RequestError> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in query::pairs(raw) {
            let broken = |_| RequestError::Query("a broken percent-escape, or not UTF-8");
            let (key, value) = pair.map_err(broken)?;
            let ambiguous = |c: char| c == '&' || c.is_control();
            if key.contains(ambiguous) || value.contains(ambiguous) || key.contains('=') {
                return Err(RequestError::Query("an escaped '&', '=' or control character"));
            }
            if parameters.len() == MAX_PARAMETERS {
                return Err(RequestError::Query("more than 64 parameters"));
            }
            parameters.push((key.to_ascii_lowercase(), value.into_owned()));
        }
        parameters.sort_by(|a, b| a.0.cmp(&b.0));
        if parameters.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(RequestError::Query("the same parameter twice"));
        }
        Ok(Self { parameters })
    }

    /// The value of the parameter `key`, which is given in lower case.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.parameters.binary_search_by(|(name, _)| name.as_str().cmp(key)).ok()?;
        Some(&self.parameters[found].1)
    }

    fn require(&self, key: &'static str) -> Result<&str, RequestError> {
        self.get(key).ok_or(RequestError::Missing(key))
    }

    /// The third line of the string to sign.
    fn canonical(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.parameters.iter().filter(|(key, _)| key != "auth_signature") {
            if !text.is_empty() {
                text.push('&');
            }
            text.push_str(key);
            text.push('=');
            text.push_str(value);
        }
        text
    }
}

/// A request as it came from the wire.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path, as sent: with its prefix, still percent-encoded, without the query.
    pub path: &'a str,
    /// The parsed query.
    pub query: &'a Query,
    /// The body.
    pub body: &'a [u8],
}

/// A request whose signature is right.
#[derive(Clone, Copy)]
pub struct Verified {
    /// Its `auth_timestamp`.
    pub timestamp: u64,
    /// Its signature.
    pub signature: Signature,
}

impl AppKey {
    /// Verifies a signed request. `now` is the Unix time in seconds.
    ///
    /// The caller looks the application up by `auth_key` first, so an unknown key costs no HMAC.
    ///
    /// `PATH` is taken as sent or, where that fails, percent-decoded: SDKs sign the path before their HTTP client encodes
    /// it. The decoded form counts only when it has the same segments and no control characters, so it names the same
    /// resource.
    ///
    /// # Errors
    /// [`RequestError`]: the first thing that is wrong.
    pub fn verify_request(&self, request: &Request<'_>, now: u64) -> Result<Verified, RequestError> {
        let query = request.query;
        let key = query.require("auth_key")?;
        if key != self.key() {
            return Err(RequestError::UnknownKey { sent: quoted(&[key]) });
        }
        let version = query.require("auth_version")?;
        if version != AUTH_VERSION {
            return Err(RequestError::Version { sent: quoted(&[version]) });
        }
        let timestamp = query.require("auth_timestamp")?;
        let timestamp = parse_unix_seconds(timestamp).ok_or(RequestError::TimestampMalformed)?;
        if timestamp.abs_diff(now) > TIMESTAMP_TOLERANCE_SECONDS {
            return Err(RequestError::Timestamp { behind: timestamp < now, by: timestamp.abs_diff(now) });
        }
        let sent = query.require("auth_signature")?;
        let sent_md5 = query.get("body_md5");
        if sent_md5.is_none() && !request.body.is_empty() {
            return Err(RequestError::Missing("body_md5"));
        }
        let signature = self.verify_line(request, sent)?;
        // Last, because it is the only check whose cost grows with the body, and now the sender is known.
        if let Some(sent) = sent_md5 {
            verify_md5(sent, request.body)?;
        }
        Ok(Verified { timestamp, signature })
    }

    /// Verifies the signature over method, path and query, with the path in both of its forms.
    fn verify_line(&self, request: &Request<'_>, sent: &str) -> Result<Signature, RequestError> {
        let canonical = request.query.canonical();
        let matching = |path: &str| self.matching(&[request.method, "\n", path, "\n", &canonical], sent);
        matching(request.path).or_else(|| matching(&decoded_path(request.path)?)).ok_or_else(|| {
            RequestError::Signature {
                string_to_sign: quoted(&[request.method, "\n", request.path, "\n", &canonical]),
            }
        })
    }

    /// Adds the signing parameters to `query` and returns the whole query string, ready to send. The values of `query`
    /// are given decoded and must need no escape. For tests and for the console.
    pub fn sign_request(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
        now: u64,
    ) -> String {
        let mut parameters: Vec<(String, String)> =
            query.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        parameters.push(("auth_key".to_owned(), self.key().to_owned()));
        parameters.push(("auth_timestamp".to_owned(), now.to_string()));
        parameters.push(("auth_version".to_owned(), AUTH_VERSION.to_owned()));
        if !body.is_empty() {
            parameters.push(("body_md5".to_owned(), body_md5(body)));
        }
        parameters.sort();
        let query = Query { parameters }.canonical();
        let signature = self.sign(&[method, "\n", path, "\n", &query]);
        format!("{query}&auth_signature={}", signature.to_hex())
    }
}

/// The decoded path, when it differs and still names the same segments.
fn decoded_path(path: &str) -> Option<String> {
    let decoded = percent::decode(path, Plus::Literal).ok()?;
    let slashes = |text: &str| text.bytes().filter(|&byte| byte == b'/').count();
    (decoded != path && slashes(&decoded) == slashes(path) && !decoded.contains(char::is_control))
        .then(|| decoded.into_owned())
}

/// The hexadecimal MD5 of a body, as `body_md5` carries it. It guards nothing by itself; the HMAC over it does.
fn body_md5(body: &[u8]) -> String {
    hex(&Md5::digest(body))
}

fn verify_md5(sent: &str, body: &[u8]) -> Result<(), RequestError> {
    let computed = body_md5(body);
    if sent.eq_ignore_ascii_case(&computed) {
        Ok(())
    } else {
        Err(RequestError::BodyMd5 { sent: quoted(&[sent]), computed })
    }
}

/// Why a request's signature was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The query cannot be parsed, or would be ambiguous to sign.
    Query(&'static str),
    /// A parameter is missing.
    Missing(&'static str),
    /// No application has this key, or not the one in the path.
    UnknownKey {
        /// What was sent.
        sent: String,
    },
    /// An `auth_version` other than [`AUTH_VERSION`].
    Version {
        /// What was sent.
        sent: String,
    },
    /// `auth_timestamp` is not a number of seconds.
    TimestampMalformed,
    /// `auth_timestamp` is too far from our clock.
    Timestamp {
        /// Whether it is in the past.
        behind: bool,
        /// By how many seconds.
        by: u64,
    },
    /// The body is not the one that `body_md5` describes.
    BodyMd5 {
        /// What was sent.
        sent: String,
        /// What the body gives.
        computed: String,
    },
    /// The signature does not belong to this request and this secret.
    Signature {
        /// What should have been signed: escaped, and cut when it is long.
        string_to_sign: String,
    },
    /// The same request was accepted before (see [`super::replay`]).
    Replayed,
}

impl RequestError {
    /// The value of the metric label `reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Query(_) => "query_malformed",
            Self::Missing(_) | Self::UnknownKey { .. } | Self::Signature { .. } => UNAUTHORIZED,
            Self::Version { .. } => "auth_version",
            Self::TimestampMalformed | Self::Timestamp { .. } => "auth_timestamp",
            Self::BodyMd5 { .. } => "auth_body_md5",
            Self::Replayed => "auth_replayed",
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(what) => write!(f, "The query string has {what}"),
            Self::Missing(name) => write!(f, "The query parameter {name} is missing"),
            Self::UnknownKey { sent } => write!(f, "No such application key: \"{sent}\""),
            Self::Version { sent } => write!(f, "auth_version must be {AUTH_VERSION}, not \"{sent}\""),
            Self::TimestampMalformed => f.write_str("auth_timestamp must be a Unix time in seconds"),
            Self::Timestamp { behind, by } => write!(
                f,
                "auth_timestamp is {by} s {} the server's clock; at most {TIMESTAMP_TOLERANCE_SECONDS} s are allowed",
                if *behind { "behind" } else { "ahead of" }
            ),
            Self::BodyMd5 { sent, computed } => {
                write!(f, "body_md5 is \"{sent}\", but the MD5 of the body is \"{computed}\"")
            }
            Self::Signature { string_to_sign } => write!(
                f,
                "Invalid signature: expected the hexadecimal HMAC-SHA256, with this application's secret, of \
                 \"{string_to_sign}\""
            ),
            Self::Replayed => f.write_str("This request was sent before"),
        }
    }
}

impl std::error::Error for RequestError {}
