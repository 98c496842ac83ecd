//! What the server takes from the machine that it runs on: its clock, random numbers, what it has of memory and descriptors,
//! and where lines of the log go. A hub in a simulated world is given another one.

use std::fmt;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use super::process;

/// A machine, as a hub sees it. [`ThisMachine`] is the real one.
///
/// All of it may be asked on any of the hub's threads. What concerns connections and time that passes is the event loop's.
pub trait Machine: Send + Sync {
    /// The wall clock, for logs and signatures only. It may jump.
    fn wall_clock(&self) -> SystemTime;

    /// A number that nobody can guess, and another one at each call: signatures, socket ids and keys of hash maps come from it.
    ///
    /// # Errors
    /// When there are no random numbers, without which the hub does not start.
    fn random_seed(&self) -> io::Result<u64>;

    /// The most descriptors that the process may have.
    fn max_descriptors(&self) -> u64;

    /// The machine's memory in bytes, of which queues may have a part.
    fn total_memory(&self) -> Option<u64>;

    /// Resident memory of the process in bytes, for monitors.
    fn resident(&self) -> Option<u64>;

    /// Open descriptors of the process, for monitors.
    fn descriptors(&self) -> Option<u64>;

    /// Open descriptors in the table of this thread, for monitors.
    fn descriptors_here(&self) -> Option<u64>;

    /// Where lines of the log are written.
    fn log(&self) -> Box<dyn Write>;
}

/// The machine that the process runs on. Logs go to standard error.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random_seed(&self) -> io::Result<u64> {
        process::random_seed()
    }

    fn max_descriptors(&self) -> u64 {
        process::max_descriptors()
    }

    fn total_memory(&self) -> Option<u64> {
        process::total_memory()
    }

    fn resident(&self) -> Option<u64> {
        process::resident()
    }

    fn descriptors(&self) -> Option<u64> {
        process::descriptors()
    }

    fn descriptors_here(&self) -> Option<u64> {
        process::descriptors_here()
    }

    fn log(&self) -> Box<dyn Write> {
        Box::new(io::stderr())
    }
}

/// The wall clock in milliseconds since 1970.
pub(super) fn unix_ms(machine: &dyn Machine) -> u64 {
    machine.wall_clock().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

impl fmt::Debug for dyn Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Machine")
    }
}
