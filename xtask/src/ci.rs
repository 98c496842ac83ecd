//! `cargo xtask ci`: what must hold before a change is taken.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::tally::Tally;
use crate::{Outcome, fuzz, process, test};

const LIMIT: Duration = Duration::from_secs(30 * 60);

/// A name, cargo's arguments, and an environment variable for it.
type Check = (&'static str, &'static [&'static str], Option<(&'static str, &'static str)>);

const CHECKS: [Check; 4] = [
    ("Formatting", &["fmt", "--all", "--check"], None),
    ("Formatting of the fuzz targets", &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"], None),
    ("Lints", &["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"], None),
    (
        "Documentation",
        &["doc", "--workspace", "--all-features", "--no-deps"],
        Some(("RUSTDOCFLAGS", "-D warnings")),
    ),
];

/// Runs everything, also after a failure, and prints the count as the last line.
pub(crate) fn run(root: &Path) -> Outcome {
    let mut tally = test::count(root, &test::Options::all());
    for (name, arguments, variable) in CHECKS {
        println!("\n{name}: cargo {}", arguments.join(" "));
        let mut command = Command::new(test::cargo());
        command.args(arguments).envs(variable).current_dir(root);
        let passed = match process::run(&mut command, LIMIT) {
            Ok(finished) => finished.success,
            Err(error) => {
                println!("{error}");
                false
            }
        };
        println!("{name}: {}", if passed { "passed" } else { "FAILED" });
        tally += Tally::of(name, passed);
    }
    println!("\nFuzzing: cargo xtask fuzz");
    let passed = fuzz::run(root, &fuzz::Options::bounded()).unwrap_or_else(|error| {
        println!("{error}");
        false
    });
    tally += Tally::of("Fuzzing", passed);
    println!("\n{tally}");
    Ok(tally.success())
}
