//! Any part of the runtime's API from any callback, on each backend: the programs of `tests/sequences`.

// Not all that the tests use.
#[allow(dead_code, unused_imports)]
#[path = "../../crates/evenkeel/tests/sequences/program/mod.rs"]
mod program;

use std::sync::OnceLock;

use evenkeel::net::Addr;
use evenkeel::{Backend, EventLoop};

/// The first byte chooses the backend and the address; the rest is the program.
pub fn run(bytes: &[u8]) {
    static WARM: OnceLock<()> = OnceLock::new();
    let Some((choice, program)) = bytes.split_first() else { return };
    // What the process opens once and for all is open before anything is counted.
    WARM.get_or_init(|| Backend::ALL.iter().for_each(|backend| drop(event_loop(*backend))));
    let choice = usize::from(*choice);
    let backend = Backend::ALL[choice % Backend::ALL.len()];
    let tcp = choice / Backend::ALL.len() % 4 == 3;
    let at = if tcp { loopback(program) } else { unix() };
    let before = open_descriptors();
    program::run(event_loop(backend), &at, &mut program::Sockets::default(), program);
    assert_eq!(open_descriptors(), before, "descriptors stay open");
}

/// Before libFuzzer's hook, which ends the process at any panic: those that a program plans are the loop's to catch.
pub fn begin() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !program::is_planned(info.payload()) {
            hook(info);
        }
    }));
}

fn event_loop(backend: Backend) -> EventLoop {
    EventLoop::builder().backend(backend).on_fallback(|_| {}).build().expect("a loop can be made")
}

fn unix() -> Addr {
    Addr::Unix(Some(std::env::temp_dir().join(format!("evenkeel-fuzz-{}", std::process::id()))))
}

/// One of many addresses of this machine, so that the ports of connections that are over do not run out.
fn loopback(program: &[u8]) -> Addr {
    let [one, other] = [0, 1].map(|at| program.get(at).copied().unwrap_or(0));
    Addr::Ip(([127, 1 + one % 200, other, 1], 0).into())
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
