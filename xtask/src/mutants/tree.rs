//! A copy of the sources in which every planted mistake is a branch that the environment can choose.

use std::fs;
use std::path::Path;

use super::list::Mutant;

/// The module that the mutated crates get.
const SWITCH: &str = "\
//! Which planted mistake is on.

/// Whether this one is; `EVENKEEL_MUTANT` has its number.
pub(crate) fn on(number: u32) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| std::env::var(\"EVENKEEL_MUTANT\").ok()?.parse().ok()) == Some(number)
}
";

/// Folders at the root that a build of the tests needs.
const NEEDED: [&str; 4] = ["crates", "xtask", ".cargo", "mutants"];

/// Makes the copy. Files that have not changed keep their times, so that a build does no more than it must.
pub(crate) fn make(root: &Path, tree: &Path, mutants: &[Mutant]) -> Result<(), String> {
    fs::create_dir_all(tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    for entry in list(root)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_file = entry.is_file();
        if is_file || NEEDED.contains(&name.as_str()) {
            copy(&entry, &tree.join(&name), root, mutants)?;
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut all: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    all.sort();
    Ok(all)
}

fn copy(from: &Path, to: &Path, root: &Path, mutants: &[Mutant]) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", from.display());
    if from.is_dir() {
        if from.file_name().is_some_and(|name| name == "target" || name == "node_modules") {
            return Ok(());
        }
        fs::create_dir_all(to).map_err(failed)?;
        return list(from)?.iter().try_for_each(|entry| {
            copy(entry, &to.join(entry.file_name().unwrap_or_default()), root, mutants)
        });
    }
    let mut content = fs::read(from).map_err(failed)?;
    let path = from.strip_prefix(root).unwrap_or(from).to_string_lossy().into_owned();
    let mut here: Vec<&Mutant> = mutants.iter().filter(|mutant| mutant.file == path).collect();
    if !here.is_empty() {
        let mut text = String::from_utf8_lossy(&content).into_owned();
        // Longest first, so that what one has replaced is not within another.
        here.sort_by_key(|mutant| std::cmp::Reverse(mutant.find.len()));
        for mutant in here {
            text = planted(&text, mutant)?;
        }
        content = text.into_bytes();
    }
    if path.ends_with("src/lib.rs") && mutants.iter().any(|mutant| path.starts_with(crate_of(&mutant.file))) {
        content.extend_from_slice(b"\n#[allow(dead_code, missing_docs)]\nmod mutant;\n");
        write(&to.with_file_name("mutant.rs"), SWITCH.as_bytes())?;
    }
    write(to, &content)
}

/// The folder of a file's crate.
fn crate_of(file: &str) -> &str {
    file.find("/src/").map_or(file, |at| &file[..at])
}

fn write(to: &Path, content: &[u8]) -> Result<(), String> {
    if fs::read(to).is_ok_and(|there| there == content) {
        return Ok(());
    }
    fs::write(to, content).map_err(|error| format!("{}: {error}", to.display()))
}

/// The text with the mistake as a branch.
pub(crate) fn planted(text: &str, mutant: &Mutant) -> Result<String, String> {
    let (at, length) = found(text, mutant)?;
    let original = &text[at..at + length];
    let (number, replace) = (mutant.number, &mutant.replace);
    let statements = original.ends_with(';') || original.ends_with('}');
    let branch = if statements {
        format!("if crate::mutant::on({number}) {{ {replace} }} else {{ {original} }}")
    } else {
        format!("(if crate::mutant::on({number}) {{ {replace} }} else {{ {original} }})")
    };
    Ok(format!("{}{branch}{}", &text[..at], &text[at + length..]))
}

/// Where a text holds what is to be replaced, once; indentation does not matter.
fn found(text: &str, mutant: &Mutant) -> Result<(usize, usize), String> {
    let mut places = Vec::new();
    for (at, _) in text.char_indices() {
        if let Some(length) = matches(&text[at..], &mutant.find) {
            places.push((at, length));
        }
    }
    match places.as_slice() {
        [one] => Ok(*one),
        _ => Err(format!(
            "{}: what `{} {}` replaces is there {} times, and must be once: {}",
            mutant.file,
            mutant.invariant,
            mutant.name,
            places.len(),
            mutant.find
        )),
    }
}

/// How long the beginning of `text` is that says `wanted`, where any white space is as good as another.
fn matches(text: &str, wanted: &str) -> Option<usize> {
    let mut rest = text;
    let mut words = wanted.split_whitespace().peekable();
    while let Some(word) = words.next() {
        rest = rest.strip_prefix(word)?;
        if words.peek().is_some() {
            let after = rest.trim_start();
            if after.len() == rest.len() {
                return None;
            }
            rest = after;
        }
    }
    Some(text.len() - rest.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn mutant(find: &str, replace: &str) -> Mutant {
        Mutant {
            number: 7,
            invariant: "I05".to_owned(),
            name: "a name".to_owned(),
            file: "a.rs".to_owned(),
            by: Vec::new(),
            find: find.to_owned(),
            replace: replace.to_owned(),
        }
    }

    #[test]
    fn a_branch_takes_the_place_of_what_is_found() {
        let text = "let a = b\n    && c;\nf();\n";
        let expression = planted(text, &mutant("b && c", "true")).unwrap();
        assert_eq!(expression, "let a = (if crate::mutant::on(7) { true } else { b\n    && c });\nf();\n");
        let statement = planted(text, &mutant("f();", "")).unwrap();
        assert_eq!(statement, "let a = b\n    && c;\nif crate::mutant::on(7) {  } else { f(); }\n");
    }

    #[test]
    fn what_is_not_there_once_is_an_error() {
        assert!(planted("f(); f();", &mutant("f();", "")).is_err());
        assert!(planted("g();", &mutant("f();", "")).is_err());
    }
}
