//! A TCP proxy with tasks: every connection goes on to UPSTREAM, and each direction ends when it ends.
//!
//! `cargo run --release -p evenkeel --example proxy -- --backend epoll --port 7000 127.0.0.1:8000`

mod common;

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use evenkeel::EventLoop;
use evenkeel::net::{Addr, ConnectOptions, TcpListener, TcpStream, forward_both};

async fn connect(to: Addr) -> Result<TcpStream> {
    let mut options = ConnectOptions::default();
    options.deadline = Some(Duration::from_secs(5));
    TcpStream::connect_with(to, &options).await
}

async fn serve(mut client: TcpStream, upstream: Addr) -> Result<()> {
    let mut server = match connect(upstream).await {
        Ok(server) => server,
        Err(e) => {
            client.abort();
            return Err(e);
        }
    };
    let ended = forward_both(&mut client, &mut server).await;
    if ended.is_err() {
        // A failure of one side is no orderly end to the other.
        client.abort();
        server.abort();
    }
    ended.map(|_| ())
}

fn main() -> Result<()> {
    let args = common::args(7000)?;
    let usage = || Error::new(ErrorKind::InvalidInput, "usage: proxy [--backend NAME] [--port N] UPSTREAM");
    let upstream: Addr = args.rest.first().ok_or_else(usage)?.parse()?;
    let mut events = EventLoop::builder().backend(args.backend).build()?;
    events.block_on(async {
        let mut listener = TcpListener::bind(("127.0.0.1", args.port))?;
        println!("proxy on {}, to {upstream}", listener.local_addr()?);
        loop {
            let (client, peer) = listener.accept().await?;
            let served = serve(client, upstream.clone());
            evenkeel::spawn(async move {
                if let Err(e) = served.await {
                    eprintln!("{peer}: {e}");
                }
            });
        }
    })?
}
