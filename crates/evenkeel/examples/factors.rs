//! Computation beside a loop: each line is a number, the answer its prime factors. They are found on the threads of the
//! pool, so that a hard number keeps no other client waiting; one whose client hangs up is given up.
//!
//! `cargo run --release -p evenkeel --example factors -- --backend epoll --port 7000`

mod common;

use std::io::{Error, ErrorKind, Result};
use std::pin::pin;

use evenkeel::net::{TcpListener, TcpStream};
use evenkeel::pool::CancelToken;
use evenkeel::{EventLoop, Handle};
use futures_util::future::{Either, select};

/// Bytes that a client may send ahead.
const AHEAD: usize = 4096;

/// By trial division: seconds for two large factors. None if nobody waits any more.
fn factors(mut n: u64, token: &CancelToken) -> Option<Vec<u64>> {
    let (mut found, mut by) = (Vec::new(), 2_u64);
    while by.checked_mul(by).is_some_and(|square| square <= n) {
        if by % 65_536 == 1 && token.is_cancelled() {
            return None;
        }
        while n.is_multiple_of(by) {
            found.push(by);
            n /= by;
        }
        by += if by == 2 { 1 } else { 2 };
    }
    if n > 1 {
        found.push(n);
    }
    Some(found)
}

/// The answer to a line. The stream is read meanwhile, into what was read ahead. None when the client has gone.
async fn answer(line: &str, stream: &mut TcpStream, ahead: &mut Vec<u8>) -> Result<Option<String>> {
    let Ok(n) = line.parse() else { return Ok(Some("that is no number of 64 bits\n".into())) };
    let work = Handle::current().offload_with(move |token| factors(n, token));
    let mut work = pin!(work);
    loop {
        let read = Box::pin(stream.read_with(|bytes, _| ahead.extend_from_slice(bytes)));
        let has_gone = match select(work.as_mut(), read).await {
            Either::Left((found, _)) => {
                let factors: Vec<_> = found?.iter().flatten().map(u64::to_string).collect();
                return Ok(Some(format!("{n} = {}\n", factors.join(" * "))));
            }
            Either::Right((read, _)) => read?.is_none(),
        };
        if has_gone {
            // Dropping the work tells it that nobody waits for it.
            return Ok(None);
        }
        if ahead.len() > AHEAD {
            return Err(Error::new(ErrorKind::InvalidData, "too much is sent ahead"));
        }
    }
}

async fn serve(mut stream: TcpStream) -> Result<()> {
    let mut ahead = Vec::new();
    loop {
        let Some(end) = ahead.iter().position(|byte| *byte == b'\n') else {
            let more = stream.read_with(|bytes, _| ahead.extend_from_slice(bytes)).await?;
            if more.is_none() || ahead.len() > AHEAD {
                return Ok(());
            }
            continue;
        };
        let line = String::from_utf8_lossy(&ahead[..end]).trim().to_owned();
        ahead.drain(..=end);
        let Some(text) = answer(&line, &mut stream, &mut ahead).await? else { return Ok(()) };
        stream.write_all(text.as_bytes()).await?;
    }
}

fn main() -> Result<()> {
    let args = common::args(7000)?;
    let mut events = EventLoop::builder().backend(args.backend).build()?;
    events.block_on(async {
        let mut listener = TcpListener::bind(("127.0.0.1", args.port))?;
        println!("factors on {}", listener.local_addr()?);
        loop {
            let (client, peer) = listener.accept().await?;
            evenkeel::spawn(async move {
                if let Err(e) = serve(client).await {
                    eprintln!("{peer}: {e}");
                }
            });
        }
    })?
}
