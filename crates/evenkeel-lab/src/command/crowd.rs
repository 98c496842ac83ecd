//! A hub and very many subscribers of one channel, more than one descriptor table holds.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::holder::{Holder, held_by_one};
use super::hub::WARM;
use super::idle::settled;
use crate::hub::{Audience, Publisher, Transport, fill_buffers, subscribe};
use crate::machine::meminfo;
use crate::server::Running;

/// Data of a message, which makes it 127 bytes on the wire to a WebSocket.
const DATA: usize = 84;

/// The hub and its subscribers.
pub(super) struct Crowd {
    /// First, so that they are gone before the hub is.
    holders: Vec<Holder<Heard>>,
    publisher: Publisher,
    pub(super) hub: Running,
    count: usize,
    /// The hub's own memory for each subscriber, in bytes.
    pub(super) own: f64,
    /// The kernel's objects for each subscriber, the hub's socket and the subscriber's, in bytes. Other programs add noise.
    pub(super) kernel: f64,
    pub(super) opening: Duration,
}

/// That all subscribers of one holder have a message.
struct Heard {
    at: Instant,
    bytes: usize,
}

/// One message to all.
pub(super) struct Delivery {
    /// The hub's processor time for each subscriber, in nanoseconds.
    pub(super) cpu: f64,
    /// From the publisher's request to the last subscriber that has it, in milliseconds.
    pub(super) last: f64,
    /// Length on the wire.
    pub(super) bytes: usize,
}

impl Crowd {
    /// Subscribes so many to a hub with so many loops that has just been started.
    pub(super) fn gather(hub: Running, loops: u32, transport: Transport, count: usize) -> io::Result<Self> {
        fill_buffers(hub.addr, loops as usize)?;
        let warm = hold(hub.addr, transport, 0, WARM)?;
        warm.opened()?;
        let (own, kernel, start) = (settled(hub.process)?, meminfo("Slab")?, Instant::now());
        let most = held_by_one();
        let others = (WARM..count).step_by(most);
        let others = others.map(|from| hold(hub.addr, transport, from, most.min(count - from)));
        let mut holders = others.collect::<io::Result<Vec<_>>>()?;
        holders.iter().try_for_each(Holder::opened)?;
        holders.push(warm);
        let (opening, kernel_after) = (start.elapsed(), meminfo("Slab")?);
        let each = |before: u64, after: u64| (after as f64 - before as f64) / (count - WARM) as f64;
        let (own, kernel) = (each(own, settled(hub.process)?), each(kernel, kernel_after));
        let publisher = Publisher::connect(hub.addr)?;
        Ok(Crowd { holders, publisher, hub, count, own, kernel, opening })
    }

    /// Publishes a message and waits until every subscriber has it.
    pub(super) fn deliver(&mut self) -> io::Result<Delivery> {
        self.holders.iter().try_for_each(Holder::go)?;
        let (start, cpu) = (Instant::now(), self.hub.process.cpu()?);
        self.publisher.publish(&"x".repeat(DATA))?;
        let heard = self.holders.iter().map(Holder::done).collect::<io::Result<Vec<_>>>()?;
        self.publisher.answer()?;
        let cpu = (self.hub.process.cpu()? - cpu) as f64 / self.count as f64;
        let last = heard.iter().map(|heard| heard.at.duration_since(start)).max().unwrap_or_default();
        let bytes = heard.iter().map(|heard| heard.bytes).max().unwrap_or(0);
        Ok(Delivery { cpu, last: last.as_secs_f64() * 1e3, bytes })
    }
}

/// Subscribers number `from` to `from + count`, who wait for a message whenever they are told to.
fn hold(to: SocketAddr, transport: Transport, from: usize, count: usize) -> io::Result<Holder<Heard>> {
    Holder::start(move || {
        let mut audience = Audience::new(subscribe(to, transport, from, count)?, transport.framing())?;
        Ok(move || {
            audience.hear_one_each()?;
            Ok(Heard { at: Instant::now(), bytes: audience.bytes })
        })
    })
}
