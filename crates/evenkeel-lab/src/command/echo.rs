//! `echo`: what a message costs a server, two servers by turns.

use std::io;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{cell, chosen, fits, seconds};
use crate::client::Side;
use crate::machine::{MARK, Noise, Places, mark};
use crate::server::{Running, Server};
use crate::stats::number;
use crate::table::Table;
use crate::turns::{Compared, take_turns};

#[derive(Subcommand)]
pub(crate) enum Echo {
    /// Two servers by turns: the figure to quote.
    Pair(Pair),
    /// Every server beside one of them, at several numbers of connections.
    All(All),
}

#[derive(Args)]
pub(crate) struct Pair {
    /// A server such as callbacks/epoll, async/poll, own-buffer/epoll, threads, raw, raw-uring, tokio or
    /// monoio-tuned.
    first: Server,
    /// The server that it is compared with.
    second: Server,
    /// Busy connections to each.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=9000))]
    conns: u32,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=131_072))]
    size: u32,
    /// Seconds of turns.
    #[arg(long, default_value = "10", value_parser = seconds)]
    secs: Duration,
}

#[derive(Args)]
pub(crate) struct All {
    /// Servers; all if none are named.
    servers: Vec<Server>,
    /// The server that they are compared with.
    #[arg(long, default_value = "raw")]
    against: Server,
    /// Busy connections to each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 50, 1000])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=9_000))]
    conns: Vec<u32>,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=131_072))]
    size: u32,
    /// Seconds of turns for each cell.
    #[arg(long, default_value = "4", value_parser = seconds)]
    secs: Duration,
}

impl Echo {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        match self {
            Echo::Pair(pair) => pair.run(places),
            Echo::All(all) => all.run(places),
        }
    }
}

/// A finished comparison.
pub(super) struct Outcome {
    pub(super) compared: Compared,
    /// Round trips of each in microseconds: the median, and one in a hundred and in a thousand is slower.
    latency: [[f64; 3]; 2],
    pub(super) noise: f64,
}

/// Lets two servers take turns at the same work.
pub(super) fn compare(
    running: &[Running; 2],
    conns: usize,
    size: usize,
    secs: Duration,
) -> io::Result<Outcome> {
    let mut first = Side::open(&running[0], conns, 0, size)?;
    let mut second = Side::open(&running[1], conns, 0, size)?;
    let noise = Noise::watch(&[running[0].process, running[1].process])?;
    let compared = take_turns(&mut first, &mut second, secs)?;
    let noise = noise.share()?;
    let latency = [&first, &second]
        .map(|side| [0.5, 0.99, 0.999].map(|quantile| side.latency.value_at_quantile(quantile) as f64 / 1e3));
    Ok(Outcome { compared, latency, noise })
}

impl Pair {
    fn run(&self, places: &Places) -> io::Result<()> {
        let servers = [self.first, self.second];
        let running = [self.first.start(places)?, self.second.start(places)?];
        let outcome = compare(&running, self.conns as usize, self.size as usize, self.secs)?;
        let compared = &outcome.compared;
        println!("{} connections, {} bytes, {} slices of 100 ms\n", self.conns, self.size, compared.slices);
        let mut table = Table::new(["server", "CPU ns/message", "p50 µs", "p99 µs", "p99.9 µs"]);
        for (i, server) in servers.iter().enumerate() {
            let latency = outcome.latency[i].map(number);
            table.row([server.to_string(), number(compared.each[i])].into_iter().chain(latency));
        }
        println!("{table}");
        println!("{} / {}: CPU {}, messages/s {}", self.first, self.second, compared.cpu, compared.rate);
        println!("Other programs used {:.0} % of a processor meanwhile.", outcome.noise * 100.0);
        Ok(())
    }
}

impl All {
    fn run(&self, places: &Places) -> io::Result<()> {
        let servers = chosen(&self.servers, Server::all);
        let levels = self.conns.iter().map(|n| format!("{n} connections"));
        let mut table =
            Table::new([format!("CPU per message over {}", self.against)].into_iter().chain(levels));
        for server in servers {
            let cells = self.conns.iter().map(|conns| self.cell(places, server, *conns as usize));
            table.row([server.to_string()].into_iter().chain(cells.collect::<Vec<_>>()));
        }
        println!("{} bytes; the median of neighbouring slices, and the middle half of them\n", self.size);
        println!("{table}\n{MARK}");
        Ok(())
    }

    fn cell(&self, places: &Places, server: Server, conns: usize) -> String {
        if !fits(server, conns) || !fits(self.against, conns) {
            return "-".to_owned();
        }
        eprintln!("{server}, {conns} connections");
        let compared = || {
            let heard = crate::machine::quietest(|| {
                let running = [server.start(places)?, self.against.start(places)?];
                let outcome = compare(&running, conns, self.size as usize, self.secs)?;
                Ok((outcome.compared.cpu, outcome.noise))
            })?;
            Ok(format!("{}{}", heard.value, mark(heard.noise)))
        };
        cell(compared())
    }
}
