//! compio on io_uring. Tuned: one submitter and deferred task work, which its builder leaves off.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::TcpStream;
use compio::runtime::RuntimeBuilder;
use lab_work::{Echo, Runtime};

struct Compio;

impl Runtime for Compio {
    fn run<F: Future<Output = ()> + 'static>(main: F) {
        compio::runtime::Runtime::new().expect("the kernel gives a ring").block_on(main);
    }

    fn spawn<F: Future<Output = ()> + 'static>(task: F) -> impl Future<Output = ()> + 'static {
        let task = compio::runtime::spawn(task);
        async { assert!(task.await.is_ok(), "no task panics") }
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + 'static {
        compio::time::sleep(time)
    }
}

async fn echo(mut stream: TcpStream, options: Echo) {
    let mut buffer = Vec::with_capacity(options.buffer);
    loop {
        let BufResult(read, filled) = stream.read(buffer).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let BufResult(written, emptied) = stream.write_all(filled).await;
        if written.is_err() {
            return;
        }
        buffer = emptied;
        buffer.clear();
    }
}

fn serve(listener: TcpListener, options: Echo) -> io::Result<()> {
    let mut proactor = ProactorBuilder::new();
    proactor.capacity(4096).cqsize(32768);
    if options.tuned {
        proactor.single_issuer(true).defer_taskrun(true);
    }
    RuntimeBuilder::new().with_proactor(proactor).build()?.block_on(async {
        let listener = compio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            compio::runtime::spawn(echo(stream, options)).detach();
        }
    })
}

fn main() -> io::Result<()> {
    lab_work::main::<Compio>(serve)
}
