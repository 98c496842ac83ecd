//! The runtime's own simulated worlds, for as long as one likes:
//! `cargo run --release -p evenkeel --features sim --example worlds -- --seconds 60`.
//!
//! Each seed makes one world, of one kind, on one driver. `--first-seed S --seconds 0` runs the world of one seed, `--kind NAME` only
//! worlds of that kind. The last line says how much was tried; a world that fails is told with the command that shows it again. A
//! run of at least a minute fails, too, if a kind of fault that these worlds are for has never struck.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]
#![allow(dead_code, unused_imports, reason = "what only the tests use that these worlds are from")]

/// Where a test makes one case for each driver, this lists the world.
macro_rules! on_every_driver {
    ($($name:ident($seeds:expr, $faults:expr);)*) => {
        pub const KINDS: &[crate::Kind] = &[$((stringify!($name), $name),)*];
    };
}

#[path = "../tests/sim/blocking.rs"]
mod blocking;
#[path = "../tests/sim/broken.rs"]
mod broken;
#[path = "../tests/sim/comings.rs"]
mod comings;
#[path = "../tests/sim/handlers.rs"]
mod handlers;
#[path = "../tests/sim/loops.rs"]
mod loops;
#[path = "../tests/sim/packets.rs"]
mod packets;
#[path = "../tests/sim/resets.rs"]
mod resets;
#[path = "../tests/sim/rings.rs"]
mod rings;
#[path = "../tests/sim/services.rs"]
mod services;
#[path = "../tests/sim/slow.rs"]
mod slow;
#[path = "../tests/sim/streams.rs"]
mod streams;
#[path = "../tests/sim/timers.rs"]
mod timers;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use evenkeel::Backend;
use evenkeel::sim::{Check, Failure, Fault, Report, World};

type Kind = (&'static str, fn(&mut World, Backend) -> Result<(), Failure>);

const KINDS: &[&[Kind]] = &[
    blocking::KINDS,
    broken::KINDS,
    comings::KINDS,
    handlers::KINDS,
    loops::KINDS,
    packets::KINDS,
    resets::KINDS,
    &[("rings", rings)],
    services::KINDS,
    slow::KINDS,
    streams::KINDS,
    timers::KINDS,
];

/// On rings, whatever driver's turn it is.
fn rings(world: &mut World, _: Backend) -> Result<(), Failure> {
    rings::everything(world, &[rings::RING, streams::KERNEL].concat())
}

/// Worlds between two looks at the clock, unless there is time for one only.
const BATCH: u64 = 32;
/// A run that is shorter need not meet every kind of fault.
const LONG: Duration = Duration::from_secs(60);

const BACKENDS: [Backend; 6] =
    [Backend::Sim, Backend::Epoll, Backend::IoUring, Backend::EpollLevel, Backend::Poll, Backend::Select];

/// What these worlds do not bring about: others' are for that.
const ELSEWHERE: &[Fault] = &[Fault::SlowReader, Fault::NeverReads, Fault::Flood, Fault::Bound];

struct Options {
    time: Duration,
    first: u64,
    only: Option<String>,
}

fn options() -> Result<Options, String> {
    // Seeds that are easy to copy.
    let mut options = Options { time: LONG, first: fastrand::u64(..1 << 40), only: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} {value}: no number"));
        match name.as_str() {
            "--seconds" => options.time = Duration::from_secs(number()?),
            "--first-seed" => options.first = number()?,
            "--kind" if KINDS.iter().copied().flatten().any(|(known, _)| *known == value) => {
                options.only = Some(value);
            }
            _ => return Err(format!("no such option: {name} {value}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let wanted = |(name, _): &&Kind| options.only.as_deref().is_none_or(|only| only == *name);
    let kinds: Vec<Kind> = KINDS.iter().copied().flatten().filter(wanted).copied().collect();
    let one = |world: &mut World| {
        let (seed, count) = (world.seed(), kinds.len() as u64);
        let (_, kind) = kinds[(seed % count) as usize];
        kind(world, BACKENDS[(seed / count % BACKENDS.len() as u64) as usize])
    };
    let (began, mut next, mut total) = (Instant::now(), options.first, Report::default());
    loop {
        let most = if options.time.is_zero() { 1 } else { BATCH };
        match Check::new().seeds(next..next + most).try_run(one) {
            Ok(report) => total.add(&report),
            Err(failed) => {
                println!("{failed}");
                let seed =
                    failed.strip_prefix("seed ").and_then(|text| text.split(':').next()).unwrap_or("?");
                let kind = options.only.as_ref().map_or(String::new(), |only| format!(" --kind {only}"));
                println!(
                    "replay: EVENKEEL_SIM_SEED={seed} cargo run -p evenkeel --features sim --example worlds -- \
                     --seconds 0{kind}"
                );
                print_totals(&total);
                return ExitCode::FAILURE;
            }
        }
        next += most;
        if began.elapsed() >= options.time {
            break;
        }
    }
    print_totals(&total);
    let never = |fault: &&Fault| total.hits(**fault) == 0 && !ELSEWHERE.contains(fault);
    let unmet: Vec<_> = Fault::ALL.iter().filter(never).map(|fault| fault.name()).collect();
    if options.time >= LONG && options.only.is_none() && !unmet.is_empty() {
        println!("these never struck: {}", unmet.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn print_totals(total: &Report) {
    let mut line = format!(
        "totals: seeds={} events={} virtual_seconds={}",
        total.worlds,
        total.events,
        total.elapsed.as_secs()
    );
    for fault in Fault::ALL {
        line.push_str(&format!(" fault_{fault}={}", total.hits(*fault)));
    }
    println!("{line}");
}
