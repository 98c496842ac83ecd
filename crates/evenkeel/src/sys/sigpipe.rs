//! SIGPIPE, which would end the process when a peer has gone (I33).
//!
//! A send has a flag against it. `sendfile`, `splice` and a write to a pipe have none and raise it for the thread that
//! calls; so that thread blocks it. The disposition stays as it is: it is the process's, and children inherit one that
//! ignores.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

/// Blocks SIGPIPE on this thread for as long as it lives, and after that leaves the mask as it was.
#[derive(Debug)]
pub(crate) struct Blocked {
    /// Somebody else blocks it, a loop further out perhaps, and it stays so.
    before: bool,
    /// A mask is a thread's.
    _here: PhantomData<*const ()>,
}

impl Blocked {
    pub(crate) fn new() -> Self {
        Blocked { before: mask(libc::SIG_BLOCK), _here: PhantomData }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if !self.before {
            discard_pending();
            mask(libc::SIG_UNBLOCK);
        }
    }
}

/// Calls with SIGPIPE not blocked on this thread: what is started meanwhile, a process or a thread, inherits the mask.
pub(crate) fn unblocked<R>(call: impl FnOnce() -> R) -> R {
    struct Reblock(bool);
    impl Drop for Reblock {
        fn drop(&mut self) {
            if self.0 {
                mask(libc::SIG_BLOCK);
            }
        }
    }
    discard_pending();
    let _reblock = Reblock(mask(libc::SIG_UNBLOCK));
    call()
}

fn sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the first call makes the set a valid one, and neither fails for a set and a signal that exist.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

/// Blocks or unblocks SIGPIPE on this thread. True if it was blocked before.
fn mask(how: libc::c_int) -> bool {
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets are valid for the call, which fails only for a `how` that does not exist, and writes the second
    // before it returns.
    unsafe {
        libc::pthread_sigmask(how, &sigpipe(), before.as_mut_ptr());
        libc::sigismember(before.as_ptr(), libc::SIGPIPE) == 1
    }
}

/// Takes away a SIGPIPE that came while it was blocked: unblocked, it would end the process now. Does nothing if it is
/// not blocked, since none is pending then.
fn discard_pending() {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: the set and the time are valid for the call, and nothing else is written.
        let taken = unsafe { libc::sigtimedwait(&sigpipe(), ptr::null_mut(), &at_once) };
        let interrupted = || std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
        if taken != libc::SIGPIPE && !interrupted() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_blocked() -> bool {
        let mut now = MaybeUninit::uninit();
        // SAFETY: asks for the mask and changes nothing.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), now.as_mut_ptr());
            libc::sigismember(now.as_ptr(), libc::SIGPIPE) == 1
        }
    }

    fn is_pending() -> bool {
        let mut pending = MaybeUninit::uninit();
        // SAFETY: asks for the pending signals and changes nothing.
        unsafe {
            libc::sigpending(pending.as_mut_ptr());
            libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
        }
    }

    /// For this thread only, as a write to a pipe raises it.
    fn raise() {
        // SAFETY: SIGPIPE is blocked here, so nothing happens but that it is pending.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGPIPE) };
    }

    #[test]
    fn i33_the_mask_is_as_it_was_and_nothing_pending_is_let_loose() {
        assert!(!is_blocked());
        let outer = Blocked::new();
        let inner = Blocked::new();
        drop(inner);
        assert!(is_blocked(), "the outer one still holds");
        // Rust programs ignore it; at its default it would be the end.
        // SAFETY: sets a disposition, and back; no other test of this binary raises SIGPIPE.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        raise();
        assert!(is_pending());
        assert!(!unblocked(is_blocked));
        assert!(is_blocked() && !is_pending());
        raise();
        drop(outer);
        assert!(!is_blocked() && !is_pending(), "and the process lives");
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGPIPE, before) };
        assert!(!unblocked(is_blocked));
        assert!(!is_blocked());
    }
}
