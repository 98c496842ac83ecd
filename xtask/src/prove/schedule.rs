//! Who runs next, and for how long. Every part runs once, in the table's order; then whoever is furthest behind its share.

use std::time::Duration;

use super::parts::{Budget, Part};

/// The longest turn of a part that can go on for ever, so that all are seen in the first hour of many.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// The shortest one: less is mostly building and starting.
const SHORTEST: Duration = Duration::from_secs(10);

/// About how many turns a part has in the whole time.
const TURNS: u32 = 4;

/// The state of all parts.
pub(super) struct Schedule {
    parts: Vec<State>,
}

struct State {
    budget: Budget,
    weight: u32,
    /// The length of one turn, for a part that is told.
    turn: Duration,
    runs: u32,
    spent: Duration,
    /// How long the last run took.
    last: Duration,
    out: bool,
}

impl Schedule {
    pub(super) fn new(parts: &[&Part], time: Duration) -> Self {
        let weights: u32 = parts.iter().map(|part| part.weight).sum();
        let state = |part: &&Part| State {
            budget: part.budget,
            weight: part.weight,
            turn: (time * part.weight / weights.max(1) / TURNS).clamp(SHORTEST, LONGEST),
            runs: 0,
            spent: Duration::ZERO,
            last: Duration::ZERO,
            out: false,
        };
        Self { parts: parts.iter().map(state).collect() }
    }

    /// The next part and the time it is told to take, with `left` until the end. None when there is nothing more to run.
    pub(super) fn next(&self, left: Duration) -> Option<(usize, Duration)> {
        let candidates = || self.parts.iter().enumerate().filter(|(_, part)| !part.out);
        if let Some((index, part)) = candidates().find(|(_, part)| part.runs == 0) {
            return Some((index, part.turn.min(left).max(SHORTEST)));
        }
        let fits = |part: &State| match part.budget {
            // It takes as long as the last time.
            Budget::Whole => part.last <= left && left > Duration::ZERO,
            Budget::Argument(_) | Budget::Variable(_) => left >= SHORTEST,
        };
        let behind = |part: &State| part.spent / part.weight;
        let (index, part) =
            candidates().filter(|(_, part)| fits(part)).min_by_key(|(_, part)| behind(part))?;
        Some((index, part.turn.min(left)))
    }

    /// A run of a part is over.
    pub(super) fn spent(&mut self, index: usize, time: Duration) {
        let part = &mut self.parts[index];
        part.runs += 1;
        part.spent += time;
        part.last = time;
    }

    /// A part is not to run again.
    pub(super) fn drop_out(&mut self, index: usize) {
        self.parts[index].out = true;
    }
}

/// A time as one types it: `90s`, `15m`, `1h`, or whole seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 60 * 60),
        Some((at, 'd')) => (&text[..at], 24 * 60 * 60),
        _ => (text, 1),
    };
    let number: u32 = number.parse().map_err(|_| format!("{text} is no time; write 90s, 15m, 1h or 2d"))?;
    Ok(Duration::from_secs(u64::from(number) * unit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Budget, LONGEST, Part, SHORTEST, Schedule, duration};
    use std::time::Duration;

    const fn part(budget: Budget, weight: u32) -> Part {
        Part { name: "", command: &[], budget, weight }
    }

    const fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    /// Runs a schedule without running anything: a part takes what it is told, or its own time.
    fn simulate(parts: &[(Part, u64)], time: Duration) -> (Vec<u32>, Vec<Duration>, Duration) {
        let mut schedule = Schedule::new(&parts.iter().map(|(part, _)| part).collect::<Vec<_>>(), time);
        let mut now = Duration::ZERO;
        while let Some((index, slice)) = schedule.next(time.saturating_sub(now)) {
            let own = seconds(parts[index].1);
            let took = if parts[index].0.budget == Budget::Whole { own } else { slice };
            schedule.spent(index, took);
            now += took;
        }
        let of = |state: &super::State| (state.runs, state.spent);
        let (runs, spent) = schedule.parts.iter().map(of).unzip();
        (runs, spent, now)
    }

    #[test]
    fn time_is_split_by_weight() {
        let parts =
            [(part(Budget::Argument("--seconds"), 1), 0), (part(Budget::Argument("--seconds"), 3), 0)];
        let (runs, spent, total) = simulate(&parts, seconds(4000));
        assert_eq!(total, seconds(4000));
        assert_eq!(spent, [seconds(1000), seconds(3000)], "{runs:?}");
        assert!(runs[0] >= 4, "{runs:?}");
    }

    #[test]
    fn parts_that_are_not_told_run_when_they_fit() {
        let parts = [
            (part(Budget::Whole, 1), 70),
            (part(Budget::Argument("--seconds"), 1), 0),
            (part(Budget::Whole, 1), 500),
        ];
        let (runs, spent, total) = simulate(&parts, seconds(3600));
        assert!(total <= seconds(3600), "{total:?}");
        assert!(runs.iter().all(|runs| *runs >= 2), "{runs:?}");
        for spent in spent {
            assert!(spent >= seconds(1000) && spent <= seconds(1600), "{spent:?}");
        }
    }

    #[test]
    fn every_part_runs_once_however_short_the_time() {
        let parts = [
            (part(Budget::Whole, 1), 500),
            (part(Budget::Argument("--seconds"), 1), 0),
            (part(Budget::Whole, 1), 9),
        ];
        let (runs, spent, _) = simulate(&parts, seconds(1));
        assert_eq!((runs, spent[1]), (vec![1, 1, 1], SHORTEST));
    }

    #[test]
    fn a_turn_is_neither_too_long_nor_too_short() {
        let long = part(Budget::Argument("--seconds"), 1);
        assert_eq!(Schedule::new(&[&long], seconds(1_000_000)).next(seconds(1_000_000)), Some((0, LONGEST)));
        assert_eq!(Schedule::new(&[&long], seconds(20)).next(seconds(20)), Some((0, SHORTEST)));
    }

    #[test]
    fn who_dropped_out_is_not_run_again() {
        let (one, other) = (part(Budget::Argument("--seconds"), 1), part(Budget::Argument("--seconds"), 1));
        let mut schedule = Schedule::new(&[&one, &other], seconds(100));
        schedule.drop_out(0);
        assert_eq!(schedule.next(seconds(100)).unwrap().0, 1);
        schedule.spent(1, seconds(90));
        assert_eq!(schedule.next(seconds(10)).unwrap().0, 1);
        schedule.drop_out(1);
        assert_eq!(schedule.next(seconds(10)), None);
    }

    #[test]
    fn times_are_read() {
        for (text, expected) in [("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172_800), ("45", 45)] {
            assert_eq!(duration(text).unwrap(), seconds(expected), "{text}");
        }
        for text in ["", "h", "1.5h", "-1s", "soon", "1h30m", "9999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
