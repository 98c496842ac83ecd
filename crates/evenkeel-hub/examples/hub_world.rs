//! Simulated worlds with the hub in them, for as long as one likes:
//! `cargo run -p evenkeel-hub --example hub_world -- --seconds 60`.
//!
//! Each seed makes one world, of one kind, on one driver. `--first-seed S --seconds 0` runs the world of one seed, `--scene NAME`
//! only worlds of that kind. The last line says how much was tried; a world that fails is told with the command that
//! shows it again.
//!
//! Every kind of fault that can concern a hub is met within a minute. These cannot:
//!
//! - `k38_pool_delay`, `k39_thread_start_fails`, `k41_names` and `k42_disk`: a hub that runs gives nothing to threads, looks up no
//!   names and opens no files.
//! - `k40_panic`: none of its handlers and tasks is to panic, and nobody else's run on its loops. One that does fails its world.
//! - `k46_loss` and `k47_duplicate`: it has no datagrams.

#![allow(missing_docs, unreachable_pub)]

#[path = "../tests/world/hub_world/mod.rs"]
mod hub_world;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use evenkeel::Backend;
use evenkeel::sim::{Check, Fault, Report};
use hub_world::scenes;

/// Worlds between two looks at the clock, unless there is time for one only.
const BATCH: u64 = 16;

const BACKENDS: [Backend; 6] =
    [Backend::Sim, Backend::Epoll, Backend::IoUring, Backend::EpollLevel, Backend::Poll, Backend::Select];

/// The kinds of worlds, by their names.
const SCENES: &[(&str, scenes::Kind)] = &[
    ("quiet", scenes::quiet),
    ("quirky", scenes::quirky),
    ("everything", scenes::everything),
    ("spread", scenes::spread),
    ("replaced", scenes::replaced),
    ("hampered", scenes::hampered),
    ("sleepy", scenes::sleepy),
    ("killed", scenes::killed),
    ("slow_consumers", scenes::slow_consumers),
    ("drained", scenes::drained),
    ("overloaded", scenes::overloaded),
    ("crowd", scenes::crowd),
];

struct Options {
    time: Duration,
    first: u64,
    only: Option<String>,
}

fn options() -> Result<Options, String> {
    // Seeds that are easy to copy.
    let mut options = Options { time: Duration::from_secs(60), first: fastrand::u64(..1 << 40), only: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} {value}: no number"));
        match name.as_str() {
            "--seconds" => options.time = Duration::from_secs(number()?),
            "--first-seed" => options.first = number()?,
            "--scene" if SCENES.iter().any(|(known, _)| *known == value) => options.only = Some(value),
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
    let (began, mut next, mut total) = (Instant::now(), options.first, Report::default());
    let seen: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    let one = |world: &mut evenkeel::sim::World| {
        let seed = world.seed();
        let scenes = SCENES.iter().filter(|(name, _)| options.only.as_ref().is_none_or(|only| only == name));
        let scenes: Vec<_> = scenes.collect();
        let (name, scene) = scenes[(seed % scenes.len() as u64) as usize];
        world.set_backend(BACKENDS[((seed + seed / scenes.len() as u64) % BACKENDS.len() as u64) as usize]);
        let history = &scene(world)?.history;
        let history = history.borrow();
        let seen = &mut *seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.entry(name).or_default() += 1;
        for (what, n) in [
            ("connections", history.connections.len() as u64),
            ("published", history.messages.len() as u64),
            ("received", history.received),
        ] {
            *seen.entry(what).or_default() += n;
        }
        Ok(())
    };
    loop {
        let most = if options.time.is_zero() { 1 } else { BATCH };
        match Check::new().seeds(next..next + most).try_run(one) {
            Ok(report) => total.add(&report),
            Err(failed) => {
                println!("{failed}");
                let seed =
                    failed.strip_prefix("seed ").and_then(|text| text.split(':').next()).unwrap_or("?");
                let scene = options.only.as_ref().map_or(String::new(), |only| format!(" --scene {only}"));
                println!(
                    "replay: EVENKEEL_SIM_SEED={seed} cargo run -p evenkeel-hub --example hub_world -- --seconds 0{scene}"
                );
                print_totals(&total, &seen);
                return ExitCode::FAILURE;
            }
        }
        next += most;
        if began.elapsed() >= options.time {
            print_totals(&total, &seen);
            return ExitCode::SUCCESS;
        }
    }
}

fn print_totals(total: &Report, seen: &Mutex<BTreeMap<&str, u64>>) {
    let mut line = format!(
        "totals: seeds={} events={} virtual_seconds={}",
        total.worlds,
        total.events,
        total.elapsed.as_secs()
    );
    for (what, n) in &*seen.lock().unwrap_or_else(PoisonError::into_inner) {
        line.push_str(&format!(" hub_{what}={n}"));
    }
    for fault in Fault::ALL {
        line.push_str(&format!(" fault_{fault}={}", total.hits(*fault)));
    }
    println!("{line}");
}
