//! The list of planted mistakes: which place of the sources says what else, and which test is to notice.
//!
//! A file of it is text:
//!
//! ```text
//! == I05 a short read always ends reading
//! file: crates/evenkeel/src/reactor/stream.rs
//! by: evenkeel sim streams::i35_every_byte_arrives::epoll
//! <<
//! flags & (flag::SHORT_READS | flag::HUNG_UP) == flag::SHORT_READS
//! >>
//! true
//! ```
//!
//! What stands before `>>` is an expression, or statements, that the file holds exactly once, whatever its indentation; what
//! stands after it runs in its place. `by` names the package, the test and one of its cases.

use std::fs;
use std::path::Path;

/// A planted mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// From 1, over all files of the list.
    pub(crate) number: u32,
    /// The invariant that it breaks, as `I05`.
    pub(crate) invariant: String,
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) by: Vec<Test>,
    pub(crate) find: String,
    pub(crate) replace: String,
}

/// Where a mistake is to be noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) package: String,
    /// The integration test.
    pub(crate) target: String,
    pub(crate) case: String,
}

/// Reads all files of the list, in the order of their names.
pub(crate) fn read(folder: &Path) -> Result<Vec<Mutant>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        parse(&text, &mut all).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(all)
}

fn parse(text: &str, all: &mut Vec<Mutant>) -> Result<(), String> {
    let mut parts = text.split("\n== ");
    let first = parts.next().unwrap_or_default();
    let first = first.strip_prefix("== ");
    for part in first.into_iter().chain(parts) {
        let number = all.len() as u32 + 1;
        all.push(entry(part, number)?);
    }
    Ok(())
}

fn entry(text: &str, number: u32) -> Result<Mutant, String> {
    let (title, body) = text.split_once('\n').unwrap_or((text, ""));
    let (invariant, name) = title.split_once(' ').ok_or(format!("`{title}` has no invariant and name"))?;
    let (head, rest) = body.split_once("<<\n").ok_or(format!("`{title}` has no `<<`"))?;
    let (find, replace) = rest.split_once(">>\n").ok_or(format!("`{title}` has no `>>`"))?;
    let mut mutant = Mutant {
        number,
        invariant: invariant.to_owned(),
        name: name.to_owned(),
        file: String::new(),
        by: Vec::new(),
        find: find.trim().to_owned(),
        replace: replace.trim().to_owned(),
    };
    for line in head.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once(": ") {
            Some(("file", file)) => mutant.file = file.trim().to_owned(),
            Some(("by", test)) => mutant.by.push(self::test(test)?),
            _ => return Err(format!("`{title}`: `{line}` means nothing")),
        }
    }
    if mutant.file.is_empty() || mutant.by.is_empty() || mutant.find.is_empty() {
        return Err(format!("`{title}` needs a file, a test, and something to be found"));
    }
    Ok(mutant)
}

fn test(text: &str) -> Result<Test, String> {
    let mut words = text.split_whitespace().map(str::to_owned);
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(package), Some(target), Some(case), None) => Ok(Test { package, target, case }),
        _ => Err(format!("`{text}` is no package, test and case")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_entry_is_read() {
        let mut all = Vec::new();
        let text = "# a note\n\n== I05 one\nfile: a.rs\nby: evenkeel sim a::b\n<<\nx == 1\n>>\ntrue\n\n== I06 two\n\
                    file: b.rs\nby: hub world c\nby: hub world d\n<<\nf();\n>>\n";
        parse(text, &mut all).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].find.as_str(), all[0].replace.as_str()), ("x == 1", "true"));
        assert_eq!((all[1].number, all[1].by.len(), all[1].replace.as_str()), (2, 2, ""));
        let mut none = Vec::new();
        assert!(parse("== I05 one\nfile: a.rs\n<<\nx\n>>\ny\n", &mut none).is_err());
    }

    #[test]
    fn the_list_fits_the_sources() {
        let root = crate::root();
        let list = read(&root.join("mutants")).unwrap();
        for mutant in &list {
            let text = fs::read_to_string(root.join(&mutant.file)).unwrap();
            super::super::tree::planted(&text, mutant).unwrap();
        }
    }
}
