//! The file of results: one record a line, as JSON, only ever appended to.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Proof;
use super::totals::Totals;
use crate::process;

/// What one run proved.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    /// When it began, in UTC, as `2026-11-23T17:03:19Z`.
    pub(super) date: String,
    pub(super) commit: String,
    /// The work tree had changes that are in no commit.
    pub(super) dirty: bool,
    pub(super) seconds: f64,
    /// Runs and seconds of each part.
    pub(super) parts: Vec<(String, u64, f64)>,
    /// Names of parts that failed.
    pub(super) failed: Vec<String>,
    pub(super) totals: Totals,
}

impl Record {
    /// A record that begins now, of what is checked out.
    pub(super) fn begin(root: &Path) -> Result<Self, String> {
        let ask = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(root);
            let finished = process::run_collected(&mut command, Duration::from_secs(60), false)?;
            if finished.success { Ok(finished.lines) } else { Err(format!("{program} failed")) }
        };
        // A copy of the sources without its history has no commit, and proves as much.
        let commit = ask("git", &["rev-parse", "HEAD"]).unwrap_or_default();
        let changes = ask("git", &["status", "--porcelain"]).unwrap_or_default();
        Ok(Self {
            date: ask("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])?.concat(),
            commit: commit.into_iter().next().unwrap_or_else(|| "unknown".to_owned()),
            dirty: !changes.is_empty(),
            ..Self::default()
        })
    }

    pub(super) fn end(&mut self, time: Duration, proof: &Proof) {
        let part = |(name, (runs, seconds)): (&&str, &(u64, f64))| ((*name).to_owned(), *runs, *seconds);
        self.seconds = time.as_secs_f64();
        self.parts = proof.parts.iter().map(part).collect();
        self.failed = proof.failures.iter().map(|failure| failure.part.to_owned()).collect();
        self.totals = proof.totals.clone();
    }

    fn to_json(&self) -> Value {
        let parts: Map<String, Value> = self
            .parts
            .iter()
            .map(|(name, runs, seconds)| (name.clone(), json!({ "runs": runs, "seconds": number(*seconds) })))
            .collect();
        let totals: Map<String, Value> =
            self.totals.0.iter().map(|(name, value)| (name.clone(), number(*value))).collect();
        json!({
            "date": self.date,
            "commit": self.commit,
            "dirty": self.dirty,
            "seconds": number(self.seconds),
            "parts": parts,
            "failed": self.failed,
            "totals": totals,
        })
    }

    fn of_json(value: &Value) -> Option<Self> {
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        let part = |(name, part): (&String, &Value)| {
            Some((name.clone(), part.get("runs")?.as_u64()?, part.get("seconds")?.as_f64()?))
        };
        let total = |(name, value): (&String, &Value)| Some((name.clone(), value.as_f64()?));
        let failed = value.get("failed")?.as_array()?.iter();
        Some(Self {
            date: text("date")?,
            commit: text("commit")?,
            dirty: value.get("dirty")?.as_bool()?,
            seconds: value.get("seconds")?.as_f64()?,
            parts: value.get("parts")?.as_object()?.iter().map(part).collect::<Option<_>>()?,
            failed: failed.map(|name| Some(name.as_str()?.to_owned())).collect::<Option<_>>()?,
            totals: Totals(value.get("totals")?.as_object()?.iter().map(total).collect::<Option<_>>()?),
        })
    }

    /// Appends the record to the file, which is made if there is none.
    pub(super) fn append(&self, path: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        file.write_all(format!("{}\n", self.to_json()).as_bytes()).map_err(failed)
    }
}

/// Whole numbers are written as such, others in thousandths.
fn number(value: f64) -> Value {
    let rounded = (value * 1000.0).round() / 1000.0;
    if rounded.fract() == 0.0 && rounded >= 0.0 { json!(rounded as u64) } else { json!(rounded) }
}

/// All records of a file; none if there is no file.
pub(super) fn read(path: &Path) -> Result<Vec<Record>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let record = |(at, line): (usize, &str)| {
        let value = serde_json::from_str(line).ok();
        let record = value.as_ref().and_then(Record::of_json);
        record.ok_or_else(|| format!("{}: line {} is no record of a proof", path.display(), at + 1))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(record).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Record, Totals, read};
    use std::fs;

    fn sample() -> Record {
        Record {
            date: "2026-11-23T17:03:19Z".to_owned(),
            commit: "c94dd94".to_owned(),
            dirty: true,
            seconds: 12.25,
            parts: vec![("autobahn".to_owned(), 2, 66.5)],
            failed: vec!["thread".to_owned()],
            totals: Totals(
                [("seeds".to_owned(), 7_000_000_000.0), ("virtual_seconds".to_owned(), 0.5)].into(),
            ),
        }
    }

    #[test]
    fn records_are_appended_and_read_again() {
        let folder = std::env::temp_dir().join(format!("xtask-records-{}", std::process::id()));
        let path = folder.join("results.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        sample().append(&path).unwrap();
        sample().append(&path).unwrap();
        assert_eq!(read(&path).unwrap(), [sample(), sample()]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""seeds":7000000000"#), "{text}");
        fs::write(&path, format!("{text}{{\"date\":1}}\n")).unwrap();
        assert!(read(&path).unwrap_err().contains("line 3"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_record_knows_when_and_of_what_it_is() {
        let record = Record::begin(&crate::root()).unwrap();
        assert_eq!((record.date.len(), &record.date[10..11], &record.date[19..]), (20, "T", "Z"));
        assert!(!record.commit.is_empty());
    }
}
