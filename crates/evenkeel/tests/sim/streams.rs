//! Streams between hosts: every byte arrives, in order, whatever the kernel and the network do.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel::net::{Listener, Stream};
use evenkeel::sim::{Failure, Fault, World};
use evenkeel::{Backend, time};

/// What a kernel may do at any time without anybody having done wrong.
pub(crate) const KERNEL: &[Fault] = &[
    Fault::ShortRead,
    Fault::ShortWrite,
    Fault::WouldBlock,
    Fault::SpuriousReadable,
    Fault::SpuriousWritable,
    Fault::SpuriousWake,
    Fault::Coalesced,
    Fault::Shuffled,
    Fault::Truncated,
    Fault::Interrupted,
    Fault::Delay,
    Fault::Clog,
    Fault::TimerSlack,
];

async fn echo(mut stream: Stream) -> io::Result<()> {
    let mut buffer = [0; 700];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}

pub(crate) async fn serve() -> io::Result<()> {
    let mut listener = Listener::bind("0.0.0.0:7000")?;
    loop {
        let (stream, _) = listener.accept().await?;
        evenkeel::spawn(async move {
            let _ = echo(stream).await;
        })
        .detach();
    }
}

/// Sends so many bytes, and sees that they come back.
pub(crate) async fn exchange(server: SocketAddr, bytes: usize) -> io::Result<()> {
    time::sleep(Duration::from_millis(1)).await;
    let mut stream = Stream::connect(server).await?;
    let mut sent = vec![0; bytes];
    for (at, byte) in sent.iter_mut().enumerate() {
        *byte = (at * 7 + at / 251) as u8;
    }
    let (mut read, mut write) = stream.split();
    let writing = async {
        write.write_all(&sent).await?;
        write.shutdown().await
    };
    let reading = async {
        let mut got = Vec::new();
        let mut buffer = [0; 333];
        loop {
            match read.read(&mut buffer).await? {
                0 => return Ok::<_, io::Error>(got),
                n => got.extend_from_slice(&buffer[..n]),
            }
        }
    };
    let (wrote, got) = futures_util::future::join(writing, reading).await;
    wrote?;
    let got = got?;
    if got != sent {
        let at = got.iter().zip(&sent).position(|(a, b)| a != b);
        evenkeel::sim::fail(format!(
            "{} of {} bytes came back; the first difference is at {at:?} (I35)",
            got.len(),
            sent.len()
        ));
    }
    Ok(())
}

fn i35_every_byte_arrives(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    let server = world.host("server", serve);
    let address = SocketAddr::new(world.ip(server), 7000);
    for i in 0..4 {
        world.client(&format!("client {i}"), move || exchange(address, 20_000));
    }
    world.run()
}

on_every_driver! {
    i35_every_byte_arrives(0..40, &[evenkeel::sim::Fault::ShortRead]);
}
