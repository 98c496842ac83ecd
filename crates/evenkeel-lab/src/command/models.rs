//! `models`: the concurrency models and kernel interfaces on the same work, over the number of connections.
//!
//! Two workloads: every connection is busy, and a few are busy among idle ones. The first shows what a message costs;
//! the second what an interface pays for connections on which nothing happens.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel::Backend;

use super::{fits, seconds};
use crate::client::Side;
use crate::machine::{Machine, Noise, Places, quietest};
use crate::peers;
use crate::plot::{Line, Panel, svg};
use crate::serve::Model;
use crate::server::Server;
use crate::stats::{median, number, spread};
use crate::table::Table;
use crate::turns::SLICE;

#[derive(Args)]
pub(crate) struct Models {
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 50, 200, 900, 2000, 5000, 10_000])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=18_000))]
    conns: Vec<u32>,
    /// Busy connections of the second workload.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    busy: u32,
    /// Seconds for each point and round.
    #[arg(long, default_value = "1", value_parser = seconds)]
    secs: Duration,
    /// Rounds, each of which begins with another model.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// The folder for models.svg and models.md; `lab` in the target folder if it is not named.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The models, by what they are called: a thread each, callbacks on every backend, and tasks on the best two.
fn models() -> Vec<(&'static str, Server)> {
    let mut models = vec![("thread each", Server::Threads)];
    models.extend(Backend::ALL.iter().map(|b| (b.name(), Server::Own(Model::Callbacks, *b))));
    models.push(("async, epoll", Server::Own(Model::Async, Backend::Epoll)));
    models.push(("async, io_uring", Server::Own(Model::Async, Backend::IoUring)));
    models
}

/// Processor time for each message in microseconds, by model and number of connections, of one workload.
struct Workload {
    title: String,
    busy: Option<usize>,
    points: Vec<Vec<Option<f64>>>,
}

impl Models {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        let mut workloads = [
            Workload { title: "every connection busy".to_owned(), busy: None, points: Vec::new() },
            Workload {
                title: format!("{} busy, the others idle", self.busy),
                busy: Some(self.busy as usize),
                points: Vec::new(),
            },
        ];
        for workload in &mut workloads {
            self.measure(places, workload)?;
        }
        let tables = workloads.each_ref().map(|w| self.table(w).to_string()).join("\n");
        println!("{tables}");
        let folder = self.out.clone().unwrap_or_else(peers::folder);
        fs::create_dir_all(&folder)?;
        let panels: Vec<_> = workloads.iter().map(|w| self.panel(w)).collect();
        let plot = folder.join("models.svg");
        fs::write(&plot, svg("CPU per echoed message, µs", &Machine.to_string(), &panels))?;
        fs::write(folder.join("models.md"), format!("{Machine}\n\n{tables}"))?;
        println!("{} and models.md beside it", plot.display());
        Ok(())
    }

    fn measure(&self, places: &Places, workload: &mut Workload) -> io::Result<()> {
        let models = models();
        let mut samples = vec![vec![Vec::new(); self.conns.len()]; models.len()];
        for round in 0..self.rounds as usize {
            for (column, conns) in self.conns.iter().enumerate() {
                for turn in 0..models.len() {
                    let row = (turn + round) % models.len();
                    let (name, server) = models[row];
                    if !fits(server, *conns as usize) {
                        continue;
                    }
                    eprintln!("{}, round {}: {name}, {conns} connections", workload.title, round + 1);
                    samples[row][column].push(self.point(places, server, *conns as usize, workload.busy)?);
                }
            }
        }
        workload.points = samples
            .into_iter()
            .map(|row| row.into_iter().map(|s| (!s.is_empty()).then(|| median(&s))).collect())
            .collect();
        Ok(())
    }

    /// The better quartile of the slices of one run: what the machine can do when it does nothing else.
    fn point(&self, places: &Places, server: Server, conns: usize, busy: Option<usize>) -> io::Result<f64> {
        let heard = quietest(|| {
            let running = server.start(places)?;
            let busy = busy.unwrap_or(conns).min(conns);
            let mut side = Side::open(&running, busy, conns - busy, 64)?;
            side.slice(2 * SLICE)?;
            let noise = Noise::watch(&[running.process])?;
            let start = Instant::now();
            let mut samples = Vec::new();
            while start.elapsed() < self.secs || samples.len() < 4 {
                samples.push(side.slice(SLICE)?.cpu / 1e3);
            }
            let low = spread(&samples).map(|s| s.low).ok_or_else(|| io::Error::other("no slices"))?;
            Ok((low, noise.share()?))
        })?;
        Ok(heard.value)
    }

    fn table(&self, workload: &Workload) -> Table {
        let levels = self.conns.iter().map(u32::to_string);
        let head = [format!("CPU µs per message, {}", workload.title)].into_iter().chain(levels);
        let mut table = Table::new(head);
        for ((name, _), points) in models().into_iter().zip(&workload.points) {
            let cells = points.iter().map(|point| point.map_or("-".to_owned(), number));
            table.row([name.to_owned()].into_iter().chain(cells));
        }
        table
    }

    fn panel(&self, workload: &Workload) -> Panel {
        let line = |((name, _), points): ((&str, Server), &Vec<Option<f64>>)| Line {
            name: name.to_owned(),
            points: self
                .conns
                .iter()
                .zip(points)
                .filter_map(|(conns, y)| Some((f64::from(*conns), (*y)?)))
                .collect(),
        };
        Panel {
            title: workload.title.clone(),
            x: "connections".to_owned(),
            lines: models().into_iter().zip(&workload.points).map(line).collect(),
        }
    }
}
