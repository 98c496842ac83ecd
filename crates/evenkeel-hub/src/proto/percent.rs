//! Percent-decoding of URL parts.
//!
//! Signatures are computed over decoded values, so a lenient decoder would let two different requests share one
//! signature. This one takes exactly `%XX` and refuses everything else.

use std::borrow::Cow;
use std::fmt;

/// What a decoder does with `+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// `+` is a plus sign (paths). Split a path at its slashes first: a decoded segment may hold one.
    Literal,
    /// `+` is a space (queries, as HTML forms and most SDKs write them).
    Space,
}

/// A text that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PercentError {
    /// A percent sign is not followed by two hexadecimal digits.
    Escape,
    /// The decoded bytes are not UTF-8.
    Utf8,
}

impl fmt::Display for PercentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PercentError::Escape => "percent sign without two hexadecimal digits",
            PercentError::Utf8 => "percent-encoded bytes are not valid UTF-8",
        })
    }
}

impl std::error::Error for PercentError {}

/// Decodes `text`, which is lent back where nothing needs decoding.
///
/// ```
/// use evenkeel_hub::proto::percent::{PercentError, Plus, decode};
/// assert_eq!(decode("a%20b+c", Plus::Literal).unwrap(), "a b+c");
/// assert_eq!(decode("a%2", Plus::Literal), Err(PercentError::Escape));
/// ```
///
/// # Errors
/// A broken escape, or bytes that are not UTF-8.
pub fn decode(text: &str, plus: Plus) -> Result<Cow<'_, str>, PercentError> {
    let plus_is_space = plus == Plus::Space;
    let is_plain = |byte: u8| byte != b'%' && !(plus_is_space && byte == b'+');
    if text.bytes().all(is_plain) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(PercentError::Escape),
            },
            b'+' if plus_is_space => b' ',
            plain => plain,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| PercentError::Utf8)
}

/// The value of one hexadecimal digit, of either case.
pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn i50_broken_escapes_and_bad_utf8_are_refused() {
        for text in ["%", "%4", "%zz", "a%", "%+1", "a%+1", "%%41", "%\u{fc}"] {
            assert_eq!(decode(text, Plus::Space), Err(PercentError::Escape), "{text}");
            assert_eq!(decode(text, Plus::Literal), Err(PercentError::Escape), "{text}");
        }
        for text in ["%ff", "%c3%28"] {
            assert_eq!(decode(text, Plus::Space), Err(PercentError::Utf8), "{text}");
        }
    }

    #[test]
    fn decodes_both_cases_and_multibyte() {
        for (text, plus, decoded) in [
            ("%C3%a9", Plus::Literal, "é"),
            ("%F0%9F%98%80", Plus::Space, "\u{1f600}"),
            ("plain", Plus::Space, "plain"),
            ("a+b", Plus::Space, "a b"),
            ("a+b%2Fc", Plus::Literal, "a+b/c"),
            ("%2B", Plus::Space, "+"),
            ("%00", Plus::Space, "\0"),
        ] {
            assert_eq!(decode(text, plus).unwrap(), decoded);
        }
    }

    #[test]
    fn what_is_plain_is_not_copied() {
        assert!(matches!(decode("a+b", Plus::Literal), Ok(Cow::Borrowed("a+b"))));
        assert!(matches!(decode("a-b", Plus::Space), Ok(Cow::Borrowed("a-b"))));
    }
}
