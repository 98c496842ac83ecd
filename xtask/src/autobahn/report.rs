//! What the suite reports: for each case how the server behaved, and how it closed.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

/// One case on one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// As the suite numbers it, such as `7.1.6`.
    pub(super) id: String,
    /// One of `OK`, `NON-STRICT`, `INFORMATIONAL`, `UNIMPLEMENTED` and `FAILED`.
    behavior: String,
    /// The same for the end of the connection, where also `UNCLEAN` and `WRONG CODE` and others can be.
    close: String,
}

/// All cases of one backend.
pub(super) struct Report {
    pub(super) backend: String,
    pub(super) cases: Vec<Case>,
}

/// Behaviours that are right. One that is not strict is right by the RFC, and listed.
const GOOD: [&str; 3] = ["OK", "NON-STRICT", "INFORMATIONAL"];

impl Report {
    pub(super) fn is_good(case: &Case) -> bool {
        GOOD.contains(&case.behavior.as_str()) && GOOD.contains(&case.close.as_str())
    }

    pub(super) fn count(&self, which: impl Fn(&Case) -> bool) -> usize {
        self.cases.iter().filter(|case| which(case)).count()
    }

    /// A line for each case that is neither strictly right nor a mere observation, with the command that runs it again.
    pub(super) fn noteworthy(&self) -> Vec<String> {
        let plain = |verdict: &str| matches!(verdict, "OK" | "INFORMATIONAL");
        let noteworthy = |case: &&Case| !plain(&case.behavior) || !plain(&case.close);
        self.cases.iter().filter(noteworthy).map(|case| self.line(case)).collect()
    }

    /// A line for each case that counts as failed.
    pub(super) fn failures(&self) -> impl Iterator<Item = String> {
        self.cases.iter().filter(|case| !Self::is_good(case)).map(|case| self.line(case))
    }

    fn line(&self, case: &Case) -> String {
        let (backend, Case { id, behavior, close }) = (&self.backend, case);
        let again = format!("cargo xtask autobahn --backend {backend} --cases {id}");
        format!("{backend}: case {id}: behaviour {behavior}, close {close} ({again})")
    }
}

/// Reads the suite's `index.json`: for each server a table of cases.
pub(super) fn read(text: &str, server: &str) -> Result<Vec<Case>, String> {
    let index: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let table = index.get(server).and_then(Value::as_object).ok_or("it has no table of this server")?;
    let mut cases = Vec::new();
    for (id, case) in table {
        let verdict = |name: &str| {
            let value = case.get(name).and_then(Value::as_str);
            value.map(str::to_owned).ok_or_else(|| format!("case {id} has no {name}"))
        };
        cases.push(Case { id: id.clone(), behavior: verdict("behavior")?, close: verdict("behaviorClose")? });
    }
    cases.sort_by_cached_key(|case| numbers(&case.id));
    Ok(cases)
}

/// 7.10 comes behind 7.9.
fn numbers(id: &str) -> Vec<u32> {
    id.split('.').filter_map(|number| number.parse().ok()).collect()
}

/// Counts by behaviour, a row for each backend. A case counts by its close where that is what is wrong with it.
pub(super) fn table(reports: &[Report]) -> String {
    let verdict = |case: &Case| {
        let close = GOOD.contains(&case.behavior.as_str()) && !GOOD.contains(&case.close.as_str());
        if close { case.close.clone() } else { case.behavior.clone() }
    };
    let cases = reports.iter().flat_map(|report| &report.cases);
    let others: BTreeSet<String> =
        cases.map(verdict).filter(|verdict| !GOOD.contains(&verdict.as_str())).collect();
    let columns: Vec<&str> = GOOD.into_iter().chain(others.iter().map(String::as_str)).collect();
    let mut out = format!("{:<10}", "backend");
    for column in &columns {
        let _ = write!(out, "  {column:>8}");
    }
    out.push('\n');
    for report in reports {
        let _ = write!(out, "{:<10}", report.backend);
        for column in &columns {
            let count = report.count(|case| verdict(case) == *column);
            let _ = write!(out, "  {count:>width$}", width = column.len().max(8));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Report, read, table};

    const INDEX: &str = r#"{ "epoll": {
        "7.10.1": { "behavior": "OK", "behaviorClose": "UNCLEAN", "duration": 2, "remoteCloseCode": null },
        "7.9.1": { "behavior": "OK", "behaviorClose": "OK" },
        "3.2": { "behavior": "NON-STRICT", "behaviorClose": "OK" },
        "7.13.1": { "behavior": "INFORMATIONAL", "behaviorClose": "INFORMATIONAL" },
        "1.1.1": { "behavior": "FAILED", "behaviorClose": "FAILED" }
    } }"#;

    #[test]
    fn verdicts_are_read_and_sorted_as_the_suite_numbers_them() {
        let report = Report { backend: "epoll".to_owned(), cases: read(INDEX, "epoll").unwrap() };
        let ids: Vec<&str> = report.cases.iter().map(|case| case.id.as_str()).collect();
        assert_eq!(ids, ["1.1.1", "3.2", "7.9.1", "7.10.1", "7.13.1"]);
        assert_eq!(report.count(Report::is_good), 3);
        let listed = report.noteworthy();
        assert_eq!(listed.len(), 3, "{listed:?}");
        assert!(listed[2].contains("case 7.10.1: behaviour OK, close UNCLEAN"), "{listed:?}");
        assert!(listed[0].ends_with("(cargo xtask autobahn --backend epoll --cases 1.1.1)"), "{listed:?}");
        let text = table(&[report]);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["backend", "OK", "NON-STRICT", "INFORMATIONAL", "FAILED", "UNCLEAN"]);
        assert_eq!(rows[1], ["epoll", "1", "1", "1", "1", "1"]);
    }

    #[test]
    fn a_report_that_is_not_whole_is_an_error() {
        for text in ["", "{}", r#"{"epoll": {"1.1.1": {"behavior": "OK"}}}"#, r#"{"epoll": []}"#] {
            assert!(read(text, "epoll").is_err(), "{text}");
        }
    }
}
