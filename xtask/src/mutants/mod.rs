//! `cargo xtask mutants`: plants mistakes, one at a time, and tells which of them the simulation finds, and after how many
//! seeds.
//!
//! The mistakes are a list beside the sources, and never in them: a copy of the sources gets all of them as branches, of which
//! the environment chooses one, so that one build does for all.

mod list;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use self::list::{Mutant, Test};
use crate::{Outcome, process, test};

const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);
/// How long a mistake may go unnoticed by one test.
const LIMIT: Duration = Duration::from_secs(180);
/// Seeds that each test may try.
const SEEDS: u32 = 300;

/// Which of them.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Invariants, numbers, or parts of names or of the files' paths; all if empty.
    only: Vec<String>,
    /// One of so many, for a bounded run.
    every: Option<usize>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--only" => options.only.push(value()?.clone()),
                "--every" => {
                    let every = value()?;
                    let number = every.parse().ok().filter(|number| *number > 0);
                    options.every = Some(number.ok_or_else(|| format!("{every} is no number"))?);
                }
                _ => return Err(format!("no such option of mutants: {argument}")),
            }
        }
        Ok(options)
    }

    fn chooses(&self, mutant: &Mutant) -> bool {
        let number = mutant.number.to_string();
        let named = |part: &String| {
            let exactly = mutant.invariant == *part || number == *part;
            exactly || mutant.name.contains(part) || mutant.file.contains(part)
        };
        let turn = self.every.is_none_or(|every| (mutant.number as usize - 1).is_multiple_of(every));
        turn && (self.only.is_empty() || self.only.iter().any(named))
    }
}

/// How a mistake was noticed.
enum Found {
    /// By a test, after so many seeds.
    After(String, Option<u64>),
    /// A test did not come to its end.
    Hangs(String),
    No,
}

pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let list = list::read(&root.join("mutants"))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = root.join(target).join("mutants");
    tree::make(root, &folder.join("tree"), &list)?;
    let chosen: Vec<&Mutant> = list.iter().filter(|mutant| options.chooses(mutant)).collect();
    let programs = build(&folder, &chosen)?;
    println!("{:<4} {:<4} {:<76} {:>6}  found by", "", "", "mistake", "seeds");
    let missed = look_at_all(&chosen, &programs)?;
    println!("totals: mutants_planted={} mutants_found={}", chosen.len(), chosen.len() - missed);
    Ok(missed == 0)
}

/// Looks at several mutants at once, and prints each when it is done. Returns how many were not found.
fn look_at_all(chosen: &[&Mutant], programs: &Programs) -> Result<usize, String> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<usize, String> {
        let mut missed = 0;
        while let Some(mutant) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = look(mutant, programs)?;
            missed += usize::from(matches!(found, Found::No));
            print(mutant, &found);
        }
        Ok(missed)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = all.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a panic".to_owned())));
        ended.sum()
    })
}

fn print(mutant: &Mutant, found: &Found) {
    let (seeds, by) = match found {
        Found::After(by, Some(seeds)) => (seeds.to_string(), by.as_str()),
        Found::After(by, None) => ("-".to_owned(), by.as_str()),
        Found::Hangs(by) => ("hangs".to_owned(), by.as_str()),
        Found::No => ("-".to_owned(), "NOT FOUND"),
    };
    println!("{:<4} {:<4} {:<76} {seeds:>6}  {by}", mutant.number, mutant.invariant, mutant.name);
}

type Programs = BTreeMap<(String, String), PathBuf>;

/// Builds the tests that the chosen ones name. Without a mistake they pass, which other commands see to.
fn build(folder: &Path, chosen: &[&Mutant]) -> Result<Programs, String> {
    let mut programs = Programs::new();
    let tests = chosen.iter().flat_map(|mutant| &mutant.by);
    let names: std::collections::BTreeSet<_> = tests.map(|t| (t.package.clone(), t.target.clone())).collect();
    for (package, target) in names {
        let mut cargo = Command::new(test::cargo());
        cargo
            .args(["test", "--no-run", "--locked", "--all-features", "--message-format=json", "-p", &package])
            .args(["--test", &target, "--target-dir"])
            .arg(folder.join("build"))
            .env("RUSTFLAGS", "-Awarnings")
            .current_dir(folder.join("tree"));
        let finished = process::run_collected(&mut cargo, BUILD_LIMIT, false)?;
        let program = finished.lines.iter().rev().find_map(|line| executable(line, &target));
        let Some(program) = program.filter(|_| finished.success) else {
            return Err(format!("the mutated {package} does not build:\n{}", finished.lines.join("\n")));
        };
        programs.insert((package, target), program);
    }
    Ok(programs)
}

/// The program of a test, of the line in which cargo names it.
fn executable(line: &str, target: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_it = message["target"]["name"] == target && message["profile"]["test"] == true;
    message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
}

fn look(mutant: &Mutant, programs: &Programs) -> Result<Found, String> {
    for by in &mutant.by {
        let key = (by.package.clone(), by.target.clone());
        let program = programs.get(&key).ok_or("a test was not built")?;
        let mut command = Command::new(program);
        command
            .args([&by.case, "--exact"])
            .env("EVENKEEL_MUTANT", mutant.number.to_string())
            .env("EVENKEEL_SIM_SEEDS", SEEDS.to_string())
            .env("CARGO_PKG_NAME", &by.package);
        let started = Instant::now();
        match process::run_collected(&mut command, LIMIT, false) {
            Ok(finished)
                if finished.success && finished.lines.iter().any(|l| l.contains("running 0 tests")) =>
            {
                return Err(format!("`{}` of {} {} is no test", by.case, by.package, by.target));
            }
            Ok(finished) if finished.success => {}
            Ok(finished) => return Ok(Found::After(named(by), seeds(&finished.lines))),
            Err(_) if started.elapsed() >= LIMIT => return Ok(Found::Hangs(named(by))),
            Err(error) => return Err(error),
        }
    }
    Ok(Found::No)
}

fn named(test: &Test) -> String {
    format!("{} {}", test.target, test.case)
}

/// After how many seeds the first check failed.
fn seeds(lines: &[String]) -> Option<u64> {
    let failed = lines.iter().filter_map(|line| {
        let rest = line.strip_prefix("found after ")?;
        rest.split(' ').next()?.parse().ok()
    });
    failed.min()
}
