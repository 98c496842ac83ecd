//! A Rust file as the rules see it: its lines with comments and the insides of literals blanked out, so that a rule never
//! mistakes a text for code. It is a scanner of characters, not a parser.

use std::path::Path;

/// One file.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    /// As written.
    pub(super) lines: Vec<&'a str>,
    /// The same lines with a space for every character of a comment or inside a literal.
    pub(super) code: Vec<String>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, lines: text.lines().collect(), code: blank(text).lines().map(str::to_owned).collect() }
    }

    /// The path with forward slashes, relative to the repository.
    pub(super) fn name(&self) -> String {
        self.path.to_string_lossy().replace('\\', "/")
    }

    /// Whether a line belongs to tests: a `tests` or `benches` folder, a `tests.rs` or `models.rs`, or an item behind `#[cfg(test)]`.
    pub(super) fn is_test(&self) -> Vec<bool> {
        let name = self.name();
        let whole =
            ["tests", "benches", "examples"].iter().any(|part| name.split('/').any(|folder| folder == *part))
                || name.ends_with("/tests.rs")
                || name.ends_with("/models.rs");
        let mut marked = vec![whole; self.code.len()];
        for start in (0..self.code.len()).filter(|&line| self.code[line].contains("#[cfg(test)]")) {
            let end = self.item_end(start).unwrap_or(start);
            marked[start..=end].fill(true);
        }
        marked
    }

    /// The line on which the item that begins at `start` ends: at the brace that closes its first one, or at the first
    /// semicolon before any brace.
    pub(super) fn item_end(&self, start: usize) -> Option<usize> {
        let mut depth = 0_usize;
        // A semicolon in brackets, as in `[u8; 4]`, ends nothing.
        let mut brackets = 0_usize;
        for (number, line) in self.code.iter().enumerate().skip(start) {
            for character in line.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth <= 1 => return Some(number),
                    '}' => depth -= 1,
                    '[' | '(' => brackets += 1,
                    ']' | ')' => brackets = brackets.saturating_sub(1),
                    ';' if depth == 0 && brackets == 0 => return Some(number),
                    _ => {}
                }
            }
        }
        None
    }
}

/// Where `word` stands alone in `text`.
pub(super) fn words<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let part_of_name = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

/// The text with comments and the insides of literals replaced by spaces. Lines stay where they are.
fn blank(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let rest = &characters[at..];
        let previous = at.checked_sub(1).map(|before| characters[before]);
        let (length, keep) = match comment(rest).or_else(|| literal(rest, previous)) {
            Some(length) => (length, false),
            None => (1, true),
        };
        out.extend(rest[..length].iter().map(|&c| if keep || c == '\n' { c } else { ' ' }));
        at += length;
    }
    out
}

/// The length of the comment that begins here.
fn comment(text: &[char]) -> Option<usize> {
    match text {
        ['/', '/', ..] => Some(text.iter().position(|&c| c == '\n').unwrap_or(text.len())),
        ['/', '*', ..] => {
            let mut depth = 0;
            let mut at = 0;
            while at < text.len() {
                match text[at..] {
                    ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
                    ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            Some(at)
        }
        _ => None,
    }
}

/// The length of the string or character literal that begins here, with its prefix.
fn literal(text: &[char], previous: Option<char>) -> Option<usize> {
    if previous.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let prefix = text.iter().take(2).take_while(|&&c| matches!(c, 'b' | 'c' | 'r')).count();
    let raw = text[..prefix].contains(&'r');
    let hashes = if raw { text[prefix..].iter().take_while(|&&c| c == '#').count() } else { 0 };
    let open = prefix + hashes;
    match text.get(open)? {
        '"' if raw => {
            let inside = &text[open + 1..];
            let close = (0..inside.len()).find(|&at| {
                inside[at] == '"'
                    && inside[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
            });
            Some(close.map_or(text.len(), |at| open + 1 + at + 1 + hashes))
        }
        '"' => Some(open + 1 + quoted(&text[open + 1..], '"')),
        // A character, unless it is a lifetime: those have no closing quote right after one character.
        '\'' if text.get(open + 1) == Some(&'\\') || text.get(open + 2) == Some(&'\'') => {
            Some(open + 1 + quoted(&text[open + 1..], '\''))
        }
        _ => None,
    }
}

/// The length up to and with the closing quote.
fn quoted(text: &[char], quote: char) -> usize {
    let mut at = 0;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::{Source, blank, words};
    use std::path::Path;

    fn squeezed(text: &str) -> String {
        blank(text).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blanked() {
        assert_eq!(squeezed("a /* b /* c */ d */ e // f\ng"), "a e g");
        assert_eq!(squeezed(r#"x("a\"b{", 'c', '\'', b"d", b'e') y"#), "x( , , , , ) y");
        assert_eq!(squeezed("r\"a\\\" b r#\"c\"d\"# e br##\"f\"#\"## g"), "b e g");
        assert_eq!(
            squeezed("fn f<'a>(x: &'a str) -> &'static str {"),
            "fn f<'a>(x: &'a str) -> &'static str {"
        );
        assert_eq!(squeezed("bar(r, b) r#type"), "bar(r, b) r#type");
    }

    #[test]
    fn lines_keep_their_numbers() {
        let text = "a\n/* 1\n2 */ b\n\"x\ny\" c\n";
        assert_eq!(blank(text).lines().count(), text.lines().count());
        assert!(blank(text).lines().nth(2).is_some_and(|line| line.trim() == "b"));
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(words("unsafe_op unsafe { not_unsafe } unsafe", "unsafe").count(), 2);
    }

    #[test]
    fn items_end_at_their_brace_or_semicolon() {
        let text = "fn a(x: [u8; 4]) {\n if b { c }\n}\nmod d;\nfn e() {}\n";
        let source = Source::new(Path::new("x.rs"), text);
        assert_eq!(source.item_end(0), Some(2));
        assert_eq!(source.item_end(3), Some(3));
        assert_eq!(source.item_end(4), Some(4));
        assert_eq!(source.item_end(5), None);
    }

    #[test]
    fn test_code_is_known() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n";
        let lines = Source::new(Path::new("crates/x/src/y.rs"), text).is_test();
        assert_eq!(lines, [false, true, true, true, true, false]);
        assert_eq!(Source::new(Path::new("crates/x/tests/y.rs"), "a").is_test(), [true]);
        assert_eq!(Source::new(Path::new("crates/x/src/y/tests.rs"), "a").is_test(), [true]);
        assert_eq!(Source::new(Path::new("crates/x/src/y/models.rs"), "a").is_test(), [true]);
    }
}
