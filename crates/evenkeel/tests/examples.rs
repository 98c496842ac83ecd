//! The examples do what they show, as programs, on every backend.
//!
//! `cargo test` builds the examples before the tests; with `--test examples` it does not: run
//! `cargo build --examples` first.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use evenkeel::Backend;

/// A running example, killed when it is dropped.
struct Example {
    process: Child,
    addr: SocketAddr,
    said: BufReader<ChildStdout>,
}

impl Example {
    fn start(name: &str, backend: Backend, words: &[&str]) -> Example {
        let tests = std::env::current_exe().unwrap();
        let path = tests.parent().unwrap().with_file_name("examples").join(name);
        let mut process = Command::new(&path)
            .args(["--backend", backend.name(), "--port", "0"])
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; `cargo build --examples` makes it", path.display()));
        let mut first = String::new();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        said.read_line(&mut first).unwrap();
        let addr = first.split([' ', ',', '\n']).find_map(|word| word.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("{name} printed no address: {first}"));
        Example { process, addr, said }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        // Only so that a test fails instead of hanging.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Sends, ends its half, and reads to the other end.
fn exchange(mut stream: TcpStream, sent: &[u8]) -> Vec<u8> {
    thread::scope(|scope| {
        let mut reader = stream.try_clone().unwrap();
        let reading = scope.spawn(move || {
            let mut back = Vec::new();
            reader.read_to_end(&mut back).unwrap();
            back
        });
        stream.write_all(sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        reading.join().unwrap()
    })
}

fn check_echo(example: &Example) {
    let mut chatty = example.connect();
    for len in [1, 10, 5000] {
        let (sent, mut back) = (pattern(len), vec![0; len]);
        chatty.write_all(&sent).unwrap();
        chatty.read_exact(&mut back).unwrap();
        assert_eq!(back, sent);
    }
    for sent in [vec![], pattern(1), pattern(8_000_000)] {
        let back = exchange(example.connect(), &sent);
        assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    }
}

#[test]
fn echo() {
    for backend in Backend::ALL {
        check_echo(&Example::start("echo", *backend, &[]));
    }
}

#[test]
fn echo_async() {
    for backend in Backend::ALL {
        check_echo(&Example::start("echo_async", *backend, &[]));
        check_echo(&Example::start("echo_async", *backend, &["--own-buffer"]));
    }
}

#[test]
fn factors_of_a_hard_number_keep_nobody_waiting() {
    for backend in Backend::ALL {
        let factors = Example::start("factors", *backend, &[]);
        // The square of a prime of 32 bits takes seconds, and there are more of them than threads.
        let hard: Vec<_> = (0..256)
            .map(|_| {
                let mut client = factors.connect();
                client.write_all(b"18446744030759878681\n").unwrap();
                client
            })
            .collect();
        let ask = |stream: &mut TcpStream, line: &str| {
            stream.write_all(line.as_bytes()).unwrap();
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).unwrap();
            answer
        };
        let mut other = factors.connect();
        assert_eq!(ask(&mut other, "x\n"), "that is no number of 64 bits\n", "the loop goes on");
        // What nobody waits for any more is given up, so that others have their turn.
        drop(hard);
        assert_eq!(ask(&mut other, "1001\n"), "1001 = 7 * 11 * 13\n");
        assert_eq!(
            ask(&mut other, " 18446744073709551615 \n"),
            "18446744073709551615 = 3 * 5 * 17 * 257 * 641 * 65537 * 6700417\n"
        );
    }
}

#[test]
fn proxy_carries_both_directions_and_their_ends() {
    for backend in Backend::ALL {
        let upstream = Example::start("echo", *backend, &[]);
        let proxy = Example::start("proxy", *backend, &[&upstream.addr.to_string()]);
        check_echo(&proxy);
    }
}

#[test]
fn proxy_passes_on_the_end_of_one_direction_only() {
    for backend in Backend::ALL {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = upstream.local_addr().unwrap().to_string();
        let proxy = Example::start("proxy", *backend, &[&to]);
        let mut client = proxy.connect();
        let (mut server, _) = upstream.accept().unwrap();
        server.write_all(b"bye").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"bye");
        client.write_all(b"still here").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        heard.clear();
        server.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"still here");
    }
}

#[test]
fn proxy_slows_a_sender_down_and_loses_nothing() {
    for backend in Backend::ALL {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = upstream.local_addr().unwrap().to_string();
        let proxy = Example::start("proxy", *backend, &[&to]);
        let mut client = proxy.connect();
        let (mut server, _) = upstream.accept().unwrap();
        // Nobody reads. The kernel holds a few megabytes for each of the two connections; the proxy little.
        client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let chunk = pattern(251 * 200);
        let mut taken = 0;
        loop {
            match client.write(&chunk[taken % 251..]) {
                Ok(n) => taken += n,
                Err(e) => break assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
            assert!(taken < 100_000_000, "the sender is not slowed down");
        }
        client.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        server.read_to_end(&mut all).unwrap();
        assert!(all == pattern(taken), "{} of {taken} bytes", all.len());
    }
}

#[test]
fn proxy_resets_the_client_when_upstream_refuses() {
    for backend in Backend::ALL {
        // Bound and not listening: connections are refused, and nobody else gets the port.
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = closed.local_addr().unwrap().to_string();
        drop(closed);
        let proxy = Example::start("proxy", *backend, &[&to]);
        let mut client = proxy.connect();
        let error = client.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(exchange_survives(&proxy), "the proxy goes on");
    }
}

fn exchange_survives(proxy: &Example) -> bool {
    let mut again = proxy.connect();
    again.read(&mut [0; 1]).is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn static_files_are_sent_whole_and_nothing_else_is() {
    let folder = std::env::temp_dir().join(format!("evenkeel-static-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("large"), pattern(3_000_000)).unwrap();
    std::fs::write(folder.join("empty"), b"").unwrap();
    for backend in Backend::ALL {
        let server = Example::start("static_files", *backend, &[folder.to_str().unwrap()]);
        let get = |path: &str| {
            let mut stream = server.connect();
            write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let body = all.split_off(end);
            (String::from_utf8(all).unwrap(), body)
        };
        let (head, body) = get("/large");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n"), "{head}");
        assert!(body == pattern(3_000_000), "{} bytes", body.len());
        assert_eq!(get("/empty").1, b"");
        for path in ["/none", "/", "/../etc/passwd", "//etc/passwd", "/./large/..", "/large/x"] {
            let (head, body) = get(path);
            assert!(head.starts_with("HTTP/1.1 404 ") && body.is_empty(), "{path}: {head}");
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn child_carries_input_output_and_status() {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().with_file_name("examples").join("child");
    for backend in Backend::ALL {
        let start = |words: &[&str]| {
            let mut command = Command::new(&path);
            command.args(words).env("EVENKEEL_BACKEND", backend.name());
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        };
        let mut upper = start(&["tr", "a-z", "A-Z"]);
        let mut input = upper.stdin.take().unwrap();
        let writing = thread::spawn(move || input.write_all("hello\n".repeat(50_000).as_bytes()));
        let out = upper.wait_with_output().unwrap();
        assert!(out.status.success() && out.stdout == "HELLO\n".repeat(50_000).as_bytes());
        writing.join().unwrap().unwrap();
        assert_eq!(start(&["sh", "-c", "exit 9"]).wait().unwrap().code(), Some(9));
        // A signal goes on to the child, which decides.
        let mut trapped = start(&["sh", "-c", "trap 'exit 7' TERM; echo ready; while read x; do :; done"]);
        let mut line = String::new();
        BufReader::new(trapped.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let id = rustix::process::Pid::from_raw(trapped.id() as i32).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        // The shell acts when its read returns.
        let mut input = trapped.stdin.take().unwrap();
        while trapped.try_wait().unwrap().is_none() {
            let _ = input.write_all(b"\n");
        }
        assert_eq!(trapped.wait().unwrap().code(), Some(7));
    }
}

struct Guest {
    lines: BufReader<TcpStream>,
    stream: TcpStream,
}

impl Guest {
    fn new(chat: &Example) -> Guest {
        let stream = chat.connect();
        let mut guest = Guest { lines: BufReader::new(stream.try_clone().unwrap()), stream };
        assert_eq!(guest.line(), "Your name?");
        guest
    }

    fn named(chat: &Example, name: &str) -> Guest {
        let mut guest = Guest::new(chat);
        guest.say(name);
        assert_eq!(guest.line(), format!("* {name} is here"));
        guest
    }

    fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

#[test]
fn chat_tells_everybody_who_is_there_and_what_they_say() {
    for backend in Backend::ALL {
        let chat = Example::start("chat", *backend, &[]);
        let mut ann = Guest::named(&chat, "ann");
        let mut bob = Guest::new(&chat);
        for taken in ["ann", "", " \t"] {
            bob.say(taken);
            assert_eq!(bob.line(), "Not that one. Your name?");
        }
        bob.say("bob");
        assert_eq!([ann.line(), bob.line()], ["* bob is here", "* bob is here"]);
        // Lines in pieces, several at once, and with what a terminal would obey.
        bob.stream.write_all(b"hel").unwrap();
        ann.say("one\r\ntwo \x1b[31mred");
        for line in ["ann: one", "ann: two [31mred"] {
            assert_eq!([ann.line(), bob.line()], [line, line]);
        }
        bob.say("lo");
        assert_eq!([ann.line(), bob.line()], ["bob: hello", "bob: hello"]);
        // A line without end.
        bob.stream.write_all(&[b'x'; 1025]).unwrap();
        assert_eq!([ann.line(), bob.line()], ["* bob has left (closed)", "That line is too long."]);
        assert_eq!(bob.line(), "", "closed");
        // The name is free again.
        let bob = Guest::named(&chat, "bob");
        assert_eq!(ann.line(), "* bob is here");
        drop(bob);
        assert_eq!(ann.line(), "* bob has left (closed)");
    }
}

#[test]
fn chat_lets_go_of_a_reader_that_is_too_slow_and_of_nobody_else() {
    for backend in Backend::ALL {
        let chat = Example::start("chat", *backend, &[]);
        let mut ann = Guest::named(&chat, "ann");
        let mut bob = Guest::named(&chat, "bob");
        assert_eq!(ann.line(), "* bob is here");
        let _slow = Guest::named(&chat, "slow");
        assert_eq!([ann.line(), bob.line()], ["* slow is here", "* slow is here"]);
        let text = "x".repeat(1000);
        let said = format!("ann: {text}");
        let mut gone = false;
        // Each round is read before the next is said, so nobody but the slow one falls behind.
        for _ in 0..1000 {
            for _ in 0..50 {
                ann.say(&text);
            }
            let mut heard = [0, 0];
            for (guest, heard) in [&mut ann, &mut bob].into_iter().zip(&mut heard) {
                while *heard < 50 {
                    match guest.line() {
                        line if line == said => *heard += 1,
                        line => {
                            assert_eq!(line, "* slow has left (queue full)");
                            gone = true;
                        }
                    }
                }
            }
            if gone {
                break;
            }
        }
        assert!(gone, "50 MB are more than any queue");
    }
}

/// A process that is not this one's child, ended when it is dropped.
struct Stranger(rustix::process::Pid);

impl Stranger {
    /// From a line of the kind `echo on ADDRESS, process NUMBER`.
    fn of(line: &str) -> Stranger {
        let number = line.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
        Stranger(rustix::process::Pid::from_raw(number).unwrap())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.0, signal).unwrap();
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // It has ended by itself if the test has succeeded.
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::KILL);
    }
}

#[test]
fn hot_restart_keeps_old_connections_and_takes_new_ones_by_the_next_process() {
    use rustix::process::{Pid, Signal};
    for backend in Backend::ALL {
        let mut example = Example::start("hot_restart", *backend, &[]);
        let mut before = example.connect();
        let ping = |stream: &mut TcpStream| {
            stream.write_all(b"ping").unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
        };
        ping(&mut before);
        let first = Pid::from_child(&example.process);
        rustix::process::kill_process(first, Signal::USR2).unwrap();
        let mut line = String::new();
        let addr = example.addr.to_string();
        example.said.read_line(&mut line).unwrap();
        assert!(line.starts_with(&format!("echo on {addr}")), "the same address: {line}");
        let second = Stranger::of(&line);
        assert_ne!(second.0, first);
        // The old process goes on with what it has, and ends with it.
        ping(&mut before);
        drop(before);
        assert!(example.process.wait().unwrap().success());
        // Until here it may have been the old process that accepted.
        let mut after = example.connect();
        ping(&mut after);
        line.clear();
        example.said.read_line(&mut line).unwrap();
        assert!(line.ends_with(" 0 cut off\n"), "{line}");
        check_echo(&example);
        // And once more, by the one that has taken over.
        second.signal(Signal::USR2);
        line.clear();
        example.said.read_line(&mut line).unwrap();
        let third = Stranger::of(&line);
        ping(&mut after);
        drop(after);
        line.clear();
        example.said.read_line(&mut line).unwrap();
        assert!(line.ends_with(" 0 cut off\n"), "{line}");
        check_echo(&example);
        third.signal(Signal::TERM);
        line.clear();
        example.said.read_to_string(&mut line).unwrap();
        assert!(line.ends_with(" 0 cut off\n"), "{line}");
    }
}

#[test]
fn udp_echo_sends_each_datagram_back() {
    for backend in Backend::ALL {
        let example = Example::start("udp_echo", *backend, &[]);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.connect(example.addr).unwrap();
        let mut back = vec![0; 70_000];
        for len in [0, 1, 1200, 1200, 60_000] {
            let sent = pattern(len);
            socket.send(&sent).unwrap();
            let n = socket.recv(&mut back).unwrap();
            assert!(back[..n] == sent, "{n} of {len} bytes");
        }
        // Several at once, as the kernel may join them.
        (0..20u8).for_each(|n| assert_eq!(socket.send(&[n; 500]).unwrap(), 500));
        let mut came: Vec<_> = (0..20).map(|_| (socket.recv(&mut back).unwrap(), back[0])).collect();
        came.sort_unstable();
        assert_eq!(came, (0..20u8).map(|n| (500, n)).collect::<Vec<_>>());
    }
}

#[test]
fn pass_fd_lets_another_process_serve() {
    for backend in Backend::ALL {
        let example = Example::start("pass_fd", *backend, &[]);
        for _ in 0..3 {
            let mut stream = example.connect();
            // Sent before anybody serves it.
            stream.write_all(b"anybody there?").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).unwrap();
            let (first, rest) = all.split_once('\n').unwrap();
            let hello = format!("hello {}, from process ", stream.local_addr().unwrap());
            let process: u32 = first.strip_prefix(&hello).unwrap().parse().unwrap();
            assert_ne!(process, example.process.id());
            assert_eq!(rest, "anybody there?");
        }
    }
}
