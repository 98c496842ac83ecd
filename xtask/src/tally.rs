//! Counts of passed and failed tests, read from what the test runners print.

use std::fmt;
use std::ops::AddAssign;

/// Passed and failed tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// One check that is not a test of a runner.
    pub(crate) fn of(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    /// Counts what a runner printed. A runner that failed without naming a failed test, or that ran nothing, counts as
    /// one failure: a test that did not compile must not look like a test that passed.
    pub(crate) fn read<'a>(lines: impl IntoIterator<Item = &'a str>, success: bool) -> Self {
        let mut tally = Self::default();
        for line in lines {
            tally += cargo_line(line).or_else(|| node_line(line)).unwrap_or_default();
        }
        let unexplained = !success && tally.failed == 0;
        if unexplained || tally == Self::default() {
            tally.failed += 1;
        }
        tally
    }

    pub(crate) fn success(self) -> bool {
        self.failed == 0
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
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
        "pass" => Some(Tally { passed: number, failed: 0 }),
        "fail" | "cancelled" => Some(Tally { passed: 0, failed: number }),
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
        assert_eq!(Tally::read(lines, false), Tally { passed: 14, failed: 4 });
    }

    #[test]
    fn a_failure_without_a_failed_test_is_counted() {
        let line = "test result: ok. 3 passed; 0 failed; 0 ignored";
        assert_eq!(Tally::read([line], false), Tally { passed: 3, failed: 1 });
        assert_eq!(Tally::read([line], true), Tally { passed: 3, failed: 0 });
    }

    #[test]
    fn a_runner_that_ran_nothing_has_failed() {
        assert_eq!(Tally::read([], true), Tally { passed: 0, failed: 1 });
        assert_eq!(Tally::read(["ℹ pass 0", "ℹ fail 0"], true), Tally { passed: 0, failed: 1 });
    }
}
