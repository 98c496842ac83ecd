//! The measurements, one file each.

pub(crate) mod active;
pub(crate) mod echo;
pub(crate) mod hub;
pub(crate) mod idle;
pub(crate) mod instr;
pub(crate) mod micro;
pub(crate) mod models;

use std::io;

use crate::server::Server;

/// Drops what a server cannot hold, and says so.
fn fits(server: Server, connections: usize) -> bool {
    let fits = connections <= server.most_connections();
    if !fits {
        eprintln!(
            "{server}: left out at {connections} connections, it can hold {}",
            server.most_connections()
        );
    }
    fits
}

/// The servers that were asked for, or these.
fn chosen(asked: &[Server], otherwise: impl FnOnce() -> Vec<Server>) -> Vec<Server> {
    if asked.is_empty() { otherwise() } else { asked.to_vec() }
}

/// What a server's failure means for a table of many: a cell, not the end of the run.
fn cell(result: io::Result<String>) -> String {
    result.unwrap_or_else(|error| {
        eprintln!("{error}");
        "failed".to_owned()
    })
}
