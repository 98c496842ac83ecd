//! What the processes do that the tests start.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use evenkeel::group::{Group, GroupListener, Share};
use evenkeel::inherit::notify::{State, notify, watchdog};
use evenkeel::inherit::{self, Predecessor, Succession, listen_fds};
use evenkeel::net::{Closing, Drain, Limits, ListenOptions, Stream};
use evenkeel::{Conn, EventLoop, Handler};

/// Longer than any step takes on a busy machine; reached only by what hangs.
pub const LONG: Duration = Duration::from_secs(60);

const ROLE: &str = "EVENKEEL_TEST_ROLE";
/// What processes say to the tests begins so; the rest of their output is the test harness's.
const SAYS: &str = "@ ";

/// A command that runs this program in a role.
pub fn in_role(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["roles::role", "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

pub fn say(what: impl Display) {
    // Whole lines at once: two processes may share the pipe.
    io::stderr().write_all(format!("{SAYS}{what}\n").as_bytes()).unwrap();
}

/// What the processes say that share this pipe.
pub struct Said<R>(BufReader<R>);

impl<R: Read> Said<R> {
    pub fn new(pipe: R) -> Self {
        Said(BufReader::new(pipe))
    }

    /// The next thing, or none when all have ended.
    pub fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(said) = line.strip_prefix(SAYS) {
                return Some(said.trim_end().to_owned());
            }
            eprint!("from a process: {line}");
        }
    }
}

#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "old" => old(),
        "gives up" => drop(inherit::predecessor().unwrap().unwrap()),
        "activated" => activated(),
        "notifies" => notifies(),
        new => self::new(new.strip_prefix("new ").unwrap().parse().unwrap()),
    }
}

/// Answers each message with this process's number.
struct Pid;

impl Handler for Pid {
    fn on_data(&mut self, conn: &mut Conn<'_>, _: &[u8]) {
        conn.write(format!("{}\n", std::process::id()).as_bytes());
    }
}

fn group(loops: usize) -> Group {
    let each = EventLoop::builder().on_fallback(|_| ());
    Group::builder().loops(loops).event_loop(each).build(|_, _| Ok(())).unwrap()
}

/// The next line of standard input, byte by byte, since the rest is for the successor.
fn command_line() -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while io::stdin().read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Four loops, each with a socket of its own; hands over when it is told to, and ends.
fn old() {
    let group = group(4);
    let (options, limits) = (ListenOptions::default(), Limits::default());
    let listener = group.listen("127.0.0.1:0", &options, &limits, Share::ReusePort, |_, _| Pid).unwrap();
    say(listener.addr());
    loop {
        let role = command_line();
        match EventLoop::new().unwrap().block_on(hand_over(&role, &listener)).unwrap() {
            Ok(()) => break,
            Err(error) => say(error),
        }
    }
    listener.close_as(Closing::HandedOver).unwrap();
    let drained = group.wait_drain(&Drain::new(7)).unwrap();
    assert_eq!(drained.forced, 0);
    group.stop(LONG).unwrap();
}

async fn hand_over(role: &str, listener: &GroupListener) -> io::Result<()> {
    let mut succession = Succession::new()?;
    succession.hand_over(b"web", &listener.sockets().await?)?;
    let mut new = succession.spawn(in_role(role))?;
    let mut stream = Stream::from_fd(new.channel().unwrap())?;
    assert!(new.channel().is_none());
    if role.starts_with("new") {
        stream.write_all(b"state").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"taken");
    }
    let child = new.ready(LONG).await?;
    say(format!("handed over to {}", child.id()));
    Ok(())
}

/// Takes over, serves with so many loops, and ends when standard input does.
fn new(loops: usize) {
    let mut old: Predecessor = inherit::predecessor().unwrap().expect("it was started by another");
    assert!(inherit::predecessor().unwrap().is_none(), "once");
    let handed = old.sockets(LONG).unwrap();
    assert_eq!(handed.len(), 1);
    assert!(old.sockets(LONG).unwrap().is_empty(), "once");
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for one in handed {
        assert_eq!((one.label.as_slice(), one.sockets.len()), (b"web".as_slice(), 4));
        sockets.extend(one.sockets);
    }
    assert!(sockets.iter().all(is_close_on_exec));
    let mut channel = old.channel().unwrap();
    let mut state = [0; 5];
    channel.read_exact(&mut state).unwrap();
    assert_eq!(&state, b"state");
    channel.write_all(b"taken").unwrap();
    let group = group(loops);
    let (options, limits) = (ListenOptions::default(), Limits::default());
    let _listener = group.adopt(sockets, &options, &limits, Share::ReusePort, |_, _| Pid).unwrap();
    old.ready().unwrap();
    assert_eq!(command_line(), "", "the test has ended");
    group.stop(LONG).unwrap();
    say("ended");
}

fn is_close_on_exec(fd: &OwnedFd) -> bool {
    rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
}

/// Tells what it was given by a service manager, and serves one peer at each socket.
fn activated() {
    let sockets = match listen_fds() {
        Ok(sockets) => sockets,
        Err(error) => {
            assert!(listen_fds().unwrap().is_empty(), "what was refused is not given out later");
            return say(error);
        }
    };
    assert!(listen_fds().unwrap().is_empty(), "once");
    for socket in &sockets {
        say(format!("{} at {}", socket.name().unwrap_or("unnamed"), socket.addr()));
    }
    for socket in sockets {
        let socket = OwnedFd::from(socket);
        assert!(is_close_on_exec(&socket));
        let (mut peer, _) = TcpListener::from(socket).accept().unwrap();
        peer.write_all(b"served").unwrap();
    }
}

fn notifies() {
    assert!(notify(&[State::Reloading]).unwrap());
    assert!(notify(&[State::Ready, State::Status("up"), State::MainPid(7)]).unwrap());
    assert!(notify(&[State::Watchdog]).unwrap());
    assert!(notify(&[State::Stopping]).unwrap());
    say(format!("{:?}", watchdog()));
}
