//! An echo server on the hub's WebSocket codec, for the Autobahn test suite: blocking sockets, a thread for each
//! connection, and the codec's limits raised to what the suite sends.
//!
//! `cargo run --example ws_echo [ADDRESS]`, then point `wstest -m fuzzingclient` at it. It prints its address.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use evenkeel_hub::proto::head::{self, HeadReader};
use evenkeel_hub::proto::ws::{self, Decoder, Event, Limits, Upgrade};

const LIMITS: Limits = Limits { max_message: 64 * 1024 * 1024, max_fragments: u32::MAX };

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let Some(mut received) = handshake(&mut stream, &mut buffer)? else { return Ok(()) };
    let (mut decoder, mut scratch, mut out) = (Decoder::new(), Vec::new(), Vec::new());
    while !decoder.is_finished() {
        let mut input = &received[..];
        loop {
            match decoder.next(&mut input, &LIMITS, &mut scratch) {
                Ok(None) => break,
                Ok(Some(event)) => answer(event, &mut out),
                Err(error) => ws::close(Some(error.close_code()), &error.to_string(), &mut out),
            }
        }
        stream.write_all(&out)?;
        out.clear();
        received.clear();
        if !decoder.is_finished() {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                n => received.extend_from_slice(&buffer[..n]),
            }
        }
    }
    Ok(())
}

fn answer(event: Event<'_>, out: &mut Vec<u8>) {
    match event {
        Event::Text(text) => ws::text(text, out),
        Event::Binary(data) => ws::binary(data, out),
        Event::Ping(data) => ws::pong(data, out),
        Event::Pong(_) => {}
        Event::Close { code, .. } => ws::close(code, "", out),
    }
}

/// The bytes behind the request's head, or nothing when the request was refused.
fn handshake(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
    let mut reader = HeadReader::new();
    loop {
        let mut input = match stream.read(buffer)? {
            0 => return Ok(None),
            n => &buffer[..n],
        };
        let response = match reader.next(&mut input, &head::Limits::default()) {
            Ok(None) => continue,
            Ok(Some(head)) => Upgrade::from_head(&head).map_err(|error| error.response()),
            Err(error) => Err(error.response()),
        };
        match response {
            Ok(upgrade) => {
                let mut out = Vec::new();
                upgrade.respond(None, &mut out);
                stream.write_all(&out)?;
                return Ok(Some(input.to_vec()));
            }
            Err(refusal) => {
                stream.write_all(&refusal)?;
                return Ok(None);
            }
        }
    }
}
