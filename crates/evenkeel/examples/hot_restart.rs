//! An echo server on two loops that replaces itself by its next version, without refusing or resetting a connection: on
//! SIGUSR2 it starts its program anew and hands its listening sockets over. SIGTERM ends it.
//!
//! `cargo run --release -p evenkeel --example hot_restart -- --port 7000`, and `kill -USR2` with the number that it prints.

mod common;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::process::Command;
use std::time::Duration;

use evenkeel::group::{Group, GroupListener, Share};
use evenkeel::inherit::notify::{State, notify};
use evenkeel::inherit::{self, Succession};
use evenkeel::net::{Closing, Drain, Limits, ListenOptions};
use evenkeel::signal::{Signal, Signals};
use evenkeel::{Conn, EventLoop, Flow, Handler};

const SHARE: Share = Share::ReusePort;
const PATIENCE: Duration = Duration::from_secs(30);

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        if conn.write(bytes) == Flow::Hold {
            conn.pause();
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        conn.resume();
    }
}

/// Listens: at the predecessor's sockets, if there is one.
fn listen(group: &Group, port: u16) -> io::Result<GroupListener> {
    let (options, limits) = (ListenOptions::default(), Limits::default());
    let Some(mut old) = inherit::predecessor()? else {
        return group.listen(("127.0.0.1", port), &options, &limits, SHARE, |_, _| Echo);
    };
    let sockets = old.sockets(PATIENCE)?.into_iter().flat_map(|handed| handed.sockets).collect();
    let listener = group.adopt(sockets, &options, &limits, SHARE, |_, _| Echo)?;
    old.ready()?;
    Ok(listener)
}

/// Starts this program anew, by the name by which it was started: what has that name may be another version by now.
async fn hand_over(listener: &GroupListener) -> io::Result<()> {
    let mut words = std::env::args_os();
    let program = words.next().ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new(program);
    command.args(words);
    let mut succession = Succession::new()?;
    succession.hand_over(b"echo", &listener.sockets().await?)?;
    let new = succession.spawn(command)?.ready(PATIENCE).await?;
    notify(&[State::MainPid(new.id())])?;
    Ok(())
}

/// Waits for the end of this process's turn, and says how the listener is to close.
async fn serve(mut signals: Signals, listener: &GroupListener) -> io::Result<Closing> {
    while signals.recv().await == Signal::User2 {
        match hand_over(listener).await {
            Ok(()) => return Ok(Closing::HandedOver),
            Err(error) => eprintln!("nothing has changed: {error}"),
        }
    }
    notify(&[State::Stopping])?;
    Ok(Closing::Drained)
}

fn main() -> io::Result<()> {
    let args = common::args(7000)?;
    // For this thread, which waits for signals. The connections are the group's.
    let mut events = EventLoop::builder().backend(args.backend).build()?;
    // Before anybody can know this process's number: without it, a signal ends the process.
    let signals = Signals::new_on(&events.handle(), &[Signal::User2, Signal::Terminate, Signal::Interrupt])?;
    let each = EventLoop::builder().backend(args.backend);
    let group = Group::builder().loops(2).event_loop(each).build(|_, _| Ok(()))?;
    let listener = listen(&group, args.port)?;
    notify(&[State::Ready])?;
    println!("echo on {}, process {}", listener.addr(), std::process::id());

    let mut drain = Drain::new(RandomState::new().build_hasher().finish());
    drain.listeners = events.block_on(serve(signals, &listener))??;
    let drained = events.block_on(group.drain(&drain))??;
    println!("{} ended, {} closed, {} cut off", drained.finished, drained.closed, drained.forced);
    group.stop(PATIENCE)
}
