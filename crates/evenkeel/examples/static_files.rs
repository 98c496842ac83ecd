//! A web server for the files of a folder: the kernel sends what it has in memory by itself.
//!
//! `cargo run --release -p evenkeel --example static_files -- --port 7000 FOLDER`, then `curl http://127.0.0.1:7000/NAME`
//!
//! It knows `GET` of one path and closes after each answer; a server for the world has hyper in front.

mod common;

use std::io::{Error, ErrorKind, Result};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use evenkeel::EventLoop;
use evenkeel::fs::File;
use evenkeel::net::{TcpListener, TcpStream};
use evenkeel::time::timeout;

const LONGEST_REQUEST: usize = 8 << 10;

/// Reads to the end of a request's head, and returns its path.
async fn read_request(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = stream.read_with(|bytes, _| head.extend_from_slice(bytes)).await?;
        if read.is_none() || head.len() > LONGEST_REQUEST {
            return Err(Error::new(ErrorKind::InvalidData, "no whole request"));
        }
    }
    let line = String::from_utf8_lossy(&head);
    let path = line.strip_prefix("GET ").and_then(|rest| rest.split_once(' '));
    path.map(|(path, _)| path.to_owned()).ok_or_else(|| ErrorKind::Unsupported.into())
}

/// The file that a path names. It stays in the folder: no part of it may go up.
fn locate(folder: &Path, path: &str) -> Option<PathBuf> {
    let inside = Path::new(path.strip_prefix('/')?);
    let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| folder.join(inside))
}

async fn serve(mut stream: TcpStream, folder: PathBuf) -> Result<()> {
    let asked = timeout(Duration::from_secs(10), read_request(&mut stream)).await;
    let path = asked.map_err(|_| ErrorKind::TimedOut)??;
    let file = match locate(&folder, &path) {
        Some(path) => File::open(path).await,
        None => Err(ErrorKind::NotFound.into()),
    };
    let found = match file {
        Ok(file) => file.metadata().await.map(|about| (file, about)),
        Err(e) => Err(e),
    };
    let (file, len) = match found {
        Ok((file, about)) if about.is_file() => (file, about.len()),
        _ => {
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await?;
            return stream.shutdown().await;
        }
    };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    if stream.send_file(&file, 0, len).await? < len {
        // The file became shorter, and the client was promised more.
        stream.abort();
        return Err(ErrorKind::UnexpectedEof.into());
    }
    stream.shutdown().await
}

fn main() -> Result<()> {
    let args = common::args(7000)?;
    let usage =
        || Error::new(ErrorKind::InvalidInput, "usage: static_files [--backend NAME] [--port N] FOLDER");
    let folder = PathBuf::from(args.rest.first().ok_or_else(usage)?);
    let mut events = EventLoop::builder().backend(args.backend).build()?;
    events.block_on(async {
        let mut listener = TcpListener::bind(("127.0.0.1", args.port))?;
        println!("files on {}, of {}", listener.local_addr()?, folder.display());
        loop {
            let (stream, peer) = listener.accept().await?;
            let served = serve(stream, folder.clone());
            evenkeel::spawn(async move {
                if let Err(e) = served.await {
                    eprintln!("{peer}: {e}");
                }
            });
        }
    })?
}
