//! What happened, as a hash that two runs of one seed must agree on, and the last lines of it for whoever must understand a
//! failure.

use std::collections::VecDeque;
use std::fmt::{self, Write};

/// Lines that are kept for reports.
const KEPT: usize = 400;

/// The log of a world.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    lines: VecDeque<String>,
    /// Also written to standard error as they come.
    verbose: bool,
}

impl Trace {
    pub(crate) fn new(verbose: bool) -> Self {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: VecDeque::with_capacity(KEPT), verbose }
    }

    /// Adds a line. `at` is in nanoseconds.
    pub(crate) fn add(&mut self, at: u64, what: fmt::Arguments<'_>) {
        self.events += 1;
        let mut line =
            if self.lines.len() == KEPT { self.lines.pop_front() } else { None }.unwrap_or_default();
        line.clear();
        // Writing into memory cannot fail.
        let _ = write!(line, "{:>7}.{:09} {what}", at / 1_000_000_000, at % 1_000_000_000);
        // The 64-bit FNV-1a hash: the same on every machine and in every version of the standard library.
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.verbose {
            eprintln!("{line}");
        }
        self.lines.push_back(line);
    }

    /// What only a replay shows: it would be too much for every run, and a loop that spins would seem to do something.
    pub(crate) fn aside(&self, at: u64, what: fmt::Arguments<'_>) {
        if self.verbose {
            eprintln!("{:>7}.{:09} | {what}", at / 1_000_000_000, at % 1_000_000_000);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// The last lines, oldest first.
    pub(crate) fn tail(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}
