//! Writes that the kernel takes a part of: the rest follows by itself, on every backend.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::future::Future;
use std::io::Read;
use std::net::TcpListener;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use evenkeel::net::{ConnectOptions, Limits, TcpStream};
use evenkeel::{Backend, Conn, EventLoop, Flow, Handle, Handler, Message, task, time};

fn on_every_backend<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for backend in Backend::ALL {
        let mut events = EventLoop::builder().backend(*backend).build().unwrap();
        let done = events.block_on(async { time::timeout(Duration::from_secs(20), test()).await }).unwrap();
        assert!(done.is_ok(), "hangs on {backend}");
    }
}

const PART: usize = 50_000;

#[test]
fn i3_an_answer_that_fills_the_kernels_buffer_is_flushed() {
    on_every_backend(|| async {
        let (mut near, mut far) = {
            let mut listener = evenkeel::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            (near, listener.accept().await.unwrap().0)
        };
        // Large answers to small questions, until one of them is queued.
        let mut sent = 0;
        loop {
            near.write_all(b"?").await.unwrap();
            let flow = far.read_with(|_, reply| reply.write(&[7; PART])).await.unwrap();
            sent += PART;
            if flow == Some(Flow::Hold) {
                break;
            }
        }
        // Nothing but the room that reading makes tells the loop to go on.
        let flushed = evenkeel::spawn(async move {
            far.flush().await.unwrap();
            far
        });
        near.read_exact(&mut vec![0; sent]).await.unwrap();
        flushed.await.unwrap();
    });
}

#[test]
fn what_was_flushed_is_not_lost_when_the_descriptor_is_given_away() {
    on_every_backend(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        stream.send(&Message::from("corked"));
        stream.flush().await.unwrap();
        drop(stream.into_fd().unwrap());
        let mut heard = String::new();
        peer.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "corked");
    });
}

/// Says when it is open and when its queue has become short.
struct Watched {
    open: Rc<Cell<bool>>,
    drained: Rc<Cell<bool>>,
}

impl Handler for Watched {
    fn on_open(&mut self, _: &mut Conn<'_>) {
        self.open.set(true);
    }

    fn on_data(&mut self, _: &mut Conn<'_>, _: &[u8]) {}

    fn on_drained(&mut self, _: &mut Conn<'_>) {
        self.drained.set(true);
    }
}

#[test]
fn i3_a_write_by_handle_that_fills_the_kernels_buffer_goes_on() {
    on_every_backend(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (open, drained) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let watched = Watched { open: open.clone(), drained: drained.clone() };
        let handle = Handle::current();
        let pool = handle.pool(Limits::default());
        let to = listener.local_addr().unwrap();
        let id = pool.connect(to, &ConnectOptions::default(), watched).unwrap();
        while !open.get() {
            task::yield_now().await;
        }
        // Whatever the loop still does for a new connection is done before.
        for _ in 0..10 {
            task::yield_now().await;
        }
        let mut sent = PART;
        while handle.write(id, &[7; PART]).unwrap() != Flow::Hold {
            sent += PART;
        }
        let reading = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            peer.read_exact(&mut vec![0; sent]).unwrap();
            peer
        });
        while !drained.get() || handle.queued(id).unwrap() > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
        reading.join().unwrap();
    });
}
