//! Project commands: `cargo xtask COMMAND`.
//!
//! One command sets up what the tests need and runs all of them, so that a developer, a fresh machine and the continuous
//! integration do the same thing.

mod autobahn;
mod ci;
mod clients;
mod fuzz;
mod hub;
mod loom;
mod miri;
mod mutants;
mod process;
mod prove;
mod sanitize;
mod setup;
mod tally;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask COMMAND

  test                  everything: the Rust tests, then the client tests on every backend
    --no-clients          only the Rust tests
    --clients-only        only the client tests
    --backend NAME        the client tests on this backend only (may be given more than once)
    --hub PATH            the client tests against this hub instead of building one
  loom                  the models of what threads share, in every order of events
    --preemptions N       how often a thread is interrupted at most (2)
    NAME                  only models with this in their name
  miri                  the tests of unsafe code that needs no kernel, under Miri, or else under valgrind
  autobahn              the Autobahn test suite against the hub's WebSocket codec, on every backend
    --backend NAME        on this backend only (may be given more than once)
    --cases PATTERN       these cases only, such as 7.* (may be given more than once)
  sanitize [address|thread]   the tests under the sanitizers
    --bounded             only the part that runs for every change
    --only NAME           only the tests of this name
  mutants               plants mistakes, and tells which of them the simulation finds
    --only NAME           those with this in their names, or of this invariant (may be given more than once)
    --every N             one of so many
  prove                 every part of the proof in turns; the totals are appended to a file
    --for TIME            for so long, such as 90s, 15m, 1h (the default) or 2d
    --results FILE        the file; by default prove/results.jsonl in the build folder
    --only PART           only this part (may be given more than once)
  ci                    test, then formatting, lints, documentation and fuzzing, as .ci/run does
  fuzz                  every fuzz target for 10 seconds; needs a C++ compiler
    --seconds N           for so long each
    --within N            for so long all of them together
    --target NAME         this one only (may be given more than once)
    --input FILE          runs the target with this input, once
  tidy                  the project's own style checks (cargo test runs them too)
  help                  this text

The tests need Node.js, npm, Python 3 and Chromium. As root on Debian, missing ones are installed.
";

/// What a command ends with: success or not, after it has said why.
type Outcome = Result<bool, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Outcome {
    let root = root();
    let (command, options) = match arguments.split_first() {
        Some((command, options)) => (command.as_str(), options),
        None => ("help", arguments),
    };
    match command {
        "test" => test::run(&root, &test::Options::parse(options)?),
        "ci" if options.is_empty() => ci::run(&root),
        "loom" => loom::run(&root, &loom::Options::parse(options)?),
        "miri" if options.is_empty() => miri::run(&root),
        "autobahn" => autobahn::run(&root, &autobahn::Options::parse(options)?),
        "sanitize" => sanitize::run(&root, &sanitize::Options::parse(options)?),
        "mutants" => mutants::run(&root, &mutants::Options::parse(options)?),
        "prove" => prove::run(&root, &prove::Options::parse(options)?),
        "fuzz" => fuzz::run(&root, &fuzz::Options::parse(options)?),
        "tidy" if options.is_empty() => Ok(tidy::run(&root)),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(true)
        }
        _ => Err(format!("no such command: {}\n\n{HELP}", arguments.join(" "))),
    }
}

/// The workspace's folder.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
