//! `hub`: the memory of idle subscribers, and what it costs the hub to deliver one message to all of them.
//!
//! A delivery is at least one `send`, so a program that does nothing but `send` to as many connections takes turns with
//! the hub: the ratio of the two is what the hub adds, and it holds on other machines, which the times do not.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use evenkeel::Backend;

use super::idle::settled;
use crate::client::open;
use crate::hub::{Audience, Framing, Publisher, Transport, command, fill_buffers, subscribe};
use crate::machine::{Noise, Places, mark};
use crate::peers;
use crate::server::{Running, own_command};
use crate::stats::{Spread, median, number, ratio_by_turns};
use crate::table::Table;

/// Subscribers before the first reading of memory.
pub(super) const WARM: usize = 64;
/// Bytes that one message has on the wire, or one or two less.
const SIZE: usize = 128;
/// Descriptors that this process can have, less what it needs otherwise.
const DESCRIPTORS: usize = 19_500;

#[derive(Args)]
pub(crate) struct Hub {
    /// Subscribers of one channel.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=18_000))]
    subscribers: u32,
    /// Messages, each delivered to all of them.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(4..=10_000))]
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

/// What was measured of one kind of subscriber.
struct Outcome {
    idle: f64,
    bytes: usize,
    /// Processor time for each delivery, in nanoseconds: the hub's, and that of a bare `send`.
    delivery: f64,
    send: f64,
    over: Spread,
    /// From the publisher's request to the last delivery, in milliseconds.
    last: f64,
    noise: f64,
}

impl Hub {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        let program = self.program.clone().map_or_else(peers::hub, Ok)?;
        let both = [Transport::Ws, Transport::Sse];
        let transports = if self.transport.is_empty() { &both[..] } else { &self.transport };
        let head =
            ["subscriber", "idle: bytes each", "delivery: CPU ns", "bare send: CPU ns", "over bare send"];
        let mut table = Table::new(head.into_iter().chain(["last delivery: ms", "bytes"]));
        for transport in transports {
            eprintln!("{transport}, {} subscribers", self.subscribers);
            let outcome = self.measure(places, &program, *transport)?;
            table.row([
                transport.to_string(),
                number(outcome.idle),
                format!("{}{}", number(outcome.delivery), mark(outcome.noise)),
                number(outcome.send),
                outcome.over.to_string(),
                number(outcome.last),
                outcome.bytes.to_string(),
            ]);
        }
        println!(
            "{} subscribers of one channel, {} messages; backend {}",
            self.subscribers, self.messages, self.backend
        );
        println!(
            "The hub's own memory and the server's processor time; the kernel's part of a send is in both.\n"
        );
        println!("{table}\n!: other programs used more than a fifth of a processor meanwhile.");
        Ok(())
    }

    fn start(&self, places: &Places, program: &Path) -> io::Result<Running> {
        let mut command = command(program, self.backend);
        places.spawn(|| Running::start(&mut command))
    }

    fn measure(&self, places: &Places, program: &Path, transport: Transport) -> io::Result<Outcome> {
        let hub = self.start(places, program)?;
        let count = self.subscribers as usize;
        // It has one processor, and so one loop.
        fill_buffers(hub.addr, 1)?;
        let mut streams = subscribe(hub.addr, transport, 0, WARM)?;
        let before = settled(hub.process)?;
        streams.extend(subscribe(hub.addr, transport, WARM, count - WARM)?);
        let after = settled(hub.process)?;
        let idle = (after as f64 - before as f64) / (count - WARM) as f64;
        let mut audience = Audience::new(streams, transport.framing())?;

        let bare_count = count.min(DESCRIPTORS - count);
        let words = ["serve", "fan-out", &bare_count.to_string(), &SIZE.to_string()];
        let mut command = own_command(&words)?;
        let mut bare = places.spawn(|| Running::start(&mut command))?;
        let streams = open(bare.addr, 0, bare_count, &mut |_| Ok(()), &mut |_| Ok(()))?;
        let mut bare_audience = Audience::new(streams, Framing::Fixed(SIZE))?;

        let mut publisher = Publisher::connect(hub.addr)?;
        let data = fitting(&mut publisher, &mut audience)?;
        bare.tell(b"\n")?;
        bare_audience.hear_one_each()?;

        let noise = Noise::watch(&[hub.process, bare.process])?;
        let (mut costs, mut lasts) = (Vec::new(), Vec::new());
        for _ in 0..self.messages {
            let (start, cpu) = (Instant::now(), hub.process.cpu()?);
            publisher.publish(&data)?;
            audience.hear_one_each()?;
            lasts.push(start.elapsed().as_secs_f64() * 1e3);
            publisher.answer()?;
            costs.push((hub.process.cpu()? - cpu) as f64 / audience.len() as f64);
            let cpu = bare.process.cpu()?;
            bare.tell(b"\n")?;
            bare_audience.hear_one_each()?;
            costs.push((bare.process.cpu()? - cpu) as f64 / bare_audience.len() as f64);
        }
        let of = |n: usize| median(&costs.iter().copied().skip(n).step_by(2).collect::<Vec<_>>());
        let over = ratio_by_turns(&costs).ok_or_else(|| io::Error::other("too few messages"))?;
        let (delivery, send, last, noise) = (of(0), of(1), median(&lasts), noise.share()?);
        Ok(Outcome { idle, bytes: audience.bytes, delivery, send, over, last, noise })
    }
}

/// The data that makes a message as long as it shall be, found by sending one.
fn fitting(publisher: &mut Publisher, audience: &mut Audience) -> io::Result<String> {
    let mut data = "x".repeat(16);
    for _ in 0..3 {
        publisher.publish(&data)?;
        audience.hear_one_each()?;
        publisher.answer()?;
        let missing = SIZE.saturating_sub(audience.bytes);
        // A WebSocket frame of 126 bytes of payload has a longer head, so 128 in all cannot be had.
        if audience.bytes >= SIZE || missing <= 1 {
            break;
        }
        data.push_str(&"x".repeat(missing - usize::from(audience.bytes + missing > 127)));
    }
    Ok(data)
}
