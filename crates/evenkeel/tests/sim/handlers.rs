//! Handlers: the order of their calls, echo with back-pressure, and everything that a handler may do, in any call.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{Limits, ListenOptions, Stream};
use evenkeel::sim::{self, Failure, Fault, World};
use evenkeel::{Backend, CloseReason, Conn, ConnId, Flow, Handle, Handler, time};

use crate::streams::KERNEL;

/// What ends connections while a handler looks.
const ENDING: &[Fault] =
    &[Fault::Reset, Fault::EarlyEnd, Fault::ResetAfterEnd, Fault::AcceptAborted, Fault::Panic];

/// What all connections of a server share.
#[derive(Default)]
struct Room {
    open: RefCell<BTreeMap<u64, ConnId>>,
    opened: Cell<u64>,
    closed: Cell<u64>,
}

/// Echoes, and does something else now and then.
struct Restless {
    room: Rc<Room>,
    number: u64,
    opened: bool,
    over: bool,
    paused: bool,
    /// Does nothing but echo.
    calm: bool,
    /// It has closed itself, or panicked: nothing comes but `on_close`.
    last: bool,
}

impl Restless {
    fn called(&mut self, what: &str, first: bool) {
        if self.opened == first {
            sim::fail(format!("{what} came {} on_open (I6)", if first { "after another" } else { "before" }));
        }
        if self.over {
            sim::fail(format!("{what} came after on_close (I6)"));
        }
        if self.last {
            sim::fail(format!("{what} came after the handler closed, or panicked (I6, I38)"));
        }
        if sim::strikes(Fault::Panic) {
            (self.calm, self.last) = (true, true);
            panic!("a handler may panic (this is planned)");
        }
    }

    /// Any of the things that a handler may do to itself or to others.
    fn fidget(&mut self, conn: &mut Conn<'_>) {
        if self.calm || sim::random(4) > 0 {
            return;
        }
        let handle = Handle::current();
        let others = self.room.open.borrow();
        let other = others.values().nth(sim::random(others.len().max(1) as u64) as usize).copied();
        drop(others);
        match (sim::random(12), other) {
            (0, _) => {
                conn.close();
                self.last = true;
            }
            (1, _) => {
                conn.abort();
                self.last = true;
            }
            (2, _) => conn.notify_after(Duration::from_millis(sim::random(50))),
            (3, _) => {
                conn.pause();
                self.paused = true;
                conn.notify_after(Duration::from_millis(1));
            }
            (4, _) => conn.shutdown_write(),
            (5, Some(other)) => drop(handle.close(other)),
            (6, Some(other)) => drop(handle.abort(other)),
            (7, Some(other)) => drop(handle.notify(other)),
            (8, _) => {
                let room = self.room.clone();
                handle.defer(move || {
                    // What is stale is an error value, and nothing else.
                    for id in room.open.borrow().values() {
                        let _ = Handle::current().queued(*id);
                    }
                });
            }
            (9, _) => drop(handle.after(Duration::from_micros(sim::random(2_000)), || {})),
            _ => {}
        }
    }
}

impl Handler for Restless {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        self.called("on_open", true);
        self.opened = true;
        self.room.opened.set(self.room.opened.get() + 1);
        self.room.open.borrow_mut().insert(self.number, conn.id());
        self.fidget(conn);
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        self.called("on_data", false);
        if self.paused {
            sim::fail("bytes came to one that had paused (I6)");
        }
        if bytes.is_empty() {
            sim::fail("no bytes came");
        }
        if conn.write(bytes) == Flow::Hold {
            conn.pause();
            self.paused = true;
        }
        self.fidget(conn);
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        self.called("on_eof", false);
        conn.close();
        self.last = true;
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        self.called("on_drained", false);
        self.paused = false;
        conn.resume();
    }

    fn on_notify(&mut self, conn: &mut Conn<'_>) {
        self.called("on_notify", false);
        if conn.queued() < 1_000 {
            self.paused = false;
            conn.resume();
        }
        self.fidget(conn);
    }

    fn on_close(&mut self, _: ConnId, _: &CloseReason) {
        if self.over {
            sim::fail("on_close came twice (I7)");
        }
        self.over = true;
        self.room.closed.set(self.room.closed.get() + 1);
        self.room.open.borrow_mut().remove(&self.number);
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        if self.opened && !self.over && sim::is_simulated() {
            sim::fail("a handler was dropped without on_close (I7)");
        }
    }
}

async fn serve(room: Rc<Room>, calm: bool) -> io::Result<()> {
    let handle = Handle::current();
    let mut limits = Limits::default();
    (limits.high_watermark, limits.low_watermark) = (4_000, 1_000);
    let pool = handle.pool(limits);
    let next = Cell::new(0);
    let make = move |_: &_| {
        next.set(next.get() + 1);
        Restless {
            room: room.clone(),
            number: next.get(),
            opened: false,
            over: false,
            paused: false,
            calm,
            last: false,
        }
    };
    pool.listen("0.0.0.0:7000", &ListenOptions::default(), make)?;
    std::future::pending().await
}

fn byte(at: usize) -> u8 {
    (at * 11 + at / 253) as u8
}

/// Writes and reads at the same time; what comes back is the beginning of what was sent.
async fn exchange(server: SocketAddr, bytes: usize) -> io::Result<usize> {
    let mut stream = Stream::connect(server).await?;
    let sent: Vec<u8> = (0..bytes).map(byte).collect();
    let (mut read, mut write) = stream.split();
    let mut got = 0;
    let writing = async {
        write.write_all(&sent).await?;
        write.shutdown().await
    };
    let reading = async {
        let mut buffer = [0; 700];
        loop {
            let n = read.read(&mut buffer).await?;
            if n == 0 {
                return Ok::<_, io::Error>(());
            }
            if buffer[..n].iter().enumerate().any(|(i, b)| *b != byte(got + i)) {
                sim::fail("another byte came back than was sent (I35)");
            }
            got += n;
        }
    };
    let (wrote, read) = futures_util::future::join(writing, reading).await;
    wrote.and(read)?;
    Ok(got)
}

/// Calm handlers send everything back, slow as a reader may be.
fn i04_i30_handlers_echo_everything(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    let server = world.host("server", || serve(Rc::default(), true));
    let address = SocketAddr::new(world.ip(server), 7000);
    for i in 0..4 {
        world.client(&format!("client {i}"), move || async move {
            time::sleep(Duration::from_millis(1)).await;
            match exchange(address, 15_000).await? {
                15_000 => Ok(()),
                n => Err(io::Error::other(format!("{n} bytes came back, and 15000 were sent (I30)"))),
            }
        });
    }
    world.run()
}

/// Restless ones may end at any time, but each call is in its place, and each is closed once.
fn i06_i07_i37_i38_calls_are_in_their_places(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(KERNEL);
    world.swarm_more(ENDING);
    let room: Rc<Room> = Rc::default();
    let of_server = room.clone();
    let server = world.host("server", move || serve(of_server.clone(), false));
    let address = SocketAddr::new(world.ip(server), 7000);
    for i in 0..6 {
        world.client(&format!("client {i}"), move || async move {
            for _ in 0..8 {
                time::sleep(Duration::from_millis(1 + sim::random(20))).await;
                let _ = time::timeout(Duration::from_secs(30), exchange(address, 3_000)).await;
            }
            Ok(())
        });
    }
    world.run()?;
    // Whoever is left is closed by its limits before long.
    world.calm();
    world.run_for(Duration::from_secs(600))?;
    let (opened, closed) = (room.opened.get(), room.closed.get());
    if opened > closed {
        return Err(world.fail(format!("{opened} connections were opened and {closed} closed (I7)")));
    }
    Ok(())
}

on_every_driver! {
    i04_i30_handlers_echo_everything(0..20, &[super::Fault::ShortRead, super::Fault::ShortWrite]);
    i06_i07_i37_i38_calls_are_in_their_places(0..30, super::ENDING);
}
