//! Echo with tasks: reads lend the loop's memory, so an idle connection needs no buffer. With `--own-buffer`, each
//! task has 4 KiB of its own, as code that is written against `AsyncRead` does.
//!
//! `cargo run --release -p evenkeel --example echo_async -- --backend epoll --port 7000`

mod common;

use evenkeel::net::{TcpListener, TcpStream};
use evenkeel::{EventLoop, Flow};

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    while let Some(flow) = stream.read_with(|bytes, reply| reply.write(bytes)).await? {
        if flow == Flow::Hold {
            stream.flush().await?;
        }
    }
    Ok(())
}

async fn echo_from_own_buffer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}

fn main() -> std::io::Result<()> {
    let args = common::args(7000)?;
    let mut events = EventLoop::builder().backend(args.backend).build()?;
    events.block_on(async {
        let mut listener = TcpListener::bind(("127.0.0.1", args.port))?;
        println!("echo on {}", listener.local_addr()?);
        loop {
            let (stream, _peer) = listener.accept().await?;
            if args.own_buffer {
                evenkeel::spawn(echo_from_own_buffer(stream));
            } else {
                evenkeel::spawn(echo(stream));
            }
        }
    })?
}
