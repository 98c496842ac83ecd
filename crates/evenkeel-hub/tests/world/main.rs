//! The hub in simulated worlds: whatever kernels, networks and clients do, each subscriber gets what it is to get, once, in order,
//! and nobody else does.
//!
//! A world that fails says with which seed; `EVENKEEL_SIM_SEED=17` runs that one again. The example `hub_world` runs as many
//! as one likes.

#![allow(missing_docs, unreachable_pub)]

mod hub_world;

use evenkeel::Backend;
use evenkeel::sim::{Check, Fault, Report};
use hub_world::scenes;

/// Runs worlds of a kind, by turns on several drivers.
fn check(worlds: u64, scene: scenes::Kind) -> Report {
    Check::new().seeds(0..worlds).run(|world| {
        let backends = [Backend::Sim, Backend::Epoll, Backend::IoUring, Backend::Poll];
        world.set_backend(backends[(world.seed() % backends.len() as u64) as usize]);
        scene(world).map(drop)
    })
}

#[test]
fn i44_quiet_worlds() {
    check(3, scenes::quiet);
}

#[test]
fn i44_whatever_kernels_do() {
    check(8, scenes::quirky);
}

#[test]
fn i44_i45_i46_whatever_happens() {
    let report = check(16, scenes::everything);
    for fault in [Fault::NeverReads, Fault::SlowReader, Fault::Flood, Fault::HalfClose, Fault::Kill] {
        assert!(report.hits(fault) > 0, "{fault} never struck");
    }
}

#[test]
fn i44_i45_i46_on_several_loops() {
    let report = check(16, scenes::spread);
    assert!(report.hits(Fault::Kill) > 0);
}

#[test]
fn i44_i46_i48_replaced_again_and_again() {
    check(12, scenes::replaced);
}

#[test]
fn i44_a_hub_that_does_not_start_serves_nobody() {
    assert!(check(12, scenes::hampered).hits(Fault::FileTableFull) > 0);
}

#[test]
fn i46_machines_that_sleep() {
    check(4, scenes::sleepy);
}

#[test]
fn i46_the_hub_is_killed() {
    check(6, scenes::killed);
}

#[test]
fn i47_slow_consumers_delay_nobody() {
    check(5, scenes::slow_consumers);
}

#[test]
fn i48_all_come_back_after_a_drain() {
    check(5, scenes::drained);
}

#[test]
fn i48_overload_is_told() {
    assert!(check(6, scenes::overloaded).hits(Fault::Bound) > 0);
}

#[test]
fn i44_several_hundred_subscribers() {
    check(1, scenes::crowd);
}
