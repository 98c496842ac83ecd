//! Waking a loop from any thread, whatever descriptor table that has.
//!
//! A loop waits on an `eventfd` too. A thread that is known to have the loop's table writes to it. On any other its number could
//! mean something else, so that thread sends SIGURG to the loop's thread, whose handler runs there, in the right
//! table, and writes. It does not matter when the handler runs: the counter stays readable until the loop has looked.
//!
//! SIGURG is ignored by default, may arrive without meaning anything, and debuggers let it pass. No thread blocks it while it runs
//! a loop.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering, compiler_fence};
use std::sync::{Arc, OnceLock};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::gate::Gate;
use super::table::{self, Table};
use super::{Fd, WakeFn};

/// A loop, as those who wake it see it.
struct Target {
    /// The counter, a number of `table`. The loop closes it, when nobody is about to use it.
    fd: Fd,
    table: Table,
    thread: i32,
    /// A child that was forked has a copy of the list, and its counters are its parent's.
    process: i32,
    /// Passed by those who wake it.
    gate: Gate,
    /// The next loop of this thread. Touched by that thread alone, its signal handler included.
    next: AtomicPtr<Target>,
}

thread_local! {
    /// The loops of this thread. An atomic for the signal handler, which may run between any two instructions.
    static LOOPS: AtomicPtr<Target> = const { AtomicPtr::new(ptr::null_mut()) };
}

/// A counter that becomes readable when the function is called, from any thread. [`end`] closes it.
pub(super) fn pair() -> io::Result<(Fd, WakeFn)> {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?.into_raw_fd();
    let target = Arc::new(Target {
        fd,
        table: table::here(),
        thread: rustix::thread::gettid().as_raw_pid(),
        process: rustix::process::getpid().as_raw_pid(),
        gate: Gate::new(),
        next: AtomicPtr::default(),
    });
    LOOPS.with(|loops| {
        target.next.store(loops.load(Ordering::Relaxed), Ordering::Relaxed);
        // The handler, when it finds the loop, finds all of it.
        compiler_fence(Ordering::Release);
        loops.store(Arc::into_raw(target.clone()).cast_mut(), Ordering::Relaxed);
    });
    Ok((fd, Arc::new(move || target.wake())))
}

/// Closes a counter of this thread's when nobody is about to wake by it any more.
pub(super) fn end(fd: Fd) {
    table::sweep();
    if let Some(target) = unlink(fd) {
        // Whoever is in there is about to make one system call.
        target.gate.shut();
    }
    // SAFETY: the number was made by `pair`, and is given up: neither the list nor whoever wakes leads to it any more.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Takes a loop off this thread's list.
fn unlink(fd: Fd) -> Option<Arc<Target>> {
    LOOPS.with(|loops| {
        let mut link = loops;
        loop {
            let at = link.load(Ordering::Relaxed);
            // SAFETY: what is linked is kept alive by the list's share of it, and only this thread unlinks.
            let target = unsafe { at.as_ref() }?;
            if target.fd == fd {
                link.store(target.next.load(Ordering::Relaxed), Ordering::Relaxed);
                compiler_fence(Ordering::Release);
                // SAFETY: the share that `pair` has given to the list.
                return Some(unsafe { Arc::from_raw(at) });
            }
            link = &target.next;
        }
    })
}

/// Whether the calling thread has a loop.
pub(super) fn has_loop() -> bool {
    LOOPS.with(|loops| !loops.load(Ordering::Relaxed).is_null())
}

impl Target {
    /// Async-signal-safe.
    fn wake(&self) {
        self.gate.pass(|| {
            if table::is_here(self.table) {
                count(self.fd);
            } else {
                // Fails for no thread whose loop has not ended.
                let _ = interrupt(self.thread);
            }
        });
    }
}

/// Adds one to a counter; a full one says the same.
fn count(fd: Fd) {
    // SAFETY: the counter is open until `end` has waited for whoever is here.
    let _ = rustix::io::write(unsafe { BorrowedFd::borrow_raw(fd) }, &1u64.to_ne_bytes());
}

/// What runs on a loop's thread when another one wakes it. On other threads it does nothing.
fn interrupted() {
    let process = rustix::process::getpid().as_raw_pid();
    LOOPS.with(|loops| {
        let mut at = loops.load(Ordering::Relaxed);
        // SAFETY: loops on the list are alive, and this thread, which would unlink them, is here.
        while let Some(target) = unsafe { at.as_ref() } {
            if target.process == process {
                count(target.fd);
            }
            at = target.next.load(Ordering::Relaxed);
        }
    });
}

/// Sends SIGURG to a thread of this process, if there is one of that number.
fn interrupt(thread: i32) -> io::Result<()> {
    let process = rustix::process::getpid().as_raw_pid();
    // SAFETY: plain numbers. `errno`, which the call may change, belongs to the code that a signal's handler may have interrupted.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let sent = libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGURG);
        let error = *errno;
        *errno = before;
        if sent == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(error).into()) }
    }
}

/// Whether a SIGURG was sent by [`interrupt`], or in the same way by other code of this process.
pub(super) fn is_interrupt(info: &libc::siginfo_t) -> bool {
    // SAFETY: signals that were sent by `tgkill` say who sent them.
    info.si_code == libc::SI_TKILL && unsafe { info.si_pid() } == rustix::process::getpid().as_raw_pid()
}

/// Before there are two tables: SIGURG gets its handler, for the rest of the process's life, and is tried.
pub(super) fn prepare() -> io::Result<()> {
    static HANDLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let handled = HANDLED.get_or_init(|| {
        // SAFETY: the action is async-signal-safe: it reads a list that only its own thread changes, which it finds whole
        // at every instruction, and makes raw `write` calls that leave `errno` alone.
        let registered = unsafe { signal_hook_registry::register(libc::SIGURG, interrupted) };
        registered.map(drop).map_err(|e| e.raw_os_error().unwrap_or(libc::EINVAL))
    });
    handled.map_err(io::Error::from_raw_os_error)?;
    interrupt(rustix::thread::gettid().as_raw_pid())
}

/// Lets wakes reach the calling thread, which is about to run a loop: it may have been started with all signals blocked.
pub(crate) fn unblock() {
    // SAFETY: a set on the stack, made empty before it is used. The call cannot fail.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGURG);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::thread;

    fn counted(fd: Fd) -> bool {
        let mut got = [0; 8];
        // SAFETY: the test's own counter.
        rustix::io::read(unsafe { BorrowedFd::borrow_raw(fd) }, &mut got).is_ok()
    }

    #[test]
    fn an_interrupt_counts_on_each_loop_of_the_thread_and_on_no_other() {
        prepare().unwrap();
        unblock();
        let (one, _wake) = pair().unwrap();
        let (two, wake_two) = pair().unwrap();
        let (ready, wait) = std::sync::mpsc::channel();
        let (leave, left) = std::sync::mpsc::channel::<()>();
        let other = thread::spawn(move || {
            let (fd, wake) = pair().unwrap();
            ready.send(wake).unwrap();
            left.recv().unwrap();
            let untouched = !counted(fd);
            end(fd);
            untouched
        });
        let late = wait.recv().unwrap();
        // The thread's own signal is delivered before the call returns.
        interrupt(rustix::thread::gettid().as_raw_pid()).unwrap();
        assert!(counted(one) && counted(two));
        end(two);
        wake_two();
        interrupt(rustix::thread::gettid().as_raw_pid()).unwrap();
        assert!(counted(one), "the other loop of the thread ended");
        leave.send(()).unwrap();
        assert!(other.join().unwrap());
        // Of a thread that has ended.
        late();
        end(one);
        assert!(!has_loop());
    }

    #[test]
    fn a_late_wake_leaves_a_reused_number_alone() {
        let (fd, wake) = pair().unwrap();
        end(fd);
        let again = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        wake();
        let mut got = [0; 8];
        rustix::io::read(&again, &mut got).unwrap_err();
    }
}
