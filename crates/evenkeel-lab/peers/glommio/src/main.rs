//! glommio on io_uring.

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::LocalExecutorBuilder;
use glommio::net::TcpStream;
use lab_work::{Echo, Runtime};

struct Glommio;

impl Runtime for Glommio {
    fn run<F: Future<Output = ()> + 'static>(main: F) {
        LocalExecutorBuilder::default().make().expect("the kernel gives a ring").run(main);
    }

    fn spawn<F: Future<Output = ()> + 'static>(task: F) -> impl Future<Output = ()> + 'static {
        glommio::spawn_local(task)
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + 'static {
        let timer = glommio::timer::Timer::new(time);
        async {
            timer.await;
        }
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

/// Its errors hold whatever the user's closures returned, which need not be `Sync`.
fn failed<T>(error: glommio::GlommioError<T>) -> io::Error {
    io::Error::other(error.to_string())
}

fn serve(listener: TcpListener, options: Echo) -> io::Result<()> {
    let executor = LocalExecutorBuilder::default().ring_depth(4096).make().map_err(failed)?;
    executor.run(async {
        // SAFETY: the descriptor comes from a listener that gave it up.
        let listener = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
        loop {
            let stream = listener.accept().await.map_err(failed)?;
            glommio::spawn_local(echo(stream, options)).detach();
        }
    })
}

fn main() -> io::Result<()> {
    lab_work::main::<Glommio>(serve)
}
