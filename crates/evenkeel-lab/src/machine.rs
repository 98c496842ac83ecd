//! The machine that measures: what it is, what else it is doing, and that it does one measurement at a time.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use lab_work::place;
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// The share of a processor that other programs may use before a cell is measured again.
const NOISY: f64 = 0.2;
/// How often a noisy cell is measured before the quietest is taken.
const TRIES: usize = 3;

/// Where the measuring happens: servers have one processor and the lab another, if there are two.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    servers: Vec<usize>,
    lab: Vec<usize>,
}

impl Places {
    /// Takes the first two processors that this process may use, and moves this thread to the second.
    pub(crate) fn take() -> io::Result<Self> {
        let all = place::processors();
        let first: Vec<_> = all.iter().copied().take(1).collect();
        let second: Vec<_> = all.iter().copied().skip(1).take(1).collect();
        let lab = if second.is_empty() { first.clone() } else { second };
        place::stay_on(&lab)?;
        Ok(Places { servers: first, lab })
    }

    /// Makes a child process that stays where servers are.
    pub(crate) fn spawn<T>(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.from(&self.servers, make)
    }

    /// Makes a child process that may use both processors.
    pub(crate) fn spawn_anywhere<T>(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.from(&[self.servers.as_slice(), self.lab.as_slice()].concat(), make)
    }

    /// Children stay where their parent is when it makes them.
    fn from<T>(&self, processors: &[usize], make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        place::stay_on(processors)?;
        let made = make();
        place::stay_on(&self.lab)?;
        made
    }
}

/// Keeps other measuring commands waiting while it lives.
pub(crate) struct Quiet {
    _lock: File,
}

impl Quiet {
    /// Waits until no other measuring command runs on this machine. The lock is a file in the temporary folder, or
    /// the one that `EVENKEEL_LAB_LOCK` names.
    pub(crate) fn wait() -> io::Result<Self> {
        use rustix::fs::{FlockOperation, flock};
        let named = std::env::var_os("EVENKEEL_LAB_LOCK").map(PathBuf::from);
        let path = named.unwrap_or_else(|| std::env::temp_dir().join("evenkeel-lab.lock"));
        let lock = File::options().create(true).append(true).open(&path)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            eprintln!("waiting for another measurement to end ({})", path.display());
            flock(&lock, FlockOperation::LockExclusive)?;
        }
        Ok(Quiet { _lock: lock })
    }
}

/// The machine in one line.
pub(crate) struct Machine;

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = rustix::system::uname();
        let (system, release) = (name.sysname().to_string_lossy(), name.release().to_string_lossy());
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = field(&cpuinfo, "model name").unwrap_or("unknown processor");
        let cores = place::processors().len().max(cores());
        write!(f, "{system} {release}, {cores} cores of {model}, built by {}", env!("LAB_RUSTC"))
    }
}

/// Processors that are online, whether or not this thread may use them now.
pub(crate) fn cores() -> usize {
    std::fs::read_to_string("/proc/stat")
        .map_or(1, |text| text.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu ")).count())
}

/// The text after `key:` in a file of `/proc`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_start().strip_prefix(':')?.trim()))
}

/// What `/proc/meminfo` says of the whole machine, in bytes.
pub(crate) fn meminfo(name: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let kilobytes = field(&text, name).and_then(|value| value.trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.map(|n| n * 1024).ok_or_else(|| io::Error::other(format!("/proc/meminfo says no {name}")))
}

/// A process whose clock and memory are read from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pid: i32,
    clock: ClockId,
}

impl Process {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        Ok(Process { pid, clock: clock_getcpuclockid(Pid::from_raw(pid))? })
    }

    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    /// Processor time used so far by all its threads, in nanoseconds, in user space and in the kernel.
    pub(crate) fn cpu(self) -> io::Result<u64> {
        let time = self.clock.now()?;
        Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    }

    /// Resident memory in bytes that is its own: what the heap and the stacks have touched.
    pub(crate) fn own_memory(self) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?;
        let value =
            field(&text, "Anonymous").and_then(|v| v.trim_end_matches("kB").trim().parse::<u64>().ok());
        value
            .map(|kilobytes| kilobytes * 1024)
            .ok_or_else(|| io::Error::other("smaps_rollup says no Anonymous"))
    }

    /// Its state, as `ps` shows it: `S` for sleeping, `T` for stopped.
    pub(crate) fn state(self) -> io::Result<char> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let after = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        after.ok_or_else(|| io::Error::other("no state in /proc/PID/stat"))
    }
}

/// What other programs use of the processors meanwhile.
pub(crate) struct Noise {
    servers: Vec<Process>,
    busy: f64,
    ours: f64,
    start: std::time::Instant,
}

impl Noise {
    /// Begins to watch. The clocks of `servers`, of this process and of children that have ended count as ours.
    pub(crate) fn watch(servers: &[Process]) -> io::Result<Self> {
        let servers = servers.to_vec();
        Ok(Noise {
            busy: busy_seconds(),
            ours: our_seconds(&servers)?,
            start: std::time::Instant::now(),
            servers,
        })
    }

    /// The share of one processor that others used.
    pub(crate) fn share(&self) -> io::Result<f64> {
        let ours = our_seconds(&self.servers)? - self.ours;
        let others = busy_seconds() - self.busy - ours;
        Ok(others.max(0.0) / self.start.elapsed().as_secs_f64().max(1e-3))
    }
}

fn our_seconds(servers: &[Process]) -> io::Result<f64> {
    let mut total = place::cpu_time() as f64 / 1e9;
    for server in servers {
        total += server.cpu()? as f64 / 1e9;
    }
    let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    for time in [children.user_time(), children.system_time()] {
        total += time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    }
    Ok(total)
}

fn busy_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    busy_ticks(&text) as f64 / 100.0
}

/// The first line of `/proc/stat` without what it says of idleness and of guests, who are counted as users too. Time
/// that the hypervisor took away counts as busy: somebody else used it.
fn busy_ticks(text: &str) -> u64 {
    let numbers = text.lines().next().unwrap_or("").split_whitespace().skip(1);
    let counted = numbers.enumerate().filter(|(i, _)| ![3, 4, 8, 9].contains(i));
    counted.map(|(_, n)| n.parse::<u64>().unwrap_or(0)).sum()
}

/// A figure and the share of a processor that others used while it was taken.
pub(crate) struct Heard<T> {
    pub(crate) value: T,
    pub(crate) noise: f64,
}

/// Measures a cell, and again while other programs use more than a fifth of a processor; the quietest of three
/// tries is taken.
pub(crate) fn quietest<T>(mut cell: impl FnMut() -> io::Result<(T, f64)>) -> io::Result<Heard<T>> {
    let mut best: Option<Heard<T>> = None;
    for _ in 0..TRIES {
        let (value, noise) = cell()?;
        if best.as_ref().is_none_or(|b| noise < b.noise) {
            best = Some(Heard { value, noise });
        }
        if noise < NOISY {
            break;
        }
    }
    best.ok_or_else(|| io::Error::other("nothing was tried"))
}

/// Marks a figure that was taken in noise.
pub(crate) fn mark(noise: f64) -> &'static str {
    if noise < NOISY { "" } else { " !" }
}

/// The line under a table with marked figures.
pub(crate) const MARK: &str =
    "!: other programs used more than a fifth of a processor, three times in a row.";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn idle_and_guest_time_is_not_busy() {
        let text = "cpu  10 1 20 1000 500 3 4 7 8 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks(text), 10 + 1 + 20 + 3 + 4 + 7);
        assert_eq!(busy_ticks(""), 0);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "Rss:   8 kB\nAnonymousHuge: 1 kB\nAnonymous:  12 kB\nmodel name\t: Some CPU @ 2: fast\n";
        assert_eq!(field(text, "Anonymous"), Some("12 kB"));
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2: fast"));
        assert_eq!(field(text, "Pss"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.cpu().unwrap() > 0);
        assert!(me.own_memory().unwrap() > 0);
        assert!(['R', 'S'].contains(&me.state().unwrap()));
        assert!(meminfo("MemAvailable").unwrap() > 0);
        assert!(meminfo("Mem").is_err());
    }

    #[test]
    fn the_quietest_is_kept() {
        let mut noises = [0.5, 0.3, 0.4].into_iter().enumerate();
        let heard = quietest(|| Ok(noises.next().unwrap())).unwrap();
        assert_eq!((heard.value, heard.noise), (1, 0.3));
        let mut calls = 0;
        let heard = quietest(|| {
            calls += 1;
            Ok((calls, 0.1))
        });
        assert_eq!(heard.unwrap().value, 1, "a quiet cell is not repeated");
    }
}
