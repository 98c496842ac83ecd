//! `cargo xtask loom`: the models of what threads share, in every order of events that the bounds allow.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::tally::Tally;
use crate::test::{cargo, target_folder};
use crate::{Outcome, process};

const LIMIT: Duration = Duration::from_secs(60 * 60);

/// How often a thread is interrupted where it could go on, at most. Two find nearly all mistakes, in seconds.
const PREEMPTIONS: &str = "2";

/// `--preemptions N` and a part of a model's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    preemptions: String,
    filter: String,
}

impl Options {
    pub(crate) fn all() -> Self {
        Self { preemptions: PREEMPTIONS.to_owned(), filter: "models::".to_owned() }
    }

    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::all();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--preemptions" => {
                    let number = rest.next().filter(|number| number.parse::<u8>().is_ok());
                    options.preemptions = number.ok_or("--preemptions needs a number")?.clone();
                }
                name if !name.starts_with('-') => options.filter = name.to_owned(),
                _ => return Err(format!("no such option of loom: {argument}")),
            }
        }
        Ok(options)
    }
}

/// Runs the models and prints the counts as the last lines.
pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let tally = count(root, options)?;
    println!("\n{tally}\ntotals: loom_models={}", tally.passed);
    Ok(tally.success())
}

/// Runs the models and counts them. They are built apart from everything else, since all crates are built with another flag.
pub(crate) fn count(root: &Path, options: &Options) -> Result<Tally, String> {
    println!("\nModels, with at most {} interruptions", options.preemptions);
    let mut command = Command::new(cargo());
    command.args(["test", "--package", "evenkeel", "--lib", &options.filter]);
    command.env("CARGO_TARGET_DIR", target_folder(root).join("loom"));
    command
        .env("RUSTFLAGS", "--cfg loom")
        .env("LOOM_MAX_PREEMPTIONS", &options.preemptions)
        .current_dir(root);
    let finished = process::run(&mut command, LIMIT)?;
    Ok(Tally::read(finished.lines.iter().map(String::as_str), finished.success))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Options;

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_choose_how_much_is_tried() {
        assert_eq!(parse("").unwrap(), Options::all());
        let options = parse("--preemptions 3 mailbox::models").unwrap();
        assert_eq!((options.preemptions.as_str(), options.filter.as_str()), ("3", "mailbox::models"));
        for words in ["--preemptions", "--preemptions many", "--fast"] {
            assert!(parse(words).is_err(), "{words}");
        }
    }
}
