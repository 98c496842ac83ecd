//! A small chat server, and a simulated world that finds the mistake in it.
//!
//! `cargo run -p evenkeel --features sim --example sim_chat`
//!
//! The mistake is one that no test on a quiet machine shows: whose connection was reset, his name stays taken. The world has
//! a server and four guests, resets connections now and then, and at last asks that everybody can come back. The program ends
//! with the seed of a world in which somebody cannot, with the last things that happened there, and with the command that
//! runs that world again. With the word `fixed` the server is right, and all worlds pass.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::Stream;
use evenkeel::sim::{self, Check, Failure, Fault, World};
use evenkeel::{CloseReason, Conn, ConnId, Handle, Handler, Message, time};

// ---- the server: it knows nothing of simulations ----

type Room = Rc<RefCell<Vec<(ConnId, String)>>>;

struct Member {
    room: Room,
    line: Vec<u8>,
    /// Whether the mistake is mended.
    fixed: bool,
}

impl Member {
    fn hear(&mut self, conn: &mut Conn<'_>, line: &str) {
        let name = self.room.borrow().iter().find(|(id, _)| *id == conn.id()).map(|(_, name)| name.clone());
        let text = match name {
            Some(name) => format!("{name}: {line}\n"),
            None if self.room.borrow().iter().any(|(_, name)| name == line) => {
                conn.write(b"taken\n");
                return;
            }
            None => {
                self.room.borrow_mut().push((conn.id(), line.to_owned()));
                format!("* {line}\n")
            }
        };
        let message = Message::from(text.into_bytes());
        for (id, _) in &*self.room.borrow() {
            let _ = Handle::current().send(*id, &message);
        }
    }

    fn leave(&self, id: ConnId) {
        self.room.borrow_mut().retain(|(member, _)| *member != id);
    }
}

impl Handler for Member {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                self.hear(conn, &line);
            } else {
                self.line.push(*byte);
            }
        }
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        // Here is the mistake: a guest may be gone without having said so.
        self.leave(conn.id());
        conn.close();
    }

    fn on_close(&mut self, id: ConnId, _: &CloseReason) {
        if self.fixed {
            self.leave(id);
        }
    }
}

async fn serve(fixed: bool) -> io::Result<()> {
    let room = Room::default();
    let make = move |_: &_| Member { room: room.clone(), line: Vec::new(), fixed };
    Handle::current().listen("0.0.0.0:7000", make)?;
    std::future::pending().await
}

// ---- the world ----

/// Enters, says three lines and hears each of them, and leaves. False if the name is taken.
async fn visit(server: IpAddr, name: &str) -> io::Result<bool> {
    let mut stream = Stream::connect(SocketAddr::new(server, 7000)).await?;
    stream.write_all(format!("{name}\n").as_bytes()).await?;
    let (mut said, mut text, mut buffer) = (0, String::new(), [0; 256]);
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        while let Some((line, rest)) = text.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            text = rest;
            if line == "taken" {
                return Ok(false);
            }
            if line == format!("* {name}") || line.starts_with(&format!("{name}: ")) {
                if said == 3 {
                    stream.shutdown().await?;
                    return Ok(true);
                }
                said += 1;
                stream.write_all(format!("line {said}\n").as_bytes()).await?;
            }
        }
    }
}

const STORM: Duration = Duration::from_secs(20);
const CALM: Duration = Duration::from_secs(60);

async fn guest(server: IpAddr, name: String) -> io::Result<()> {
    // While it storms, anything may fail.
    while sim::elapsed() < STORM {
        let _ = time::timeout(Duration::from_secs(5), visit(server, &name)).await;
        time::sleep(Duration::from_millis(sim::random(1_000))).await;
    }
    // Then everybody can come back, before long.
    while sim::elapsed() < STORM + CALM {
        if let Ok(Ok(true)) = time::timeout(Duration::from_secs(5), visit(server, &name)).await {
            return Ok(());
        }
        time::sleep(Duration::from_secs(1)).await;
    }
    Err(io::Error::other(format!("{name} cannot come back")))
}

fn world(world: &mut World, fixed: bool) -> Result<(), Failure> {
    world.set_fault(Fault::Reset, 0.02);
    world.set_fault(Fault::ShortRead, 0.1);
    world.set_fault(Fault::Delay, 0.01);
    let server = world.host("server", move || serve(fixed));
    let ip = world.ip(server);
    for name in ["ann", "ben", "cem", "dot"] {
        world.client(name, move || guest(ip, name.to_owned()));
    }
    world.run_for(STORM)?;
    world.calm();
    world.run()
}

fn main() -> ExitCode {
    let fixed = std::env::args().nth(1).is_some_and(|word| word == "fixed");
    match Check::new().seeds(0..50).try_run(|w| world(w, fixed)) {
        Ok(report) => {
            println!(
                "{} worlds, {:?} of their time, {} events",
                report.worlds, report.elapsed, report.events
            );
            ExitCode::SUCCESS
        }
        Err(failed) => {
            println!("{failed}");
            ExitCode::FAILURE
        }
    }
}
