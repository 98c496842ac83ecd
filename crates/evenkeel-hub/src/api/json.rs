//! A cheap look at JSON before it is parsed: how deep and how many values.
//!
//! A parser's work and memory grow with both, and both are the sender's choice.

/// How deeply arrays and objects may be nested.
pub const MAX_DEPTH: usize = 16;

/// How many values a body may have.
pub const MAX_NODES: usize = 1000;

/// Whether `json` stays within [`MAX_DEPTH`] and [`MAX_NODES`]. One pass, no allocation. Text that is not JSON gets some
/// answer; the parser judges it.
pub fn is_simple(json: &[u8]) -> bool {
    let mut depth = 0_usize;
    // Each comma ends a value and each bracket is one, so this counts at least every value.
    let mut nodes = 1_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                nodes += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => nodes += 1,
            _ => {}
        }
        if depth > MAX_DEPTH || nodes > MAX_NODES {
            return false;
        }
    }
    true
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_simple(nested(MAX_DEPTH).as_bytes()));
        assert!(!is_simple(nested(MAX_DEPTH + 1).as_bytes()));
        assert!(!is_simple("{\"a\":".repeat(17).as_bytes()));
        assert!(!is_simple("[".repeat(65_536).as_bytes()));
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let list = |n: usize| format!("[{}]", vec!["1"; n].join(","));
        assert!(is_simple(list(MAX_NODES - 1).as_bytes()));
        assert!(!is_simple(list(MAX_NODES).as_bytes()));
        assert!(!is_simple("[[],[],[]]".repeat(200).as_bytes()));
    }

    #[test]
    fn strings_do_not_count_and_are_not_fooled_by_escapes() {
        let brackets = "[".repeat(100);
        assert!(is_simple(format!("\"{brackets}\"").as_bytes()));
        assert!(is_simple(format!("\"\\\"{brackets}\"").as_bytes()));
        assert!(!is_simple(format!("\"\\\\\"{brackets}").as_bytes()));
        assert!(is_simple(b"\"unfinished"));
        assert!(is_simple(b"\"\\"));
    }
}
