//! The project's own style, as checks that fail: a rule that nobody can see failing is dead.
//!
//! Each rule is one function over the lines of one file, with its own test. `cargo xtask tidy` runs them on the whole
//! repository, and so does `cargo test`.
//!
//! Three rules have exceptions by place. Those stand in `ARCHITECTURE.md`, where a reader looks for them, under the
//! headings of [`Permissions`].

mod imports;
mod permissions;
mod rules;
mod source;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use permissions::Permissions;
use source::Source;

/// One violation.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    path: PathBuf,
    /// Counted from one.
    line: usize,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// Prints every violation. True when there is none.
pub(crate) fn run(root: &Path) -> bool {
    let (faults, files) = match check(root) {
        Ok(result) => result,
        Err(error) => {
            println!("{error}");
            return false;
        }
    };
    for fault in &faults {
        println!("{fault}");
    }
    println!("tidy: {files} files, {} faults", faults.len());
    faults.is_empty()
}

/// Every violation in the repository, and the number of files looked at.
fn check(root: &Path) -> Result<(Vec<Fault>, usize), String> {
    let mut files = Vec::new();
    collect(root, Path::new(""), &mut files)?;
    let permissions = Permissions::read(root)?;
    let mut faults = Vec::new();
    for path in &files {
        let text =
            fs::read_to_string(root.join(path)).map_err(|error| format!("{}: {error}", path.display()))?;
        faults.extend(rules::no_leftovers(path, &text));
        if path.extension().is_some_and(|extension| extension == "rs") {
            let source = Source::new(path, &text);
            faults.extend(rules::short_functions(&source));
            faults.extend(rules::safety_comments(&source));
            faults.extend(imports::directions(&source));
            if let Some(permissions) = &permissions {
                faults.extend(rules::places(&source, permissions));
            }
        }
    }
    Ok((faults, files.len()))
}

/// The text files of ours, relative to the root. Generated and foreign folders are left out.
fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    const CHECKED: [&str; 8] = ["rs", "js", "mjs", "css", "html", "py", "toml", "md"];
    const SKIPPED: [&str; 2] = ["target", "build"];
    let failed = |error: std::io::Error| format!("{}: {error}", root.join(folder).display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(root.join(folder)).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        entries.push((entry.file_name(), entry.file_type().map_err(failed)?));
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, kind) in entries {
        let path = folder.join(&name);
        let Some(name) = name.to_str() else { continue };
        let generated = folder.as_os_str().is_empty() && SKIPPED.contains(&name);
        if name.starts_with('.') || generated || name == "node_modules" {
            continue;
        }
        if kind.is_dir() {
            collect(root, &path, files)?;
        } else if kind.is_file() && name.rsplit_once('.').is_some_and(|(_, end)| CHECKED.contains(&end)) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn the_repository_is_tidy() {
        let (faults, files) = super::check(&crate::root()).unwrap();
        let listed: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(listed.is_empty(), "\n{}\n", listed.join("\n"));
        assert!(files > 10, "only {files} files were found");
    }
}
