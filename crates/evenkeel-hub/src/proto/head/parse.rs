//! A complete head to its parts, with every check that only needs the head itself.

use httparse::{EMPTY_HEADER, Request, Status};

use super::scan::MAX_FIELDS;
use super::{HeadError, HeadScanner, Limits};

/// The version of the protocol that a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How the end of a request's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body comes in chunks that carry their lengths.
    Chunked,
}

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name as the client wrote it. Names are compared without regard to case.
    pub name: &'b str,
    /// The value without the white space around it. It may hold bytes above 127, but no control character but tab.
    pub value: &'b [u8],
}

/// A request head that passed every check. It borrows the bytes that it was read from.
#[derive(Clone, Debug)]
pub struct RequestHead<'b> {
    bytes: &'b [u8],
    method: &'b str,
    target: &'b str,
    path: &'b str,
    query: Option<&'b str>,
    version: Version,
    fields: Vec<Field<'b>>,
    framing: Framing,
}

impl<'b> RequestHead<'b> {
    /// Parses `bytes`, which are one complete head and nothing else. For a head that is still arriving see
    /// [`HeadReader`](super::HeadReader).
    ///
    /// # Errors
    ///
    /// See [`HeadError`].
    pub fn parse(bytes: &'b [u8], limits: &Limits) -> Result<RequestHead<'b>, HeadError> {
        match HeadScanner::new().scan(bytes, limits)? {
            Some(len) if len == bytes.len() => RequestHead::parse_scanned(bytes, limits),
            _ => Err(HeadError::RequestLine),
        }
    }

    /// Parses one complete head whose end a [`HeadScanner`] found. Without the scanner's checks of line ends and
    /// counts a head is not safe to parse.
    pub(in crate::proto) fn parse_scanned(
        bytes: &'b [u8],
        limits: &Limits,
    ) -> Result<RequestHead<'b>, HeadError> {
        let mut storage = [EMPTY_HEADER; MAX_FIELDS];
        let mut request = Request::new(&mut storage);
        match request.parse(bytes) {
            Ok(Status::Complete(len)) if len == bytes.len() => {}
            Ok(_) => return Err(HeadError::RequestLine),
            Err(error) => return Err(name_error(error, bytes)),
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
        else {
            return Err(HeadError::RequestLine);
        };
        if target.len() > limits.max_target {
            return Err(HeadError::TargetTooLong { limit: limits.max_target });
        }
        let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        let fields: Vec<Field<'b>> =
            request.headers.iter().map(|&httparse::Header { name, value }| Field { name, value }).collect();
        let target_parts = split_target(method, target)?;
        check_host(&fields, version, target_parts.authority)?;
        let framing = framing(&fields, version)?;
        let Target { path, query, .. } = target_parts;
        Ok(RequestHead { bytes, method, target, path, query, version, fields, framing })
    }

    /// The head as it came, with its empty last line: what another reader of this connection must be given.
    #[must_use]
    pub fn bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// The method, which is case-sensitive.
    #[must_use]
    pub fn method(&self) -> &'b str {
        self.method
    }

    /// The whole request target as it came.
    #[must_use]
    pub fn target(&self) -> &'b str {
        self.target
    }

    /// The target's path, percent-encoded as it came: it begins with a slash, or is `*`.
    #[must_use]
    pub fn path(&self) -> &'b str {
        self.path
    }

    /// What follows the first question mark of the target. See [`query`](super::query) for decoding it.
    #[must_use]
    pub fn query(&self) -> Option<&'b str> {
        self.query
    }

    /// The version that the client speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// All header fields in the order in which they came.
    #[must_use]
    pub fn fields(&self) -> &[Field<'b>] {
        &self.fields
    }

    /// How the body ends.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The values of every field called `name`, in the order in which they came.
    pub fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'b [u8]> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The value of the only field called `name`. None when there is no such field or more than one: where a field
    /// must be unique, two of them are as good as none.
    #[must_use]
    pub fn sole(&self, name: &str) -> Option<&'b [u8]> {
        let mut values = self.values(name);
        let value = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// Whether the comma-separated lists in all fields called `name` hold `token`, without regard to case.
    #[must_use]
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether the connection goes on after this request.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        match self.version {
            Version::Http11 => !self.lists("connection", "close"),
            Version::Http10 => self.lists("connection", "keep-alive") && !self.lists("connection", "close"),
        }
    }

    /// Whether the client asks to go on with WebSocket. Whether it asks properly is for
    /// [`Upgrade::from_head`](crate::proto::ws::Upgrade::from_head) to say.
    #[must_use]
    pub fn wants_websocket(&self) -> bool {
        self.lists("upgrade", "websocket") && self.lists("connection", "upgrade")
    }
}

fn name_error(error: httparse::Error, bytes: &[u8]) -> HeadError {
    let is_folded = || bytes.windows(3).any(|bytes| matches!(bytes, [b'\r', b'\n', b' ' | b'\t']));
    match error {
        httparse::Error::HeaderName if is_folded() => HeadError::FoldedLine,
        httparse::Error::HeaderName => HeadError::FieldName,
        httparse::Error::HeaderValue => HeadError::FieldValue,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields { limit: MAX_FIELDS },
        httparse::Error::Version => HeadError::Version,
        _ => HeadError::RequestLine,
    }
}

struct Target<'b> {
    authority: Option<&'b str>,
    path: &'b str,
    query: Option<&'b str>,
}

fn split_target<'b>(method: &str, target: &'b str) -> Result<Target<'b>, HeadError> {
    if method == "CONNECT" {
        return Err(HeadError::Connect);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(HeadError::Target);
    }
    if target == "*" {
        let target = Target { authority: None, path: target, query: None };
        return if method == "OPTIONS" { Ok(target) } else { Err(HeadError::Target) };
    }
    let (authority, rest) = match target.as_bytes() {
        [b'/', ..] => (None, target),
        _ => {
            let (scheme, rest) = target.split_once("://").ok_or(HeadError::Target)?;
            if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
                return Err(HeadError::Target);
            }
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (Some(authority), rest)
        }
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    Ok(Target { authority, path: if path.is_empty() { "/" } else { path }, query })
}

fn check_host(fields: &[Field<'_>], version: Version, authority: Option<&str>) -> Result<(), HeadError> {
    let mut hosts = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    let host = hosts.next().map(|field| field.value);
    if hosts.next().is_some() {
        return Err(HeadError::DuplicateHost);
    }
    match host {
        None if version == Version::Http11 => return Err(HeadError::MissingHost),
        Some(host) if !is_host(host) => return Err(HeadError::Host),
        _ => {}
    }
    match (authority, host) {
        (Some(authority), _) if !is_host(authority.as_bytes()) => Err(HeadError::Target),
        (Some(authority), Some(host)) if !host.eq_ignore_ascii_case(authority.as_bytes()) => {
            Err(HeadError::Host)
        }
        _ => Ok(()),
    }
}

/// Whether `value` is a name or an address, with an optional port.
fn is_host(value: &[u8]) -> bool {
    let (name_is_valid, rest) = match value {
        [b'[', inside @ ..] => {
            let Some(end) = inside.iter().position(|&byte| byte == b']') else { return false };
            let literal = &inside[..end];
            let valid = literal.iter().all(|&byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.');
            (valid && !literal.is_empty(), &inside[end + 1..])
        }
        _ => {
            let end = value.iter().position(|&byte| byte == b':').unwrap_or(value.len());
            let name = &value[..end];
            let valid =
                name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte));
            (valid && !name.is_empty(), &value[end..])
        }
    };
    let port_is_valid = match rest {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    name_is_valid && port_is_valid
}

fn framing(fields: &[Field<'_>], version: Version) -> Result<Framing, HeadError> {
    let mut length = None;
    let mut coding = None;
    for field in fields {
        if field.name.eq_ignore_ascii_case("content-length") && length.replace(field.value).is_some() {
            return Err(HeadError::DuplicateLength);
        }
        if field.name.eq_ignore_ascii_case("transfer-encoding") && coding.replace(field.value).is_some() {
            return Err(HeadError::TransferCoding);
        }
    }
    match (length, coding) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(HeadError::LengthAndCoding),
        (Some(digits), None) => parse_length(digits).map(Framing::Length),
        (None, Some(_)) if version == Version::Http10 => Err(HeadError::CodingInOldVersion),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (None, Some(_)) => Err(HeadError::TransferCoding),
    }
}

/// Digits and nothing else: the standard parser would take a plus sign.
fn parse_length(digits: &[u8]) -> Result<u64, HeadError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Length);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(HeadError::Length)
}
