//! The model is held to the running kernel: the same random calls go to both, on one thread, and their answers are compared.
//!
//! What is compared after every call: its result or error, the bytes, the numbers of new descriptors, and for everything that is
//! open what `poll` says of it and how much is unread. What the model deliberately leaves out is in `VARIANCE.md`.
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::sim::differ;
//!
//! let totals = differ::run(0..20, Duration::from_secs(5), |report| panic!("{report}"))?;
//! assert_eq!(totals.differences, 0);
//! # Ok::<(), std::io::Error>(())
//! ```

mod compare;
mod contain;
mod fill;
mod generate;
mod packet_calls;
mod packets;
mod program;
mod rings;
mod shrink;
mod side;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use compare::LOOKS;
use program::Op;

use crate::sys::{Real, Sys, alone};

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that were made to both.
    pub operations: u64,
    /// Programs of calls.
    pub sequences: u64,
    /// Programs at whose end the two did not agree.
    pub differences: u64,
    /// Programs that differed once and not again: the kernel was disturbed, such as by a retransmission.
    pub unsteady: u64,
}

impl Totals {
    /// Counts what was compared elsewhere as well.
    pub fn add(&mut self, other: Totals) {
        self.operations += other.operations;
        self.sequences += other.sequences;
        self.differences += other.differences;
        self.unsteady += other.unsteady;
    }
}

/// How often a program is run again before it counts that it differs.
const AGAIN: usize = 3;
/// How often a story of full buffers is told again: these take long, and whatever else the machine does disturbs several in a row.
const STORIES_AGAIN: usize = 6;
/// How often a shorter program is tried.
const TRIES: usize = 600;
/// How much of a line is shown: bytes that were received can be many.
const MOST_SHOWN: usize = 1_500;

/// Compares for each seed, as long as there is time. Each difference is reported as a short program with both answers.
///
/// # Errors
/// The kernel's, if it lets nothing be set up.
pub fn run(seeds: Range<u64>, budget: Duration, report: impl FnMut(&str) + Send) -> io::Result<Totals> {
    run_programs(seeds, budget, generate::program, report)
}

/// The same for datagrams, sequenced packets and pipes, with some streams among them.
///
/// # Errors
/// The kernel's, if it lets nothing be set up.
pub fn run_packets(
    seeds: Range<u64>,
    budget: Duration,
    report: impl FnMut(&str) + Send,
) -> io::Result<Totals> {
    run_programs(seeds, budget, generate::packet_program, report)
}

fn run_programs(
    seeds: Range<u64>,
    budget: Duration,
    program: fn(u64, &Path) -> io::Result<Vec<Op>>,
    mut report: impl FnMut(&str) + Send,
) -> io::Result<Totals> {
    alone::alone(move || {
        let folder = Folder::new(seeds.start)?;
        let mut totals = Totals::default();
        let start = Real.clock();
        for seed in seeds {
            if Real.clock() - start >= budget {
                break;
            }
            let program = program(seed, &folder.0)?;
            let (calls, difference) = compare::run(seed, &program, &folder.0, LOOKS)?;
            totals.operations += calls;
            totals.sequences += 1;
            if difference.is_none() {
                continue;
            }
            match confirm(seed, program, &folder.0)? {
                Some(text) => {
                    totals.differences += 1;
                    report(&text);
                }
                None => totals.unsteady += 1,
            }
        }
        Ok(totals)
    })?
}

/// Runs the programs of these seeds on the model alone, under faults and delays, and checks what must hold whatever happens.
///
/// # Errors
/// The kernel's, if it starts no thread.
pub fn contain(
    seeds: Range<u64>,
    budget: Duration,
    mut report: impl FnMut(&str) + Send,
) -> io::Result<Totals> {
    let mut totals = Totals::default();
    let start = Real.clock();
    for seed in seeds {
        if Real.clock() - start >= budget {
            break;
        }
        let (calls, wrong) = contain::run(seed, Path::new("/run"))?;
        totals.operations += calls;
        totals.sequences += 1;
        if let Some(text) = wrong {
            totals.differences += 1;
            report(&text);
        }
    }
    Ok(totals)
}

/// Compares what happens at the limits of buffers, for each seed.
///
/// # Errors
/// The kernel's, if it lets nothing be set up.
pub fn run_full(
    seeds: Range<u64>,
    budget: Duration,
    mut report: impl FnMut(&str) + Send,
) -> io::Result<Totals> {
    alone::alone(move || {
        let mut totals = Totals::default();
        let start = Real.clock();
        for seed in seeds {
            if Real.clock() - start >= budget {
                break;
            }
            totals.sequences += 1;
            let mut last = None;
            // One that is disturbed once is not disturbed always.
            for again in 0..STORIES_AGAIN {
                last = fill::compare(seed)?;
                if last.is_none() {
                    totals.unsteady += u64::from(again > 0);
                    break;
                }
            }
            if let Some(text) = last {
                totals.differences += 1;
                report(&text);
            }
        }
        Ok(totals)
    })?
}

/// Shortens a program that differs, and describes it. None if it does not differ again.
fn confirm(seed: u64, program: Vec<Op>, folder: &Path) -> io::Result<Option<String>> {
    for _ in 0..AGAIN {
        if compare::run(seed, &program, folder, LOOKS)?.1.is_none() {
            return Ok(None);
        }
    }
    let short = shrink::shrink(program.clone(), TRIES, |program| {
        (0..2).all(|_| matches!(compare::run(seed, program, folder, LOOKS / 5), Ok((_, Some(_)))))
    });
    for shown in [&short, &program] {
        if let Some(difference) = compare::run(seed, shown, folder, LOOKS)?.1 {
            let mut text =
                format!("seed {seed}: {} calls, of which {} suffice\n", program.len(), short.len());
            shown[..=difference.at].iter().for_each(|op| text += &format!("  {op}\n"));
            for line in difference.to_string().lines() {
                text += line.get(..MOST_SHOWN).unwrap_or(line);
                text.push('\n');
            }
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// A folder for sockets' files, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(seed: u64) -> io::Result<Self> {
        // Several may compare for one seed at once, each in its own way.
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("evenkeel-differ-{}-{run}-{seed}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
