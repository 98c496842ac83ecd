//! The end of one direction, at the moments at which it is easily lost, on every backend.
#![allow(clippy::unwrap_used)]

use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evenkeel::net::TcpStream;
use evenkeel::{Backend, EventLoop, task, time};

fn on_every_backend<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for backend in Backend::ALL {
        let mut events = EventLoop::builder().backend(*backend).build().unwrap();
        let done = events.block_on(async { time::timeout(Duration::from_secs(20), test()).await }).unwrap();
        assert!(done.is_ok(), "hangs on {backend}");
    }
}

/// Polls once, which must not be enough.
async fn begin<F: Future + Unpin>(mut future: F) -> F {
    let pending = poll_fn(|cx| Poll::Ready(pin!(&mut future).poll(cx).is_pending())).await;
    assert!(pending);
    future
}

#[test]
fn i3_an_end_that_comes_with_the_connection_is_heard() {
    on_every_backend(|| async {
        let peer = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = begin(Box::pin(TcpStream::connect(peer.local_addr().unwrap()))).await;
        // All of this happens before the loop hears that it is connected.
        let (mut peer, _) = peer.accept().unwrap();
        peer.write_all(b"bye").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut stream = connect.await.unwrap();
        let mut heard = [0; 8];
        assert_eq!(stream.read(&mut heard).await.unwrap(), 3);
        assert_eq!(stream.read(&mut heard).await.unwrap(), 0);
    });
}

#[test]
fn i3_a_writer_is_woken_after_the_peer_ended_its_own_half() {
    on_every_backend(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        // From here on the task wants to hear of bytes, as everybody who has read does.
        drop(begin(Box::pin(stream.read(&mut [0; 8]))).await);
        // More than the kernel holds.
        let sent = vec![7; 30_000_000];
        let write = begin(Box::pin(stream.write_all(&sent))).await;
        peer.shutdown(Shutdown::Write).unwrap();
        // The end is reported, more than once where it is a level; nobody reads it.
        for _ in 0..20 {
            task::yield_now().await;
        }
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all.len()
        });
        write.await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        stream.shutdown().await.unwrap();
        assert_eq!(reading.join().unwrap(), sent.len());
    });
}
