//! Lookups in flight: one for each name, however many wait for it.
//!
//! ```text
//!   callers ── Asking ──> Query <── Answerer, in a task ── Offload ──> the lane of names
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use super::error::ResolveError;
use super::resolver::Resolver;
use crate::core::{Shared, caught};
use crate::pool::{Offload, WorkError};
use crate::task::JoinHandle;

type Found = Result<Rc<[SocketAddr]>, ResolveError>;
type Name = (Rc<str>, u16);

/// The lookups of one loop.
pub(crate) struct Names {
    resolver: Arc<dyn Resolver>,
    /// Keyed by what the peers of a proxy may choose, so in an order that nobody can make slow.
    in_flight: RefCell<BTreeMap<Name, Rc<Query>>>,
}

impl Names {
    pub(crate) fn new(resolver: Arc<dyn Resolver>) -> Self {
        Names { resolver, in_flight: RefCell::default() }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.borrow().len()
    }

    /// Lookups for which nobody waits any more.
    pub(crate) fn abandoned(&self) -> usize {
        self.in_flight.borrow().values().filter(|query| query.callers.get() == 0).count()
    }

    /// Forgets a lookup, if it is still the one of its name. It is dropped when nothing is borrowed.
    fn forget(&self, query: &Rc<Query>) {
        let mut all = self.in_flight.borrow_mut();
        let is_it = all.get(&query.name).is_some_and(|there| Rc::ptr_eq(there, query));
        let gone = is_it.then(|| all.remove(&query.name));
        drop(all);
        drop(gone);
    }
}

/// One lookup, and who waits for it.
struct Query {
    name: Name,
    /// Whether a thread has begun it: it cannot be taken back then.
    begun: Arc<AtomicBool>,
    found: RefCell<Option<Found>>,
    /// Those who wait, whether they were polled yet or not.
    callers: Cell<usize>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
    next: Cell<u64>,
    task: RefCell<Option<JoinHandle<()>>>,
}

/// Resolves a name that is none of an address, or waits for the lookup that does already.
pub(super) fn ask(lp: &Rc<Shared>, host: &str, port: u16) -> Asking {
    let name: Name = (host.into(), port);
    let joined = lp.names.in_flight.borrow().get(&name).cloned();
    if let Some(query) = joined {
        lp.stats.add(&lp.stats.lookups_joined);
        return Asking::new(lp, query);
    }
    lp.stats.add(&lp.stats.lookups);
    let query = Rc::new(Query {
        name: name.clone(),
        begun: Arc::default(),
        found: RefCell::default(),
        callers: Cell::new(0),
        wakers: RefCell::default(),
        next: Cell::new(0),
        task: RefCell::default(),
    });
    lp.names.in_flight.borrow_mut().insert(name, query.clone());
    let asking = Asking::new(lp, query.clone());
    let offload = look_up(lp, &query);
    let answerer = Answerer { lp: lp.clone(), query: query.clone() };
    // A task, so that it goes on whichever of the callers is dropped. If the loop has ended it is dropped at once, and
    // the callers are told.
    let task = lp.executor.spawn(async move { answerer.answer(offload.await) });
    *query.task.borrow_mut() = Some(task);
    asking
}

fn look_up(lp: &Rc<Shared>, query: &Query) -> Offload<io::Result<Vec<SocketAddr>>> {
    let pool = lp.work_pool.borrow().clone();
    let Some(pool) = pool else { return Offload::refused(WorkError::Ended) };
    let (resolver, begun) = (lp.names.resolver.clone(), query.begun.clone());
    let (host, port) = (String::from(&*query.name.0), query.name.1);
    pool.look_up(move || {
        begun.store(true, Ordering::Relaxed);
        resolver.resolve(&host, port)
    })
}

impl Query {
    /// Leaves what was found, unless something is there, and wakes all.
    fn answer(&self, found: impl FnOnce() -> Found) {
        if self.found.borrow().is_some() {
            return;
        }
        *self.found.borrow_mut() = Some(found());
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        for waker in wakers.into_values() {
            caught(|| waker.wake());
        }
    }
}

/// Gives a query its answer, dropped without one that there will be none.
struct Answerer {
    lp: Rc<Shared>,
    query: Rc<Query>,
}

impl Answerer {
    fn answer(self, looked_up: Result<io::Result<Vec<SocketAddr>>, WorkError>) {
        let host = &self.query.name.0;
        // Whoever asks from here on asks anew.
        self.lp.names.forget(&self.query);
        self.query.answer(|| match looked_up {
            Ok(Ok(found)) if found.is_empty() => Err(ResolveError::no_address(host)),
            Ok(Ok(found)) => Ok(found.into()),
            Ok(Err(error)) => Err(ResolveError::failed(host, error)),
            Err(refused) => Err(ResolveError::failed(host, refused.into())),
        });
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.lp.names.forget(&self.query);
        self.query.answer(|| {
            let ended = io::Error::new(io::ErrorKind::NotConnected, "the loop has ended");
            Err(ResolveError::failed(&self.query.name.0, ended))
        });
    }
}

/// One caller's wait for a lookup.
///
/// Dropping the last one of a lookup takes it back if no thread has begun it. One that runs goes on, for whoever asks for
/// the same name meanwhile: so one name keeps one thread at most, however long the resolver hangs.
pub(super) struct Asking {
    lp: Rc<Shared>,
    query: Rc<Query>,
    number: u64,
}

impl Asking {
    fn new(lp: &Rc<Shared>, query: Rc<Query>) -> Self {
        let number = query.next.get();
        query.next.set(number + 1);
        query.callers.set(query.callers.get() + 1);
        Asking { lp: lp.clone(), query, number }
    }
}

impl Future for Asking {
    type Output = Found;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Found> {
        // Cloned, and the old one dropped, when nothing is borrowed: wakers may be a user's.
        let waker = cx.waker().clone();
        if let Some(found) = &*self.query.found.borrow() {
            return Poll::Ready(found.clone());
        }
        let left = self.query.wakers.borrow_mut().insert(self.number, waker);
        drop(left);
        Poll::Pending
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let query = &self.query;
        let waker = query.wakers.borrow_mut().remove(&self.number);
        drop(waker);
        query.callers.set(query.callers.get() - 1);
        let is_over = query.found.borrow().is_some();
        if query.callers.get() == 0 && !is_over && !query.begun.load(Ordering::Relaxed) {
            self.lp.names.forget(query);
            let task = query.task.borrow_mut().take();
            if let Some(task) = task {
                task.abort();
            }
        }
    }
}
