//! Counts of passed and failed tests, read from what the test runners print.

use std::fmt;
use std::ops::AddAssign;

/// How much of what one runner says of its failures is repeated.
const TOLD: usize = 120;
/// What is repeated of a runner that failed and named no test.
const LAST_LINES: usize = 30;

/// Passed and failed tests, and what the runners said of those that failed: a run of half an hour is read from its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    told: Vec<String>,
}

impl Tally {
    pub(crate) fn new(passed: u64, failed: u64) -> Self {
        Self { passed, failed, told: Vec::new() }
    }

    /// One check that is not a test of a runner.
    pub(crate) fn of(what: &str, passed: bool) -> Self {
        if passed { Self::new(1, 0) } else { Self::failure(what) }
    }

    pub(crate) fn failure(what: &str) -> Self {
        Self { told: what.lines().map(str::to_owned).collect(), ..Self::new(0, 1) }
    }

    /// Counts what a runner printed. A runner that failed without naming a failed test, or that ran nothing, counts as
    /// one failure: a test that did not compile must not look like a test that passed.
    pub(crate) fn read<'a>(lines: impl IntoIterator<Item = &'a str>, success: bool) -> Self {
        let lines: Vec<&str> = lines.into_iter().collect();
        let mut tally = Self::default();
        for line in &lines {
            tally += cargo_line(line).or_else(|| node_line(line)).unwrap_or_default();
        }
        let unexplained = !success && tally.failed == 0;
        let last = || lines[lines.len().saturating_sub(LAST_LINES)..].to_vec();
        let told = if unexplained || tally == Self::default() {
            tally.failed += 1;
            last()
        } else if tally.failed > 0 {
            failures(&lines)
        } else {
            Vec::new()
        };
        tally.told = told.into_iter().take(TOLD).map(str::to_owned).collect();
        tally
    }

    pub(crate) fn success(&self) -> bool {
        self.failed == 0
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.told.extend(other.told);
    }
}

/// What failed, if anything did; the count is the last line.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.told.is_empty() {
            writeln!(f, "What failed:\n{}\n", self.told.join("\n"))?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The parts of the output that are about failures: from where a runner begins to tell them to its next count.
fn failures<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let mut inside = false;
    let told = lines.iter().filter(|line| {
        inside |= matches!(**line, "failures:" | "✖ failing tests:");
        inside &= !line.starts_with("test result: ");
        inside && !line.is_empty()
    });
    told.copied().collect()
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn cargo_line(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for count in counts.split("; ") {
        match count.split_once(' ')? {
            (number, "passed") => tally.passed = number.parse().ok()?,
            (number, "failed") => tally.failed = number.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

/// `ℹ pass 12`, `ℹ fail 0` or `ℹ cancelled 0`, the last lines of the runner of Node.js.
fn node_line(line: &str) -> Option<Tally> {
    let (name, number) = line.strip_prefix("ℹ ")?.split_once(' ')?;
    let number = number.trim().parse().ok()?;
    match name {
        "pass" => Some(Tally::new(number, 0)),
        "fail" | "cancelled" => Some(Tally::new(0, number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn cargo_and_node_are_counted() {
        let lines = [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "ℹ tests 9",
            "ℹ pass 7",
            "ℹ fail 1",
            "ℹ cancelled 1",
            "pass 100",
        ];
        assert_eq!(Tally::read(lines, false), Tally::new(14, 4));
    }

    #[test]
    fn a_failure_without_a_failed_test_is_counted() {
        let line = "test result: ok. 3 passed; 0 failed; 0 ignored";
        let unexplained = Tally::read(["error: no such thing", line], false);
        assert_eq!((unexplained.passed, unexplained.failed), (3, 1));
        assert!(unexplained.to_string().contains("no such thing"), "{unexplained}");
        assert_eq!(Tally::read([line], true), Tally::new(3, 0));
    }

    #[test]
    fn a_runner_that_ran_nothing_has_failed() {
        assert_eq!(Tally::read([], true), Tally::new(0, 1));
        assert!(!Tally::read(["ℹ pass 0", "ℹ fail 0"], true).success());
    }

    #[test]
    fn what_failed_is_told_at_the_end() {
        let cargo = [
            "test one ... ok",
            "failures:",
            "---- two stdout ----",
            "it panicked",
            "failures:",
            "    two",
            "",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored",
            "test three ... ok",
            "test result: ok. 1 passed; 0 failed; 0 ignored",
        ];
        let node = ["✔ four (2ms)", "ℹ pass 1", "ℹ fail 1", "✖ failing tests:", "✖ five (1ms)"];
        let mut tally = Tally::read(cargo, false);
        tally += Tally::read(node, false);
        tally += Tally::of("Lints", true);
        tally += Tally::of("Formatting", false);
        let text = tally.to_string();
        for told in ["two stdout", "it panicked", "five", "Formatting"] {
            assert!(text.contains(told), "{told} in {text}");
        }
        assert!(!text.contains("three") && !text.contains("four") && !text.contains("Lints"), "{text}");
        assert_eq!(text.lines().last(), Some("4 passed, 3 failed"));
    }
}
