//! What parts say that they did, and sums of it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::record::Record;

/// How a part's last line begins.
const MARK: &str = "totals:";

/// Names whose sum is worth knowing, too.
const GROUPS: [&str; 1] = ["fault_"];

const SECONDS_OF_A_YEAR: f64 = 365.25 * 24.0 * 60.0 * 60.0;

/// Numbers by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals(pub(super) BTreeMap<String, f64>);

impl Totals {
    /// Reads the last line of a part's output that has totals.
    pub(super) fn of_output(lines: &[String]) -> Result<Self, String> {
        let line = lines.iter().rev().find_map(|line| line.trim().strip_prefix(MARK));
        Self::parse(line.ok_or_else(|| format!("it printed no line `{MARK} key=value ...`"))?)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut totals = Self::default();
        for word in text.split_whitespace() {
            let wrong = || format!("`{word}` in its totals is not `key=number`");
            let (name, number) = word.split_once('=').ok_or_else(wrong)?;
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !named || !number.is_finite() || number < 0.0 {
                return Err(wrong());
            }
            *totals.0.entry(name.to_owned()).or_default() += number;
        }
        if totals.0.is_empty() { Err(format!("its line `{MARK}` is empty")) } else { Ok(totals) }
    }

    pub(super) fn add(&mut self, other: &Totals) {
        for (name, number) in &other.0 {
            *self.0.entry(name.clone()).or_default() += number;
        }
    }

    /// Kinds of fault that have never struck.
    pub(super) fn unmet(&self) -> Vec<&str> {
        let zero = |(name, number): &(&String, &f64)| name.starts_with(GROUPS[0]) && **number == 0.0;
        self.0.iter().filter(zero).map(|(name, _)| name.as_str()).collect()
    }

    #[cfg(test)]
    pub(super) fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// All of it for a reader: each number, and the groups' sums.
    fn rows(&self) -> BTreeMap<String, f64> {
        let mut rows = self.0.clone();
        for group in GROUPS {
            let members: Vec<f64> = self
                .0
                .iter()
                .filter(|(name, _)| name.starts_with(group))
                .map(|(_, number)| *number)
                .collect();
            if members.len() > 1 {
                rows.insert(format!("{group}* ({} kinds)", members.len()), members.iter().sum());
            }
        }
        rows
    }
}

/// This run's totals beside those of all records, this one among them.
pub(super) fn table(this: &Totals, records: &[&Record]) -> String {
    let mut all = Totals::default();
    records.iter().for_each(|record| all.add(&record.totals));
    let (this, all) = (this.rows(), all.rows());
    let width = all.keys().map(String::len).max().unwrap_or_default();
    let mut out = format!("{:<width$}  {:>22}  {:>22}\n", "", "this run", "all records");
    for (name, number) in &all {
        let mine = this.get(name).copied().unwrap_or_default();
        let _ = writeln!(out, "{name:<width$}  {:>22}  {:>22}", shown(name, mine), shown(name, *number));
    }
    let seconds: f64 = records.iter().map(|record| record.seconds).sum();
    let _ = writeln!(out, "hours of proof: {:.1}", seconds / 3600.0);
    out
}

/// A number for a reader. Virtual time is told in years.
fn shown(name: &str, number: f64) -> String {
    if name == "virtual_seconds" {
        return format!("{:.3} years", number / SECONDS_OF_A_YEAR);
    }
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Record, Totals, shown, table};

    fn of(lines: &[&str]) -> Result<Totals, String> {
        Totals::of_output(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_line_of_totals_counts() {
        let totals =
            of(&["totals: seeds=1", "more", " totals: seeds=20 virtual_seconds=1.5 ", "done"]).unwrap();
        assert_eq!(
            (totals.get("seeds"), totals.get("virtual_seconds"), totals.get("none")),
            (20.0, 1.5, 0.0)
        );
    }

    #[test]
    fn a_kind_of_fault_that_never_struck_is_named() {
        let mut totals = of(&["totals: seeds=1 fault_a=0 fault_b=2 fault_c=0"]).unwrap();
        totals.add(&of(&["totals: fault_a=3 others=0"]).unwrap());
        assert_eq!(totals.unmet(), ["fault_c"]);
    }

    #[test]
    fn lines_that_are_no_totals_are_refused() {
        for lines in [
            &[][..],
            &["seeds=1"],
            &["totals:"],
            &["totals: seeds"],
            &["totals: seeds=many"],
            &["totals: seeds=-1"],
            &["totals: seeds=inf"],
            &["totals: =1"],
            &["totals: see:ds=1"],
        ] {
            assert!(of(lines).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn equal_names_are_summed_and_faults_also_together() {
        let mut sum = of(&["totals: seeds=3 fault_K1_short_read=5"]).unwrap();
        sum.add(&of(&["totals: seeds=4 fault_K1_short_read=1 fault_K2_signal=10"]).unwrap());
        assert_eq!((sum.get("seeds"), sum.get("fault_K1_short_read")), (7.0, 6.0));
        assert_eq!(sum.rows()["fault_* (2 kinds)"], 16.0);
    }

    #[test]
    fn the_table_has_this_run_and_all() {
        let record =
            |text: &str, seconds| Record { totals: of(&[text]).unwrap(), seconds, ..Record::default() };
        let (earlier, this) =
            (record("totals: seeds=1000 old=1", 1800.0), record("totals: seeds=234", 1800.0));
        let text = table(&this.totals, &[&earlier, &this]);
        let row =
            |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().skip(1);
        assert_eq!(row("seeds").collect::<Vec<_>>(), ["234", "1,234"]);
        assert_eq!(row("old").collect::<Vec<_>>(), ["0", "1"]);
        assert!(text.ends_with("hours of proof: 1.0\n"), "{text}");
    }

    #[test]
    fn numbers_are_shown_for_readers() {
        assert_eq!(shown("events", 1_234_567.0), "1,234,567");
        assert_eq!((shown("events", 999.0), shown("events", 0.0)), ("999".to_owned(), "0".to_owned()));
        assert_eq!(shown("virtual_seconds", 63_115_200.0), "2.000 years");
    }
}
