//! `cargo xtask miri`: the unsafe code that needs no kernel, under an interpreter that knows the language's rules. Where the
//! toolchain has none, the same tests under valgrind, which knows only memory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::tally::Tally;
use crate::test::cargo;
use crate::{Outcome, process};

const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Unit tests of the runtime that make no system call, but those of threads and memory.
const MODULES: [&str; 8] = [
    "core::cork::",
    "core::out::",
    "core::slab::",
    "core::source::",
    "proactor::held::",
    "sys::buffers::",
    "task::tests::",
    "time::wheel::",
];

/// In these modules, those that ask the kernel, which Miri leaves out by itself.
const LEFT_OUT: &str = "one_buffer_serves_a_long_stream";

/// Runs the tests under what there is, says which that is, and prints the count as the last line.
pub(crate) fn run(root: &Path) -> Outcome {
    let mut command = if let Some(toolchain) = interpreter() {
        println!("Under Miri");
        interpreted(toolchain)
    } else if has("valgrind", &["--version"]) {
        println!(
            "This toolchain has no Miri (a nightly one may: `rustup toolchain install nightly --component miri`).\n\
             The same tests run under valgrind, which finds wrong uses of memory, not of references."
        );
        under_valgrind()?
    } else {
        return Err("this toolchain has no Miri, and there is no valgrind: nothing was checked".to_owned());
    };
    let finished = process::run(command.current_dir(root), LIMIT)?;
    let tally = Tally::read(finished.lines.iter().map(String::as_str), finished.success);
    println!("\n{tally}");
    Ok(tally.success())
}

/// How cargo is told of a toolchain that has Miri.
fn interpreter() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&[], &["+nightly"]];
    ways.into_iter().find(|way| has("cargo", &[*way, &["miri", "--version"]].concat()))
}

fn interpreted(toolchain: &[&str]) -> Command {
    // By its name, since only rustup's cargo knows of toolchains.
    let mut command = Command::new("cargo");
    command.args(toolchain).args(["miri", "test", "--package", "evenkeel", "--lib", "--"]).args(MODULES);
    command
}

fn under_valgrind() -> Result<Command, String> {
    let runner = format!("CARGO_TARGET_{}_RUNNER", host()?.to_uppercase().replace('-', "_"));
    let mut command = Command::new(cargo());
    command.args(["test", "--package", "evenkeel", "--lib", "--"]).args(MODULES).args(["--skip", LEFT_OUT]);
    // What is left at the end is counted by the tests themselves, some of which leave something.
    command.env(runner, "valgrind --quiet --error-exitcode=99 --leak-check=no");
    Ok(command)
}

/// The name of the machine that rustc builds for.
fn host() -> Result<String, String> {
    let told = Command::new("rustc").arg("-vV").output().map_err(|error| format!("rustc: {error}"))?;
    let text = String::from_utf8_lossy(&told.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not tell its host".to_owned())
}

fn has(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
