//! The simulated kernel held to the running one, for as long as one likes:
//! `cargo run --release -p evenkeel --features sim --example kernels -- --seconds 60`.
//!
//! All kinds of comparisons run at once, since most of them wait for the kernel. A difference is printed as a short program with both
//! answers, and with the command that shows it again: `--only KIND --first-seed S --seconds 0` compares for one seed. The last
//! line says how much was compared.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::sim::differ::{self, Totals};

/// Compares for these seeds, and reports.
type Run = fn(Range<u64>, &mut (dyn FnMut(&str) + Send)) -> io::Result<Totals>;

/// One way to compare.
struct Kind {
    name: &'static str,
    run: Run,
    /// Threads for it.
    threads: usize,
    /// What its calls and its programs are called among the totals.
    keys: (Option<&'static str>, &'static str),
}

const KINDS: &[Kind] = &[
    Kind {
        name: "programs",
        run: |seeds, report| differ::run(seeds, Duration::MAX, report),
        threads: 4,
        keys: (Some("kernel_operations"), "kernel_programs"),
    },
    Kind {
        name: "packets",
        run: |seeds, report| differ::run_packets(seeds, Duration::MAX, report),
        threads: 2,
        keys: (Some("packet_operations"), "packet_programs"),
    },
    Kind {
        name: "full",
        run: |seeds, report| differ::run_full(seeds, Duration::MAX, report),
        threads: 2,
        keys: (None, "full_stories"),
    },
    Kind {
        name: "faults",
        run: |seeds, report| differ::contain(seeds, Duration::MAX, report),
        threads: 1,
        keys: (Some("faulty_operations"), "faulty_programs"),
    },
];

struct Options {
    seconds: u64,
    first: u64,
    only: Option<String>,
}

fn options() -> Result<Options, String> {
    // Seeds that are easy to copy.
    let mut options = Options { seconds: 60, first: fastrand::u64(..1 << 40), only: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{name} needs a number, not {value}"));
        match name.as_str() {
            "--seconds" => options.seconds = number()?,
            "--first-seed" => options.first = number()?,
            "--only" if KINDS.iter().any(|kind| kind.name == value) => options.only = Some(value),
            "--only" => return Err(format!("there is no kind {value}")),
            _ => return Err(format!("there is no option {name}")),
        }
    }
    Ok(options)
}

/// What one kind has done so far.
struct Share {
    kind: &'static Kind,
    next: AtomicU64,
    end: u64,
    totals: Mutex<Totals>,
}

impl Share {
    /// Compares for one seed after another. False: something could not be set up.
    fn work(&self, until: Instant) -> bool {
        while Instant::now() < until {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                break;
            }
            let replay = || {
                println!(
                    "replay: cargo run --release -p evenkeel --features sim --example kernels -- --only {} \
                     --first-seed {seed} --seconds 0",
                    self.kind.name
                );
            };
            let mut report = |difference: &str| {
                println!("{difference}");
                replay();
            };
            // The model has asserts of its own, which other seeds need not meet.
            let compared = catch_unwind(AssertUnwindSafe(|| (self.kind.run)(seed..seed + 1, &mut report)));
            let compared = match compared {
                Ok(Ok(compared)) => compared,
                Ok(Err(e)) => {
                    println!("{} cannot be set up here: {e}", self.kind.name);
                    return false;
                }
                Err(_) => {
                    replay();
                    Totals { sequences: 1, differences: 1, ..Totals::default() }
                }
            };
            self.totals.lock().expect("no thread panics under it").add(compared);
        }
        true
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    let (time, end) = match options.seconds {
        0 => (Duration::from_secs(600), options.first + 1),
        seconds => (Duration::from_secs(seconds), u64::MAX),
    };
    let until = Instant::now() + time;
    let chosen = KINDS.iter().filter(|kind| options.only.as_deref().is_none_or(|only| only == kind.name));
    let shares: Vec<Share> = chosen
        .map(|kind| Share { kind, next: AtomicU64::new(options.first), end, totals: Mutex::default() })
        .collect();
    let works = AtomicBool::new(true);
    thread::scope(|scope| {
        for share in &shares {
            for _ in 0..share.kind.threads {
                scope.spawn(|| works.fetch_and(share.work(until), Ordering::Relaxed));
            }
        }
    });
    let mut all = Totals::default();
    let mut line = String::from("totals:");
    for share in &shares {
        let totals = *share.totals.lock().expect("no thread panicked under it");
        all.add(totals);
        if let Some(key) = share.kind.keys.0 {
            line += &format!(" {key}={}", totals.operations);
        }
        line += &format!(" {}={}", share.kind.keys.1, totals.sequences);
    }
    println!("{line} differences={} unsteady={}", all.differences, all.unsteady);
    if all.differences == 0 && works.into_inner() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
