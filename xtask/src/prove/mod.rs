//! `cargo xtask prove`: every part of the proof, over and over, for as long as one likes.
//!
//! A part is a program of its own, which says what it did in a last line `totals: key=value key=value ...`. The parts share
//! the time ([`schedule`]); what they say is summed ([`totals`]) and appended to a file as one record ([`record`]), so that
//! what has been tried is known over months. [`parts`] has the table, and says how to add a row.

mod parts;
mod record;
mod schedule;
mod totals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Outcome, process, setup};
use parts::{PARTS, Part};
use record::Record;
use schedule::Schedule;
use totals::Totals;

/// What a part gets beyond the time that it was told to take, for building and for ending.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// How many of the last lines of a part that failed are repeated at the end.
const LAST_LINES: usize = 60;

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    time: Duration,
    results: Option<PathBuf>,
    only: Vec<String>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { time: Duration::from_secs(60 * 60), results: None, only: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--for" => options.time = schedule::duration(value()?)?,
                "--results" => options.results = Some(value()?.into()),
                "--only" => options.only.push(value()?.clone()),
                _ => return Err(format!("no such option of prove: {argument}")),
            }
        }
        let unknown = options.only.iter().find(|only| PARTS.iter().all(|part| part.name != **only));
        if let Some(name) = unknown {
            let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
            return Err(format!("no such part: {name}; there are {}", names.join(", ")));
        }
        Ok(options)
    }
}

/// A part that failed, and how it is seen again.
#[derive(Debug)]
struct Failure {
    part: &'static str,
    why: String,
    replay: Vec<String>,
    lines: Vec<String>,
}

/// What became of all parts.
#[derive(Debug, Default)]
struct Proof {
    totals: Totals,
    /// How often each part ran, and for how many seconds.
    parts: BTreeMap<&'static str, (u64, f64)>,
    failures: Vec<Failure>,
}

/// Runs the parts, writes the record, prints all records' totals. A part that fails does not keep the others from running.
pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let results = match &options.results {
        Some(path) => path.clone(),
        None => setup::target(root)?.join("prove/results.jsonl"),
    };
    // What cannot be read or written is known before the hours are spent.
    let earlier = record::read(&results)?;
    let begun = Instant::now();
    let mut record = Record::begin(root)?;
    let parts: Vec<&Part> = PARTS
        .iter()
        .filter(|part| options.only.is_empty() || options.only.iter().any(|only| only == part.name))
        .collect();
    let proof = prove(root, &parts, options.time);
    record.end(begun.elapsed(), &proof);
    record.append(&results)?;
    print!("\n{}", totals::table(&record.totals, &earlier.iter().chain([&record]).collect::<Vec<_>>()));
    println!("{} records in {}", earlier.len() + 1, results.display());
    for failure in &proof.failures {
        let from = failure.lines.len().saturating_sub(LAST_LINES);
        println!("\n{} FAILED: {}\n{}", failure.part, failure.why, failure.lines[from..].join("\n"));
        failure.replay.iter().for_each(|command| println!("replay: {command}"));
    }
    // All parts together meet every kind of fault; one alone need not.
    let unmet = if options.only.is_empty() { record.totals.unmet() } else { Vec::new() };
    if !unmet.is_empty() {
        println!("\nnever met: {}", unmet.join(", "));
    }
    Ok(proof.failures.is_empty() && unmet.is_empty())
}

/// Runs the parts in turns until the time is up. One that has failed is not run again.
fn prove(root: &Path, parts: &[&Part], time: Duration) -> Proof {
    let mut schedule = Schedule::new(parts, time);
    let mut proof = Proof::default();
    let begun = Instant::now();
    while let Some((index, slice)) = schedule.next(time.saturating_sub(begun.elapsed())) {
        let part = parts[index];
        let from = Instant::now();
        println!("\n{}: {}", part.name, part.line(slice));
        match perform(root, part, slice) {
            Ok(totals) => proof.totals.add(&totals),
            Err(failure) => {
                println!("{} FAILED: {}", part.name, failure.why);
                schedule.drop_out(index);
                proof.failures.push(failure);
            }
        }
        schedule.spent(index, from.elapsed());
        let entry = proof.parts.entry(part.name).or_default();
        *entry = (entry.0 + 1, entry.1 + from.elapsed().as_secs_f64());
    }
    proof
}

/// Runs one part once.
fn perform(root: &Path, part: &Part, slice: Duration) -> Result<Totals, Failure> {
    let line = part.line(slice);
    let failure = |why: String, lines: Vec<String>| {
        // A part knows best how what it found is seen again.
        let own: Vec<String> =
            lines.iter().filter_map(|line| line.trim().strip_prefix("replay: ")).map(str::to_owned).collect();
        let replay = if own.is_empty() { vec![line.clone()] } else { own };
        Failure { part: part.name, why, replay, lines }
    };
    let finished = process::run_collected(&mut part.command(root, slice), slice + PATIENCE, true)
        .map_err(|why| failure(why, Vec::new()))?;
    if !finished.success {
        return Err(failure("it ended without success".to_owned(), finished.lines));
    }
    Totals::of_output(&finished.lines).map_err(|why| failure(why, finished.lines))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::parts::{Budget, Part};
    use super::{Options, prove};
    use std::path::Path;
    use std::time::Duration;

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_choose_time_and_parts() {
        assert_eq!(parse("").unwrap().time, Duration::from_secs(3600));
        let options = parse("--for 90m --results r.jsonl --only autobahn").unwrap();
        assert_eq!((options.time.as_secs(), options.only.len()), (5400, 1));
        for words in ["--for", "--for soon", "--only nothing", "--results", "90m"] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    fn part(name: &'static str, script: &'static [&'static str], budget: Budget) -> Part {
        Part { name, command: script, budget, weight: 1 }
    }

    #[test]
    fn parts_are_summed_and_one_that_fails_is_not_run_again() {
        let good = part("good", &["sh", "-c", "echo totals: runs=2 fault_a=3"], Budget::Whole);
        let bad = part("bad", &["sh", "-c", "echo replay: run me; echo lost >&2; exit 1"], Budget::Whole);
        let silent = part("silent", &["sh", "-c", "echo nothing to tell"], Budget::Whole);
        let told = part("told", &["sh", "-c", "echo totals: seconds=$S"], Budget::Variable("S"));
        let proof = prove(Path::new("/"), &[&good, &bad, &silent, &told], Duration::ZERO);
        assert_eq!(proof.totals.get("runs"), 2.0, "every part runs once, however short the time");
        assert!(proof.totals.get("seconds") >= 1.0, "the part was told its time");
        let [first, second] = &proof.failures[..] else { panic!("{:?}", proof.failures) };
        assert_eq!((first.part, &first.replay[..]), ("bad", &["run me".to_owned()][..]));
        assert!(first.lines.contains(&"lost".to_owned()), "{first:?}");
        assert_eq!(
            (second.part, &second.replay[..]),
            ("silent", &["sh -c echo nothing to tell".to_owned()][..])
        );
        assert!(second.why.contains("totals:"), "{second:?}");
        assert!(proof.parts.values().all(|(runs, _)| *runs == 1), "{:?}", proof.parts);
    }
}
