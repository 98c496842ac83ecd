//! A chat room with callbacks: `nc 127.0.0.1 7000`, say a name, then talk by lines.
//!
//! `cargo run --release --example chat -- --backend epoll --port 7000`

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use evenkeel::net::{Limits, ListenOptions};
use evenkeel::{CloseReason, Conn, ConnId, EventLoop, Flow, Handle, Handler, Message};

const LONGEST_LINE: usize = 1024;

/// Who is in, by name. All members share it: they are on one loop.
type Room = Rc<RefCell<Vec<(ConnId, String)>>>;

/// One text for everybody, stored once. Whoever reads too slowly for `Limits` is closed and hears no more.
fn tell(room: &Room, text: &str) {
    let message = Message::from(text);
    for (id, _) in &*room.borrow() {
        let _ = Handle::current().send(*id, &message);
    }
}

struct Member {
    room: Room,
    name: Option<String>,
    /// What came of a line that is not complete; no memory between lines.
    line: Vec<u8>,
}

impl Member {
    fn hear(&mut self, conn: &mut Conn<'_>, line: &str) {
        if let Some(name) = &self.name {
            tell(&self.room, &format!("{name}: {line}\n"));
        } else if line.is_empty() || self.room.borrow().iter().any(|(_, name)| name == line) {
            conn.write(b"Not that one. Your name?\n");
            conn.message_started();
        } else {
            self.name = Some(line.to_owned());
            self.room.borrow_mut().push((conn.id(), line.to_owned()));
            tell(&self.room, &format!("* {line} is here\n"));
        }
    }
}

impl Handler for Member {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        conn.write(b"Your name?\n");
        // The name is the first message: it must be complete by `Limits::message_deadline`, as each line must.
        conn.message_started();
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > LONGEST_LINE {
                conn.write(b"That line is too long.\n");
                return conn.close();
            }
            if !part.ends_with(b"\n") && self.line.is_empty() {
                conn.message_started();
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                conn.message_done();
                let line = std::mem::take(&mut self.line);
                let line: String =
                    String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect();
                self.hear(conn, line.trim());
            }
        }
        // Who talks faster than it reads what comes of that must wait.
        if conn.write(b"") == Flow::Hold {
            conn.pause();
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        conn.resume();
    }

    fn on_close(&mut self, id: ConnId, reason: &CloseReason) {
        self.room.borrow_mut().retain(|(member, _)| *member != id);
        if let Some(name) = &self.name {
            tell(&self.room, &format!("* {name} has left ({reason})\n"));
        }
    }
}

fn main() -> std::io::Result<()> {
    let args = common::args(7000)?;
    let mut events = EventLoop::builder().backend(args.backend).build()?;
    let mut limits = Limits::default();
    limits.idle_timeout = None;
    limits.max_queue_bytes = 256 << 10;
    let room = Room::default();
    let new = move |_: &_| Member { room: room.clone(), name: None, line: Vec::new() };
    let at = ("127.0.0.1", args.port);
    let listener = events.handle().pool(limits).listen(at, &ListenOptions::default(), new)?;
    println!("chat on {}", events.handle().listener_addr(listener)?);
    events.run()
}
