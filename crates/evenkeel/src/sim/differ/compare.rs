//! Runs a program on both kernels, and stops at the first call after which they differ.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::program::Op;
use super::side::{Answer, Look, Side, Watched};
use crate::sim::kernel::Kernel;
use crate::sim::net::Network;
use crate::sim::sys::{Sim, SimSys};
use crate::sys::{Real, Sys};

/// Both answers to one call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Which call of the program.
    pub(super) at: usize,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Answers { kernel: Answer, model: Answer },
    States { kernel: Vec<Look>, model: Vec<Look> },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Answers { kernel, model } => write!(f, "  kernel: {kernel:?}\n  model:  {model:?}"),
            What::States { kernel, model } => {
                writeln!(f, "  afterwards")?;
                for (kernel, model) in kernel.iter().zip(model).filter(|(kernel, model)| kernel != model) {
                    let show = |look: &Look| {
                        let mask = super::program::Flags(look.mask as u16 as u32);
                        let unread = look.unread.map_or(String::new(), |n| format!(", {n} unread"));
                        format!("h{} (number {}) is {mask}{unread}", look.handle, look.number)
                    };
                    writeln!(f, "  kernel: {}\n  model:  {}", show(kernel), show(model))?;
                }
                Ok(())
            }
        }
    }
}

/// A kernel without delays and without faults, as loopback looks to one thread.
pub(super) fn model(seed: u64) -> SimSys {
    let mut kernel = Kernel::new(seed, Network::immediate(), false);
    let host = kernel.add_host("model");
    let sim = Sim::new(kernel);
    let id = sim.add_loop(host, false);
    SimSys::new(sim, host, id)
}

/// How often the kernel is looked at before its answer counts, a millisecond apart. Acknowledgements may be held back
/// for forty, and other processes may have the processor.
pub(super) const LOOKS: u32 = 150;

/// Runs a program on both, with so many looks after each call. The number of calls that were made, and the first difference.
pub(super) fn run(
    seed: u64,
    program: &[Op],
    folder: &Path,
    looks: u32,
) -> io::Result<(u64, Option<Difference>)> {
    let mut kernel = Side::new(Real, folder.to_owned())?;
    let mut model = Side::new(model(seed), folder.to_owned())?;
    let mut calls = 0;
    let mut difference = None;
    for (at, op) in program.iter().enumerate() {
        let answers = (kernel.run(op), model.run(op));
        if answers.0 != answers.1 {
            let what = What::Answers { kernel: answers.0, model: answers.1 };
            difference = Some(Difference { at, what });
            break;
        }
        if answers.0 == Answer::Skipped {
            continue;
        }
        calls += 1;
        if let Some((kernel, model)) = states(&kernel, &model, looks) {
            difference = Some(Difference { at, what: What::States { kernel, model } });
            break;
        }
    }
    kernel.end();
    model.end();
    Ok((calls, difference))
}

/// What is open in both, once the kernel is quiet; none if it is the same.
fn states(kernel: &Side<Real>, model: &Side<SimSys>, looks: u32) -> Option<(Vec<Look>, Vec<Look>)> {
    model.sys.settle();
    let expected = model.look();
    let mut seen = kernel.look();
    for _ in 0..looks {
        if seen == expected && kernel.is_quiet() {
            return None;
        }
        kernel.hurry();
        seen = kernel.look();
        if seen == expected && kernel.is_quiet() {
            return None;
        }
        // Until something has moved.
        let _ = kernel.sys.poll(&mut [], Some(Duration::from_millis(1)));
        seen = kernel.look();
    }
    (seen != expected).then_some((seen, expected))
}
