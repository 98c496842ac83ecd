//! What a world tells of itself: how much happened, and why it failed.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::fault::Fault;
use super::world::World;

/// What has happened in a world.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Worlds that this is the sum of.
    pub worlds: u64,
    /// Virtual time.
    pub elapsed: Duration,
    /// Lines of the traces.
    pub events: u64,
    /// Waits of all loops.
    pub turns: u64,
    /// A number that two runs of one seed have in common; of several worlds, all of theirs.
    pub trace: u64,
    /// How often each kind of fault has struck.
    pub hits: Vec<(Fault, u64)>,
}

impl Report {
    pub(super) fn new(world: &World) -> Self {
        let kernel = world.sim().kernel.borrow();
        Report {
            worlds: 1,
            elapsed: world.elapsed(),
            events: kernel.trace.events(),
            turns: kernel.waits,
            trace: kernel.trace.hash(),
            hits: kernel.faults.hits().collect(),
        }
    }

    /// Adds another world's, or other worlds'.
    pub fn add(&mut self, other: &Report) {
        self.worlds += other.worlds;
        self.elapsed += other.elapsed;
        self.events += other.events;
        self.turns += other.turns;
        self.trace = self.trace.rotate_left(1) ^ other.trace;
        if self.hits.is_empty() {
            self.hits = Fault::ALL.iter().map(|fault| (*fault, 0)).collect();
        }
        for ((_, sum), (_, n)) in self.hits.iter_mut().zip(&other.hits) {
            *sum += n;
        }
    }

    /// How often a kind of fault has struck.
    pub fn hits(&self, fault: Fault) -> u64 {
        self.hits.iter().find(|(kind, _)| *kind == fault).map_or(0, |(_, n)| *n)
    }
}

/// Why a world failed.
#[derive(Debug)]
pub struct Failure {
    what: String,
    seed: u64,
    at: Duration,
    tail: Vec<String>,
}

impl Failure {
    pub(super) fn new(what: String, world: &World) -> Self {
        let kernel = world.sim().kernel.borrow();
        let tail = kernel.trace.tail().map(str::to_owned).collect();
        Failure { what, seed: world.seed(), at: world.elapsed(), tail }
    }

    /// The seed of the world.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What was wrong, and when.
    pub(super) fn described(&self) -> String {
        format!("after {:?}: {}", self.at, self.what)
    }

    /// What was wrong.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The last lines of the world's trace, oldest first.
    pub fn trace(&self) -> &[String] {
        &self.tail
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, {}", self.seed, self.described())
    }
}

impl Error for Failure {}
