//! What code that runs in a host can ask of its world.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::fault::Fault;
use super::place::{Place, here};
use crate::remote::Remote;

/// # Panics
/// Outside of a simulated host.
fn place() -> Place {
    here().expect("this is for code that runs in a host of a simulated world")
}

/// Whether this code runs in a host of a simulated world.
pub fn is_simulated() -> bool {
    here().is_some()
}

/// The time since the world began.
///
/// # Panics
/// Outside of a simulated host.
pub fn elapsed() -> Duration {
    Duration::from_nanos(place().sim.kernel.borrow().now)
}

/// What the world's wall clock shows. It jumps, as [`Fault::WallClockJump`] has it.
///
/// # Panics
/// Outside of a simulated host.
pub fn wall_clock() -> SystemTime {
    place().sim.wall_clock()
}

/// A number that the seed decides, below `below`.
///
/// # Panics
/// Outside of a simulated host, and if `below` is 0.
pub fn random(below: u64) -> u64 {
    place().sim.kernel.borrow_mut().user_dice.u64(..below)
}

/// The loops of this host, in order; see [`World::set_loops`](super::World::set_loops).
///
/// # Panics
/// Outside of a simulated host.
pub fn remotes() -> Vec<Remote> {
    let place = place();
    let remotes = place.sim.remotes.borrow();
    remotes.get(&place.host).cloned().unwrap_or_default()
}

/// Adds a line to the world's trace, which is shown if it fails.
///
/// # Panics
/// Outside of a simulated host.
pub fn note(what: fmt::Arguments<'_>) {
    place().sim.kernel.borrow_mut().log(what);
}

/// Whether a kind of fault strikes here: for faults that only the program itself can bring about.
///
/// # Panics
/// Outside of a simulated host.
pub fn strikes(fault: Fault) -> bool {
    place().sim.kernel.borrow_mut().strikes(fault)
}

/// Counts a fault that the program has brought about by itself, such as a client that does not read.
///
/// # Panics
/// Outside of a simulated host.
pub fn hit(fault: Fault) {
    place().sim.kernel.borrow_mut().faults.hit(fault);
}

/// The world has failed: an invariant does not hold. Its run ends after this turn.
///
/// # Panics
/// Outside of a simulated host.
pub fn fail(what: impl Into<String>) {
    let place = place();
    let what = what.into();
    place.sim.kernel.borrow_mut().log(format_args!("failed: {what}"));
    place.failed.borrow_mut().get_or_insert(what);
}
