//! Text from outside, made safe to show on one line.
//!
//! Names, ids and headers end up in logs, in error messages and in terminals. A line break would forge a second log line,
//! an escape character would drive the operator's terminal, and a bidirectional control would make text read otherwise
//! than it is.

/// Whether `c` must not be shown as it is: C0 and C1 controls, line and paragraph separators, bidirectional controls and
/// the byte order mark.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// Appends `text` to `out` with every unsafe character escaped (`\n`, `\r`, `\t`, `\u{1b}`), until `out` is `limit`
/// bytes long. What is cut is marked by `…`, which may take `out` past `limit` by its own 3 bytes.
///
/// ```
/// let mut out = String::new();
/// evenkeel_hub::text::escape(&mut out, "a\nb\u{1b}[2J", 100);
/// assert_eq!(out, r"a\nb\u{1b}[2J");
/// ```
pub fn escape(out: &mut String, text: &str, limit: usize) {
    for c in text.chars() {
        let before = out.len();
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_unsafe(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
        if out.len() > limit {
            out.truncate(before);
            out.push('…');
            return;
        }
    }
}

/// [`escape`] into a new string.
pub fn escaped(text: &str, limit: usize) -> String {
    let mut out = String::new();
    escape(&mut out, text, limit);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i50_every_dangerous_character_is_escaped() {
        let dangerous = (0..=0x1f)
            .chain(0x7f..=0x9f)
            .chain([0x61c, 0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202e, 0x2066, 0x2069, 0xfeff]);
        for code in dangerous {
            let c = char::from_u32(code).unwrap_or_else(|| panic!("{code:x} is a character"));
            let out = escaped(&format!("a{c}b"), 100);
            assert!(out.is_ascii() && out.contains('\\') && !out.contains(c), "{code:x}: {out}");
        }
    }

    #[test]
    fn ordinary_text_passes_and_long_text_is_cut_at_a_character() {
        assert_eq!(escaped("Zoë 日本 🎉", 100), "Zoë 日本 🎉");
        assert_eq!(escaped("aééé", 4), "aé…");
        assert_eq!(escaped("abcd", 4), "abcd");
        assert_eq!(escaped("abc\n", 4), "abc…");
    }
}
