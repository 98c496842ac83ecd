//! `hub-loops`: what a delivery to many and a publication to few cost a hub with several loops, compared with one loop's.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel::Backend;

use super::crowd::Crowd;
use super::seconds;
use crate::hub::{Audience, Publisher, Transport, command, subscribe};
use crate::machine::{MARK, Noise, Places, mark, quietest};
use crate::peers;
use crate::server::Running;
use crate::stats::{Spread, median, number, ratio_by_turns};
use crate::table::Table;
use crate::turns::SLICE;

/// Publishers to few subscribers, each with one request outstanding.
const PUBLISHERS: usize = 8;

#[derive(Args)]
pub(crate) struct HubLoops {
    /// Numbers of loops; one loop is compared with itself, which tells what the noise is.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    loops: Vec<u32>,
    /// Subscribers of each hub that get a message together.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    subscribers: u32,
    /// Messages to all of them, of each hub.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(4..=10_000))]
    messages: u32,
    /// Subscribers of what is published to few.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    few: u32,
    /// Seconds of turns for publications to few.
    #[arg(long, default_value = "6", value_parser = seconds)]
    secs: Duration,
    /// The hub's kernel interface.
    #[arg(long, default_value = "auto")]
    backend: Backend,
    /// The hub's program; built from this repository if it is not named.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
}

/// One message to many: the figures of several loops, and those over one loop's.
struct Many {
    own: [f64; 2],
    cpu: (f64, Spread),
    last: (f64, Spread),
}

/// Publications to few: processor time of each in nanoseconds, and how many a second.
struct Few {
    cpu: (f64, Spread),
    rate: (f64, Spread),
}

impl HubLoops {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        let program = self.program.clone().map_or_else(peers::hub, Ok)?;
        let mut many = Table::new([
            "loops",
            "idle: bytes each",
            "1 loop: bytes each",
            "delivery: CPU ns",
            "over 1",
            "last delivery: ms",
            "over 1",
        ]);
        let mut few =
            Table::new(["loops", "publication: CPU ns", "over 1", "publications a second", "over 1"]);
        for loops in &self.loops {
            eprintln!("{loops} loops, {} subscribers", self.subscribers);
            let heard = quietest(|| self.many(places, &program, *loops))?;
            let (figures, sign) = (heard.value, mark(heard.noise));
            let [own, alone] = figures.own.map(number);
            let [cpu, last] =
                [figures.cpu, figures.last].map(|(n, over)| [number(n), format!("{over}{sign}")]);
            many.row([vec![loops.to_string(), own, alone], cpu.into(), last.into()].concat());
            eprintln!("{loops} loops, {} subscribers", self.few);
            let heard = quietest(|| self.few(places, &program, *loops))?;
            let (figures, sign) = (heard.value, mark(heard.noise));
            let [cpu, rate] =
                [figures.cpu, figures.rate].map(|(n, over)| [number(n), format!("{over}{sign}")]);
            few.row([vec![loops.to_string()], cpu.into(), rate.into()].concat());
        }
        println!(
            "WebSockets on one channel of a hub on all processors; backend {}. By turns with a hub of",
            self.backend
        );
        println!(
            "one loop, the median of neighbouring turns, and the middle half of them. The subscribers use a"
        );
        println!("processor, too, so that times by the wall say little of machines with more.\n");
        println!("One message to {} subscribers\n\n{many}", self.subscribers);
        println!("Messages to {} subscribers, from {PUBLISHERS} publishers\n\n{few}\n{MARK}", self.few);
        Ok(())
    }

    fn start(&self, places: &Places, program: &Path, loops: u32) -> io::Result<Running> {
        let mut command = command(program, self.backend);
        command.args(["--set", &format!("loops={loops}")]);
        places.spawn_anywhere(|| Running::start(&mut command))
    }

    fn many(&self, places: &Places, program: &Path, loops: u32) -> io::Result<(Many, f64)> {
        let gather = |loops| {
            let hub = self.start(places, program, loops)?;
            Crowd::gather(hub, loops, Transport::Ws, self.subscribers as usize)
        };
        let mut crowds = [gather(loops)?, gather(1)?];
        crowds.iter_mut().try_for_each(|crowd| crowd.deliver().map(drop))?;
        let noise = Noise::watch(&crowds.each_ref().map(|crowd| crowd.hub.process))?;
        let deliveries = (0..2 * self.messages as usize).map(|at| crowds[at % 2].deliver());
        let deliveries = deliveries.collect::<io::Result<Vec<_>>>()?;
        let noise = noise.share()?;
        let cpu = compared(deliveries.iter().map(|delivery| delivery.cpu))?;
        let last = compared(deliveries.iter().map(|delivery| delivery.last))?;
        Ok((Many { own: crowds.each_ref().map(|crowd| crowd.own), cpu, last }, noise))
    }

    fn few(&self, places: &Places, program: &Path, loops: u32) -> io::Result<(Few, f64)> {
        let gather = |loops| Circle::gather(self.start(places, program, loops)?, self.few as usize);
        let mut circles = [gather(loops)?, gather(1)?];
        circles.iter_mut().try_for_each(|circle| circle.slice().map(drop))?;
        let noise = Noise::watch(&circles.each_ref().map(|circle| circle.hub.process))?;
        let (start, mut slices) = (Instant::now(), Vec::new());
        while start.elapsed() < self.secs || slices.len() < 4 {
            slices.push(circles[slices.len() % 2].slice()?);
        }
        let noise = noise.share()?;
        let cpu = compared(slices.iter().map(|(cpu, _)| *cpu))?;
        let rate = compared(slices.iter().map(|(_, rate)| *rate))?;
        Ok((Few { cpu, rate }, noise))
    }
}

/// The first's median, and first over second, of two that took turns.
fn compared(samples: impl Iterator<Item = f64>) -> io::Result<(f64, Spread)> {
    let samples: Vec<f64> = samples.collect();
    let over = ratio_by_turns(&samples).ok_or_else(|| io::Error::other("too few turns"))?;
    Ok((median(&samples.iter().copied().step_by(2).collect::<Vec<_>>()), over))
}

/// A hub, few subscribers, and several publishers at once.
struct Circle {
    hub: Running,
    audience: Audience,
    publishers: Vec<Publisher>,
}

impl Circle {
    fn gather(hub: Running, count: usize) -> io::Result<Self> {
        let streams = subscribe(hub.addr, Transport::Ws, 0, count)?;
        let audience = Audience::new(streams, Transport::Ws.framing())?;
        let publishers = (0..PUBLISHERS).map(|_| Publisher::connect(hub.addr)).collect::<io::Result<_>>()?;
        Ok(Circle { hub, audience, publishers })
    }

    /// Processor time for each publication, in nanoseconds, and publications a second.
    fn slice(&mut self) -> io::Result<(f64, f64)> {
        let (start, cpu, mut published) = (Instant::now(), self.hub.process.cpu()?, 0);
        while start.elapsed() < SLICE {
            for publisher in &mut self.publishers {
                publisher.publish("x")?;
            }
            for publisher in &mut self.publishers {
                publisher.answer()?;
            }
            self.audience.hear(PUBLISHERS)?;
            published += PUBLISHERS;
        }
        let rate = published as f64 / start.elapsed().as_secs_f64();
        Ok(((self.hub.process.cpu()? - cpu) as f64 / published as f64, rate))
    }
}
