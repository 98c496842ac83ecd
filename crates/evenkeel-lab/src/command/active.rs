//! `active`: what busy connections pay for idle ones that the same server holds.

use std::io;
use std::time::Duration;

use clap::Args;

use super::{cell, chosen, fits, seconds};
use crate::client::Side;
use crate::machine::{MARK, Noise, Places, mark, quietest};
use crate::server::Server;
use crate::stats::Spread;
use crate::table::Table;
use crate::turns::take_turns;

#[derive(Args)]
pub(crate) struct Active {
    /// Servers; all if none are named.
    servers: Vec<Server>,
    /// Idle connections. A server that cannot hold so many is measured with as many as it can.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    idle: u32,
    /// Busy connections.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=900))]
    busy: u32,
    /// Seconds of turns for each server.
    #[arg(long, default_value = "4", value_parser = seconds)]
    secs: Duration,
}

impl Active {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        let mut table = Table::new(["server", "idle", "CPU per message over the same without idle ones"]);
        for server in chosen(&self.servers, Server::all) {
            let busy = self.busy as usize;
            if !fits(server, busy) {
                continue;
            }
            let idle = (self.idle as usize).min(server.most_connections() - busy);
            eprintln!("{server}, {busy} busy among {idle} idle");
            let measured = quietest(|| self.measure(places, server, idle));
            let figure = cell(measured.map(|heard| format!("{}{}", heard.value, mark(heard.noise))));
            table.row([server.to_string(), idle.to_string(), figure]);
        }
        println!("{} busy connections, 64 bytes; two processes of each server by turns\n", self.busy);
        println!("{table}\n{MARK}");
        Ok(())
    }

    fn measure(&self, places: &Places, server: Server, idle: usize) -> io::Result<(Spread, f64)> {
        let busy = self.busy as usize;
        let (crowded, alone) = (server.start(places)?, server.start(places)?);
        let mut first = Side::open(&crowded, busy, idle, 64)?;
        let mut second = Side::open(&alone, busy, 0, 64)?;
        let noise = Noise::watch(&[crowded.process, alone.process])?;
        let compared = take_turns(&mut first, &mut second, self.secs)?;
        Ok((compared.cpu, noise.share()?))
    }
}
