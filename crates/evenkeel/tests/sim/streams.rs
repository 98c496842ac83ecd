//! Streams between hosts: every byte arrives, in order, whatever the kernel and the network do.

use std::io;
use std::time::Duration;

use evenkeel::net::{Listener, Stream};
use evenkeel::sim::{Check, Failure, Fault, World};
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

pub(crate) async fn client(server: std::net::IpAddr, bytes: usize) -> io::Result<()> {
    let mut stream = Stream::connect(std::net::SocketAddr::new(server, 7000)).await?;
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

fn every_byte(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    let server = world.host("server", serve);
    let ip = world.ip(server);
    for i in 0..4 {
        world.client(&format!("client {i}"), move || async move {
            time::sleep(Duration::from_millis(1)).await;
            client(ip, 20_000).await
        });
    }
    world.run()
}

macro_rules! on_every_driver {
    ($($name:ident: $world:path;)*) => { $(
        mod $name {
            use super::*;
            #[test]
            fn sim() {
                Check::new().seeds(0..40).run(|world| $world(world, Backend::Sim));
            }
            #[test]
            fn select() {
                Check::new().seeds(0..40).run(|world| $world(world, Backend::Select));
            }
            #[test]
            fn poll() {
                Check::new().seeds(0..40).run(|world| $world(world, Backend::Poll));
            }
            #[test]
            fn epoll_lt() {
                Check::new().seeds(0..40).run(|world| $world(world, Backend::EpollLevel));
            }
            #[test]
            fn epoll() {
                Check::new().seeds(0..40).run(|world| $world(world, Backend::Epoll));
            }
        }
    )* };
}

on_every_driver! {
    i35_every_byte_arrives: every_byte;
}
