//! Rate limits.

use serde::{Deserialize, Serialize};

/// A sustained rate and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many a second in the long run. 0 refuses all.
    pub per_second: u32,
    /// How many at once after a pause.
    pub burst: u32,
}

/// A token bucket in eight bytes: the time, in microseconds, at which it would be full again. Full is in the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket(u64);

impl Bucket {
    /// A bucket that will be full after `micros` microseconds from `now` (milliseconds).
    pub(super) fn full_after(now: u64, micros: u64) -> Bucket {
        match micros {
            0 => Bucket::default(),
            micros => Bucket(now.saturating_mul(1_000).saturating_add(micros)),
        }
    }

    /// In how many microseconds it would be full.
    pub(super) fn full_in(self, now: u64) -> u64 {
        self.0.saturating_sub(now.saturating_mul(1_000))
    }

    /// Takes `count` tokens at time `now` (milliseconds), or none when there are not as many.
    pub(super) fn take(&mut self, now: u64, rate: Rate, count: u32) -> bool {
        if rate.per_second == 0 {
            return false;
        }
        let now = now.saturating_mul(1_000);
        // Rounded up, so that the rate is never exceeded; at least one, so that no rate is infinite.
        let interval = 1_000_000_u64.div_ceil(u64::from(rate.per_second));
        let full_at = self.0.max(now).saturating_add(interval * u64::from(count));
        let fits = full_at - now <= interval * u64::from(rate.burst);
        if fits {
            self.0 = full_at;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 20 };

    #[test]
    fn the_burst_is_exact_and_refills_at_the_rate() {
        for start in [0, 1, 1 << 40] {
            let mut bucket = Bucket::default();
            for _ in 0..20 {
                assert!(bucket.take(start, RATE, 1));
            }
            assert!(!bucket.take(start, RATE, 1));
            assert!(!bucket.take(start + 99, RATE, 1));
            assert!(bucket.take(start + 100, RATE, 1));
            assert!(!bucket.take(start + 100, RATE, 1));
            assert!(bucket.take(start + 10_000, RATE, 20), "a long pause fills it");
            assert!(!bucket.take(start + 10_000, RATE, 1), "and no more than fills it");
        }
    }

    #[test]
    fn random_takes_never_pass_the_rate() {
        let mut rng = fastrand::Rng::with_seed(18);
        let (mut bucket, mut now, mut taken) = (Bucket::default(), 5_000, 0);
        let start = now;
        for _ in 0..20_000 {
            now += rng.u64(0..120);
            let count = rng.u32(1..4);
            taken += if bucket.take(now, RATE, count) { u64::from(count) } else { 0 };
            assert!(taken * 1_000 <= 20_000 + (now - start) * 10);
        }
        assert!(taken * 1_000 > (now - start) * 9, "a greedy taker gets nearly the whole rate");
    }

    #[test]
    fn zero_refuses_and_extremes_do_not_overflow() {
        assert!(!Bucket::default().take(1, Rate { per_second: 0, burst: 9 }, 1));
        let greatest = Rate { per_second: u32::MAX, burst: u32::MAX };
        assert!(Bucket::default().take(0, greatest, u32::MAX));
        assert!(!Bucket::default().take(0, Rate { per_second: 1, burst: 1 }, u32::MAX));
        let _ = Bucket::default().take(u64::MAX, greatest, u32::MAX);
    }
}
