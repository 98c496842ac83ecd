//! The simulated kernel and the running one answer alike.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "sim")]

use std::ops::Range;
use std::time::Duration;

use evenkeel::sim::differ;

/// `EVENKEEL_SEEDS=10..20` runs these instead, for as long as it takes. Beyond are two that differ; `VARIANCE.md` has them.
fn seeds() -> (Range<u64>, Duration) {
    let asked = std::env::var("EVENKEEL_SEEDS").ok();
    let range = asked.as_deref().and_then(|asked| asked.split_once(".."));
    match range {
        Some((from, to)) => (from.parse().unwrap()..to.parse().unwrap(), Duration::MAX),
        None => (0..1_300, Duration::from_secs(20)),
    }
}

#[test]
fn full_buffers_have_the_same_story_in_both_kernels() {
    let mut reports = Vec::new();
    let (seeds, budget) = seeds();
    let totals = differ::run_full(seeds.start..seeds.end.min(seeds.start + 150), budget, |report| {
        eprintln!("{report}");
        reports.push(report.to_owned());
    });
    let totals = totals.unwrap();
    eprintln!("{totals:?}");
    assert_eq!(totals.differences, 0, "{}", reports.join("\n"));
}

#[test]
fn under_faults_every_answer_is_one_that_a_kernel_could_give() {
    let mut reports = Vec::new();
    let (seeds, budget) = seeds();
    let totals = differ::contain(seeds, budget, |report| {
        if reports.len() < 5 {
            eprintln!("{report}");
        }
        reports.push(report.to_owned());
    });
    let totals = totals.unwrap();
    eprintln!("{totals:?}");
    assert_eq!(totals.differences, 0, "{}", reports.join("\n"));
}

#[test]
fn random_calls_have_the_same_results_in_both_kernels() {
    let mut reports = Vec::new();
    let (seeds, budget) = seeds();
    let totals = differ::run(seeds, budget, |report| {
        eprintln!("{report}");
        reports.push(report.to_owned());
    });
    let totals = totals.unwrap();
    eprintln!("{totals:?}");
    assert!(totals.operations > 1_000, "{totals:?}");
    assert_eq!(totals.differences, 0, "{}", reports.join("\n"));
}
