//! All fuzz targets in one program. The variable `EVENKEEL_FUZZ_TARGET` chooses one; the arguments are libFuzzer's.

#![no_main]

use std::sync::OnceLock;

use evenkeel_fuzz::TARGETS;

/// What is done with each input.
static CHOSEN: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: choose(), |input: &[u8]| {
    if let Some(run) = CHOSEN.get() {
        run(input);
    }
});

fn choose() {
    let name = std::env::var("EVENKEEL_FUZZ_TARGET").unwrap_or_default();
    let Some((_, run)) = TARGETS.iter().find(|(target, _)| *target == name) else {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("EVENKEEL_FUZZ_TARGET is `{name}`, and not one of {}", names.join(", "));
        std::process::exit(2);
    };
    evenkeel_fuzz::sequences::begin();
    let _ = CHOSEN.set(*run);
}
