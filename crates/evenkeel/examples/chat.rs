//! A chat room with callbacks: `nc 127.0.0.1 7000`, say a name, then talk by lines.
//!
//! `cargo run --release -p evenkeel --example chat -- --backend epoll --port 7000`

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use evenkeel::net::{Limits, ListenOptions};
use evenkeel::{CloseReason, Conn, ConnId, EventLoop, Flow, Handle, Handler, Message};

/// Who is in, by name. All members share it: they are on one loop.
type Room = Rc<RefCell<Vec<(ConnId, String)>>>;

/// One text for everybody, stored once. Who does not read is not listened to, and at last closed by its `Limits`.
fn tell(room: &Room, text: String) {
    let (handle, message) = (Handle::current(), Message::from(text.into_bytes()));
    for (id, _) in &*room.borrow() {
        if handle.send(*id, &message) == Ok(Flow::Hold) {
            let _ = handle.pause(*id);
        }
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
            tell(&self.room, format!("{name}: {line}\n"));
        } else if line.is_empty() || self.room.borrow().iter().any(|(_, name)| name == line) {
            conn.write(b"Not that one. Your name?\n");
            conn.message_started();
        } else {
            self.name = Some(line.to_owned());
            self.room.borrow_mut().push((conn.id(), line.to_owned()));
            tell(&self.room, format!("* {line} is here\n"));
        }
    }
}

impl Handler for Member {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        conn.write(b"Your name?\n");
        // The name must be complete by `Limits::message_deadline`, as each line that has begun.
        conn.message_started();
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let began = self.line.is_empty();
            self.line.extend_from_slice(part);
            if self.line.len() > 1024 {
                conn.write(b"That line is too long.\n");
                return conn.close();
            } else if part.ends_with(b"\n") {
                conn.message_done();
                let line =
                    String::from_utf8_lossy(&std::mem::take(&mut self.line)).replace(char::is_control, "");
                self.hear(conn, line.trim());
            } else if began {
                conn.message_started();
            }
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        conn.resume();
    }

    fn on_close(&mut self, id: ConnId, reason: &CloseReason) {
        self.room.borrow_mut().retain(|(member, _)| *member != id);
        if let Some(name) = &self.name {
            tell(&self.room, format!("* {name} has left ({reason})\n"));
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
    let pool = events.handle().pool(limits);
    let listener = pool.listen(("127.0.0.1", args.port), &ListenOptions::default(), new)?;
    println!("chat on {}", events.handle().listener_addr(listener)?);
    events.run()
}
