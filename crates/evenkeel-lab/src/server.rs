//! The servers that can be measured: what they are called, how they are started, and that they end.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use evenkeel::Backend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::machine::{Places, Process};
use crate::peers;
use crate::serve::Model;

/// How long a server may take until it listens. Under valgrind that is long.
const START: Duration = Duration::from_secs(30);

/// An echo server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// Evenkeel's own, in this program.
    Own(Model, Backend),
    /// A thread for each connection, with blocking calls.
    Threads,
    /// A peer's, of the workspace in `peers/`; with its experts' options or as it comes.
    Peer { name: &'static str, tuned: bool },
}

/// The peers that have options worth choosing.
const TUNABLE: &[&str] = &["monoio", "compio"];

impl Server {
    /// Every server: the floors first, then the peers, then ours on every backend.
    pub(crate) fn all() -> Vec<Server> {
        let mut all: Vec<_> = peers::FLOORS.map(|name| Server::Peer { name, tuned: false }).into();
        for name in peers::RUNTIMES {
            all.push(Server::Peer { name, tuned: false });
            if TUNABLE.contains(name) {
                all.push(Server::Peer { name, tuned: true });
            }
        }
        all.extend(Self::own());
        all
    }

    /// Ours, on every backend.
    pub(crate) fn own() -> Vec<Server> {
        let backends = Backend::ALL.iter().rev();
        backends.flat_map(|b| Model::ALL.map(|m| Server::Own(m, *b))).collect()
    }

    /// How many connections it can hold: `select` counts descriptors, and threads need memory.
    pub(crate) fn most_connections(self) -> usize {
        match self {
            Server::Own(_, Backend::Select) => 950,
            Server::Threads => 2000,
            _ => 19_000,
        }
    }

    /// The command that serves on a port of the kernel's choice.
    pub(crate) fn command(self) -> io::Result<Command> {
        match self {
            Server::Peer { name, tuned } => {
                let mut command = Command::new(peers::program(name)?);
                command.args(["echo", "--port", "0"]).args(tuned.then_some("--tuned"));
                Ok(command)
            }
            Server::Threads => own_command(&["serve", "threads"]),
            Server::Own(model, backend) => own_command(&["serve", model.name(), "--backend", backend.name()]),
        }
    }

    /// Starts it where servers run.
    pub(crate) fn start(self, places: &Places) -> io::Result<Running> {
        self.start_without(places, "")
    }

    /// Starts it where servers run; it does without some features of io_uring, named as the runtime names them.
    pub(crate) fn start_without(self, places: &Places, features: &str) -> io::Result<Running> {
        let mut command = self.command()?;
        if !features.is_empty() {
            command.env("EVENKEEL_IO_URING_WITHOUT", features);
        }
        places
            .spawn(|| Running::start(&mut command))
            .map_err(|e| io::Error::new(e.kind(), format!("{self}: {e}")))
    }
}

/// This program, to be run as a server.
pub(crate) fn own_command(words: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words);
    Ok(command)
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Own(model, backend) => write!(f, "{model}/{backend}"),
            Server::Threads => f.write_str("threads"),
            Server::Peer { name, tuned: false } => f.write_str(name),
            Server::Peer { name, tuned: true } => write!(f, "{name}-tuned"),
        }
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (model, backend) = text.split_once('/').unwrap_or((text, "auto"));
        if let Some(model) = Model::ALL.into_iter().find(|m| m.name() == model) {
            let backend: Backend = backend.parse().map_err(|e: io::Error| e.to_string())?;
            return Ok(Server::Own(model, backend));
        }
        let mut others = Server::all();
        others.push(Server::Threads);
        let found = others.iter().find(|server| server.to_string() == text).copied();
        found.ok_or_else(|| {
            let names: Vec<_> = others.iter().map(Server::to_string).collect();
            format!("there is no server `{text}`; choose one of {}", names.join(", "))
        })
    }
}

/// A server that runs, until this is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Runs a command and waits for its line `listening on [http://]ADDRESS`.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let program = Path::new(command.get_program()).display().to_string();
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
        match Self::listening(&mut child) {
            Ok((output, addr)) => {
                let process = Process::of(child.id())?;
                Ok(Running { child, process, addr, output })
            }
            Err(error) => {
                let _ = child.kill();
                let status = child.wait()?;
                Err(io::Error::other(format!("{program} does not serve ({status}): {error}")))
            }
        }
    }

    fn listening(child: &mut Child) -> io::Result<(BufReader<ChildStdout>, SocketAddr)> {
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let mut output = BufReader::new(output);
        loop {
            let time = Timespec { tv_sec: START.as_secs() as i64, tv_nsec: 0 };
            if output.buffer().is_empty()
                && poll(&mut [PollFd::new(output.get_ref(), PollFlags::IN)], Some(&time))? == 0
            {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it has not said where it listens"));
            }
            let mut line = String::new();
            if output.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended by itself"));
            }
            if let Some(addr) = address(&line) {
                return Ok((output, addr));
            }
        }
    }

    /// A line on its standard input; what that means is the server's.
    pub(crate) fn tell(&mut self, line: &[u8]) -> io::Result<()> {
        use std::io::Write;
        let input = self.child.stdin.as_mut().ok_or_else(|| io::Error::other("no input"))?;
        input.write_all(line)?;
        input.flush()
    }

    /// A line on its standard input, and the line that it answers.
    pub(crate) fn ask(&mut self, line: &[u8]) -> io::Result<String> {
        self.tell(line)?;
        let mut answer = String::new();
        if self.output.read_line(&mut answer)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended by itself"));
        }
        Ok(answer)
    }

    /// Asks it to end and waits, so that what it does at its end is done.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = Pid::from_raw(self.process.pid()).ok_or_else(|| io::Error::other("no such process"))?;
        kill_process(pid, Signal::TERM)?;
        for _ in 0..1000 {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not end"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which its user has heard by then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in `listening on [http://]ADDRESS`.
fn address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let word = rest.split_whitespace().next()?;
    word.strip_prefix("http://").unwrap_or(word).trim_end_matches('/').parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_name_is_parsed_back() {
        for server in Server::all().into_iter().chain([Server::Threads]) {
            assert_eq!(server.to_string().parse(), Ok(server));
        }
        assert_eq!("callbacks".parse(), Ok(Server::Own(Model::Callbacks, Backend::Auto)));
        let error = "callbacks/kqueue".parse::<Server>().unwrap_err();
        assert!(error.contains("epoll-lt"), "{error}");
        let error = "tokyo".parse::<Server>().unwrap_err();
        assert!(error.contains("tokio") && error.contains("async/epoll"), "{error}");
    }

    #[test]
    fn the_address_is_found() {
        let addr: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(address("listening on 127.0.0.1:8080\n"), Some(addr));
        assert_eq!(address("INFO listening on http://127.0.0.1:8080/ (no TLS)\n"), Some(addr));
        assert_eq!(address("listening\n"), None);
        assert_eq!(address("listening on the roof\n"), None);
    }
}
