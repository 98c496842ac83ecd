//! `instr`: user-space instructions for each message, counted by callgrind.
//!
//! A count repeats where times do not, so it can guard a change: the difference of a long and a short run leaves out
//! whatever a server does once. The kernel's work is not in it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;

use super::chosen;
use crate::baseline::Baseline;
use crate::client::{open_echo, rounds};
use crate::machine::Places;
use crate::peers;
use crate::serve::Model;
use crate::server::{Running, Server};
use crate::stats::number;
use crate::table::Table;

/// Connections, each with one message in a round.
const LEVELS: [usize; 2] = [1, 50];
/// Messages of the short run and of the long one.
const SHORT: usize = 1_000;
const LONG: usize = 11_000;

#[derive(Args)]
pub(crate) struct Instr {
    /// Servers; callbacks and async on every backend if none are named.
    servers: Vec<Server>,
    /// Fail if a count is more than a tenth over the one in this file.
    #[arg(long, value_name = "FILE", conflicts_with = "bless")]
    check: Option<PathBuf>,
    /// Write the counts to this file, as what `--check` compares with.
    #[arg(long, value_name = "FILE")]
    bless: Option<PathBuf>,
    /// Count each so often and show how far the counts lie apart.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    repeat: u32,
}

impl Instr {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        has_valgrind()?;
        let expected = self.check.as_deref().map(Baseline::read).transpose()?;
        let mut counted = Baseline::new();
        let mut table =
            Table::new(["instructions per message", "connections", "count", "spread", "baseline"]);
        for server in chosen(&self.servers, countable) {
            for conns in LEVELS {
                let name = Baseline::name(server, conns);
                let counts = (0..self.repeat).map(|_| per_message(places, server, conns));
                let counts = counts.collect::<io::Result<Vec<_>>>()?;
                let (least, most) = (counts.iter().min(), counts.iter().max());
                let (Some(&least), Some(&most)) = (least, most) else { continue };
                let then = expected.as_ref().and_then(|e| e.get(&name));
                table.row([
                    server.to_string(),
                    conns.to_string(),
                    least.to_string(),
                    format!("{} %", number((most - least) as f64 * 100.0 / least.max(1) as f64)),
                    then.map_or("-".to_owned(), |count| count.to_string()),
                ]);
                counted.set(name, least);
            }
        }
        println!("{table}");
        if let Some(path) = &self.bless {
            counted.write(path)?;
            println!("written to {}", path.display());
        }
        expected.map_or(Ok(()), |expected| expected.compare(&counted))
    }
}

/// What is guarded: ours, with memory that the loop lends. Valgrind does not know rings well enough to end them.
fn countable() -> Vec<Server> {
    let own = Server::own().into_iter();
    own.filter(|server| match server {
        Server::Own(model, backend) => *model != Model::OwnBuffer && !backend.name().contains("uring"),
        _ => false,
    })
    .collect()
}

fn has_valgrind() -> io::Result<()> {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "valgrind is not installed: apt-get install valgrind"))
}

fn per_message(places: &Places, server: Server, conns: usize) -> io::Result<u64> {
    let short = total(places, server, conns, SHORT)?;
    let long = total(places, server, conns, LONG)?;
    let messages = (LONG - SHORT) as u64;
    Ok((long.saturating_sub(short) + messages / 2) / messages)
}

/// Instructions of a whole run.
fn total(places: &Places, server: Server, conns: usize, messages: usize) -> io::Result<u64> {
    fs::create_dir_all(peers::folder())?;
    let out = peers::folder().join(format!("callgrind.{}", std::process::id()));
    let plain = server.command()?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(plain.get_program()).args(plain.get_args());
    let running = places.spawn(|| Running::start(&mut command))?;
    let mut streams = open_echo(running.addr, 0, conns)?;
    rounds(&mut streams, running.process, messages / conns)?;
    running.finish()?;
    let count = summary(&fs::read_to_string(&out)?);
    fs::remove_file(&out)?;
    count.ok_or_else(|| io::Error::other(format!("callgrind counted nothing for {server}")))
}

/// The total in callgrind's file.
fn summary(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|l| l.strip_prefix("summary: ").or(l.strip_prefix("totals: "))?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        assert_eq!(summary("version: 1\nsummary: 12345\nfn=x\n1 2\n"), Some(12345));
        assert_eq!(summary("version: 1\n1 2\ntotals: 67\n"), Some(67));
        assert_eq!(summary("version: 1\n"), None);
    }

    #[test]
    fn runs_are_whole_rounds() {
        for conns in LEVELS {
            assert!(SHORT.is_multiple_of(conns) && LONG.is_multiple_of(conns));
        }
    }
}
