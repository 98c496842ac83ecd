//! What this kernel's io_uring has, found out once and by trying (I17).

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::sys::Sys;
use crate::sys::buffers::{Buffers, Provision};
use crate::sys::ring::{Done, Entry, FILE_OPERATIONS, Ring, Setup, SetupFlags, op};

/// What a ring can do here. What is missing is done another way, one thing at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Features {
    /// The flags that rings are made with.
    pub(crate) setup: SetupFlags,
    /// One request receives until it is cancelled (Linux 6.0); else each receives once.
    pub(crate) multishot_recv: bool,
    /// One request accepts until it is cancelled; else each accepts once.
    pub(crate) multishot_accept: bool,
    /// A buffer is filled piece by piece (Linux 6.12); else each receive takes a whole one.
    pub(crate) incremental: bool,
    /// A send that succeeds says nothing; else it completes like any other.
    pub(crate) quiet_sends: bool,
    /// The operations on files that it knows, one bit for each; threads perform all others.
    pub(crate) files: u128,
}

/// What can be left out by name, to measure it or to do without: the value of `EVENKEEL_IO_URING_WITHOUT`, with commas
/// between several. Each name is a feature above, or the flag of a ring; without `files`, threads perform what is asked
/// of files, as for the other backends.
const NAMES: [&str; 7] = [
    "defer-taskrun",
    "no-sqarray",
    "multishot-recv",
    "multishot-accept",
    "incremental-buffers",
    "quiet-sends",
    "files",
];

/// Whether every name in `without` is one that can be left out.
///
/// # Errors
/// `InvalidInput`: a mistake of whoever set the variable, and no property of the kernel.
pub(crate) fn check_names(without: &str) -> io::Result<()> {
    let unknown = without.split(',').find(|name| !name.is_empty() && !NAMES.contains(name));
    let Some(unknown) = unknown else { return Ok(()) };
    let what = format!("EVENKEEL_IO_URING_WITHOUT: there is no `{unknown}`, only {}", NAMES.join(", "));
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// Finds out what a ring can do, without what `without` names.
///
/// # Errors
/// Why io_uring cannot be used at all.
pub(crate) fn probe<Y: Sys>(sys: &Y, without: &str) -> io::Result<Features> {
    let may = |name| !without.split(',').any(|left_out| left_out == name);
    let setup = setup_flags(sys, may("defer-taskrun"), may("no-sqarray"))?;
    let ring = Ring::new(sys, Setup { submissions: 8, completions: 16, flags: setup })?;
    let tried = operations(sys, &ring)
        .and_then(|known| Ok((known, receives(sys, &ring, may("incremental-buffers"))?)));
    ring.close(sys);
    let (known, (multishot_recv, incremental)) = tried?;
    Ok(Features {
        setup,
        multishot_recv: multishot_recv && may("multishot-recv"),
        // Undeferred, it would empty the backlog while a handler is busy, whatever was asked for.
        multishot_accept: may("multishot-accept") && setup.contains(SetupFlags::DEFER_TASKRUN),
        incremental,
        quiet_sends: may("quiet-sends"),
        files: if may("files") { known & FILE_OPERATIONS } else { 0 },
    })
}

/// The newest flags that the kernel takes.
fn setup_flags<Y: Sys>(sys: &Y, defer: bool, no_array: bool) -> io::Result<SetupFlags> {
    let base = SetupFlags::SUBMIT_ALL | SetupFlags::TASKRUN_FLAG;
    let deferred = SetupFlags::SINGLE_ISSUER | SetupFlags::DEFER_TASKRUN;
    let newest = if defer { base | deferred } else { base | SetupFlags::COOP_TASKRUN };
    let tries = [
        if no_array { newest | SetupFlags::NO_SQARRAY } else { newest },
        newest,
        base | SetupFlags::COOP_TASKRUN,
    ];
    let mut refusal = None;
    for flags in tries {
        match Ring::new(sys, Setup { submissions: 8, completions: 16, flags }) {
            Ok(ring) => {
                ring.close(sys);
                return Ok(flags);
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => refusal = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(refusal.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
}

/// What the ring knows, which must be at least what cannot be done in another way.
fn operations<Y: Sys>(sys: &Y, ring: &Ring) -> io::Result<u128> {
    let known = sys.ring_operations(ring.fd)?;
    let needed = [op::POLL_ADD, op::ACCEPT, op::ASYNC_CANCEL, op::SEND, op::RECV];
    if needed.iter().all(|op| known & 1 << op != 0) {
        return Ok(known);
    }
    let what = "this kernel's io_uring lacks polling, accepting, cancelling, sending or receiving";
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

/// Tries to receive: again and again, into buffers that are filled piece by piece. Says which of the two works.
fn receives<Y: Sys>(sys: &Y, ring: &Ring, incremental: bool) -> io::Result<(bool, bool)> {
    let provision = Provision { count: 2, size: 4096, incremental };
    let (buffers, incremental) = match Buffers::new(sys, ring, provision) {
        Err(e) if incremental && e.kind() == io::ErrorKind::InvalidInput => {
            (Buffers::new(sys, ring, Provision { incremental: false, ..provision })?, false)
        }
        other => (other?, incremental),
    };
    let (ours, theirs) = match sys.socket_pair() {
        Ok(pair) => pair,
        Err(e) => {
            buffers.free(sys);
            return Err(e);
        }
    };
    let multishot = exchange(sys, ring, ours, theirs);
    let multishot = multishot.and_then(|multishot| overfill(sys, ring, theirs).map(|()| multishot));
    if multishot.is_err() {
        cancel(sys, ring, ours);
    }
    sys.close(ours);
    sys.close(theirs);
    // Nothing is in flight, or the ring is closed next; either way nobody sends any more.
    buffers.free(sys);
    Ok((multishot?, incremental))
}

const RECV: u64 = 1;
const SEND: u64 = 2;

/// Sends and receives, and cancels the receive. Says whether it would have gone on.
fn exchange<Y: Sys>(sys: &Y, ring: &Ring, ours: i32, theirs: i32) -> io::Result<bool> {
    static HELLO: [u8; 5] = *b"probe";
    for multishot in [true, false] {
        ring.push(&Entry::recv(ours, multishot).with(RECV));
        // SAFETY: the bytes are static.
        let send = unsafe { Entry::send(theirs, &HELLO, true) };
        ring.push(&send.with(SEND));
        let received = completions(sys, ring)?;
        let [received] = received[..] else { return Err(strange("a send or a receive")) };
        if received.result == HELLO.len() as i32 && received.data == RECV {
            if received.more() {
                ring.push(&Entry::cancel_all(ours));
                let ended = completions(sys, ring)?;
                if ended.iter().any(|done| done.data == RECV && !done.more()) {
                    return Ok(true);
                }
                return Err(strange("a cancellation"));
            }
            return Ok(false);
        }
        // What a send says is no answer, and a receive that has not ended is none that is not known.
        if !multishot || received.data != RECV || received.more() {
            return Err(strange("a receive"));
        }
        // Too old to go on receiving. What was sent is there for the second try.
        let mut sent = [0; 8];
        let _ = sys.recv(ours, &mut sent);
    }
    Err(strange("a receive"))
}

/// Ends what an answer that was not understood may have left in flight (I11, I16).
fn cancel<Y: Sys>(sys: &Y, ring: &Ring, ours: i32) {
    ring.push(&Entry::cancel_all(ours));
    for _ in 0..PATIENCE {
        // There may be nothing to end, so nothing is waited for.
        let _ = ring.enter(sys, 0, true, None);
        ring.reap(|_| ());
        if ring.pending() == 0 && !ring.has_work() {
            return;
        }
    }
}

/// Sends more than fits: a send that says nothing if all was taken must say how much was.
fn overfill<Y: Sys>(sys: &Y, ring: &Ring, theirs: i32) -> io::Result<()> {
    static MUCH: [u8; 4 << 20] = [0; 4 << 20];
    // SAFETY: the bytes are static.
    let send = unsafe { Entry::send(theirs, &MUCH, true) };
    ring.push(&send.with(SEND));
    let refused = completions(sys, ring)?;
    match refused[..] {
        [done] if done.data == SEND && done.result < MUCH.len() as i32 => Ok(()),
        _ => Err(strange("a send that finds no room")),
    }
}

/// Hands over what was queued, and takes what comes of it. A kernel that is interrupted, or busy for a moment, is asked again: what
/// it has not taken says nothing about what it can.
fn completions<Y: Sys>(sys: &Y, ring: &Ring) -> io::Result<Vec<Done>> {
    let mut all = Vec::new();
    let begun = sys.clock();
    for _ in 0..PATIENCE {
        let left = WAIT.saturating_sub(sys.clock().saturating_duration_since(begun));
        match ring.enter(sys, 1, true, Some(left)) {
            Err(e) if !passes(&e) => return Err(e),
            _ => {}
        }
        ring.reap(|done| all.push(done));
        if ring.pending() == 0 && !ring.overflowed() && (!all.is_empty() || left.is_zero()) {
            break;
        }
    }
    Ok(all)
}

/// How long an answer is waited for, and how often it is asked for.
const WAIT: Duration = Duration::from_secs(1);
const PATIENCE: usize = 50;

fn passes(e: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(e.kind(), TimedOut | Interrupted | WouldBlock)
        || e.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

fn strange(what: &str) -> io::Error {
    let what = format!("this kernel's io_uring answers {what} in a way that is not known");
    io::Error::new(io::ErrorKind::Unsupported, what)
}
