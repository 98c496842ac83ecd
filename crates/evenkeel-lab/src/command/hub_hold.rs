//! `hub-hold`: very many subscribers of one hub, more than a descriptor table holds, because each of its loops has its own.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use evenkeel::Backend;

use super::crowd::Crowd;
use super::tables::in_tables;
use crate::hub::{Transport, command, connections_of_loops};
use crate::machine::{Noise, Places, mark};
use crate::peers;
use crate::server::Running;
use crate::stats::{median, number};
use crate::table::Table;

#[derive(Args)]
pub(crate) struct HubHold {
    /// Subscribers of one channel, all connected at once. Each loop needs a descriptor for each of its own.
    #[arg(long, default_value_t = 76_000, value_parser = clap::value_parser!(u32).range(100..=250_000))]
    subscribers: u32,
    /// The hub's loops, with a descriptor table each.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    loops: u32,
    /// Messages, each delivered to all of them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    messages: u32,
    /// How subscribers are connected; both if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    transport: Vec<Transport>,
    /// The hub's kernel interface.
    #[arg(long, default_value = "auto")]
    backend: Backend,
    /// The hub's program; built from this repository if it is not named.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
}

impl HubHold {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        let program = self.program.clone().map_or_else(peers::hub, Ok)?;
        let both = [Transport::Ws, Transport::Sse];
        let transports = if self.transport.is_empty() { &both[..] } else { &self.transport };
        let mut table = Table::new([
            "subscriber",
            "connections of each loop",
            "descriptors in its table",
            "connecting all: s",
            "idle: bytes each",
            "kernel: bytes each",
            "delivery: CPU ns",
            "last delivery: ms",
            "bytes",
        ]);
        for transport in transports {
            eprintln!("{transport}, {} subscribers", self.subscribers);
            table.row(self.measure(places, &program, *transport)?);
        }
        println!(
            "{} subscribers of one channel at once, in one process with {} loops on all processors; backend {}.",
            self.subscribers, self.loops, self.backend
        );
        println!("Each of {} messages has come to every one of them.", self.messages);
        println!(
            "Idle: the hub's own memory. Kernel: slab memory of the whole machine, with both ends' sockets."
        );
        println!("The publisher and who asks for the metrics are connections, too.\n");
        println!("{table}\n!: other programs used more than a fifth of a processor meanwhile.");
        Ok(())
    }

    fn measure(&self, places: &Places, program: &Path, transport: Transport) -> io::Result<[String; 9]> {
        let mut command = command(program, self.backend);
        command.args(["--set", "private_descriptors=true", "--set", &format!("loops={}", self.loops)]);
        let hub = places.spawn_anywhere(|| Running::start(&mut command))?;
        let mut crowd = Crowd::gather(hub, self.loops, transport, self.subscribers as usize)?;
        let loops = connections_of_loops(crowd.hub.addr)?;
        let tables = in_tables(crowd.hub.process.pid(), "hub")?;
        let noise = Noise::watch(&[crowd.hub.process])?;
        let deliveries = (0..self.messages).map(|_| crowd.deliver()).collect::<io::Result<Vec<_>>>()?;
        let noise = noise.share()?;
        let middle = |of: Vec<f64>| number(median(&of));
        Ok([
            transport.to_string(),
            list(&loops),
            list(&tables),
            number(crowd.opening.as_secs_f64()),
            number(crowd.own),
            number(crowd.kernel),
            format!("{}{}", middle(deliveries.iter().map(|d| d.cpu).collect()), mark(noise)),
            middle(deliveries.iter().map(|d| d.last).collect()),
            deliveries.last().map_or_else(String::new, |d| d.bytes.to_string()),
        ])
    }
}

fn list(counts: &[impl ToString]) -> String {
    counts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
