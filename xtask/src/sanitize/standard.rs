//! What the thread sanitizer must know of the standard library.
//!
//! The library comes compiled, without the sanitizer's calls. Most of its locks are compiled into our code nonetheless, since
//! they are generic or inlined; only what waits is not: a lock that is contended, a condition variable, the first call of a
//! `Once`. The linker puts a function of ours around each of these, which tells the sanitizer what it did. Without that,
//! half of what is protected by a lock looks unprotected.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process;

const LIMIT: Duration = Duration::from_secs(60);

/// What a function does, told to the sanitizer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It takes the lock that is its first argument.
    Locks,
    /// It gives the lock that is its second argument, waits, and takes it again.
    Waits,
    /// It runs what must run once, or waits for who does. The `Once` is its first argument.
    Once,
}

/// The ends of the functions' symbols, which are the same in every release since 2025; what is before them is not.
const FUNCTIONS: [(&str, Effect); 6] = [
    ("5mutex5futexNtB2_5Mutex14lock_contended", Effect::Locks),
    ("6rwlock5futexNtB2_6RwLock14read_contended", Effect::Locks),
    ("6rwlock5futexNtB2_6RwLock15write_contended", Effect::Locks),
    ("7condvar5futexNtB2_7Condvar4wait", Effect::Waits),
    ("7condvar5futexNtB2_7Condvar12wait_timeout", Effect::Waits),
    ("4once5futexNtB5_4Once4call", Effect::Once),
];

/// Compiles the functions around the library's, in `folder`. The flags by which the compiler links them.
///
/// # Errors
/// The library is another than we know, or there is no C compiler.
pub(super) fn flags(libraries: &Path, folder: &Path) -> Result<Vec<String>, String> {
    let symbols = symbols(&library(libraries)?)?;
    let (source, object) = (folder.join("standard.c"), folder.join("standard.o"));
    let mut text = PREAMBLE.to_owned();
    let mut flags = Vec::new();
    for (number, (end, effect)) in FUNCTIONS.into_iter().enumerate() {
        let symbol = symbols.iter().find(|symbol| symbol.ends_with(end));
        let symbol = symbol.ok_or_else(|| format!("the standard library has no function {end}"))?;
        text += &around(symbol, number, effect);
        flags.push(format!("-Clink-arg=-Wl,--wrap={symbol}"));
    }
    let failed = |error: std::io::Error| format!("{}: {error}", source.display());
    fs::create_dir_all(folder).map_err(failed)?;
    if fs::read_to_string(&source).ok().as_ref() != Some(&text) || !object.is_file() {
        fs::write(&source, text).map_err(failed)?;
        process::must(
            Command::new("cc").args(["-O1", "-g", "-c"]).arg(&source).arg("-o").arg(&object),
            LIMIT,
        )?;
    }
    flags.push(format!("-Clink-arg={}", object.display()));
    Ok(flags)
}

/// The compiled standard library.
fn library(folder: &Path) -> Result<PathBuf, String> {
    let files = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let is_std = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    };
    let found = files.flatten().map(|file| file.path()).find(is_std);
    found.ok_or_else(|| format!("there is no standard library in {}", folder.display()))
}

/// The functions that a library has for others.
fn symbols(library: &Path) -> Result<Vec<String>, String> {
    let mut readelf = Command::new("readelf");
    let finished = process::run_collected(readelf.args(["-sW"]).arg(library), LIMIT, false)?;
    let function = |line: &String| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, "FUNC", "GLOBAL", _, place, name] = columns[..] else { return None };
        (place != "UND").then(|| name.to_owned())
    };
    Ok(finished.lines.iter().filter_map(function).collect())
}

const PREAMBLE: &str = "typedef unsigned long word;\n\
    void __tsan_acquire(void *);\n\
    void __tsan_release(void *);\n";

/// A function around another, whatever its arguments are: up to five that fit into registers, which all of these have.
fn around(symbol: &str, number: usize, effect: Effect) -> String {
    let (before, after) = match effect {
        Effect::Locks => ("", "__tsan_acquire((void *)a);"),
        Effect::Waits => ("__tsan_release((void *)b);", "__tsan_acquire((void *)b);"),
        // Whoever comes later reads the library's mark, which the sanitizer has not seen being set.
        Effect::Once => ("", "__tsan_acquire((void *)a); __tsan_release((void *)a);"),
    };
    let arguments = "word a, word b, word c, word d, word e";
    format!(
        "word real{number}({arguments}) __asm__(\"__real_{symbol}\");\n\
         word wrap{number}({arguments}) __asm__(\"__wrap_{symbol}\");\n\
         word wrap{number}({arguments}) {{ {before} word r = real{number}(a, b, c, d, e); {after} return r; }}\n"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Effect, FUNCTIONS, around};

    #[test]
    fn a_function_around_another_says_what_it_does() {
        let text = around("_Rwait", 3, Effect::Waits);
        assert!(text.contains("\"__real__Rwait\"") && text.contains("\"__wrap__Rwait\""), "{text}");
        let (before, after) = text.split_once("= real3(").unwrap();
        assert!(
            before.contains("__tsan_release((void *)b)") && after.contains("__tsan_acquire((void *)b)"),
            "{text}"
        );
        assert!(FUNCTIONS.iter().any(|(_, effect)| *effect == Effect::Once));
    }
}
