//! `loops`: what a message costs a server with several loops, compared with one loop's.

use std::io;
use std::time::Duration;

use clap::Args;
use evenkeel::Backend;

use super::{cell, seconds};
use crate::client::Side;
use crate::machine::{MARK, Noise, Places, mark, quietest};
use crate::serve::{Model, Way};
use crate::server::{Running, own_command};
use crate::stats::number;
use crate::table::Table;
use crate::turns::{Compared, take_turns};

#[derive(Args)]
pub(crate) struct Loops {
    /// Numbers of loops; one loop is compared with itself, which tells what the noise is.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    loops: Vec<u32>,
    /// Busy connections to each server.
    #[arg(long, value_delimiter = ',', default_values_t = [50, 1000])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=9000))]
    conns: Vec<u32>,
    /// The loops' kernel interface.
    #[arg(long, default_value = "auto")]
    backend: Backend,
    /// How connections come to the loops. The default deals them out evenly.
    #[arg(long, value_enum, default_value_t = Way::Acceptor)]
    share: Way,
    /// Keeps the server on one processor, as other commands do, though it has several threads.
    #[arg(long)]
    one_processor: bool,
    /// Seconds of turns for each cell.
    #[arg(long, default_value = "6", value_parser = seconds)]
    secs: Duration,
}

impl Loops {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        let levels = self.loops.iter().map(|loops| format!("{loops} over 1"));
        let head = ["server", "connections", "ns, 1 loop"].map(str::to_owned).into_iter().chain(levels);
        let mut table = Table::new(head);
        for model in [Model::Callbacks, Model::Async] {
            for conns in &self.conns {
                let mut alone = "-".to_owned();
                let mut cells = Vec::new();
                for loops in &self.loops {
                    eprintln!("{model}, {conns} connections, {loops} loops");
                    let measured = quietest(|| self.measure(places, model, *conns, *loops));
                    cells.push(cell(measured.map(|heard| {
                        alone = number(heard.value.each[1]);
                        format!("{}{}", heard.value.cpu, mark(heard.noise))
                    })));
                }
                let names = [format!("{model}/{}", self.backend), conns.to_string(), alone];
                table.row(names.into_iter().chain(cells));
            }
        }
        let place = if self.one_processor { "one processor" } else { "all processors" };
        println!("The server's CPU for each echoed message of 64 bytes, on {place}; by turns with one loop,");
        println!("the median of neighbouring slices, and the middle half of them\n");
        println!("{table}\n{MARK}");
        Ok(())
    }

    fn measure(&self, places: &Places, model: Model, conns: u32, loops: u32) -> io::Result<(Compared, f64)> {
        let start = |loops| {
            if self.one_processor {
                places.spawn(|| run(model, self.backend, loops, self.share))
            } else {
                start(places, model, self.backend, loops, self.share)
            }
        };
        let (several, one) = (start(loops)?, start(1)?);
        let mut first = Side::open(&several, conns as usize, 0, 64)?;
        let mut second = Side::open(&one, conns as usize, 0, 64)?;
        let noise = Noise::watch(&[several.process, one.process])?;
        let compared = take_turns(&mut first, &mut second, self.secs)?;
        Ok((compared, noise.share()?))
    }
}

/// Starts a group of loops that may use every processor.
pub(super) fn start(
    places: &Places,
    model: Model,
    backend: Backend,
    loops: u32,
    way: Way,
) -> io::Result<Running> {
    places.spawn_anywhere(|| run(model, backend, loops, way))
}

fn run(model: Model, backend: Backend, loops: u32, way: Way) -> io::Result<Running> {
    let loops = loops.to_string();
    let words = ["serve", "group", model.name(), "--backend", backend.name()];
    let mut command = own_command(&words)?;
    Running::start(command.args(["--loops", &loops, "--share", way.name()]))
}
