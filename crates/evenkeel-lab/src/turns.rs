//! Two servers by turns: the comparison that repeats on a machine that does other things, too.

use std::io;
use std::time::{Duration, Instant};

use crate::client::{Side, Slice};
use crate::stats::{Spread, median, ratio_by_turns};

/// How long a server has its turn.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// What came of it.
pub(crate) struct Compared {
    /// Processor time for each message, first over second.
    pub(crate) cpu: Spread,
    /// Messages a second, first over second.
    pub(crate) rate: Spread,
    /// Processor time for each message of each server, in nanoseconds.
    pub(crate) each: [f64; 2],
    pub(crate) slices: usize,
}

/// Lets two servers take turns for `time`, after a warm-up.
pub(crate) fn take_turns(first: &mut Side, second: &mut Side, time: Duration) -> io::Result<Compared> {
    let mut sides = [first, second];
    for side in &mut sides {
        side.slice(3 * SLICE)?;
        side.latency.reset();
    }
    let start = Instant::now();
    let mut slices: Vec<Slice> = Vec::new();
    while start.elapsed() < time || slices.len() < 8 {
        slices.push(sides[slices.len() % 2].slice(SLICE)?);
    }
    let of = |figure: fn(&Slice) -> f64| -> Vec<f64> { slices.iter().map(figure).collect() };
    let ratio = |figure| ratio_by_turns(&of(figure)).ok_or_else(|| io::Error::other("too few slices"));
    let each = [0, 1].map(|n| median(&of(|s| s.cpu).into_iter().skip(n).step_by(2).collect::<Vec<_>>()));
    Ok(Compared { cpu: ratio(|s| s.cpu)?, rate: ratio(|s| s.rate)?, each, slices: slices.len() })
}
