//! What blocks: threads of the pool, names, and a disk that must keep what was promised.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::fs::{self, File};
use evenkeel::net::{Listener, Stream};
use evenkeel::pool::offload;
use evenkeel::sim::{self, Failure, Fault, World};
use evenkeel::{Backend, time};

use crate::streams::KERNEL;

/// What may go wrong outside of a loop.
const OUTSIDE: &[Fault] =
    &[Fault::PoolDelay, Fault::ThreadStartFails, Fault::Names, Fault::Disk, Fault::Kill, Fault::Suspend];

/// The state's file, replaced in one step, and only by what is on the disk.
async fn keep(number: u64) -> io::Result<()> {
    let file = File::create("/state.new").await?;
    file.write_all_at(format!("{number}.").as_bytes(), 0).await?;
    file.sync_all().await?;
    fs::rename("/state.new", "/state").await?;
    // The name is another file's when the directory says so on the disk.
    File::open("/").await?.sync_all().await
}

async fn kept() -> io::Result<u64> {
    match fs::read("/state").await {
        Ok(text) => {
            let text = String::from_utf8(text).unwrap_or_default();
            let number = text.strip_suffix('.').and_then(|number| number.parse().ok());
            number.ok_or_else(|| {
                sim::fail(format!("the state's file holds {text:?}"));
                io::ErrorKind::InvalidData.into()
            })
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// Counts, and answers what it has counted once that will outlive it.
async fn count() -> io::Result<()> {
    let mut number = loop {
        match kept().await {
            Ok(number) => break number,
            Err(_) => time::sleep(Duration::from_millis(10)).await,
        }
    };
    let mut listener = Listener::bind("0.0.0.0:7000")?;
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let mut byte = [0];
        while matches!(stream.read(&mut byte).await, Ok(1)) {
            // A number that could not be kept is not given out, nor again: it may be on the disk all the same.
            number += 1;
            let Ok(next) = offload(move || number).await else { break };
            if keep(next).await.is_err() || stream.write_all(&next.to_be_bytes()).await.is_err() {
                break;
            }
        }
    }
}

/// Gets numbers until it has so many; each is greater than all before.
async fn get(last: Rc<Cell<u64>>, many: u32) -> io::Result<()> {
    let mut got = 0;
    while got < many {
        let one = async {
            let mut stream = Stream::connect_host("counter:7000").await?;
            while got < many {
                stream.write_all(b"n").await?;
                let mut number = [0; 8];
                stream.read_exact(&mut number).await?;
                let number = u64::from_be_bytes(number);
                if number <= last.get() {
                    sim::fail(format!("{number} comes after {}", last.get()));
                }
                last.set(number);
                got += 1;
            }
            Ok::<_, io::Error>(())
        };
        let _ = time::timeout(Duration::from_secs(5), one).await;
        time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn counting(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    world.swarm(OUTSIDE);
    let last = Rc::new(Cell::new(0));
    world.host("counter", count);
    world.client("client", {
        let last = last.clone();
        move || get(last.clone(), 40)
    });
    world.run_for(Duration::from_secs(60))?;
    world.calm();
    world.run()
}

on_every_driver! {
    counting(0..30, &[super::Fault::PoolDelay, super::Fault::Disk, super::Fault::Kill, super::Fault::Names]);
}
