//! One process accepts connections, another one serves them: each is handed over as a descriptor, with the bytes that nobody
//! has read. The worker opens no socket of its own, so it could live in a sandbox.
//!
//! `cargo run --release -p evenkeel --example pass_fd -- --backend epoll --port 7000`

mod common;

use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use evenkeel::net::unix::{Seqpacket, SeqpacketListener};
use evenkeel::net::{TcpListener, TcpStream};
use evenkeel::{Backend, EventLoop};

/// Starts a worker, and waits until it has come.
async fn worker(backend: Backend) -> Result<Seqpacket> {
    let path = std::env::temp_dir().join(format!("evenkeel-pass-fd-{}", std::process::id()));
    let listener = SeqpacketListener::bind(&path)?;
    let words = ["--backend", backend.name(), "worker"];
    let child = Command::new(std::env::current_exe()?).args(words).arg(&path).spawn()?;
    let worker = listener.accept().await?;
    // Whoever can reach the path can connect to it.
    if worker.peer_credentials()?.pid != i32::try_from(child.id()).ok() {
        return Err(Error::new(ErrorKind::PermissionDenied, "somebody else came first"));
    }
    Ok(worker)
}

/// Accepts for the worker.
async fn accept(port: u16, backend: Backend) -> Result<()> {
    let worker = worker(backend).await?;
    let mut listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("accepting on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        let parts = stream.into_parts()?;
        let message = peer.to_string();
        worker.send_with_fds(message.as_bytes(), &[parts.fd.as_fd()]).await?;
    }
}

/// Serves what it is given, until the other process ends.
async fn serve(path: &Path) -> Result<()> {
    let acceptor = Seqpacket::connect(path)?;
    let mut peer = [0; 256];
    loop {
        let got = acceptor.recv_with_fds(&mut peer, 1).await?;
        if got.len == 0 {
            return Ok(());
        }
        let name = String::from_utf8_lossy(&peer[..got.len]).into_owned();
        for fd in got.fds {
            evenkeel::spawn(greet(TcpStream::from_fd(fd)?, name.clone()));
        }
    }
}

async fn greet(mut stream: TcpStream, name: String) -> Result<()> {
    let greeting = format!("hello {name}, from process {}\n", std::process::id());
    stream.write_all(greeting.as_bytes()).await?;
    while let Some(_flow) = stream.read_with(|bytes, reply| reply.write(bytes)).await? {
        stream.flush().await?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let args = common::args(7000)?;
    let mut events = EventLoop::builder().backend(args.backend).build()?;
    match &args.rest[..] {
        [] => events.block_on(accept(args.port, args.backend))?,
        [role, path] if role == "worker" => events.block_on(serve(Path::new(path)))?,
        _ => Err(Error::new(ErrorKind::InvalidInput, "this example takes no other words")),
    }
}
