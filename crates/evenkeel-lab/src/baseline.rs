//! Counts that were once found good, in a file that is committed, and the comparison with them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::server::Server;

/// A count may grow by so much, in percent, before it is a failure.
const GROWTH: u64 = 10;

/// Instructions per message by what was counted, and the compiler that built it.
#[derive(Debug, Default)]
pub(crate) struct Baseline {
    rustc: String,
    counts: BTreeMap<String, u64>,
}

impl Baseline {
    pub(crate) fn new() -> Self {
        Baseline { rustc: env!("LAB_RUSTC").to_owned(), counts: BTreeMap::new() }
    }

    /// What a count is called.
    pub(crate) fn name(server: Server, conns: usize) -> String {
        format!("{server}, {conns}")
    }

    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.counts.get(name).copied()
    }

    pub(crate) fn set(&mut self, name: String, count: u64) {
        self.counts.insert(name, count);
    }

    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        Self::parse(&fs::read_to_string(path).map_err(at)?).map_err(at)
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, self.text())
    }

    fn parse(text: &str) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let table: toml::Table = text.parse().map_err(|e| bad(&format!("{e}")))?;
        let rustc = table.get("rustc").and_then(toml::Value::as_str).ok_or_else(|| bad("no rustc"))?;
        let listed = table.get("instructions").and_then(toml::Value::as_table);
        let mut counts = BTreeMap::new();
        for (name, value) in listed.ok_or_else(|| bad("no table of instructions"))? {
            let count = value.as_integer().and_then(|n| u64::try_from(n).ok());
            counts.insert(name.clone(), count.ok_or_else(|| bad(&format!("{name}: not a count")))?);
        }
        Ok(Baseline { rustc: rustc.to_owned(), counts })
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "# User-space instructions per 64-byte message: server, connections. Written by\n\
             # `cargo run --release -p evenkeel-lab -- instr --bless crates/evenkeel-lab/baseline.toml`,\n\
             # checked by `--check`, which fails when a count has grown by more than a tenth.\n",
        );
        let _ = write!(text, "rustc = \"{}\"\n\n[instructions]\n", self.rustc);
        for (name, count) in &self.counts {
            let _ = writeln!(text, "\"{name}\" = {count}");
        }
        text
    }

    /// Fails if a count of `now` is more than a tenth over its count here, or has none here.
    pub(crate) fn compare(&self, now: &Baseline) -> io::Result<()> {
        let mut wrong = Vec::new();
        for (name, count) in &now.counts {
            match self.get(name) {
                None => wrong.push(format!("{name}: {count}, and no count to compare with; bless it")),
                Some(then) if *count * 100 > then * (100 + GROWTH) => {
                    wrong.push(format!("{name}: {count}, {} % over {then}", count * 100 / then.max(1) - 100));
                }
                Some(_) => {}
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        if self.rustc != now.rustc {
            wrong.push(format!("(the baseline is of {}, this is {})", self.rustc, now.rustc));
        }
        Err(io::Error::other(format!("instructions per message have grown:\n  {}", wrong.join("\n  "))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with(counts: &[(&str, u64)]) -> Baseline {
        let mut baseline = Baseline::new();
        for (name, count) in counts {
            baseline.set((*name).to_owned(), *count);
        }
        baseline
    }

    #[test]
    fn what_is_written_is_read() {
        let written = with(&[("callbacks/epoll, 1", 170), ("async/poll, 50", 1234)]);
        let read = Baseline::parse(&written.text()).unwrap();
        assert_eq!((read.counts, read.rustc), (written.counts, written.rustc));
    }

    #[test]
    fn junk_is_refused() {
        for text in ["", "rustc = 1", "rustc = \"x\"", "rustc = \"x\"\n[instructions]\na = -1", "[["] {
            assert!(Baseline::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tenth_is_allowed_and_no_more() {
        let then = with(&[("a", 100), ("b", 200)]);
        assert!(then.compare(&with(&[("a", 110), ("b", 150)])).is_ok());
        let error = then.compare(&with(&[("a", 111)])).unwrap_err().to_string();
        assert!(error.contains("a: 111, 11 % over 100"), "{error}");
        let error = then.compare(&with(&[("c", 1)])).unwrap_err().to_string();
        assert!(error.contains("bless"), "{error}");
    }
}
