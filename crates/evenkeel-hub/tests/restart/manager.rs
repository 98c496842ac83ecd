//! A service manager: sockets that it has opened, and what it is told.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

use evenkeel::Backend;
use rustix::process::{Pid, Signal, kill_process};

use super::site::{PROGRAM, Site, with_socket};
use crate::support::{Http, Ws, on_every_backend};

#[test]
fn a_manager_hears_who_serves_and_that_it_stops() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, "drain_deadline_seconds = 0\nloops = 2");
        let first = site.main;
        // That it is ready, and the main process, is checked by every replacement.
        site.replace_wholly();
        assert_ne!(site.main, first);
        site.signal(site.main, Signal::TERM);
        assert_eq!(site.told(), "STOPPING=1");
        assert_eq!(site.ended(site.main), Some(0));
    });
}

/// Starts a hub with an inherited socket, which listens also where `listen` says. Returns where it says that it listens.
fn activated(backend: Backend, socket: TcpListener, listen: &str) -> (std::process::Child, Vec<String>) {
    let mut command = with_socket(PROGRAM.as_ref(), socket);
    command.args(["--listen", listen, "--backend", backend.name()]);
    command.args(["--set", "drain_deadline_seconds=2", "--set", "loops=2"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut listening = Vec::new();
    for line in lines.by_ref() {
        match line.strip_prefix("listening on http://") {
            Some(addr) => listening.push(addr.to_owned()),
            None => break,
        }
    }
    std::thread::spawn(move || lines.for_each(drop));
    (child, listening)
}

#[test]
fn an_inherited_socket_is_served_and_those_who_wait_in_its_queue() {
    on_every_backend(|backend| {
        for own in [true, false] {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = socket.local_addr().unwrap();
            // Whom the manager has let wait.
            let early = Http::connect(addr);
            let listen = if own { addr.to_string() } else { "127.0.0.1:0".to_owned() };
            let (mut child, listening) = activated(backend, socket, &listen);
            assert_eq!(listening.len(), if own { 1 } else { 2 }, "{listening:?}");
            assert!(listening.contains(&addr.to_string()), "{listening:?}");
            Ws::on(early, "/app/demo-key?protocol=7", "").is_served();
            for other in &listening {
                assert_eq!(Http::connect(other.parse().unwrap()).get("/health").status, 200);
            }
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
    });
}

#[test]
fn an_inherited_socket_is_handed_on() {
    on_every_backend(|backend| {
        for own in [true, false] {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut site = Site::activated(backend, socket, own);
            for _ in 0..2 {
                site.replace_wholly();
                (0..4).for_each(|_| site.canary().sings());
            }
        }
    });
}
