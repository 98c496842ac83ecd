//! monoio on io_uring. Tuned: one submitter and deferred task work, which its builder leaves off.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use lab_work::{Echo, Runtime};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::{IoUringDriver, RuntimeBuilder};

struct Monoio;

impl Runtime for Monoio {
    fn run<F: Future<Output = ()> + 'static>(main: F) {
        let runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build();
        runtime.expect("the kernel gives a ring").block_on(main);
    }

    fn spawn<F: Future<Output = ()> + 'static>(task: F) -> impl Future<Output = ()> + 'static {
        monoio::spawn(task)
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + 'static {
        monoio::time::sleep(time)
    }
}

async fn echo(mut stream: TcpStream, options: Echo) {
    let mut buffer = Vec::with_capacity(options.buffer);
    loop {
        let (read, filled) = stream.read(buffer).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let (written, emptied) = stream.write_all(filled).await;
        if written.is_err() {
            return;
        }
        buffer = emptied;
        buffer.clear();
    }
}

fn serve(listener: TcpListener, options: Echo) -> io::Result<()> {
    let mut ring = io_uring::IoUring::builder();
    if options.tuned {
        ring.setup_single_issuer().setup_defer_taskrun();
    }
    let mut runtime =
        RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring).with_entries(4096).build()?;
    runtime.block_on(async {
        let listener = monoio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            monoio::spawn(echo(stream, options));
        }
    })
}

fn main() -> io::Result<()> {
    lab_work::main::<Monoio>(serve)
}
