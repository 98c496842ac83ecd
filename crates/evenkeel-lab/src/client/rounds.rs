//! A fixed amount of work, for counting instructions: the same on every run.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;
use crate::machine::Process;

/// Exchanges `count` rounds of one 64-byte message on each connection.
///
/// With several connections the server is stopped while a round is sent, so that it always finds all of them ready
/// at once: how many events a wait returns decides what a message costs, and would depend on the scheduler.
pub(crate) fn rounds(streams: &mut [TcpStream], server: Process, count: usize) -> io::Result<()> {
    let (message, mut echo) = ([b'x'; 64], [0; 64]);
    for _ in 0..count {
        if streams.len() > 1 {
            wait_for(server, 'S')?;
            signal(server, Signal::STOP)?;
            wait_for(server, 'T')?;
        }
        for stream in &mut *streams {
            stream.write_all(&message)?;
        }
        if streams.len() > 1 {
            signal(server, Signal::CONT)?;
        }
        for stream in &mut *streams {
            stream.read_exact(&mut echo)?;
        }
    }
    Ok(())
}

fn signal(server: Process, signal: Signal) -> io::Result<()> {
    let pid = Pid::from_raw(server.pid()).ok_or_else(|| io::Error::other("no such process"))?;
    Ok(kill_process(pid, signal)?)
}

fn wait_for(server: Process, state: char) -> io::Result<()> {
    let start = Instant::now();
    while server.state()? != state {
        if start.elapsed() > PATIENCE {
            let what = format!("the server does not reach the state {state}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}
