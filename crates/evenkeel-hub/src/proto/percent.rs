//! Percent-decoding of URL parts.
//!
//! Signatures are computed over decoded values, so a lenient decoder would let two different requests share one
//! signature. This one takes exactly `%XX` and refuses everything else.

/// What a decoder does with `+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// `+` is a plus sign (paths).
    Literal,
    /// `+` is a space (queries, as HTML forms and most SDKs write them).
    Space,
}

/// Decodes `text`. `None` when an escape is cut short or not hexadecimal, or when the result is not UTF-8.
///
/// ```
/// use evenkeel_hub::proto::percent::{Plus, decode};
/// assert_eq!(decode("a%20b+c", Plus::Literal).as_deref(), Some("a b+c"));
/// assert_eq!(decode("a%2", Plus::Literal), None);
/// ```
pub fn decode(text: &str, plus: Plus) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = hex_digit(bytes.next()?)?;
                let low = hex_digit(bytes.next()?)?;
                high << 4 | low
            }
            b'+' if plus == Plus::Space => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
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
    use super::*;

    #[test]
    fn i50_broken_escapes_and_bad_utf8_are_refused() {
        for text in ["%", "%4", "%zz", "a%", "%+1", "%ff", "%c3%28", "%%41"] {
            assert_eq!(decode(text, Plus::Space), None, "{text}");
        }
    }

    #[test]
    fn decodes_both_cases_and_multibyte() {
        assert_eq!(decode("%C3%a9", Plus::Literal).as_deref(), Some("é"));
        assert_eq!(decode("plain", Plus::Space).as_deref(), Some("plain"));
        assert_eq!(decode("a+b", Plus::Space).as_deref(), Some("a b"));
        assert_eq!(decode("%2B", Plus::Space).as_deref(), Some("+"));
        assert_eq!(decode("%00", Plus::Space).as_deref(), Some("\0"));
    }
}
