//! What is made of samples: medians, spreads, and the comparison of two servers that took turns.

use std::fmt;

/// The middle half of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// A quarter of the samples are lower.
    pub(crate) low: f64,
    pub(crate) median: f64,
    /// A quarter of the samples are higher.
    pub(crate) high: f64,
}

/// The quartiles; none of no samples.
pub(crate) fn spread(samples: &[f64]) -> Option<Spread> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = |quarter: usize| {
        let place = last as f64 * quarter as f64 / 4.0;
        let (below, part) = (place.floor() as usize, place.fract());
        let above = sorted[(below + 1).min(last)];
        sorted[below] + (above - sorted[below]) * part
    };
    Some(Spread { low: at(1), median: at(2), high: at(3) })
}

/// The median; not a number of no samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    spread(samples).map_or(f64::NAN, |s| s.median)
}

/// The least; none of no samples.
pub(crate) fn least(samples: &[f64]) -> Option<f64> {
    samples.iter().copied().min_by(f64::total_cmp)
}

/// First over second, of two that took turns: samples of the first have even places, those of the second odd ones.
///
/// Each sample is compared with the mean of its two neighbours, which are the other's, so that what else the machine
/// did meets both alike, and a drift cancels. None if there are fewer than three samples.
pub(crate) fn ratio_by_turns(samples: &[f64]) -> Option<Spread> {
    let ratios: Vec<_> = samples
        .windows(3)
        .enumerate()
        .map(|(i, three)| {
            let ratio = three[1] / ((three[0] + three[2]) / 2.0);
            // Windows that begin with the first's sample have the second's in the middle.
            if i % 2 == 0 { 1.0 / ratio } else { ratio }
        })
        .collect();
    spread(&ratios)
}

/// `1.04 (1.02-1.07)`.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}-{})", number(self.median), number(self.low), number(self.high))
    }
}

/// A number with about three significant digits, which is more than this kind of measurement repeats to.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".to_owned(),
        size if size < 0.0995 => format!("{value:.3}"),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => thousands(value.round()),
    }
}

/// A whole number with its digits in groups.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quartiles_lie_between_samples() {
        let s = spread(&[4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        assert_eq!(s, Spread { low: 2.0, median: 3.0, high: 4.0 });
        let s = spread(&[1.0, 2.0]).unwrap();
        assert_eq!(s, Spread { low: 1.25, median: 1.5, high: 1.75 });
        assert_eq!(spread(&[7.0]).unwrap(), Spread { low: 7.0, median: 7.0, high: 7.0 });
        assert_eq!(spread(&[]), None);
        assert_eq!(least(&[3.0, 1.0, 2.0]), Some(1.0));
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn turns_cancel_a_drift() {
        // The machine slows down by a tenth each slice; the first is always twice as dear as the second.
        let samples: Vec<_> =
            (0..20).map(|i| (1.0 + 0.1 * f64::from(i)) * if i % 2 == 0 { 2.0 } else { 1.0 }).collect();
        let s = ratio_by_turns(&samples).unwrap();
        assert!((s.median - 2.0).abs() < 1e-9 && (s.high - s.low).abs() < 1e-9, "{s:?}");
    }

    #[test]
    fn turns_need_both() {
        assert_eq!(ratio_by_turns(&[1.0, 2.0]), None);
        // Two samples of the first and one of the second: half as dear.
        assert_eq!(ratio_by_turns(&[1.0, 2.0, 1.0]).unwrap().median, 0.5);
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown: Vec<_> = [0.01234, 0.999, 1.0449, 12.34, 999.9, 1234567.0, f64::NAN].map(number).into();
        assert_eq!(shown, ["0.012", "1.00", "1.04", "12.3", "1,000", "1,234,567", "-"]);
        assert_eq!(thousands(-1234.0), "-1,234");
    }
}
