//! Echo with callbacks: one handler for each connection, and no buffer of its own.
//!
//! `cargo run --release -p evenkeel --example echo -- --backend epoll --port 7000`

mod common;

use evenkeel::{Conn, EventLoop, Flow, Handler};

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

fn main() -> std::io::Result<()> {
    let args = common::args(7000)?;
    let mut events = EventLoop::builder().backend(args.backend).build()?;
    let listener = events.handle().listen(("127.0.0.1", args.port), |_peer| Echo)?;
    println!("echo on {}, {} backend", events.handle().listener_addr(listener)?, events.handle().backend());
    events.run()
}
