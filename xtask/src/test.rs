//! `cargo xtask test`: everything that is tested, with one count at the end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tally::Tally;
use crate::{Outcome, autobahn, clients, loom, process, sanitize};

const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Which tests to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    rust: bool,
    clients: bool,
    backends: Vec<String>,
    hub: Option<PathBuf>,
}

impl Options {
    /// Everything.
    pub(crate) fn all() -> Self {
        Self { rust: true, clients: true, backends: clients::BACKENDS.map(str::to_owned).to_vec(), hub: None }
    }

    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::all();
        let mut chosen = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().cloned().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--clients-only" => options.rust = false,
                "--no-clients" => options.clients = false,
                "--backend" => chosen.push(value()?),
                "--hub" => options.hub = Some(absolute(&value()?)?),
                _ => return Err(format!("no such option of test: {argument}")),
            }
        }
        if !options.rust && !options.clients {
            return Err("--clients-only and --no-clients leave nothing to run".to_owned());
        }
        if !chosen.is_empty() {
            options.backends = chosen;
        }
        Ok(options)
    }
}

/// The tests run in another folder than the one that a relative path was given in.
fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{path}: {error}"))
}

/// Runs the tests and prints the count as the last line.
pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let tally = count(root, options);
    println!("\n{tally}");
    Ok(tally.success())
}

/// Runs the tests and counts them.
pub(crate) fn count(root: &Path, options: &Options) -> Tally {
    let mut tally = Tally::default();
    if options.rust {
        tally += rust(root).unwrap_or_else(|error| failure(&error));
        tally += private_tables(root).unwrap_or_else(|error| failure(&error));
        for loops in LOOPS {
            tally += on_loops(root, loops).unwrap_or_else(|error| failure(&error));
        }
        for loops in HUB_LOOPS {
            tally += hub_on_loops(root, loops).unwrap_or_else(|error| failure(&error));
        }
        tally += loom::count(root, &loom::Options::all()).unwrap_or_else(|error| failure(&error));
        tally += autobahn::count(root).unwrap_or_else(|error| failure(&error));
        tally += sanitize::count(root).unwrap_or_else(|error| failure(&error));
    }
    if options.clients {
        let hub = options.hub.as_deref();
        tally += clients::run(root, &options.backends, hub).unwrap_or_else(|error| failure(&error));
    }
    tally
}

fn failure(error: &str) -> Tally {
    println!("{error}");
    Tally::failure(error)
}

/// The contract's tests over the simulated kernel, which depend on nothing but their seed: once is enough.
const SIMULATED: &str = "simulated::";

/// Numbers of loops on which the contract's tests run side by side, beside the one of the pass over everything.
const LOOPS: [&str; 2] = ["2", "4"];

/// The contract's tests once more, each on several loops at once. What has a process of its own, or runs
/// the tests in one, does not become another test by that.
fn on_loops(root: &Path, loops: &str) -> Result<Tally, String> {
    println!("\nThe conformance tests on {loops} loops side by side");
    let mut command = Command::new(cargo());
    command.args(["test", "--package", "evenkeel", "--all-features", "--test", "conformance"]);
    command.args(["--", "--skip", "::alone::", "--skip", "i17_", "--skip", "fallback::the_suite", "--quiet"]);
    command.args(["--skip", SIMULATED]);
    if loops == "4" {
        // Four copies of a crowd take more descriptors than `select` can watch; on two loops it takes part.
        command.args(["--skip", "::select"]);
    }
    command.env("EVENKEEL_TEST_LOOPS", loops).current_dir(root);
    let finished = process::run(&mut command, LIMIT)?;
    Ok(Tally::read(finished.lines.iter().map(String::as_str), finished.success))
}

/// Numbers of loops that the hub's server has in tests, beside the two of the pass over everything: with one, nothing crosses;
/// with four, most loops know each other only by way of the state's.
const HUB_LOOPS: [&str; 2] = ["1", "4"];

/// The hub's server once more, on so many loops. Programs have as many as they are configured to, as before.
fn hub_on_loops(root: &Path, loops: &str) -> Result<Tally, String> {
    println!("\nThe hub's server on {loops} loops");
    let mut command = Command::new(cargo());
    command.args(["test", "--package", "evenkeel-hub", "--all-features", "--test", "server"]);
    command.args(["--", "--skip", "program::", "--skip", "loops::", "--quiet"]);
    command.env("EVENKEEL_TEST_LOOPS", loops).current_dir(root);
    let finished = process::run(&mut command, LIMIT)?;
    Ok(Tally::read(finished.lines.iter().map(String::as_str), finished.success))
}

/// Unit tests, integration tests and the examples in the documentation. A failure does not hide later ones.
fn rust(root: &Path) -> Result<Tally, String> {
    let mut command = Command::new(cargo());
    command.args(["test", "--workspace", "--all-features", "--no-fail-fast"]).current_dir(root);
    let finished = process::run(&mut command, LIMIT)?;
    Ok(Tally::read(finished.lines.iter().map(String::as_str), finished.success))
}

/// The runtime's contract once more, on threads with descriptor tables of their own. Left out are the tests that run the
/// others again, under a filter or without features.
fn private_tables(root: &Path) -> Result<Tally, String> {
    let mut command = Command::new(cargo());
    command.args(["test", "-p", "evenkeel", "--all-features", "--no-fail-fast"]);
    command.args([
        "--test",
        "group",
        "--test",
        "conformance",
        "--",
        "--skip",
        "fallback::",
        "--skip",
        "ring::i17",
        "--skip",
        SIMULATED,
    ]);
    command.env("EVENKEEL_TEST_TABLES", "private").current_dir(root);
    let finished = process::run(&mut command, LIMIT)?;
    Ok(Tally::read(finished.lines.iter().map(String::as_str), finished.success))
}

/// Where cargo builds.
pub(crate) fn target_folder(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Options;

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_choose_what_runs() {
        assert_eq!(parse("").unwrap(), Options::all());
        assert!(!parse("--clients-only").unwrap().rust);
        assert!(!parse("--no-clients").unwrap().clients);
        assert_eq!(parse("--backend epoll --backend poll").unwrap().backends, ["epoll", "poll"]);
        assert!(parse("--hub target/x").unwrap().hub.unwrap().is_absolute());
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for words in ["--clients-only --no-clients", "--backend", "--hub", "--fast", "epoll"] {
            assert!(parse(words).is_err(), "{words}");
        }
    }
}
