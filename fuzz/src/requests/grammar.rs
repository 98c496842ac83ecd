//! The grammar of what the hub accepts, read slowly and simply: RFC 9112 without all that two readers could take
//! differently.

use evenkeel_hub::proto::head::{Framing, Limits, RequestHead, Version};

/// A request's head, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub path: String,
    pub query: Option<String>,
    pub new_version: bool,
    pub fields: Vec<(String, Vec<u8>)>,
    pub framing: Framing,
    pub keep_alive: bool,
}

impl Seen {
    pub fn of(head: &RequestHead<'_>) -> Seen {
        let field =
            |field: &evenkeel_hub::proto::head::Field<'_>| (field.name.to_owned(), field.value.to_vec());
        Seen {
            method: head.method().to_owned(),
            target: head.target().to_owned(),
            path: head.path().to_owned(),
            query: head.query().map(str::to_owned),
            new_version: head.version() == Version::Http11,
            fields: head.fields().iter().map(field).collect(),
            framing: head.framing(),
            keep_alive: head.keep_alive(),
        }
    }

    fn values(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &value[..]).collect()
    }
}

/// How a stream ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Something in it is not allowed.
    Refused,
    /// More may follow; so many bytes are beyond doubt.
    Open { passed: usize },
}

/// What a part of the stream is, from its beginning on.
enum Part<T> {
    /// It is complete, with this length.
    Whole(T, usize),
    /// It goes on.
    Cut,
    Wrong,
}

/// Reads a stream of requests.
pub fn read(bytes: &[u8], limits: &Limits, most_body: u64) -> (Vec<Seen>, End) {
    let (mut seen, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (head, length) = match head(&bytes[at..], limits) {
            Part::Whole(head, length) => (head, length),
            Part::Cut => return (seen, End::Open { passed: at }),
            Part::Wrong => return (seen, End::Refused),
        };
        at += length;
        let (framing, keep_alive) = (head.framing, head.keep_alive);
        seen.push(head);
        match body(&bytes[at..], framing, most_body) {
            Part::Whole((), length) => at += length,
            Part::Cut => return (seen, End::Open { passed: bytes.len() }),
            Part::Wrong => return (seen, End::Refused),
        }
        if !keep_alive && at < bytes.len() {
            return (seen, End::Refused);
        }
    }
    (seen, End::Open { passed: at })
}

fn head(bytes: &[u8], limits: &Limits) -> Part<Seen> {
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut at = 0;
    let window = &bytes[..bytes.len().min(limits.max_head)];
    loop {
        let rest = &window[at..];
        let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { break };
        match &rest[end..] {
            [b'\r', b'\n', ..] => {}
            [b'\r'] => break,
            _ => return Part::Wrong,
        }
        let line = &rest[..end];
        at += end + 2;
        match (line.is_empty(), lines.is_empty()) {
            // One empty line in front is forgiven.
            (true, true) if at == 2 => {}
            (true, true) => return Part::Wrong,
            (true, false) => {
                let parsed = parse(&lines, limits);
                return parsed.map_or(Part::Wrong, |head| Part::Whole(head, at));
            }
            (false, _) => lines.push(line),
        }
        if lines.len() > limits.max_fields + 1 {
            return Part::Wrong;
        }
    }
    if bytes.len() >= limits.max_head { Part::Wrong } else { Part::Cut }
}

fn parse(lines: &[&[u8]], limits: &Limits) -> Option<Seen> {
    let (request, fields) = lines.split_first()?;
    let request = std::str::from_utf8(request).ok()?;
    let mut words = request.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !is_token(method.as_bytes()) || method == "CONNECT" {
        return None;
    }
    let new_version = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return None,
    };
    if target.is_empty() || target.len() > limits.max_target {
        return None;
    }
    let (authority, path, query) = split(method, target)?;
    let fields = fields.iter().map(|line| field(line)).collect::<Option<Vec<_>>>()?;
    let mut seen = Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        path: path.to_owned(),
        query: query.map(str::to_owned),
        new_version,
        fields,
        framing: Framing::None,
        keep_alive: false,
    };
    check_host(&seen, authority)?;
    seen.framing = framing(&seen)?;
    seen.keep_alive = keep_alive(&seen);
    Some(seen)
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !is_token(name) || !value.iter().all(is_text) {
        return None;
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    Some((String::from_utf8(name.to_vec()).ok()?, value[start..end].to_vec()))
}

/// The authority, the path and the query of a target.
fn split<'t>(method: &str, target: &'t str) -> Option<(Option<&'t str>, &'t str, Option<&'t str>)> {
    if !target.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#') {
        return None;
    }
    if target == "*" {
        return (method == "OPTIONS").then_some((None, "*", None));
    }
    let (authority, rest) = if target.starts_with('/') {
        (None, target)
    } else {
        let lower = target.to_ascii_lowercase();
        let scheme = ["http://", "https://"].into_iter().find(|scheme| lower.starts_with(scheme))?;
        let rest = &target[scheme.len()..];
        let end = rest.bytes().position(|byte| byte == b'/' || byte == b'?').unwrap_or(rest.len());
        (Some(&rest[..end]), &rest[end..])
    };
    let (path, query) = match rest.find('?') {
        Some(mark) => (&rest[..mark], Some(&rest[mark + 1..])),
        None => (rest, None),
    };
    Some((authority, if path.is_empty() { "/" } else { path }, query))
}

fn check_host(seen: &Seen, authority: Option<&str>) -> Option<()> {
    let hosts = seen.values("host");
    let valid = match hosts[..] {
        [] => !seen.new_version,
        [host] => is_host(host) && authority.is_none_or(|a| host.eq_ignore_ascii_case(a.as_bytes())),
        _ => false,
    };
    (valid && authority.is_none_or(|authority| is_host(authority.as_bytes()))).then_some(())
}

fn is_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((literal, after)) = rest.split_once(']') else { return false };
            if literal.is_empty() || !literal.bytes().all(|b| b.is_ascii_hexdigit() || b".:".contains(&b)) {
                return false;
            }
            ("literal", after)
        }
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let named = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&b));
    let digits = port.strip_prefix(':').unwrap_or(port);
    let ported = port.is_empty() || port.starts_with(':') && digits.bytes().all(|b| b.is_ascii_digit());
    named && !name.is_empty() && ported && digits.len() <= 5
}

fn framing(seen: &Seen) -> Option<Framing> {
    match (&seen.values("content-length")[..], &seen.values("transfer-encoding")[..]) {
        ([], []) => Some(Framing::None),
        ([digits], []) => {
            let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let value = digits.iter().try_fold(0_u64, |value, digit| {
                value.checked_mul(10)?.checked_add(u64::from(digit.wrapping_sub(b'0')))
            });
            value.filter(|_| plain).map(Framing::Length)
        }
        ([], [coding]) if seen.new_version && coding.eq_ignore_ascii_case(b"chunked") => {
            Some(Framing::Chunked)
        }
        _ => None,
    }
}

fn keep_alive(seen: &Seen) -> bool {
    let lists = |token: &str| {
        seen.values("connection")
            .into_iter()
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    };
    !lists("close") && (seen.new_version || lists("keep-alive"))
}

fn body(bytes: &[u8], framing: Framing, most: u64) -> Part<()> {
    match framing {
        Framing::None => Part::Whole((), 0),
        Framing::Length(length) if length > most => Part::Wrong,
        Framing::Length(length) if (bytes.len() as u64) < length => Part::Cut,
        Framing::Length(length) => Part::Whole((), length as usize),
        Framing::Chunked => chunks(bytes, most),
    }
}

fn chunks(bytes: &[u8], most: u64) -> Part<()> {
    let (mut at, mut total) = (0, 0_u64);
    loop {
        let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > 16 {
            return Part::Wrong;
        }
        let text = std::str::from_utf8(&bytes[at..at + digits]).unwrap_or_default();
        at += digits;
        match (&bytes[at..], digits) {
            ([], _) => return Part::Cut,
            (_, 0) => return Part::Wrong,
            _ => {}
        }
        let size = u64::from_str_radix(text, 16).unwrap_or(u64::MAX);
        match crlf(&bytes[at..]) {
            Part::Whole((), length) => at += length,
            other => return other,
        }
        if size == 0 {
            return match crlf(&bytes[at..]) {
                Part::Whole((), length) => Part::Whole((), at + length),
                other => other,
            };
        }
        total = total.saturating_add(size);
        if total > most {
            return Part::Wrong;
        }
        // What is admitted fits the memory.
        let Some(rest) = bytes.get(at + size as usize..) else { return Part::Cut };
        at += size as usize;
        match crlf(rest) {
            Part::Whole((), length) => at += length,
            other => return other,
        }
    }
}

fn crlf(bytes: &[u8]) -> Part<()> {
    match bytes {
        [] | [b'\r'] => Part::Cut,
        [b'\r', b'\n', ..] => Part::Whole((), 2),
        _ => Part::Wrong,
    }
}
