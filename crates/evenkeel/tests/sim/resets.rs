//! Resets: they are heard by whoever goes on after the peer's end, and keep nobody busy.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{ListenOptions, Stream};
use evenkeel::sim::{self, Failure, Fault, World};
use evenkeel::{Backend, CloseReason, Conn, ConnId, Handle, Handler, time};

use crate::slow::{Ends, bytes, patient};
use crate::streams::KERNEL;

/// Goes on after its peer's end, and says nothing.
struct Stays(Ends);

impl Handler for Stays {
    fn on_data(&mut self, _: &mut Conn<'_>, _: &[u8]) {}

    fn on_eof(&mut self, _: &mut Conn<'_>) {}

    fn on_close(&mut self, _: ConnId, reason: &CloseReason) {
        self.0.borrow_mut().push((sim::elapsed(), reason.name().to_owned()));
    }
}

/// A peer that has ended its half, and resets later, is gone. `select` tells of it only to who reads, which nobody does
/// behind an end: there the idle timeout finds out, or the next write.
fn i31_a_reset_after_the_end_is_heard(world: &mut World, backend: Backend) -> Result<(), Failure> {
    if backend == Backend::Select {
        return Ok(());
    }
    world.set_backend(backend);
    world.swarm(KERNEL);
    let ends: Ends = Rc::default();
    let of_server = ends.clone();
    let server = world.host("server", move || {
        let ends = of_server.clone();
        async move {
            let make = move |_: &_| Stays(ends.clone());
            Handle::current().pool(patient()).listen("0.0.0.0:7000", &ListenOptions::default(), make)?;
            std::future::pending().await
        }
    });
    let address = SocketAddr::new(world.ip(server), 7000);
    world.client("client", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        let mut stream = Stream::connect(address).await?;
        stream.write_all(b"the last word").await?;
        stream.shutdown().await?;
        time::sleep(Duration::from_secs(1)).await;
        stream.abort();
        time::sleep(Duration::from_secs(5)).await;
        Ok(())
    });
    world.run()?;
    if ends.borrow().len() != 1 {
        return Err(world.fail("a reset after the peer's end was not heard (I31)"));
    }
    Ok(())
}

/// Wants nothing any more once something has come.
struct Enough;

impl Handler for Enough {
    fn on_data(&mut self, conn: &mut Conn<'_>, _: &[u8]) {
        conn.pause();
    }
}

/// A peer resets a connection whose handler has paused: nobody hears of it, and the loop has nothing to do for it.
fn i29_a_reset_keeps_nobody_busy(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    let server = world.host("server", || async {
        let handle = Handle::current();
        handle.pool(patient()).listen("0.0.0.0:7000", &ListenOptions::default(), |_: &_| Enough)?;
        time::sleep(Duration::from_secs(2)).await;
        let before = handle.stats().turns;
        time::sleep(Duration::from_secs(3)).await;
        let turns = handle.stats().turns - before;
        if turns > 20 {
            sim::fail(format!("{turns} turns in three seconds in which nothing happens (I29)"));
        }
        std::future::pending().await
    });
    let address = SocketAddr::new(world.ip(server), 7000);
    world.client("client", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        let mut stream = Stream::connect(address).await?;
        stream.write_all(b"enough").await?;
        time::sleep(Duration::from_millis(500)).await;
        stream.abort();
        time::sleep(Duration::from_secs(6)).await;
        Ok(())
    });
    world.run()
}

/// More than a turn reads, and what a socket holds here.
const MUCH: usize = 2 << 20;
const SURPLUS: usize = 100_000;

/// Says more than its socket takes, hears nothing of the first second, and goes on after its peer's end.
struct Late(Stays);

impl Handler for Late {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        conn.pause();
        conn.write(&bytes(MUCH + SURPLUS));
        let (handle, id) = (conn.handle().clone(), conn.id());
        conn.handle().after(Duration::from_secs(1), move || _ = handle.resume(id));
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        self.0.on_data(conn, bytes);
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        self.0.on_eof(conn);
    }

    fn on_close(&mut self, id: ConnId, reason: &CloseReason) {
        self.0.on_close(id, reason);
    }
}

/// The end and the reset are behind more than is read in one turn: the loop hears of both long before the handler does.
fn i31_a_reset_behind_much_is_heard(world: &mut World, backend: Backend) -> Result<(), Failure> {
    if backend == Backend::Select {
        return Ok(());
    }
    world.set_backend(backend);
    world.set_buffers(MUCH, MUCH);
    let ends: Ends = Rc::default();
    let of_server = ends.clone();
    let server = world.host("server", move || {
        let ends = of_server.clone();
        async move {
            let make = move |_: &_| Late(Stays(ends.clone()));
            Handle::current().pool(patient()).listen("0.0.0.0:7000", &ListenOptions::default(), make)?;
            std::future::pending().await
        }
    });
    let address = SocketAddr::new(world.ip(server), 7000);
    world.client("client", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        let mut stream = Stream::connect(address).await?;
        stream.read_exact(&mut vec![0; MUCH + SURPLUS]).await?;
        stream.write_all(&bytes(MUCH - 1)).await?;
        stream.shutdown().await?;
        time::sleep(Duration::from_millis(500)).await;
        stream.abort();
        time::sleep(Duration::from_secs(2)).await;
        Ok(())
    });
    world.run()?;
    if ends.borrow().len() != 1 {
        return Err(world.fail("a reset behind much that was unread was not heard (I31)"));
    }
    Ok(())
}

const ANSWER: usize = 20_000;

/// Answers when its peer has ended, and closes.
struct Answers;

impl Handler for Answers {
    fn on_data(&mut self, _: &mut Conn<'_>, _: &[u8]) {}

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        conn.write(&bytes(ANSWER));
        conn.close();
    }
}

/// A connection that both ends have ended is over: whatever a network does then, what has come can be read to its end.
fn i30_no_reset_comes_after_both_ends(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.set_fault(Fault::ResetAfterEnd, 1.0);
    let server = world.host("server", || async {
        Handle::current()
            .pool(patient())
            .listen("0.0.0.0:7000", &ListenOptions::default(), |_: &_| Answers)?;
        std::future::pending().await
    });
    let address = SocketAddr::new(world.ip(server), 7000);
    world.client("client", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        let mut stream = Stream::connect(address).await?;
        stream.write_all(b"a question").await?;
        // Behind bytes that are unread, the end of this half could be struck.
        time::sleep(Duration::from_secs(1)).await;
        stream.shutdown().await?;
        let mut answer = vec![0; ANSWER];
        stream.read_exact(&mut answer).await?;
        if answer != bytes(ANSWER) || stream.read(&mut [0; 1]).await? != 0 {
            sim::fail("what came before both ends was not read to its end (I30)");
        }
        Ok(())
    });
    world.run()
}

on_every_driver! {
    i29_a_reset_keeps_nobody_busy(0..3, &[]);
    i30_no_reset_comes_after_both_ends(0..3, &[]);
    i31_a_reset_after_the_end_is_heard(0..6, &[]);
    i31_a_reset_behind_much_is_heard(0..2, &[]);
}
