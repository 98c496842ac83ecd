//! Several loops on a host: connections that change loops, and tasks that answer across.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel::group::{Group, Share};
use evenkeel::net::{Limits, ListenOptions, Listener, Stream};
use evenkeel::sim::{self, Check, Failure, World};
use evenkeel::{Backend, Conn, Handler, Remote, RemoteError, time};

use crate::rings::RING;
use crate::streams::{KERNEL, exchange};

/// Echoes a few pieces, and moves on to another loop.
async fn echo_and_move(mut stream: Stream, loops: Rc<[Remote]>) -> io::Result<()> {
    let mut buffer = [0; 500];
    for _ in 0..sim::random(4) {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
    move_on(stream, loops)
}

fn move_on(stream: Stream, loops: Rc<[Remote]>) -> io::Result<()> {
    let to = loops[sim::random(loops.len() as u64) as usize].clone();
    let parcel = stream.pack()?;
    parcel.send(&to, |handle, parcel| {
        // Refused for want of a descriptor, its peer is reset.
        let Ok(stream) = parcel.unpack(handle) else { return };
        let loops: Rc<[Remote]> = sim::remotes().into();
        handle
            .spawn(async move {
                let _ = Box::pin(echo_and_move(stream, loops)).await;
            })
            .detach();
    })?;
    Ok(())
}

async fn serve() -> io::Result<()> {
    let mut listener = Listener::bind("0.0.0.0:7000")?;
    let loops: Rc<[Remote]> = sim::remotes().into();
    loop {
        let (stream, _) = listener.accept().await?;
        let loops = loops.clone();
        evenkeel::spawn(async move {
            let _ = echo_and_move(stream, loops).await;
        })
        .detach();
    }
}

fn i43_connections_move_at_any_event(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    let server = world.host("server", serve);
    world.set_loops(server, 3);
    let address = SocketAddr::new(world.ip(server), 7000);
    for i in 0..4 {
        world.client(&format!("client {i}"), move || exchange(address, 6_000));
    }
    world.run()
}

/// Each answer comes once, from the loop that was asked.
fn i02_answers_from_other_loops_arrive(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    questions(world)
}

fn questions(world: &mut World) -> Result<(), Failure> {
    let host = world.client("host", || async {
        let loops = sim::remotes();
        for round in 0..50u64 {
            let which = sim::random(loops.len() as u64) as usize;
            let answer = loops[which].spawn(move || async move {
                time::sleep(Duration::from_micros(sim::random(3_000))).await;
                round * 2
            });
            let answer = answer.unwrap();
            assert_eq!(answer.await.unwrap(), round * 2, "I7");
        }
        Ok(())
    });
    world.set_loops(host, 4);
    world.run()
}

/// What rings do to everything else they may do to what wakes their loops.
#[test]
fn i12_rings_hear_other_loops() {
    Check::new().seeds(0..20).run(|world| {
        world.set_backend(Backend::IoUring);
        world.swarm(KERNEL);
        world.swarm_more(RING);
        questions(world)
    });
}

/// More messages than one turn takes, and more than a mailbox holds: each that was taken is served, and the rest refused.
fn i02_i41_bursts_of_messages_are_served(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    let host = world.client("host", || async {
        let other = sim::remotes()[1].clone();
        for burst in [5_000, 70_000] {
            let served = Arc::new(AtomicU64::new(0));
            let (mut taken, mut refused) = (0, 0);
            for _ in 0..burst {
                let served = served.clone();
                match other.run(move |_| _ = served.fetch_add(1, Ordering::Relaxed)) {
                    Ok(()) => taken += 1,
                    Err(RemoteError::Full) => refused += 1,
                    Err(e) => return Err(io::Error::other(e)),
                }
            }
            time::sleep(Duration::from_secs(1)).await;
            let served = served.load(Ordering::Relaxed);
            if served != taken {
                sim::fail(format!("{served} of {taken} messages were served (I2)"));
            }
            if (refused > 0) != (burst > 65_536) {
                sim::fail(format!("{refused} of {burst} messages were refused (I41)"));
            }
        }
        Ok(())
    });
    world.set_loops(host, 2);
    world.run()
}

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        conn.write(bytes);
    }
}

/// A group over the loops of a host shares a port in each of the ways, and closing its listener lets connections go on.
fn i43_a_group_over_a_host_s_loops_serves(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    let share = [Share::Acceptor, Share::ReusePort, Share::Shared][(world.seed() % 3) as usize];
    let server = world.host("server", move || async move {
        let group = Group::over(sim::remotes());
        let (options, limits) = (ListenOptions::default(), Limits::default());
        let blocking = group.listen("0.0.0.0:7001", &options, &limits, share, |_, _| Echo);
        assert_eq!(blocking.unwrap_err().kind(), io::ErrorKind::Deadlock);
        let make = |_: &_, _| |_: &_| Echo;
        let listener = group.listen_each_in_task("0.0.0.0:7000", &options, &limits, share, make).await?;
        while listener.counts().iter().map(|of_loop| of_loop.accepted).sum::<u64>() < 6 {
            time::sleep(Duration::from_millis(1)).await;
        }
        let each = listener.counts();
        if share == Share::Acceptor && each.iter().any(|of_loop| of_loop.accepted == 0) {
            sim::fail(format!("a loop got no connection: {each:?}"));
        }
        listener.close().map_err(io::Error::other)?;
        std::future::pending().await
    });
    world.set_loops(server, 3);
    let address = SocketAddr::new(world.ip(server), 7000);
    for i in 0..6 {
        world.client(&format!("client {i}"), move || exchange(address, 6_000));
    }
    world.run()
}

on_every_driver! {
    i43_a_group_over_a_host_s_loops_serves(0..12, &[]);
    i43_connections_move_at_any_event(0..20, &[evenkeel::sim::Fault::ShortRead]);
    i02_answers_from_other_loops_arrive(0..20, &[]);
    i02_i41_bursts_of_messages_are_served(0..2, &[]);
}
