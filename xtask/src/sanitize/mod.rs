//! `cargo xtask sanitize`: the tests under the address sanitizer (with leaks) and the thread sanitizer.
//!
//! The sanitizers come with the stable compiler, which calls them unstable: hence `RUSTC_BOOTSTRAP`. The standard library is
//! not instrumented. For addresses that costs little, since allocations and copies are intercepted. For threads, what it
//! synchronizes by itself is told to the sanitizer ([`standard`]); `races.txt` has what is reported wrongly nonetheless.

mod plan;
mod standard;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tally::Tally;
use crate::{Outcome, process, setup, test};
use plan::{PLAN, Run, Sanitizer};

/// For building and running one row of the plan.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// The one target whose sanitizers are used. Naming it keeps build scripts and macros from being instrumented.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What a sanitizer says when it has found something. The tests' exit status does not always tell.
const MARKS: [&str; 4] = [
    "ERROR: AddressSanitizer",
    "ERROR: LeakSanitizer",
    "WARNING: ThreadSanitizer",
    "LeakSanitizer has encountered a fatal error",
];

/// What to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Both, if none is named.
    sanitizer: Option<Sanitizer>,
    /// Only what fits into a few minutes.
    bounded: bool,
    /// Only rows of this name.
    only: Option<String>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "address" => options.sanitizer = Some(Sanitizer::Address),
                "thread" => options.sanitizer = Some(Sanitizer::Thread),
                "--bounded" => options.bounded = true,
                "--only" => options.only = Some(rest.next().ok_or("--only needs a name")?.clone()),
                _ => return Err(format!("no such option of sanitize: {argument}")),
            }
        }
        if options.plan().next().is_none() {
            let names: Vec<&str> = PLAN.iter().map(|run| run.name).collect();
            return Err(format!("nothing is left to run; there are {}", names.join(", ")));
        }
        Ok(options)
    }

    fn plan(&self) -> impl Iterator<Item = &'static Run> {
        PLAN.iter().filter(|run| {
            self.sanitizer.is_none_or(|sanitizer| sanitizer == run.sanitizer)
                && self.only.as_ref().is_none_or(|only| only == run.name)
                && self.bounded == run.bounded
        })
    }
}

/// Runs the plan, or what of it is asked for.
pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let libraries = libraries()?;
    let mut tally = Tally::default();
    for run in options.plan() {
        tally += perform(root, &libraries, run)?;
    }
    println!("totals: sanitizer_tests={}", tally.passed);
    Ok(tally.success())
}

/// For the tests of everything: the bounded part. A machine without the sanitizers is told so.
pub(crate) fn count(root: &Path) -> Result<Tally, String> {
    let libraries = match libraries() {
        Ok(libraries) => libraries,
        Err(why) => {
            println!("\nThe sanitizers are left out: {why}");
            return Ok(Tally::default());
        }
    };
    let options = Options { bounded: true, ..Options::default() };
    let mut tally = Tally::default();
    for run in options.plan() {
        tally += perform(root, &libraries, run)?;
    }
    Ok(tally)
}

/// Why the sanitizers cannot be had here, or where their libraries are.
fn libraries() -> Result<PathBuf, String> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let finished = process::run_collected(&mut rustc, Duration::from_secs(60), false)?;
    let folder = finished.lines.last().filter(|_| finished.success).map(PathBuf::from).unwrap_or_default();
    let files = std::fs::read_dir(&folder);
    let names = files.into_iter().flatten().flatten().map(|file| file.file_name());
    // As `librustc-stable_rt.asan.a`.
    if names.into_iter().any(|name| name.to_string_lossy().ends_with("_rt.asan.a")) {
        Ok(folder)
    } else {
        Err(format!("the compiler that is installed has no sanitizers for {TARGET}"))
    }
}

/// Builds and runs one row of the plan.
fn perform(root: &Path, libraries: &Path, run: &Run) -> Result<Tally, String> {
    let sanitizer = run.sanitizer.name();
    println!("\nUnder the {sanitizer} sanitizer: {}", run.name);
    let lists = root.join("xtask/sanitizers");
    let races = lists.join("races.txt");
    let folder = setup::target(root)?.join("sanitize").join(sanitizer);
    let mut flags: Vec<String> = run.sanitizer.flags().iter().map(|flag| (*flag).to_owned()).collect();
    if run.sanitizer == Sanitizer::Thread {
        flags.extend(standard::flags(libraries, &folder)?);
    }
    let mut command = Command::new(test::cargo());
    command
        .args(["test", "--target", TARGET, "--all-features", "--no-fail-fast", "--package", run.package])
        .args(run.targets)
        .args(["--", "--quiet"])
        .args(run.tests)
        .current_dir(root)
        .env("CARGO_TARGET_DIR", folder)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // Printing one takes locks of the standard library.
        .env("RUST_BACKTRACE", "0")
        // Names of functions are what the lists are made of, so addresses must be resolved, be it by the slower program.
        .env("ASAN_OPTIONS", "detect_leaks=1:detect_stack_use_after_return=1:allow_addr2line=1")
        .env(
            "LSAN_OPTIONS",
            format!("print_suppressions=0:suppressions={}", lists.join("leaks.txt").display()),
        )
        .env("TSAN_OPTIONS", format!("allow_addr2line=1:history_size=4:suppressions={}", races.display()));
    let finished = process::run_collected(&mut command, LIMIT, true)?;
    let lines = finished.lines.iter().map(String::as_str);
    let mut tally = Tally::read(lines.clone(), finished.success);
    let findings = findings(lines);
    if !findings.is_empty() {
        println!("\n{} findings of the {sanitizer} sanitizer in {}:", findings.len(), run.name);
        findings.iter().for_each(|line| println!("  {line}"));
        // Those of a test that failed for it are counted by its runner.
        findings.iter().skip(tally.failed as usize).for_each(|finding| tally += Tally::failure(finding));
    }
    if !tally.success() {
        let bounded = if run.bounded { " --bounded" } else { "" };
        println!("replay: cargo xtask sanitize {sanitizer} --only {}{bounded}", run.name);
    }
    Ok(tally)
}

/// The lines that say that something was found.
fn findings<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    lines.filter(|line| MARKS.iter().any(|mark| line.contains(mark))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Options, PLAN, Sanitizer, findings};

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_choose_what_runs() {
        let names = |words| parse(words).unwrap().plan().map(|run| run.name).collect::<Vec<_>>();
        assert!(parse("thread").unwrap().plan().all(|run| run.sanitizer == Sanitizer::Thread));
        assert_eq!(names("address --only conformance"), ["conformance"]);
        assert_eq!(names("").len() + names("--bounded").len(), PLAN.len());
        for words in ["memory", "--only", "--only nothing", "thread --only group"] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn what_a_sanitizer_says_is_found_wherever_it_stands() {
        let lines = [
            "test a ... ok",
            "==5864==ERROR: LeakSanitizer: detected memory leaks",
            "WARNING: ThreadSanitizer: data race (pid=3)",
            "test b ... WARNING: ThreadSanitizer: heap-use-after-free",
            "warning: a compiler's",
            "SUMMARY: AddressSanitizer: 548 byte(s) leaked in 8 allocation(s).",
        ];
        assert_eq!(findings(lines.into_iter()).len(), 3);
    }
}
