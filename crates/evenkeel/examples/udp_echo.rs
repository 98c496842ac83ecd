//! Echo over UDP: datagrams go back to who sent them. With `--features udp-offload`, many come and leave in one call.
//!
//! `cargo run --release -p evenkeel --features udp-offload --example udp_echo -- --backend epoll --port 7000`

mod common;

use evenkeel::EventLoop;
use evenkeel::net::UdpSocket;

#[cfg(not(feature = "udp-offload"))]
async fn echo(socket: UdpSocket) -> std::io::Result<()> {
    let mut datagram = vec![0; 65_536];
    loop {
        let (n, from) = socket.recv_from(&mut datagram).await?;
        // That one client cannot be reached must not end the service for the others.
        let _ = socket.send_to(&datagram[..n], from).await;
    }
}

#[cfg(feature = "udp-offload")]
async fn echo(socket: UdpSocket) -> std::io::Result<()> {
    use evenkeel::net::{RecvMeta, Transmit};
    use std::io::IoSliceMut;

    let socket = socket.into_batches()?;
    let mut memory = vec![vec![0; 65_536]; 8];
    let mut meta = vec![RecvMeta::default(); memory.len()];
    loop {
        let mut buffers: Vec<_> = memory.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let n = socket.recv_batch(&mut buffers, &mut meta).await?;
        for (datagrams, meta) in memory.iter().zip(&meta[..n]) {
            // What came joined leaves joined, as far as the kernel can cut it again. An empty datagram is one, too.
            let size = meta.stride.max(1);
            let whole = size * socket.max_gso_segments();
            let pieces = datagrams[..meta.len].chunks(whole);
            for piece in pieces.chain((meta.len == 0).then_some(&[][..])) {
                let mut answer = Transmit::new(meta.addr, piece).segments(size);
                // From the address that the client knows, where this machine has several.
                answer.src_ip = meta.dst_ip;
                // That one client cannot be reached must not end the service for the others.
                let _ = socket.send_batch(&answer).await;
            }
        }
    }
}

fn main() -> std::io::Result<()> {
    let args = common::args(7000)?;
    let mut events = EventLoop::builder().backend(args.backend).build()?;
    events.block_on(async {
        let socket = UdpSocket::bind(("127.0.0.1", args.port))?;
        println!("echo on {}", socket.local_addr()?);
        echo(socket).await
    })?
}
