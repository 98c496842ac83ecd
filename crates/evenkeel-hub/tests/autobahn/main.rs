//! The cases of the Autobahn test suite (sections 1 to 7, 9 and 10), rebuilt: the suite itself needs Python 2.7, which few
//! machines have, and these run with all other tests. `cargo xtask autobahn` runs the original.
//!
//! Each case is data: the frames that a client sends, how their bytes are cut, what it hears, and how the connection ends.
//! The client writes its bytes itself, since half of them no library would write; what it hears is judged by tungstenite,
//! which was written by others from the same RFC. All cases run against the echo server of `examples/ws_echo`, those that
//! do not ask for an echo against the hub too, on every backend.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../examples/ws_echo/echo.rs"]
mod echo;

mod case;
mod closing;
mod framing;
mod large;
mod peer;
mod servers;
mod utf8;

use case::Case;
use evenkeel::Backend;
use servers::Server;

/// Every case, in the suite's order.
fn cases() -> Vec<Case> {
    [framing::cases(), utf8::cases(), closing::cases(), large::cases()].concat()
}

fn runs(backend: Backend, server: Server, cases: &[Case]) {
    for case in cases {
        eprintln!("{backend}, case {}", case.id);
        peer::run(case, &server);
    }
    server.ends();
}

fn on_echo(backend: Backend) {
    runs(backend, Server::echo(backend), &cases());
}

fn on_hub(backend: Backend) {
    let cases: Vec<Case> = cases().iter().filter_map(case::as_the_hub_sees_it).collect();
    assert!(cases.len() > 200, "only {} cases are left", cases.len());
    runs(backend, Server::hub(backend), &cases);
}

/// One module for each server, one test for each backend.
macro_rules! backends {
    ($($server:ident: $run:ident,)*) => { $(
        mod $server {
            use evenkeel::Backend;

            #[test]
            fn i50_on_select() {
                super::$run(Backend::Select);
            }
            #[test]
            fn i50_on_poll() {
                super::$run(Backend::Poll);
            }
            #[test]
            fn i50_on_epoll_lt() {
                super::$run(Backend::EpollLevel);
            }
            #[test]
            fn i50_on_epoll() {
                super::$run(Backend::Epoll);
            }
            #[test]
            fn i50_on_io_uring() {
                super::$run(Backend::IoUring);
            }
        }
    )* };
}

backends! {
    echo_server: on_echo,
    hub: on_hub,
}

#[test]
fn the_cases_are_those_of_the_suite() {
    let sections =
        [("1", 16), ("2", 11), ("3", 7), ("4", 10), ("5", 20), ("6", 145), ("7", 37), ("9", 54), ("10", 1)];
    let cases = cases();
    for (section, expected) in sections {
        let count = cases.iter().filter(|case| case.id.split('.').next() == Some(section)).count();
        assert_eq!(count, expected, "section {section}");
    }
    let mut ids: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), cases.len()), (301, 301));
}
