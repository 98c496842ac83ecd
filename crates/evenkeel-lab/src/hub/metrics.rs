//! What a hub tells of itself.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use crate::client::connect;

/// Connections of each loop, the one that asks among them.
pub(crate) fn connections_of_loops(hub: SocketAddr) -> io::Result<Vec<u64>> {
    let mut stream = connect(hub, 0)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {hub}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match of_loops(&text) {
        none if none.is_empty() => Err(io::Error::other(format!("the hub tells no connections: {text}"))),
        counts => Ok(counts),
    }
}

/// The samples in the order of the loops.
fn of_loops(text: &str) -> Vec<u64> {
    let sample = |line: &str| {
        let (index, count) =
            line.strip_prefix("evenkeel_hub_loop_connections{loop=\"")?.split_once("\"} ")?;
        Some((index.parse::<usize>().ok()?, count.trim().parse().ok()?))
    };
    let mut counts: Vec<(usize, u64)> = text.lines().filter_map(sample).collect();
    counts.sort_unstable();
    counts.into_iter().map(|(_, count)| count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_in_the_order_of_loops() {
        let text = "# TYPE evenkeel_hub_loop_connections gauge\n\
            evenkeel_hub_loop_connections{loop=\"10\"} 3\nevenkeel_hub_loop_connections{loop=\"2\"} 7\n\
            evenkeel_hub_accepted_total 10\n";
        assert_eq!(of_loops(text), [7, 3]);
        assert_eq!(of_loops("HTTP/1.1 403 Forbidden\r\n\r\n"), [0_u64; 0]);
    }
}
