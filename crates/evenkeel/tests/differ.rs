//! The simulated kernel and the running one answer alike.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "sim")]

use std::ops::Range;
use std::time::Duration;

use evenkeel::sim::differ;

/// `EVENKEEL_SEEDS=10..20` runs these instead.
fn seeds() -> Range<u64> {
    let asked = std::env::var("EVENKEEL_SEEDS").ok();
    let range = asked.as_deref().and_then(|asked| asked.split_once(".."));
    range.map_or(0..3_000, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}

#[test]
fn random_calls_have_the_same_results_in_both_kernels() {
    let mut reports = Vec::new();
    let totals = differ::run(seeds(), Duration::from_secs(20), |report| {
        eprintln!("{report}");
        reports.push(report.to_owned());
    });
    let totals = totals.unwrap();
    eprintln!("{totals:?}");
    assert!(totals.operations > 1_000, "{totals:?}");
    assert_eq!(totals.differences, 0, "{}", reports.join("\n"));
}
