//! What the server asks of the operating system about itself.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// A seed that nobody can guess.
///
/// # Errors
/// The kernel's, when it has no random numbers, without which signatures and hash keys would be guessable.
pub(super) fn random_seed() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The most descriptors that the process may have, after raising the soft limit to the hard one.
pub(super) fn max_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        // Refused in some containers; then the soft limit stays.
        let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(1024)
}

/// Resident memory in bytes.
pub(super) fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Open descriptors.
pub(super) fn descriptors() -> Option<u64> {
    in_table("/proc/self/fd")
}

/// Open descriptors in the table of this thread.
pub(super) fn descriptors_here() -> Option<u64> {
    in_table("/proc/thread-self/fd")
}

fn in_table(path: &str) -> Option<u64> {
    // The directory itself is open while it is read.
    Some((std::fs::read_dir(path).ok()?.count() as u64).saturating_sub(1))
}

/// The machine's memory in bytes.
pub(super) fn total_memory() -> Option<u64> {
    thread_local!(static TOTAL: Option<u64> = read_total_memory());
    TOTAL.with(|total| *total)
}

fn read_total_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
