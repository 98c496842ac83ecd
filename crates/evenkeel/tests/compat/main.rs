//! The bridges to the ecosystem, each with the libraries that it is for, on every backend.
//!
//! `cargo test -p evenkeel --all-features --test compat`
#![allow(clippy::unwrap_used, missing_docs)]

mod combinators;
#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "hyper")]
mod hyper_http;
#[cfg(feature = "hyper")]
mod hyper_timer;
#[cfg(feature = "tokio-io")]
mod tokio_io;
mod wakers;

use std::future::Future;
use std::time::Duration;

use evenkeel::net::{Addr, TcpListener, TcpStream};
use evenkeel::{Backend, EventLoop, task, time};

/// Runs a test on a loop of each backend. One that hangs fails.
fn on_every_backend<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for backend in Backend::ALL {
        let mut events = EventLoop::builder().backend(*backend).build().unwrap();
        let test = async {
            // The deadline's own timer is armed once this test has been polled: those who count timers see it.
            task::yield_now().await;
            test().await;
        };
        let done = events.block_on(time::timeout(Duration::from_secs(60), test)).unwrap();
        assert!(done.is_ok(), "hangs on {backend}");
        assert_eq!(events.handle().stats().panics, 0, "on {backend}");
    }
}

fn listener() -> (TcpListener, Addr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// The two ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let (mut listener, addr) = listener();
    let client = TcpStream::connect(addr).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
