//! `spread`: how evenly connections come to the loops of a group, in each way to share a port.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel::Backend;

use super::loops::start;
use crate::client::{PATIENCE, connect_from};
use crate::machine::{Machine, Places};
use crate::peers;
use crate::plot::{Line, Panel, svg};
use crate::serve::{Model, Way};
use crate::server::Running;
use crate::stats::number;
use crate::table::Table;

#[derive(Args)]
pub(crate) struct Spread {
    /// Connections, all held at once.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    conns: u32,
    /// Numbers of loops.
    #[arg(long, value_delimiter = ',', default_values_t = [2, 4])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    loops: Vec<u32>,
    /// Ways to share the port; all if none are named.
    #[arg(long, value_delimiter = ',')]
    share: Vec<Way>,
    /// The loops' kernel interface.
    #[arg(long, default_value = "auto")]
    backend: Backend,
    /// The folder for spread.svg and spread.md; `lab` in the target folder if it is not named.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// How connections are opened.
#[derive(Clone, Copy)]
enum Pace {
    /// One after the other, without waiting for the server.
    Burst,
    /// Each when the one before has been served.
    Trickle,
}

/// Where they come from.
#[derive(Clone, Copy)]
enum From {
    One,
    Many,
}

/// Ways to come, and what they are called.
const COMING: [(Pace, From, &str, &str); 4] = [
    (Pace::Burst, From::One, "burst", "one address"),
    (Pace::Burst, From::Many, "burst", "many addresses"),
    (Pace::Trickle, From::One, "trickle", "one address"),
    (Pace::Trickle, From::Many, "trickle", "many addresses"),
];

impl Spread {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        let ways = if self.share.is_empty() { Way::ALL.to_vec() } else { self.share.clone() };
        let mut table = Table::new([
            "share",
            "loops",
            "opened in a",
            "from",
            "fewest",
            "most",
            "mean",
            "standard deviation",
        ]);
        let mut panels = Vec::new();
        for loops in &self.loops {
            for (pace, from, opened, address) in COMING {
                let mut lines = Vec::new();
                for way in &ways {
                    eprintln!("{way}, {loops} loops, a {opened} from {address}");
                    let mut counts = self.measure(places, *way, *loops, pace, from)?;
                    counts.sort_unstable();
                    let names = [way.to_string(), loops.to_string(), opened.to_owned(), address.to_owned()];
                    table.row(names.into_iter().chain(figures(&counts)));
                    let place = |(at, count): (usize, &u32)| ((at + 1) as f64, f64::from(*count).max(1.0));
                    let points = counts.iter().enumerate().map(place).collect();
                    lines.push(Line { name: way.to_string(), points });
                }
                let title = format!("{loops} loops, a {opened} from {address}");
                panels.push(Panel { title, x: "loops, from the fewest connections on".to_owned(), lines });
            }
        }
        println!("{} connections that stay, to loops on {}\n", self.conns, self.backend);
        println!("{table}");
        let folder = self.out.clone().unwrap_or_else(peers::folder);
        fs::create_dir_all(&folder)?;
        let plot = folder.join("spread.svg");
        fs::write(
            &plot,
            svg("Connections of each loop (none is drawn as one)", &Machine.to_string(), &panels),
        )?;
        fs::write(folder.join("spread.md"), format!("{Machine}\n\n{table}"))?;
        println!("{} and spread.md beside it", plot.display());
        Ok(())
    }

    /// The connections of each loop when all have come.
    fn measure(&self, places: &Places, way: Way, loops: u32, pace: Pace, from: From) -> io::Result<Vec<u32>> {
        let mut server = start(places, Model::Callbacks, self.backend, loops, way)?;
        let mut held = Vec::with_capacity(self.conns as usize);
        for at in 0..self.conns {
            let mut stream = connect_from(server.addr, address(from, at))?;
            if let Pace::Trickle = pace {
                served(&mut stream)?;
            }
            held.push(stream);
        }
        let since = Instant::now();
        loop {
            let counts = counts(&mut server)?;
            if counts.iter().sum::<u32>() == self.conns {
                return Ok(counts);
            }
            if since.elapsed() > PATIENCE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("only {counts:?} have come")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn address(from: From, at: u32) -> Ipv4Addr {
    let byte = |value: u32| u8::try_from(1 + value % 250).unwrap_or(1);
    match from {
        From::One => Ipv4Addr::LOCALHOST,
        From::Many => Ipv4Addr::new(127, 0, byte(at / 250), byte(at)),
    }
}

fn served(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0; 1])
}

/// Asks a server what its loops have.
fn counts(server: &mut Running) -> io::Result<Vec<u32>> {
    let line = server.ask(b"counts\n")?;
    let numbers: Result<_, _> = line.split_whitespace().map(str::parse).collect();
    numbers.map_err(|_| io::Error::other(format!("no counts: {line}")))
}

/// The fewest, the most, the mean and the standard deviation.
fn figures(sorted: &[u32]) -> [String; 4] {
    let mean = sorted.iter().sum::<u32>() as f64 / sorted.len().max(1) as f64;
    let squares: f64 = sorted.iter().map(|count| (f64::from(*count) - mean).powi(2)).sum();
    let deviation = (squares / sorted.len().max(1) as f64).sqrt();
    let end = |count: Option<&u32>| count.map_or("-".to_owned(), u32::to_string);
    [end(sorted.first()), end(sorted.last()), number(mean), number(deviation)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_the_loops() {
        assert_eq!(figures(&[2, 4, 4, 6]), ["2", "6", "4.00", "1.41"]);
        assert_eq!(figures(&[7])[3], "0.000");
    }

    #[test]
    fn many_addresses_differ() {
        let all: std::collections::HashSet<_> = (0..10_000).map(|at| address(From::Many, at)).collect();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(|address| address.is_loopback()));
    }
}
