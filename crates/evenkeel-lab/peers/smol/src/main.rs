//! smol: a local executor over async-io.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use lab_work::{Echo, Runtime};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, LocalExecutor};

thread_local!(static EXECUTOR: Rc<LocalExecutor<'static>> = Rc::new(LocalExecutor::new()));

struct Smol;

impl Runtime for Smol {
    fn run<F: Future<Output = ()> + 'static>(main: F) {
        let executor = EXECUTOR.with(Rc::clone);
        smol::block_on(executor.run(main));
    }

    fn spawn<F: Future<Output = ()> + 'static>(task: F) -> impl Future<Output = ()> + 'static {
        EXECUTOR.with(|executor| executor.spawn(task))
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + 'static {
        let timer = smol::Timer::after(time);
        async {
            timer.await;
        }
    }
}

async fn echo(mut stream: Async<TcpStream>, options: Echo) {
    let mut buffer = vec![0; options.buffer];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
}

fn serve(listener: TcpListener, options: Echo) -> io::Result<()> {
    let executor = EXECUTOR.with(Rc::clone);
    let spawner = executor.clone();
    smol::block_on(executor.run(async move {
        let listener = Async::new(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            spawner.spawn(echo(stream, options)).detach();
        }
    }))
}

fn main() -> io::Result<()> {
    lab_work::main::<Smol>(serve)
}
