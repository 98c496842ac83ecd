//! A child process and its pipes: standard input goes through a program, line by line or whole, to standard output.
//!
//! `echo hello | cargo run -p evenkeel --example child -- tr a-z A-Z`
//!
//! SIGTERM and Ctrl-C are passed on to the child; the program ends as the child does.

use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::process::ExitStatusExt;

use evenkeel::EventLoop;
use evenkeel::pipe::{Receiver, Sender};
use evenkeel::process::{Child, Command, ExitStatus, Stdio};
use evenkeel::signal::{Signal, Signals};
use evenkeel::stdio;
use futures_util::future::{Either, select, try_join};

async fn feed(mut to: Sender) -> Result<()> {
    let mut input = stdio::stdin()?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        match input.read(&mut buffer).await? {
            // Dropping the pipe is the child's end of input.
            0 => return Ok(()),
            n => to.write_all(&buffer[..n]).await?,
        }
    }
}

async fn show(mut from: Receiver) -> Result<()> {
    let mut output = stdio::stdout()?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer).await? {
            0 => return output.flush().await,
            n => output.write_all(&buffer[..n]).await?,
        }
    }
}

/// Waits for the child, and passes signals on to it meanwhile.
async fn wait(child: &mut Child, mut signals: Signals) -> Result<ExitStatus> {
    loop {
        let signal = match select(Box::pin(child.wait()), Box::pin(signals.recv())).await {
            Either::Left((status, _)) => return status,
            Either::Right((signal, _)) => signal,
        };
        child.signal(signal)?;
    }
}

fn main() -> Result<()> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let usage = || Error::new(ErrorKind::InvalidInput, "usage: child PROGRAM [ARGUMENTS]");
    let (program, words) = words.split_first().ok_or_else(usage)?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    // EVENKEEL_BACKEND chooses the backend.
    let mut events = EventLoop::new()?;
    let status = events.block_on(async {
        // Before there is a child: from its first output on, a signal is for it.
        let signals = Signals::new(&[Signal::Terminate, Signal::Interrupt])?;
        let mut child = command.spawn()?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::other("both are piped"));
        };
        // It may end before it has read everything, which is no failure.
        evenkeel::spawn(feed(to)).detach();
        let ((), status) = try_join(show(from), wait(&mut child, signals)).await?;
        Ok(status)
    })??;
    std::process::exit(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
}
