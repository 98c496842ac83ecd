//! `ring`: what io_uring is worth to our own servers. Each of its features, by doing without it; the whole, beside
//! epoll; and how many system calls are left.

use std::io;
use std::time::Duration;

use clap::Args;
use evenkeel::Backend;

use super::echo::compare;
use super::{cell, chosen, seconds};
use crate::client::Side;
use crate::machine::{MARK, Places, mark, quietest};
use crate::peers::FLOORS;
use crate::serve::Model;
use crate::server::{Running, Server};
use crate::stats::number;
use crate::syscalls::Count;
use crate::table::Table;
use crate::turns::SLICE;

/// What the runtime can do without: the names of `EVENKEEL_IO_URING_WITHOUT`. It refuses those that it does not know.
const FEATURES: [&str; 6] = [
    "defer-taskrun",
    "no-sqarray",
    "multishot-recv",
    "multishot-accept",
    "incremental-buffers",
    "quiet-sends",
];
/// Connections and bytes of a message for which features are measured.
const WORK: [(u32, u32); 3] = [(50, 64), (1000, 64), (50, 16 << 10)];
/// Slices in which system calls are counted.
const COUNTED: u32 = 10;

#[derive(Args)]
pub(crate) struct Ring {
    /// Connections for io_uring beside epoll.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 50, 200, 1000, 5000])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=9_000))]
    conns: Vec<u32>,
    /// Features to do without; all if none are named.
    #[arg(long, value_delimiter = ',', value_parser = FEATURES)]
    without: Vec<String>,
    /// Servers whose system calls are counted; the floors and ours on epoll and io_uring if none are named.
    #[arg(long, value_delimiter = ',')]
    calls: Vec<Server>,
    /// Seconds of turns for each cell.
    #[arg(long, default_value = "4", value_parser = seconds)]
    secs: Duration,
}

/// A server, and what it does without.
type Variant<'a> = (Server, &'a str);

impl Ring {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        println!("{}", self.features(places));
        println!("{}", self.over_epoll(places));
        println!("{}", self.calls(places));
        println!("Ratios are medians of neighbouring slices, with the middle half of them. {MARK}");
        Ok(())
    }

    fn features(&self, places: &Places) -> Table {
        let whole = (Server::Own(Model::Callbacks, Backend::IoUring), "");
        let work = WORK.map(|(conns, size)| format!("{conns} connections, {size} B"));
        let head = [format!("CPU per message over {} with everything", whole.0)];
        let mut table = Table::new(head.into_iter().chain(work));
        let named: Vec<&str> = self.without.iter().map(String::as_str).collect();
        // The same beside itself says how much of a ratio means nothing.
        let names = [""].into_iter().chain(if named.is_empty() { FEATURES.to_vec() } else { named });
        for name in names {
            let cells = WORK.map(|(conns, size)| self.ratio(places, [(whole.0, name), whole], conns, size));
            let what = if name.is_empty() { "the same".to_owned() } else { format!("without {name}") };
            table.row([what].into_iter().chain(cells));
        }
        table
    }

    fn over_epoll(&self, places: &Places) -> Table {
        let head = ["CPU per message, 64 B".to_owned()].into_iter();
        let mut table = Table::new(head.chain(self.conns.iter().map(|n| format!("{n} connections"))));
        for model in [Model::Callbacks, Model::Async] {
            let servers = [Backend::IoUring, Backend::Epoll].map(|b| (Server::Own(model, b), ""));
            let cells = self.conns.iter().map(|conns| self.ratio(places, servers, *conns, 64));
            let what = format!("{} over {}", servers[0].0, servers[1].0);
            table.row([what].into_iter().chain(cells.collect::<Vec<_>>()));
        }
        table
    }

    /// A cell of two variants by turns.
    fn ratio(&self, places: &Places, [first, second]: [Variant<'_>; 2], conns: u32, size: u32) -> String {
        let what = format!("{}, {conns} connections, {size} B", described(first));
        let heard = quietest(|| {
            let start = |(server, without): Variant<'_>| server.start_without(places, without);
            let outcome =
                compare(&[start(first)?, start(second)?], conns as usize, size as usize, self.secs)?;
            // Times tell a slow phase of the machine, in which ratios may be others.
            let [of_first, of_second] = outcome.compared.each.map(number);
            eprintln!("{what}: {of_first} ns a message, {}: {of_second} ns", described(second));
            Ok((outcome.compared.cpu, outcome.noise))
        });
        cell(heard.map(|heard| format!("{}{}", heard.value, mark(heard.noise))))
    }

    fn calls(&self, places: &Places) -> Table {
        let head = ["system calls per message, 64 B".to_owned()].into_iter();
        let mut table = Table::new(head.chain(self.conns.iter().map(|n| format!("{n} connections"))));
        for server in chosen(&self.calls, counted) {
            let cells = self.conns.iter().map(|conns| {
                eprintln!("{server}, system calls, {conns} connections");
                cell(server.start(places).and_then(|s| calls_per_message(&s, *conns as usize)).map(number))
            });
            table.row([server.to_string()].into_iter().chain(cells.collect::<Vec<_>>()));
        }
        table
    }
}

fn described((server, without): Variant<'_>) -> String {
    if without.is_empty() { server.to_string() } else { format!("{server} without {without}") }
}

/// The floors, and ours on epoll and io_uring.
fn counted() -> Vec<Server> {
    let floors = FLOORS.map(|name| Server::Peer { name, tuned: false });
    let models = [Model::Callbacks, Model::Async];
    let own = [Backend::Epoll, Backend::IoUring].map(|b| models.map(|m| Server::Own(m, b)));
    floors.into_iter().chain(own.into_iter().flatten()).collect()
}

fn calls_per_message(server: &Running, conns: usize) -> io::Result<f64> {
    let mut side = Side::open(server, conns, 0, 64)?;
    side.slice(SLICE)?;
    let count = Count::begin(server.process)?;
    let messages = side.slice(SLICE * COUNTED)?.messages;
    Ok(count.end()? as f64 / messages as f64)
}
