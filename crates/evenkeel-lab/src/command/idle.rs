//! `idle`: the memory that a connection costs a server while nothing happens on it.

use std::io;
use std::time::Duration;

use clap::Args;

use super::{cell, chosen, fits};
use crate::client::{exchange, open_echo};
use crate::machine::{Places, Process};
use crate::server::Server;
use crate::stats::number;
use crate::table::Table;

/// Connections before the first reading, so that what a server makes once is not counted.
const WARM: usize = 64;
/// Bytes that the first of them exchanges, so that every buffer that a server shares among its connections has been
/// used: a ring's pool of them becomes resident piece by piece, and would read as so many bytes of each connection.
const ROUND: usize = 16 << 20;

#[derive(Args)]
pub(crate) struct Idle {
    /// Servers; all if none are named.
    servers: Vec<Server>,
    /// Connections, all held at once by one server.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 15_000])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=18_000))]
    conns: Vec<u32>,
}

impl Idle {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        let levels = self.conns.iter().map(|n| format!("{n} connections"));
        let head = ["resident bytes of each".to_owned()].into_iter().chain(levels);
        let mut table = Table::new(head);
        for server in chosen(&self.servers, Server::all) {
            let figures = self.conns.iter().map(|conns| {
                let conns = *conns as usize;
                if !fits(server, conns) {
                    return "-".to_owned();
                }
                eprintln!("{server}, {conns} connections");
                cell(measure(places, server, conns).map(number))
            });
            table.row([server.to_string()].into_iter().chain(figures.collect::<Vec<_>>()));
        }
        println!(
            "Growth of a server's own memory for each connection that has exchanged one message, after {WARM} others,"
        );
        println!("one of which has exchanged {} MiB: buffers that all share are not in it.", ROUND >> 20);
        println!("The kernel's part is not in it, and the handlers have no state of their own.\n");
        println!("{table}");
        Ok(())
    }
}

fn measure(places: &Places, server: Server, conns: usize) -> io::Result<f64> {
    let running = server.start(places)?;
    let mut warm = open_echo(running.addr, 0, WARM)?;
    exchange(&mut warm[0], ROUND)?;
    let before = settled(running.process)?;
    let _held = open_echo(running.addr, WARM, conns)?;
    let after = settled(running.process)?;
    Ok((after as f64 - before as f64) / conns as f64)
}

/// A process's own memory once it no longer changes.
pub(crate) fn settled(process: Process) -> io::Result<u64> {
    let mut last = process.own_memory()?;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(200));
        let now = process.own_memory()?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}
