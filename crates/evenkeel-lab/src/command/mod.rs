//! The measurements, one file each.

pub(crate) mod active;
mod crowd;
pub(crate) mod echo;
mod holder;
pub(crate) mod hub;
pub(crate) mod hub_hold;
pub(crate) mod hub_loops;
pub(crate) mod idle;
pub(crate) mod instr;
pub(crate) mod loops;
pub(crate) mod micro;
pub(crate) mod models;
pub(crate) mod ring;
pub(crate) mod spread;
pub(crate) mod tables;

use std::io;
use std::time::Duration;

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

/// A time on the command line, in seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| "a number of seconds is wanted".to_owned())?;
    if (0.1..=600.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err("from 0.1 to 600 seconds".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for text in ["", "x", "0", "-1", "601", "inf", "NaN"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
