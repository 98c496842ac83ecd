//! An echo server over the hub's WebSocket codec on the runtime, for the Autobahn test suite (`cargo xtask autobahn`).
//!
//! `cargo run -p evenkeel-hub --example ws_echo [ADDRESS]`, then point `wstest -m fuzzingclient` at it. It prints its
//! address; `EVENKEEL_BACKEND` names the backend.

mod echo;

use std::io;

use evenkeel::{Backend, EventLoop};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let mut events = EventLoop::builder().backend(Backend::from_env()?).build()?;
    let listener = echo::listen(&events.handle(), &address)?;
    println!("{} {}", events.handle().listener_addr(listener)?, events.handle().backend());
    events.run()
}
