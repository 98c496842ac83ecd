//! The loop itself: how it is built, and its turn.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::backend::Backend;
use crate::choice::{Fallback, Listener};
use crate::core::Shared;
use crate::descriptors::{DescriptorsRefused, Wanted};
use crate::dns::Resolver;
use crate::handle::Handle;
use crate::handler::CloseReason;
use crate::pool::{PoolOptions, WorkPool, Workers};
use crate::sys::sigpipe;
use crate::sys::wake;

thread_local! {
    /// The loop that is running on this thread, innermost last: handles for code that was not given one.
    static CURRENT: RefCell<Vec<Rc<Shared>>> = const { RefCell::new(Vec::new()) };
}

/// Identities only; a loop never reads another's. The one number that loops of a process share.
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

pub(crate) fn current() -> Option<Rc<Shared>> {
    // None either where a thread's end has taken the list away: what is dropped after that finds no loop.
    CURRENT.try_with(|stack| stack.borrow().last().cloned()).ok().flatten()
}

/// Makes a call outside of all loops, as a thread does that runs none.
#[cfg_attr(not(feature = "sim"), expect(dead_code, reason = "other threads are real ones"))]
pub(crate) fn outside<R>(call: impl FnOnce() -> R) -> R {
    struct Back(Vec<Rc<Shared>>);
    impl Drop for Back {
        fn drop(&mut self) {
            CURRENT.with(|stack| *stack.borrow_mut() = std::mem::take(&mut self.0));
        }
    }
    let _back = Back(CURRENT.take());
    crate::sync::as_another_thread(call)
}

/// Makes a loop the current one for as long as it lives.
struct Entered;

impl Entered {
    fn new(shared: &Rc<Shared>) -> Self {
        // A loop that is dropped at the very end of its thread cannot be the current one.
        let _ = CURRENT.try_with(|stack| stack.borrow_mut().push(shared.clone()));
        Entered
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let last = CURRENT.try_with(|stack| stack.borrow_mut().pop());
        drop(last);
    }
}

/// How a loop is to be made.
///
/// ```
/// use evenkeel::{Backend, EventLoop};
/// let events = EventLoop::builder().backend(Backend::Poll).build()?;
/// assert_eq!(events.handle().backend().name(), "poll");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Builder {
    backend: Option<Backend>,
    on_fallback: Option<Arc<Listener>>,
    pub(crate) descriptors: Wanted,
    pub(crate) workers: Workers,
}

impl Builder {
    /// The kernel interface. Default: what `EVENKEEL_BACKEND` says, else [`Backend::Auto`].
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Is told, by [`build`](Self::build) and for each loop, why epoll runs although io_uring was asked for by name, or
    /// although [`Backend::Auto`] had found it good. Default: the first time in the life of the process, one line on standard
    /// error.
    ///
    /// [`Handle::fallback`] tells the same at any time, and also why Auto has merely chosen epoll.
    pub fn on_fallback(mut self, tell: impl Fn(&Fallback) + Send + Sync + 'static) -> Self {
        self.on_fallback = Some(Arc::new(tell));
        self
    }

    /// Gives the loop's thread a descriptor table of its own, when the loop is made, unless the thread has one already.
    ///
    /// What the loop opens then counts against a limit of its own, and the kernel need not guard its descriptors against other
    /// threads in each call; [`group`](crate::group#descriptor-tables) has the figures. Threads that this thread starts later
    /// share the new table. Of what was open before, the new table has standard input, output and error, and what
    /// [`keep_descriptor`](Self::keep_descriptor) names; all other numbers stay taken, and whatever is tried with them fails with `EBADF`. So a
    /// connection that another thread has ends when that thread closes it. Ask early, while little is open, and
    /// on a thread that was started for the loop.
    ///
    /// [`Remote`](crate::Remote)s, wakers, [signals](crate::signal) and [files](crate::fs) work across tables, and
    /// [`Handle::hand_over`] takes descriptors to other loops of a group. To reach the thread from others, SIGURG is handled from
    /// then on: it must keep that handler, and the threads of loops do not block it while they run.
    ///
    /// Where it is refused, as in some containers, the loop goes on with the table that it shares:
    /// [`Handle::descriptors`] tells why, and [`on_descriptors_refused`](Self::on_descriptors_refused) is told.
    ///
    /// # Safety
    /// A descriptor's number means something else in each table, and a type such as `OwnedFd` or `std::fs::File` carries nothing but
    /// the number. So what is opened on a thread of the new table must be used and closed on threads of that table only; and
    /// what is opened elsewhere, not on those. A descriptor may cross by [`Handle::hand_over`] or by a
    /// socket (`SCM_RIGHTS`), and one that is kept may be used in both tables; each closes its own copy. This binds the
    /// libraries that run on these threads as well, such as one that writes a log to a file it has opened
    /// elsewhere. What this crate opens keeps to it.
    ///
    /// ```
    /// use evenkeel::{Descriptors, EventLoop};
    /// let loop_thread = std::thread::spawn(|| -> std::io::Result<()> {
    ///     // SAFETY: nothing that this thread opens leaves it, and it uses nothing that others have opened.
    ///     let events = unsafe { EventLoop::builder().private_descriptors() }.on_descriptors_refused(|_| {}).build()?;
    ///     match events.handle().descriptors() {
    ///         Descriptors::Private => {}
    ///         other => println!("{other:?}"),
    ///     }
    ///     Ok(())
    /// });
    /// assert!(loop_thread.join().is_ok_and(|ended| ended.is_ok()));
    /// ```
    pub unsafe fn private_descriptors(mut self) -> Self {
        self.descriptors.private = true;
        self
    }

    /// Lets the new table of [`private_descriptors`](Self::private_descriptors) have this one too, under the same number, such as a log file
    /// that handlers write to. What it refers to stays open until both tables have closed it.
    ///
    /// It is to be open until the loop, or the group, is built.
    pub fn keep_descriptor(mut self, fd: impl AsFd) -> Self {
        self.descriptors.keep(fd);
        self
    }

    /// Is told, by [`build`](Self::build) and for each loop, why it has no descriptor table of its own although that was asked for.
    /// Default: the first time in the life of the process, one line on standard error.
    pub fn on_descriptors_refused(
        mut self,
        tell: impl Fn(&DescriptorsRefused) + Send + Sync + 'static,
    ) -> Self {
        self.descriptors.on_refused(tell);
        self
    }

    /// How many threads do what would block the loop, and how much may wait for them. Those for names and the user's work are
    /// a pool that this makes for the loop, unless it is given [one](Self::work_pool).
    pub fn pool_options(mut self, options: PoolOptions) -> Self {
        self.workers.options = options;
        self
    }

    /// The pool for names and the user's work, which the loop shares with others. Default: a pool of its own; the loops of a
    /// [`group`](crate::group) share one.
    pub fn work_pool(mut self, pool: &WorkPool) -> Self {
        self.workers.shared = Some(pool.clone());
        self
    }

    /// What resolves names, for this loop's [`dns`](crate::dns). Default: the system's, [`dns::System`](crate::dns::System).
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.workers.resolver = Some(Arc::new(resolver));
        self
    }

    /// Makes the loop.
    ///
    /// # Errors
    /// `InvalidInput` when `EVENKEEL_BACKEND` names no backend, or `EVENKEEL_IO_URING_WITHOUT` nothing that can be left
    /// out; the kernel's, such as when descriptors have run out. That io_uring is refused is none: see [`Backend`].
    pub fn build(self) -> io::Result<EventLoop> {
        let wanted = match self.backend {
            Some(backend) => backend,
            None => Backend::from_env()?,
        };
        let descriptors = self.descriptors.begin()?;
        let started = wanted.start()?;
        if let Some(fallback) = &started.fallback {
            fallback.tell(self.on_fallback.as_deref());
        }
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(EventLoop { shared: Shared::new(id, started, descriptors, self.workers) })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// An event loop. It stays on the thread that made it; [`Remote`](crate::Remote) reaches it from others.
///
/// Several loops can live on one thread, as simulations need it; one runs at a time. Dropping a loop drops its tasks,
/// ends its connections ([`CloseReason::LoopEnded`]) and runs nothing further. What the kernel has taken still reaches
/// the peers; a connection with more than that is reset, so that no peer takes a part for the whole.
///
/// # After a fork
///
/// A child process that goes on without `exec` may make loops of its own. Its parent's loops, of which it has a copy, it must
/// neither run, use nor drop: the connections, and what the kernel keeps for a loop, are the parent's too. So it ends by `exec` or
/// `_exit`. A signal that is sent to one of the two reaches the loops of that one only.
pub struct EventLoop {
    pub(crate) shared: Rc<Shared>,
}

impl EventLoop {
    /// A loop over a driver that a test has made.
    #[cfg(test)]
    pub(crate) fn over(backend: Backend, driver: Box<dyn crate::backend::Driver>) -> Self {
        let started = crate::choice::Started { backend, driver, fallback: None };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let shared = Shared::new(id, started, crate::Descriptors::Shared, Workers::default());
        EventLoop { shared }
    }

    /// A loop with the default options.
    ///
    /// # Errors
    /// As for [`Builder::build`].
    pub fn new() -> io::Result<Self> {
        Builder::default().build()
    }

    /// Options for a loop.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A handle, for everything that one does with a loop but running it.
    pub fn handle(&self) -> Handle {
        Handle::from_shared(self.shared.clone())
    }

    /// Runs until [`Handle::stop`] is called. What is open stays open; the loop can be run again.
    ///
    /// While a loop runs, its thread blocks SIGPIPE, which `sendfile`, `splice` and writes to pipes raise. Children that
    /// [`process::Command`](crate::process::Command) starts get it back; those of `std::process::Command` inherit the mask.
    ///
    /// # Errors
    /// `Unsupported` when called from within this loop, by a handler or a task; otherwise the kernel's, when it
    /// refuses to wait, which nothing can mend.
    pub fn run(&mut self) -> io::Result<()> {
        let _running = Running::new(&self.shared)?;
        wake::unblock();
        while !self.shared.stopping.take() {
            turn(&self.shared, None, &mut || false)?;
        }
        // What the last calls wrote does not wait for the next run.
        self.shared.driver.flush(&self.shared);
        self.shared.reap();
        Ok(())
    }

    /// Runs until `future` is ready, as a task among the others. It may borrow from the caller.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and `Interrupted` when [`Handle::stop`] is called first.
    pub fn block_on<F: Future>(&mut self, future: F) -> io::Result<F::Output> {
        let _running = Running::new(&self.shared)?;
        wake::unblock();
        let mut future = pin!(future);
        let root = self.shared.executor.root();
        let waker = root.waker().clone();
        let mut output = None;
        while output.is_none() {
            if self.shared.stopping.take() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the loop was stopped"));
            }
            turn(&self.shared, None, &mut || {
                self.shared.executor.refill();
                if root.take_woken()
                    && let Poll::Ready(ready) = future.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    output = Some(ready);
                }
                output.is_some()
            })?;
        }
        Ok(output.expect("the loop above ends when there is one"))
    }

    /// Takes one turn without waiting: for a loop that is driven by another one, or by a test.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn poll(&mut self) -> io::Result<()> {
        let _running = Running::new(&self.shared)?;
        turn(&self.shared, Some(Duration::ZERO), &mut || false)?;
        // Nobody knows when the next turn is: what was answered does not wait for it.
        self.shared.driver.flush(&self.shared);
        Ok(())
    }
}

/// One turn. Everything that a loop does happens in one of these steps. It waits for `most` at most. `main` is the
/// future of `block_on`; when it is done, nothing is waited for.
pub(crate) fn turn(
    lp: &Rc<Shared>,
    most: Option<Duration>,
    main: &mut dyn FnMut() -> bool,
) -> io::Result<()> {
    lp.fire_timers();
    lp.run_queued();
    let done = main();
    lp.driver.flush_batch(lp);
    lp.reap();
    lp.run_wakes();
    // What `on_close`, or a user's waker, wrote to others leaves before the wait, too, or with it.
    lp.driver.flush_batch(lp);
    if done {
        lp.driver.flush(lp);
        return Ok(());
    }
    let time = lp.turn_ends();
    lp.driver.wait(lp, most.or(time))?;
    lp.reap();
    Ok(())
}

/// A loop that is being run: it is current, and cannot be run again from inside.
pub(crate) struct Running<'a> {
    shared: &'a Shared,
    _entered: Entered,
    _sigpipe: sigpipe::Blocked,
}

impl<'a> Running<'a> {
    pub(crate) fn new(shared: &'a Rc<Shared>) -> io::Result<Self> {
        if shared.running.replace(true) {
            let what = "this loop is running already, and a handler or a task of it cannot run it again; spawn a \
                        task or defer a call instead";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        shared.tick();
        Ok(Running { shared, _entered: Entered::new(shared), _sigpipe: sigpipe::Blocked::new() })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.shared.running.set(false);
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        let lp = &self.shared;
        lp.ended.set(true);
        let entered = Entered::new(lp);
        lp.executor.cancel_all();
        lp.guard(|| lp.inbox.calls.close());
        // What is on its way to this loop is closed with its end, and what waits to be sent to others, here.
        let post = lp.post.take();
        lp.guard(|| drop(post));
        lp.files.end();
        // Its threads end with the last loop that shares it.
        let pool = lp.work_pool.take();
        lp.guard(|| drop(pool));
        lp.driver.flush(lp);
        let capacity = lp.core.borrow().sources.capacity();
        for at in 0..capacity {
            let token = lp.core.borrow_mut().sources.at(at).map(|(token, _)| token);
            if let Some(token) = token {
                lp.abort(token, CloseReason::LoopEnded);
            }
        }
        lp.reap();
        lp.driver.end(lp);
        // Calls and wakers of users: their drops may still call the loop, which answers that it has ended.
        let (deferred, wakes, wheel) = {
            let mut core = lp.core.borrow_mut();
            let wheel = std::mem::replace(&mut core.wheel, crate::time::wheel::Wheel::new(0));
            (std::mem::take(&mut core.deferred), std::mem::take(&mut core.wakes), wheel)
        };
        lp.guard(|| drop(deferred));
        lp.guard(|| drop(wakes));
        lp.guard(|| drop(wheel));
        let pools = std::mem::take(&mut *lp.pools.borrow_mut());
        let listeners = std::mem::take(&mut lp.core.borrow_mut().listeners);
        lp.guard(|| drop((pools, listeners)));
        let locals = lp.locals.take();
        lp.guard(|| drop(locals));
        drop(entered);
    }
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop").field("backend", &self.shared.backend).finish_non_exhaustive()
    }
}
