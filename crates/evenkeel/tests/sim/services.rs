//! What a loop gives to others: files, names and work, on a disk, a network and threads that fail.

use std::io;
use std::time::Duration;

use evenkeel::net::{Listener, Stream};
use evenkeel::sim::{self, Failure, Fault, World};
use evenkeel::{Backend, dns, fs, time};

/// What goes wrong with them.
const FAILING: &[Fault] =
    &[Fault::Disk, Fault::Names, Fault::PoolDelay, Fault::ThreadStartFails, Fault::Kill];

fn content(of: u64) -> Vec<u8> {
    (0..of * 97 % 9_000).map(|at| (at * 13 + of) as u8).collect()
}

/// What a file had when it was synced is what it has, whatever happened since.
async fn keeps_files() -> io::Result<()> {
    loop {
        let number = sim::random(1_000);
        let _ = write_and_read(number).await;
        time::sleep(Duration::from_millis(sim::random(100))).await;
    }
}

async fn write_and_read(number: u64) -> io::Result<()> {
    let (path, new) = (format!("/data-{number}"), format!("/data-{number}.new"));
    if let Ok(found) = fs::read(&path).await
        && found != content(number)
    {
        sim::fail(format!("{path} has {} bytes that were never synced under this name (I35)", found.len()));
    }
    let file = fs::File::create(&new).await?;
    file.write_all_at(&content(number), 0).await?;
    file.sync_all().await?;
    file.close().await?;
    fs::rename(&new, &path).await?;
    let found = fs::read(&path).await?;
    if found != content(number) {
        sim::fail("a file has other bytes than were written (I35)");
    }
    Ok(())
}

/// Answers come once, and are the right ones.
async fn works() -> io::Result<()> {
    for number in 0..40u64 {
        let mut work = evenkeel::pool::offload(move || number * number);
        if sim::random(8) == 0 {
            time::sleep(Duration::from_micros(sim::random(5_000))).await;
            if work.cancel() {
                continue;
            }
        }
        match work.await {
            Ok(answer) if answer != number * number => sim::fail("another job's answer came (I7)"),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

async fn looks_up() -> io::Result<()> {
    let mut reached = 0;
    for _ in 0..30 {
        let _ = dns::resolve("nobody", 7000).await;
        if let Ok(Ok(mut stream)) =
            time::timeout(Duration::from_secs(20), Stream::connect_host("server:7000")).await
        {
            let mut hello = [0; 5];
            if stream.read_exact(&mut hello).await.is_ok() {
                reached += 1;
            }
        }
        time::sleep(Duration::from_millis(sim::random(500))).await;
    }
    if reached == 0 { Err(io::Error::other("a name has never led anywhere")) } else { Ok(()) }
}

async fn greets() -> io::Result<()> {
    evenkeel::spawn(keeps_files()).detach();
    let mut listener = Listener::bind("0.0.0.0:7000")?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let _ = stream.write_all(b"hello").await;
    }
}

fn i26_files_names_and_work(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm_more(FAILING);
    let server = world.host("server", greets);
    world.supervise(server);
    world.client("works", works);
    world.client("looks up", looks_up);
    world.run()
}

on_every_driver! {
    i26_files_names_and_work(0..30, super::FAILING);
}
