//! The simulated kernel held to the running one, for as long as one likes:
//! `cargo run --release -p evenkeel --features sim --example kernels -- --seconds 60`.
//!
//! Random programs of calls run on both, and what they answer is compared. A difference is printed as a short program with both
//! answers; `--first-seed S --seconds 0` runs the program of one seed again. The last line says how much was compared.

use std::process::ExitCode;
use std::time::Duration;

use evenkeel::sim::differ;

fn main() -> ExitCode {
    let (mut seconds, mut first) = (60, fastrand::u64(..1 << 40));
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (name.as_str(), value) {
            ("--seconds", Some(value)) => seconds = value,
            ("--first-seed", Some(value)) => first = value,
            _ => {
                eprintln!("no such option, or no number behind it: {name}");
                return ExitCode::from(2);
            }
        }
    }
    let (seeds, time) = match seconds {
        0 => (first..first + 1, Duration::from_secs(60)),
        _ => (first..u64::MAX, Duration::from_secs(seconds)),
    };
    let compared = differ::run(seeds, time, |difference| println!("{difference}"));
    match compared {
        Ok(totals) => {
            println!(
                "totals: kernel_operations={} kernel_programs={} differences={} unsteady={}",
                totals.operations, totals.sequences, totals.differences, totals.unsteady
            );
            if totals.differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            println!("it cannot be set up here: {e}");
            ExitCode::FAILURE
        }
    }
}
