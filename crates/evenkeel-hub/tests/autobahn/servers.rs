//! The servers under test, each on a loop in a thread.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use evenkeel::net::Addr;
use evenkeel::{Backend, EventLoop, Remote};
use evenkeel_hub::config::{Config, Sources};
use evenkeel_hub::server::Service;
use tungstenite::Message;

use crate::echo;

/// How long the end of a loop is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    running: Running,
}

enum Running {
    Echo { remote: Remote, ended: Receiver<std::io::Result<()>> },
    Hub(Service),
}

impl Server {
    pub(crate) fn echo(backend: Backend) -> Server {
        let ((started, start), (end, ended)) = (mpsc::channel(), mpsc::channel());
        std::thread::spawn(move || {
            let mut events = EventLoop::builder().backend(backend).on_fallback(|_| {}).build().unwrap();
            let handle = events.handle();
            let listener = echo::listen(&handle, "127.0.0.1:0").unwrap();
            let Ok(Addr::Ip(addr)) = handle.listener_addr(listener) else {
                panic!("an address of the network")
            };
            started.send((addr, handle.remote())).unwrap();
            end.send(events.run()).unwrap();
        });
        let (addr, remote) = start.recv_timeout(PATIENCE).unwrap();
        Server { addr, running: Running::Echo { remote, ended } }
    }

    pub(crate) fn hub(backend: Backend) -> Server {
        // With one loop a message is answered before a broken frame behind it ends the connection. With several the answer
        // may come too late, which the RFC allows.
        let toml = format!(
            "listen = ['127.0.0.1:0']\nbackend = '{backend}'\nloops = 1\n[log]\nlevel = 'error'\n\
             [[apps]]\nid = '1'\nkey = 'key'\nsecret = 'secret'\n"
        );
        let sources = Sources { file: Some(("hub.toml", &toml)), ..Sources::default() };
        let config = Config::load(&sources).unwrap_or_else(|problems| panic!("{problems:?}"));
        let service = Service::start(config).unwrap();
        Server { addr: service.addresses()[0], running: Running::Hub(service) }
    }

    /// What is asked for in the handshake.
    pub(crate) fn path(&self) -> &'static str {
        match self.running {
            Running::Echo { .. } => "/",
            Running::Hub(_) => "/app/key?protocol=7",
        }
    }

    /// It speaks first.
    pub(crate) fn greets(&self) -> bool {
        matches!(self.running, Running::Hub(_))
    }

    /// Which of the messages that an echo server would send next this answer stands for. The hub answers a text with an
    /// error, and of what came in one piece the ping last.
    pub(crate) fn answers(&self, echoes: &[Message], answer: &Message) -> Option<usize> {
        match (&self.running, answer) {
            (Running::Echo { .. }, answer) => (echoes.first() == Some(answer)).then_some(0),
            (Running::Hub(_), Message::Text(text)) if text.contains("pusher:error") => {
                echoes.iter().position(Message::is_text)
            }
            (Running::Hub(_), answer) => echoes.iter().position(|echo| echo == answer),
        }
    }

    /// It ends when it is told to, without a panic.
    pub(crate) fn ends(self) {
        match self.running {
            Running::Echo { remote, ended } => {
                remote.stop();
                ended.recv_timeout(PATIENCE).expect("the loop ends").unwrap();
            }
            Running::Hub(service) => service.stop().expect("the loops end, and none panics"),
        }
    }
}
