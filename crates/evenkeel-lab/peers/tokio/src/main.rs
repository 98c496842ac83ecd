//! tokio: one thread, its runtime for tasks that stay on it.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use lab_work::{Echo, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

struct Tokio;

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

impl Runtime for Tokio {
    fn run<F: Future<Output = ()> + 'static>(main: F) {
        runtime().expect("the kernel gives a runtime its descriptors").block_on(main);
    }

    fn spawn<F: Future<Output = ()> + 'static>(task: F) -> impl Future<Output = ()> + 'static {
        let task = tokio::task::spawn_local(task);
        async { task.await.expect("no task panics or is cancelled") }
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + 'static {
        tokio::time::sleep(time)
    }
}

async fn echo(mut stream: TcpStream, options: Echo) {
    let mut buffer = vec![0; options.buffer];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
}

fn serve(listener: TcpListener, options: Echo) -> io::Result<()> {
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(echo(stream, options));
        }
    })
}

fn main() -> io::Result<()> {
    lab_work::main::<Tokio>(serve)
}
