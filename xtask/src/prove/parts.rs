//! The parts of the proof.
//!
//! To add one, add a row to [`PARTS`]. Its command must
//! - end with success if and only if it found nothing wrong;
//! - print a line `totals: key=value key=value ...` before it ends (the last such line counts): names of letters, digits and
//!   `_`, values that are numbers and can be summed over runs. Names that begin with `fault_` are also summed together;
//! - when it fails, print a line `replay: COMMAND` for each command that shows the failure again. Without one, the part's own
//!   command is told;
//! - take about the time that it is given, if it can go on for ever ([`Budget`]), and use new random seeds each time.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::test;

/// One part: a program, how it is told its time, and how much of the time is its share.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    /// The program and its arguments. `cargo xtask` is this program, as it is: a proof of hours does not build anew
    /// what somebody edits meanwhile.
    pub(super) command: &'static [&'static str],
    pub(super) budget: Budget,
    /// A part of weight 2 gets twice the time of one of weight 1.
    pub(super) weight: u32,
}

/// How a part is told how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the table is where parts are added, and not each way is taken at each time")]
pub(super) enum Budget {
    /// It is not: it does all that it has to do.
    Whole,
    /// By this argument behind its own, and a number of seconds.
    Argument(&'static str),
    /// By this environment variable, in seconds.
    Variable(&'static str),
}

pub(super) const PARTS: &[Part] = &[
    Part {
        name: "worlds",
        command: &[
            "cargo",
            "run",
            "--release",
            "-q",
            "-p",
            "evenkeel",
            "--features",
            "sim",
            "--example",
            "worlds",
            "--",
        ],
        budget: Budget::Argument("--seconds"),
        weight: 4,
    },
    Part {
        name: "hub",
        command: &["cargo", "run", "--release", "-q", "-p", "evenkeel-hub", "--example", "hub_world", "--"],
        budget: Budget::Argument("--seconds"),
        weight: 4,
    },
    Part {
        name: "kernels",
        command: &[
            "cargo",
            "run",
            "--release",
            "-q",
            "-p",
            "evenkeel",
            "--features",
            "sim",
            "--example",
            "kernels",
            "--",
        ],
        budget: Budget::Argument("--seconds"),
        weight: 3,
    },
    Part {
        name: "fuzz",
        command: &["cargo", "xtask", "fuzz"],
        budget: Budget::Argument("--within"),
        weight: 3,
    },
    Part { name: "mutants", command: &["cargo", "xtask", "mutants"], budget: Budget::Whole, weight: 1 },
    Part { name: "loom", command: &["cargo", "xtask", "loom"], budget: Budget::Whole, weight: 1 },
    Part { name: "autobahn", command: &["cargo", "xtask", "autobahn"], budget: Budget::Whole, weight: 1 },
    Part {
        name: "address",
        command: &["cargo", "xtask", "sanitize", "address"],
        budget: Budget::Whole,
        weight: 1,
    },
    Part {
        name: "thread",
        command: &["cargo", "xtask", "sanitize", "thread"],
        budget: Budget::Whole,
        weight: 1,
    },
];

impl Part {
    /// The command as one would type it.
    pub(super) fn line(&self, slice: Duration) -> String {
        let words = self.command.join(" ");
        match self.budget {
            Budget::Whole => words,
            Budget::Argument(name) => format!("{words} {name} {}", slice.as_secs()),
            Budget::Variable(name) => format!("{name}={} {words}", slice.as_secs()),
        }
    }

    pub(super) fn command(&self, root: &Path, slice: Duration) -> Command {
        let mut command = match self.command {
            ["cargo", "xtask", rest @ ..] => {
                let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "xtask".into()));
                command.args(rest);
                command
            }
            ["cargo", rest @ ..] => {
                let mut command = Command::new(test::cargo());
                command.args(rest);
                command
            }
            words => {
                let mut command = Command::new(words.first().copied().unwrap_or_default());
                command.args(words.get(1..).unwrap_or_default());
                command
            }
        };
        match self.budget {
            Budget::Whole => {}
            Budget::Argument(name) => drop(command.arg(name).arg(slice.as_secs().to_string())),
            Budget::Variable(name) => drop(command.env(name, slice.as_secs().to_string())),
        }
        command.current_dir(root);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, PARTS, Part};
    use std::path::Path;
    use std::time::Duration;

    #[test]
    fn names_are_unique() {
        for (n, part) in PARTS.iter().enumerate() {
            assert!(PARTS[..n].iter().all(|other| other.name != part.name), "{}", part.name);
            assert!(part.weight > 0, "{}", part.name);
        }
    }

    #[test]
    fn a_part_is_told_its_time() {
        let part =
            |budget| Part { name: "p", command: &["cargo", "run", "-p", "x", "--"], budget, weight: 1 };
        let slice = Duration::from_secs(90);
        assert_eq!(part(Budget::Whole).line(slice), "cargo run -p x --");
        assert_eq!(part(Budget::Argument("--seconds")).line(slice), "cargo run -p x -- --seconds 90");
        assert_eq!(part(Budget::Variable("TIME")).line(slice), "TIME=90 cargo run -p x --");
        let command = part(Budget::Argument("--seconds")).command(Path::new("/"), slice);
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["run", "-p", "x", "--", "--seconds", "90"]);
        let command = part(Budget::Variable("TIME")).command(Path::new("/"), slice);
        let told = command
            .get_envs()
            .any(|(name, value)| name == "TIME" && value.is_some_and(|value| value == "90"));
        assert!(told);
    }
}
