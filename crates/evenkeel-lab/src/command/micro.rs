//! `micro`: small operations inside one process, Evenkeel beside the other runtimes.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel::Backend;
use lab_work::{Figure, Op};

use crate::machine::Places;
use crate::peers;
use crate::server::own_command;
use crate::stats::{least, number};
use crate::table::Table;

/// How long one operation of one runtime may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What the project promises: no operation slower than the best peer's by more than a fifth.
const ALLOWED: f64 = 1.2;

#[derive(Args)]
pub(crate) struct Micro {
    /// Rounds; in each of them every runtime has its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Operations; all if none are named.
    #[arg(long, value_delimiter = ',', value_parser = operation)]
    ops: Vec<Op>,
    /// Our backends.
    #[arg(long, value_delimiter = ',', default_values_t = [Backend::Epoll, Backend::IoUring])]
    backends: Vec<Backend>,
    /// The runtimes beside it; `--peers ''` for none.
    #[arg(long, value_delimiter = ',', default_values = peers::RUNTIMES)]
    peers: Vec<String>,
}

fn operation(name: &str) -> Result<Op, String> {
    Op::ALL.into_iter().find(|op| op.name() == name).ok_or_else(|| {
        let names = Op::ALL.map(Op::name).join(", ");
        format!("there is no operation `{name}`; choose of {names}")
    })
}

/// A program that measures one operation of one runtime.
#[derive(Clone, Copy)]
enum Runner {
    Own(Backend),
    Peer(&'static str),
}

impl Runner {
    fn name(self) -> String {
        match self {
            Runner::Own(backend) => format!("evenkeel/{backend}"),
            Runner::Peer(name) => name.to_owned(),
        }
    }

    fn command(self, op: Op) -> io::Result<Command> {
        let mut command = match self {
            Runner::Own(backend) => {
                let mut command = own_command(&["micro-op"])?;
                command.env("EVENKEEL_BACKEND", backend.name());
                command
            }
            Runner::Peer(name) => {
                let mut command = Command::new(peers::program(name)?);
                command.arg("micro");
                command
            }
        };
        command.arg(op.name()).stdin(Stdio::null()).stderr(Stdio::inherit());
        Ok(command)
    }
}

/// Samples by figure and runner.
type Samples = BTreeMap<(usize, usize), Vec<f64>>;

impl Micro {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        let runners = self.runners()?;
        let ops = if self.ops.is_empty() { Op::ALL.to_vec() } else { self.ops.clone() };
        let figures: Vec<Figure> = ops.iter().flat_map(|op| op.figures()).copied().collect();
        let mut samples = Samples::new();
        for op in ops {
            eprintln!("{op}");
            for round in 0..self.rounds_of(op) {
                // Another one begins each round, so that none always follows the same.
                for turn in 0..runners.len() {
                    let at = (turn + round as usize) % runners.len();
                    let text = self.measure(places, runners[at], op)?;
                    for (name, values) in text.lines().filter_map(parse) {
                        if let Some(figure) = figures.iter().position(|f| f.name == name) {
                            samples.entry((figure, at)).or_default().extend(values);
                        }
                    }
                }
            }
        }
        self.print(&figures, &runners, &samples);
        Ok(())
    }

    /// A million sleepers take eight seconds a time.
    fn rounds_of(&self, op: Op) -> u32 {
        if op == Op::Sleepers { self.rounds.min(3) } else { self.rounds }
    }

    fn runners(&self) -> io::Result<Vec<Runner>> {
        let own = self.backends.iter().map(|backend| Ok(Runner::Own(*backend)));
        let peers = self.peers.iter().filter(|asked| !asked.is_empty()).map(|asked| {
            let known = peers::RUNTIMES.iter().find(|name| *name == asked);
            known.map(|name| Runner::Peer(name)).ok_or_else(|| {
                let what = format!("there is no peer `{asked}`; choose of {}", peers::RUNTIMES.join(", "));
                io::Error::new(io::ErrorKind::InvalidInput, what)
            })
        });
        own.chain(peers).collect()
    }

    fn measure(&self, places: &Places, runner: Runner, op: Op) -> io::Result<String> {
        let mut command = runner.command(op)?;
        command.stdout(Stdio::piped());
        // The two threads of one operation need both processors, and place themselves.
        let child = match op {
            Op::ChannelThreads => places.spawn_anywhere(|| command.spawn())?,
            _ => places.spawn(|| command.spawn())?,
        };
        output(child).map_err(|e| io::Error::new(e.kind(), format!("{}, {op}: {e}", runner.name())))
    }

    fn print(&self, figures: &[Figure], runners: &[Runner], samples: &Samples) {
        let names = runners.iter().map(|r| r.name());
        let head = ["operation", "unit"].map(str::to_owned).into_iter().chain(names);
        let mut table = Table::new(head.chain(["our dearest over the best peer".to_owned()]));
        for (row, figure) in figures.iter().enumerate() {
            let best: Vec<Option<f64>> = (0..runners.len())
                .map(|at| least(samples.get(&(row, at)).map_or(&[], Vec::as_slice)))
                .collect();
            let of = |own: bool| {
                let chosen =
                    runners.iter().zip(&best).filter(move |(r, _)| matches!(r, Runner::Own(_)) == own);
                chosen.filter_map(|(_, value)| *value)
            };
            // Every backend of ours has to keep the promise.
            let (ours, theirs) = (of(true).reduce(f64::max), of(false).reduce(f64::min));
            let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs.max(f64::MIN_POSITIVE));
            let verdict = ratio.map_or("-".to_owned(), |ratio| {
                format!("{}{}", number(ratio), if ratio > ALLOWED { " *" } else { "" })
            });
            let values = best.iter().map(|value| value.map_or("-".to_owned(), number));
            let cells = [figure.name.to_owned(), figure.unit.to_owned()].into_iter().chain(values);
            table.row(cells.chain([verdict]));
        }
        println!("The least of {} rounds, whose runtimes take turns.\n", self.rounds);
        println!("{table}\n*: more than a fifth over the best peer.");
    }
}

/// What a program prints, which is little, until it ends; one that does not end is killed.
fn output(mut child: Child) -> io::Result<String> {
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end"));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut text)?;
    }
    if status.success() { Ok(text) } else { Err(io::Error::other(status.to_string())) }
}

/// A line `FIGURE = NUMBER NUMBER ...`.
fn parse(line: &str) -> Option<(&str, Vec<f64>)> {
    let (name, values) = line.rsplit_once(" = ")?;
    let values: Result<Vec<f64>, _> = values.split_whitespace().map(str::parse).collect();
    values.ok().filter(|v| !v.is_empty()).map(|v| (name, v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_figures_are_parsed() {
        assert_eq!(parse("spawn and join = 1.50 2"), Some(("spawn and join", vec![1.5, 2.0])));
        assert_eq!(parse("spawn and join ="), None);
        assert_eq!(parse("spawn = x"), None);
        assert_eq!(parse("thread main panicked"), None);
    }

    #[test]
    fn figures_have_names_of_their_own() {
        let mut names: Vec<_> = Op::ALL.iter().flat_map(|op| op.figures()).map(|f| f.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a figure of two operations would mix their samples");
    }
}
