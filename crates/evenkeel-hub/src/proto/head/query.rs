//! Query strings and percent-encoding.

use std::borrow::Cow;
use std::fmt;

/// A part of a request target that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryError {
    /// A percent sign is not followed by two hexadecimal digits.
    Escape,
    /// The decoded bytes are not UTF-8.
    Utf8,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QueryError::Escape => "percent sign without two hexadecimal digits",
            QueryError::Utf8 => "percent-encoded bytes are not valid UTF-8",
        })
    }
}

impl std::error::Error for QueryError {}

/// The decoded names and values of a query string, in order. A parameter without an equals sign has an empty value;
/// empty parameters are skipped.
///
/// ```
/// use evenkeel_hub::proto::head::query;
///
/// let pairs: Result<Vec<_>, _> = query::pairs("name=a%20b&flag").collect();
/// assert_eq!(pairs.unwrap(), [("name".into(), "a b".into()), ("flag".into(), "".into())]);
/// ```
pub fn pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), QueryError>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    })
}

/// The decoded value of the first parameter called `name`.
///
/// # Errors
///
/// That value, or a name in front of it, cannot be decoded.
pub fn get<'q>(query: &'q str, name: &str) -> Result<Option<Cow<'q, str>>, QueryError> {
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key)? == name {
            return decode(value).map(Some);
        }
    }
    Ok(None)
}

/// Decodes a name or a value of a query string, where a plus sign stands for a space.
///
/// # Errors
///
/// A broken escape, or bytes that are not UTF-8.
pub fn decode(text: &str) -> Result<Cow<'_, str>, QueryError> {
    unescape(text, true)
}

/// Decodes a segment of a path, where a plus sign is a plus sign. Split the path at its slashes first: a decoded
/// segment may hold one.
///
/// # Errors
///
/// A broken escape, or bytes that are not UTF-8.
pub fn decode_segment(text: &str) -> Result<Cow<'_, str>, QueryError> {
    unescape(text, false)
}

fn unescape(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, QueryError> {
    let is_plain = |byte: u8| byte != b'%' && !(plus_is_space && byte == b'+');
    if text.bytes().all(is_plain) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (hex_digit(bytes.next()), hex_digit(bytes.next())) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(QueryError::Escape),
            },
            b'+' if plus_is_space => b' ',
            plain => plain,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| QueryError::Utf8)
}

fn hex_digit(byte: Option<u8>) -> Option<u8> {
    char::from(byte?).to_digit(16).map(|digit| digit as u8)
}
