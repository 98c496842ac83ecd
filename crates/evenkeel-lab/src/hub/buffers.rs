//! Buffers that all subscribers of a loop share, kept out of the memory of each.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::publisher::answer;
use crate::client::connect;

/// What a loop receives: twice what the shared buffers of a ring hold.
const BYTES: usize = 4 << 20;
/// Bytes of a request, which is within what a head may be.
const REQUEST: usize = 7 << 10;

/// Lets every loop of a hub that nobody else is connected to receive so much that all its buffers are resident: a ring's
/// become so piece by piece, and would read as so many bytes of each subscriber.
pub(crate) fn fill_buffers(hub: SocketAddr, loops: usize) -> io::Result<()> {
    // The one that accepts gives each to the loop with the fewest.
    let mut streams = (0..loops).map(|at| connect(hub, at)).collect::<io::Result<Vec<_>>>()?;
    let padding = "x".repeat(REQUEST);
    let request = format!("GET /health HTTP/1.1\r\nHost: {hub}\r\nX-Padding: {padding}\r\n\r\n");
    for _ in 0..BYTES / REQUEST {
        for stream in &mut streams {
            stream.write_all(request.as_bytes())?;
        }
        streams.iter_mut().try_for_each(answer)?;
    }
    Ok(())
}
