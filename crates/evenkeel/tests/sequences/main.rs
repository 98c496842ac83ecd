//! Random programs: any part of the API from any callback, with fixed seeds. `fuzz/` runs the same for as long as one likes,
//! and what it has found is run here again.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod program;

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use evenkeel::net::Addr;
use evenkeel::{Backend, EventLoop};
use program::{Nobody, Outside, Report, Sockets};

/// Longer than any program takes on a machine that is busy with other things.
const WATCHDOG: Duration = Duration::from_secs(120);
const SEEDS: u64 = 40;

/// What a backend's programs did, all together.
#[derive(Default)]
struct Total {
    actors: usize,
    inside: usize,
    panics: u64,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.actors += report.actors;
        self.inside += report.inside;
        self.panics += report.panics;
    }
}

/// One test for all: what it looks at, descriptors among them, is the process's.
#[test]
fn i06_i36_i37_i38_any_part_of_the_api_from_any_callback() {
    let (done, wait) = channel();
    let programs = thread::spawn(move || {
        quiet();
        for backend in Backend::ALL {
            every_address(*backend);
            known(*backend);
        }
        let _ = done.send(());
    });
    match wait.recv_timeout(WATCHDOG) {
        Err(RecvTimeoutError::Timeout) => panic!("a program hangs"),
        _ => {
            if let Err(panic) = programs.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Planned panics are not told of.
fn quiet() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !program::is_planned(info.payload()) {
            hook(info);
        }
    }));
}

fn every_address(backend: Backend) {
    let path = std::env::temp_dir().join(format!("evenkeel-sequences-{}", std::process::id()));
    let unix = Addr::Unix(Some(path));
    let tcp: Addr = "127.0.0.1:0".parse().unwrap();
    let mut total = Total::default();
    for seed in 0..SEEDS {
        let mut rng = fastrand::Rng::with_seed(seed);
        let length = rng.usize(50..1_500);
        let program: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
        let outside: &mut dyn Outside = if seed % 4 == 3 { &mut Nobody } else { &mut Sockets::default() };
        total.add(&checked(backend, if seed % 2 == 0 { &unix } else { &tcp }, outside, &program, &seed));
    }
    let Total { actors, inside, panics } = total;
    assert!(
        actors > 200 && inside > 1_000 && panics > 10,
        "{actors} handlers, {inside} acts, {panics} panics"
    );
}

/// A program leaves no descriptor behind.
fn checked(
    backend: Backend,
    at: &Addr,
    outside: &mut dyn Outside,
    program: &[u8],
    name: &dyn std::fmt::Debug,
) -> Report {
    // What the process opens once and for all is open then.
    drop(EventLoop::builder().backend(backend).build().unwrap());
    let before = descriptors();
    let events = EventLoop::builder().backend(backend).build().unwrap();
    println!("{backend}, {at}, {name:?}");
    let report = program::run(events, at, outside, program);
    assert_eq!(descriptors(), before, "{backend}, {name:?}");
    report
}

/// The programs that a fuzzer began with and those that it found something by, on every backend.
fn known(backend: Backend) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus-seeds/sequences");
    // A package that was downloaded has no fuzz targets.
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let path = std::env::temp_dir().join(format!("evenkeel-known-{}", std::process::id()));
    let unix = Addr::Unix(Some(path));
    for entry in entries {
        let file = entry.unwrap().path();
        let bytes = std::fs::read(&file).unwrap();
        // The first byte is the fuzz target's: a backend, and an address.
        let program = bytes.get(1..).unwrap_or_default();
        checked(backend, &unix, &mut Sockets::default(), program, &file);
    }
}

fn descriptors() -> Vec<String> {
    let mut all: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let to = std::fs::read_link(entry.path()).ok()?;
            // The directory that is being read is itself one.
            (!to.starts_with("/proc")).then(|| format!("{} {}", entry.file_name().display(), to.display()))
        })
        .collect();
    all.sort();
    all
}
