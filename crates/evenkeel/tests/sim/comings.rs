//! Comings and goings: many at once, connections that are refused, floods, and listeners that do not stay.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{ConnectOptions, Limits, ListenOptions, Listener, Stream};
use evenkeel::sim::{self, Failure, World};
use evenkeel::{Backend, CloseReason, Conn, ConnId, Handle, Handler, time};

use crate::streams::{KERNEL, exchange};

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        conn.write(bytes);
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        conn.close();
    }
}

async fn serve() -> io::Result<()> {
    let pool = Handle::current().pool(Limits::default());
    pool.listen("0.0.0.0:7000", &ListenOptions::default(), |_: &_| Echo)?;
    std::future::pending().await
}

/// Says something before there is anybody to hear it, and hears it back.
struct Eager {
    got: usize,
    done: Rc<Cell<usize>>,
}

const GREETING: &[u8] = b"said before the connection was there";

impl Handler for Eager {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        if bytes != &GREETING[self.got..self.got + bytes.len()] {
            sim::fail("another byte came back than was sent (I35)");
        }
        self.got += bytes.len();
        if self.got == GREETING.len() {
            conn.close();
        }
    }

    fn on_close(&mut self, _: ConnId, reason: &CloseReason) {
        if self.got != GREETING.len() || !matches!(reason, CloseReason::Local) {
            sim::fail(format!("{} bytes came back, then {reason:?} (I32)", self.got));
        }
        self.done.set(self.done.get() + 1);
    }
}

/// More come at once than one turn accepts.
const CROWD: usize = 40;

fn i24_i32_many_at_once(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    // All of them take as long as one another.
    world.set_delay(Duration::from_millis(1)..Duration::from_nanos(1_000_001));
    let server = world.host("server", serve);
    let address = SocketAddr::new(world.ip(server), 7000);
    world.client("crowd", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        let handle = Handle::current();
        let pool = handle.pool(Limits::default());
        let done = Rc::new(Cell::new(0));
        for _ in 0..CROWD {
            let id =
                pool.connect(address, &ConnectOptions::default(), Eager { got: 0, done: done.clone() })?;
            handle.write(id, GREETING).map_err(io::Error::other)?;
        }
        while done.get() < CROWD {
            time::sleep(Duration::from_millis(10)).await;
            if sim::elapsed() > Duration::from_secs(20) {
                sim::fail(format!("only {} of {CROWD} were served (I24, I32)", done.get()));
                break;
            }
        }
        Ok(())
    });
    world.run()
}

/// Counts, and says how much there was.
struct Count(u64);

impl Handler for Count {
    fn on_data(&mut self, _: &mut Conn<'_>, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        conn.write(&self.0.to_be_bytes());
        conn.close();
    }
}

/// More than one turn reads of one stream is there when it is looked at.
fn i24_a_flood_is_read_to_its_end(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    world.set_buffers(1 << 20, 1 << 20);
    let server = world.host("server", || async {
        let pool = Handle::current().pool(Limits::default());
        pool.listen("0.0.0.0:7000", &ListenOptions::default(), |_: &_| Count(0))?;
        std::future::pending().await
    });
    let address = SocketAddr::new(world.ip(server), 7000);
    world.client("flood", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        let mut stream = Stream::connect(address).await?;
        let much = vec![1; 900_000];
        stream.write_all(&much).await?;
        stream.shutdown().await?;
        let mut answer = [0; 8];
        time::timeout(Duration::from_secs(25), stream.read_exact(&mut answer))
            .await
            .map_err(io::Error::other)??;
        match u64::from_be_bytes(answer) {
            900_000 => Ok(()),
            n => Err(io::Error::other(format!("{n} of 900000 bytes were counted (I35)"))),
        }
    });
    world.run()
}

/// Where nobody listens a connection is refused, and its maker hears of it without a deadline.
fn i32_refusals_are_heard(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    let other = world.host("other", || async { std::future::pending().await });
    let address = SocketAddr::new(world.ip(other), 9);
    world.client("client", move || async move {
        for _ in 0..3 {
            let refused = time::timeout(Duration::from_secs(5), Stream::connect(address)).await;
            match refused {
                Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                other => sim::fail(format!("nobody listens, and yet {:?} (I32)", other.map(drop))),
            }
        }
        Ok(())
    });
    world.run()
}

/// Listeners that are dropped while newcomers come: nothing of them is left, and the next one serves.
fn i10_i36_listeners_come_and_go(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    let server = world.host("server", || async {
        while sim::elapsed() < Duration::from_secs(2) {
            let mut listener = match Listener::bind("0.0.0.0:7000") {
                Ok(listener) => listener,
                // The one before it closes at the end of its turn, or when its accept has been cancelled.
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                    time::sleep(Duration::from_micros(100)).await;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let taken = time::timeout(Duration::from_micros(sim::random(4_000)), async {
                for _ in 0..sim::random(3) {
                    drop(listener.accept().await?);
                }
                time::sleep(Duration::from_micros(sim::random(3_000))).await;
                Ok::<_, io::Error>(())
            });
            if let Ok(taken) = taken.await {
                taken?;
            }
        }
        time::sleep(Duration::from_millis(100)).await;
        crate::streams::serve().await
    });
    // What each forgotten one would keep is soon missed.
    world.set_descriptors(server, 40);
    let address = SocketAddr::new(world.ip(server), 7000);
    for i in 0..4 {
        world.client(&format!("client {i}"), move || async move {
            while sim::elapsed() < Duration::from_secs(2) {
                let _ = time::timeout(Duration::from_secs(1), Stream::connect(address)).await;
                time::sleep(Duration::from_micros(sim::random(2_000))).await;
            }
            time::sleep(Duration::from_secs(3)).await;
            exchange(address, 3_000).await
        });
    }
    world.run()
}

on_every_driver! {
    i24_i32_many_at_once(0..10, &[]);
    i24_a_flood_is_read_to_its_end(0..10, &[]);
    i32_refusals_are_heard(0..5, &[]);
    i10_i36_listeners_come_and_go(0..10, &[]);
}
