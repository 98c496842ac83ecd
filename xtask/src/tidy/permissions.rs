//! The places where something is allowed that is forbidden elsewhere, read from `ARCHITECTURE.md`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

const FILE: &str = "ARCHITECTURE.md";
const UNSAFE: &str = "Where unsafe is allowed";
const SYSTEMS: &str = "Where the operating system is named";
const CLOCKS: &str = "Where clocks are read and threads are started";

/// For each rule the folders and files that it does not hold in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Permissions {
    /// Under "Where unsafe is allowed".
    pub(super) unsafe_code: Vec<String>,
    /// `target_os`, under "Where the operating system is named".
    pub(super) systems: Vec<String>,
    /// `Instant::now` and the like, under "Where clocks are read and threads are started".
    pub(super) clocks: Vec<String>,
}

impl Permissions {
    /// `None` when there is no such file yet. A file without the headings is an error: the rules would be dead.
    pub(super) fn read(root: &Path) -> Result<Option<Self>, String> {
        match fs::read_to_string(root.join(FILE)) {
            Ok(text) => Self::parse(&text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{FILE}: {error}")),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let places = |heading| {
            places(text, heading)
                .ok_or_else(|| format!("{FILE} has no heading \"{heading}\" with a list of places"))
        };
        Ok(Self { unsafe_code: places(UNSAFE)?, systems: places(SYSTEMS)?, clocks: places(CLOCKS)? })
    }
}

/// Whether a file is one of `places`, or in one of them.
pub(super) fn allows(places: &[String], name: &str) -> bool {
    places.iter().any(|place| {
        let place = place.trim_end_matches('/');
        name == place || name.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
    })
}

/// The places under a heading: the first code span of each list item, or each line of a fenced block up to its first space.
fn places(text: &str, heading: &str) -> Option<Vec<String>> {
    let mut lines = text.lines();
    lines.find(|line| line.starts_with('#') && line.trim_start_matches('#').trim() == heading)?;
    let mut found = Vec::new();
    let mut fenced = false;
    for line in lines.map(str::trim) {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            found.extend(line.split_whitespace().next().map(str::to_owned));
        } else if line.starts_with('#') {
            break;
        } else if line.starts_with("- ") || line.starts_with("* ") || line.starts_with("| ") {
            found.extend(line.split('`').nth(1).map(str::to_owned));
        }
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Permissions, allows};

    const TEXT: &str = "# Architecture\n## Where unsafe is allowed\nOnly here:\n- `crates/a/src/sys/`: calls\n- `crates/b`\n\n\
        ### Where the operating system is named\n```\ncrates/a/src/sys   sockets\n\nxtask\n```\n\
        ## Where clocks are read and threads are started\n| place | why |\n|---|---|\n| `crates/c/src/x.rs` | `why` |\n## More\n- `d`\n";

    #[test]
    fn places_stand_under_their_headings() {
        let permissions = Permissions::parse(TEXT).unwrap();
        assert_eq!(permissions.unsafe_code, ["crates/a/src/sys/", "crates/b"]);
        assert_eq!(permissions.systems, ["crates/a/src/sys", "xtask"]);
        assert_eq!(permissions.clocks, ["crates/c/src/x.rs"]);
    }

    #[test]
    fn a_missing_heading_is_an_error() {
        let error = Permissions::parse("# Architecture\n## Where unsafe is allowed\n- `a`\n").unwrap_err();
        assert!(error.contains("Where the operating system is named"), "{error}");
    }

    #[test]
    fn a_place_is_a_file_or_a_folder() {
        let places = ["crates/a/src/sys/".to_owned(), "x.rs".to_owned()];
        assert!(allows(&places, "crates/a/src/sys/unix.rs"));
        assert!(allows(&places, "x.rs"));
        assert!(!allows(&places, "crates/a/src/system.rs"));
        assert!(!allows(&places, "x.rs.rs"));
    }
}
