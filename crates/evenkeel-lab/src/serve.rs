//! Evenkeel's own servers under measurement, and the models that it replaces, as sub-commands of this program.
//!
//! They are what a user would write, and use nothing that a user has not.

mod group;

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream as StdStream;
use std::time::Duration;

use evenkeel::net::{TcpListener, TcpStream};
use evenkeel::{Backend, Conn, EventLoop, Flow, Handler};
use lab_work::{Runtime, place};

pub(crate) use self::group::{Way, serve as serve_group};

/// A way to program with Evenkeel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Model {
    /// A handler for each connection.
    Callbacks,
    /// A task for each connection, which reads from the loop's memory.
    Async,
    /// A task for each connection, with a buffer of its own, as code against `AsyncRead` has it.
    OwnBuffer,
}

impl Model {
    pub(crate) const ALL: [Model; 3] = [Model::Callbacks, Model::Async, Model::OwnBuffer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Model::Callbacks => "callbacks",
            Model::Async => "async",
            Model::OwnBuffer => "own-buffer",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

pub(crate) struct Echo;

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

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    // What was written leaves with the turn's other writes; only a peer that does not read is waited for.
    while let Some(flow) = stream.read_with(|bytes, reply| reply.write(bytes)).await? {
        if flow == Flow::Hold {
            stream.flush().await?;
        }
    }
    Ok(())
}

async fn echo_from_own_buffer(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}

/// A loop on the backend that was named, and on no other: a measurement under a wrong name is worse than none.
fn event_loop(backend: Backend) -> io::Result<EventLoop> {
    let events = EventLoop::builder().backend(backend).on_fallback(|_| {}).build()?;
    match events.handle().fallback() {
        Some(fallback) if backend != Backend::Auto => Err(io::Error::other(fallback.to_string())),
        _ => Ok(events),
    }
}

/// Serves until it is killed.
pub(crate) fn serve(model: Model, backend: Backend, port: u16) -> io::Result<()> {
    let mut events = event_loop(backend)?;
    if model == Model::Callbacks {
        let listener = events.handle().listen(("127.0.0.1", port), |_peer| Echo)?;
        println!("listening on {}", events.handle().listener_addr(listener)?);
        return events.run();
    }
    events.block_on(async {
        let mut listener = TcpListener::bind(("127.0.0.1", port))?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, _peer) = listener.accept().await?;
            if model == Model::OwnBuffer {
                evenkeel::spawn(echo_from_own_buffer(stream));
            } else {
                evenkeel::spawn(echo(stream));
            }
        }
    })?
}

/// A thread for each connection, until it is killed.
pub(crate) fn threads(port: u16) -> io::Result<()> {
    let listener = place::listen(port)?;
    listener.set_nonblocking(false)?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::Builder::new().spawn(move || blocking_echo(stream))?;
    }
    Ok(())
}

fn blocking_echo(mut stream: StdStream) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

/// The floor of a fan-out: accepts `count` connections; then, for each line on standard input, sends `size` bytes to
/// each of them, and nothing else.
pub(crate) fn fan_out(count: usize, size: usize) -> io::Result<()> {
    let listener = place::listen(0)?;
    listener.set_nonblocking(false)?;
    println!("listening on {}", listener.local_addr()?);
    let streams = listener.incoming().take(count).collect::<io::Result<Vec<_>>>()?;
    println!("all here");
    let message = vec![b'x'; size];
    for line in io::stdin().lock().lines() {
        line?;
        for mut stream in &streams {
            stream.write_all(&message)?;
        }
    }
    Ok(())
}

/// Evenkeel as one of the runtimes of the micro benchmarks, on the backend that `EVENKEEL_BACKEND` names.
pub(crate) struct Evenkeel;

impl Runtime for Evenkeel {
    fn run<F: Future<Output = ()> + 'static>(main: F) {
        let events = Backend::from_env().and_then(event_loop);
        let mut events = events.expect("the kernel has the backend that the lab was asked to measure");
        events.block_on(main).expect("nobody stops this loop");
    }

    fn spawn<F: Future<Output = ()> + 'static>(task: F) -> impl Future<Output = ()> + 'static {
        let task = evenkeel::spawn(task);
        async { task.await.expect("no task panics or is cancelled") }
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + 'static {
        evenkeel::time::sleep(time)
    }
}
