//! Connections that break: what arrives is the beginning of what was sent, and nobody is left behind.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel::net::Stream;
use evenkeel::sim::{self, Failure, Fault, World};
use evenkeel::{Backend, time};

use crate::streams::{KERNEL, serve};

/// What breaks a connection, or keeps it from being made.
const BREAKING: &[Fault] = &[
    Fault::Reset,
    Fault::EarlyEnd,
    Fault::ResetAfterEnd,
    Fault::ConnectFails,
    Fault::BacklogFull,
    Fault::TooManyFiles,
    Fault::FileTableFull,
    Fault::NoBuffers,
    Fault::AcceptAborted,
    Fault::Partition,
    Fault::Swizzle,
    Fault::Kill,
    Fault::Suspend,
    Fault::WallClockJump,
];

fn byte(at: usize) -> u8 {
    (at * 7 + at / 251) as u8
}

/// Sends, ends its half, and reads to the end. How much came back, whatever broke; what came is looked at.
async fn attempt(server: SocketAddr, bytes: usize) -> io::Result<usize> {
    let mut stream = Stream::connect(server).await?;
    let sent: Vec<u8> = (0..bytes).map(byte).collect();
    let (mut read, mut write) = stream.split();
    let writing = async {
        write.write_all(&sent).await?;
        write.shutdown().await
    };
    let mut got = 0;
    let reading = async {
        let mut buffer = [0; 333];
        loop {
            let n = read.read(&mut buffer).await?;
            if n == 0 {
                return Ok::<_, io::Error>(());
            }
            for (i, b) in buffer[..n].iter().enumerate() {
                if *b != byte(got + i) {
                    sim::fail(format!("byte {} is another one than was sent (I35)", got + i));
                }
            }
            got += n;
        }
    };
    let (wrote, read) = futures_util::future::join(writing, reading).await;
    if got > bytes {
        sim::fail("more came back than was sent (I35)");
    }
    wrote.and(read)?;
    Ok(got)
}

const STORM: Duration = Duration::from_secs(30);

async fn stubborn(server: SocketAddr) -> io::Result<()> {
    while sim::elapsed() < STORM {
        let _ = time::timeout(Duration::from_secs(20), attempt(server, 5_000)).await;
        time::sleep(Duration::from_millis(1 + sim::random(500))).await;
    }
    // When nothing breaks any more, everything comes back, within the time that retries take.
    for _ in 0..40 {
        if let Ok(Ok(5_000)) = time::timeout(Duration::from_secs(70), attempt(server, 5_000)).await {
            return Ok(());
        }
        time::sleep(Duration::from_secs(1)).await;
    }
    Err(io::Error::other("the server does not serve any more (I28)"))
}

fn i27_i36_what_breaks_leaves_nothing_behind(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    world.swarm_more(BREAKING);
    world.set_limit(Duration::from_secs(100_000));
    let server = world.host("server", serve);
    world.supervise(server);
    world.set_descriptors(server, 12);
    let address = SocketAddr::new(world.ip(server), 7000);
    for i in 0..5 {
        world.client(&format!("client {i}"), move || stubborn(address));
    }
    world.run_for(STORM)?;
    world.calm();
    world.run()
}

on_every_driver! {
    i27_i36_what_breaks_leaves_nothing_behind(0..40, super::BREAKING);
}
