//! The simulated kernel and the running one answer alike.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "sim")]

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use evenkeel::sim::differ::{self, Totals};

/// `EVENKEEL_SEEDS=10..20` runs these instead, for as long as it takes.
fn seeds() -> (Range<u64>, Duration) {
    let asked = std::env::var("EVENKEEL_SEEDS").ok();
    let range = asked.as_deref().and_then(|asked| asked.split_once(".."));
    match range {
        Some((from, to)) => (from.parse().unwrap()..to.parse().unwrap(), Duration::MAX),
        None => (0..3_000, Duration::from_secs(10)),
    }
}

/// Compares the seeds in so many parts at once, which mostly wait for the kernel, and wants no difference.
fn compare(
    parts: u64,
    (seeds, budget): (Range<u64>, Duration),
    run: impl Fn(Range<u64>, Duration, Sender<String>) -> io::Result<Totals> + Copy + Send,
) {
    let part = (seeds.end - seeds.start).div_ceil(parts);
    let (reports, reported) = channel();
    let compared: Vec<Totals> = thread::scope(|scope| {
        let starts = (0..parts).map(|n| seeds.start + n * part).take_while(|from| *from < seeds.end);
        let threads: Vec<_> = starts
            .map(|from| {
                let (to, reports) = ((from + part).min(seeds.end), reports.clone());
                scope.spawn(move || run(from..to, budget, reports).unwrap())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    drop(reports);
    let reports: Vec<String> = reported.into_iter().collect();
    for totals in compared {
        eprintln!("{totals:?}");
        assert!(totals.sequences > 0, "a part compared nothing");
    }
    // A fault that is in every program fills no screens.
    assert!(reports.is_empty(), "{} differ\n{}", reports.len(), reports[..reports.len().min(5)].join("\n"));
}

fn send(reports: &Sender<String>, report: &str) {
    // Nobody hears of it who has failed already.
    let _ = reports.send(report.to_owned());
}

#[test]
fn full_buffers_have_the_same_story_in_both_kernels() {
    let (seeds, budget) = seeds();
    let seeds = seeds.start..seeds.end.min(seeds.start + 300);
    compare(6, (seeds, budget), |seeds, budget, reports| {
        differ::run_full(seeds, budget, |report| send(&reports, report))
    });
}

#[test]
fn under_faults_every_answer_is_one_that_a_kernel_could_give() {
    compare(1, seeds(), |seeds, budget, reports| {
        differ::contain(seeds, budget, |report| send(&reports, report))
    });
}

#[test]
fn random_calls_have_the_same_results_in_both_kernels() {
    compare(6, seeds(), |seeds, budget, reports| differ::run(seeds, budget, |report| send(&reports, report)));
}

#[test]
fn random_packets_have_the_same_results_in_both_kernels() {
    compare(3, seeds(), |seeds, budget, reports| {
        differ::run_packets(seeds, budget, |report| send(&reports, report))
    });
}
