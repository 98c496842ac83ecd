//! Starting a group: its threads, and what each of them does.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle, available_parallelism};

use super::roster::Roster;
use super::{Group, GroupError, LoopIndex};
use crate::descriptors::Descriptors;
use crate::event_loop::Builder;
use crate::event_loop::EventLoop;
use crate::handle::Handle;
use crate::handover::{Circle, Outside, Post};
#[cfg(doc)]
use crate::pool::WorkPool;
use crate::remote::Remote;
use crate::sys::post::{self, Ends};
use crate::sys::processors;
use crate::sys::table::{self, Table};

/// How a group is to be made; see [`Group::builder`].
#[derive(Clone, Debug)]
pub struct GroupBuilder {
    loops: Option<usize>,
    name: String,
    pinned: bool,
    private: bool,
    own_pools: bool,
    each: Builder,
    spawn: Spawn,
}

/// What a loop's thread comes to.
type End = Result<(), GroupError>;

/// Starts a thread of this name.
type Spawn = fn(String, Box<dyn FnOnce() -> End + Send>) -> io::Result<JoinHandle<End>>;

fn spawn(name: String, life: Box<dyn FnOnce() -> End + Send>) -> io::Result<JoinHandle<End>> {
    thread::Builder::new().name(name).spawn(life)
}

/// What runs on each loop's thread before it serves.
type Setup = dyn Fn(&Handle, LoopIndex) -> io::Result<()> + Send + Sync;

/// A thread of a group, as its builder sees it.
struct Started {
    thread: JoinHandle<End>,
    /// The loop, when its setup is over; nothing if the thread ends before.
    ready: Receiver<Remote>,
}

/// What a thread of a group is started with.
struct Member {
    index: LoopIndex,
    roster: Arc<Roster>,
    each: Builder,
    processor: Option<usize>,
    setup: Arc<Setup>,
    /// What the thread that builds the group has, and so this one has at first.
    table: Table,
    post: Option<(Circle, Ends)>,
    ready: SyncSender<Remote>,
}

impl GroupBuilder {
    pub(super) fn new() -> Self {
        GroupBuilder {
            loops: None,
            name: "evenkeel".into(),
            pinned: false,
            private: false,
            own_pools: false,
            each: Builder::default(),
            spawn,
        }
    }

    /// How many loops. Default: as many as processors this process may use, by affinity and by quota.
    pub fn loops(mut self, loops: usize) -> Self {
        self.loops = Some(loops);
        self
    }

    /// What the threads are called: this, a dash, and the loop's index. Linux shows the first 15 bytes. Default `evenkeel`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Keeps each loop's thread on one processor, of those that the thread that builds the group may use, in turn. Default
    /// false: the kernel moves a loop away from a processor that something else keeps busy.
    ///
    /// Threads that a loop starts for files inherit its processor; those for names and the user's work run on all of them.
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = pinned;
        self
    }

    /// Gives each loop a [`WorkPool`] of its own, for names and the user's work. Default false: they share one, of the size
    /// that [`Builder::pool_options`] says, so that more loops do not mean more of those threads. A pool that
    /// [`Builder::work_pool`] was given is shared in any case.
    pub fn own_pools(mut self, own: bool) -> Self {
        self.own_pools = own;
        self
    }

    /// The options of every loop.
    pub fn event_loop(mut self, each: Builder) -> Self {
        self.each = each;
        self
    }

    /// Gives each loop a descriptor table of its own; see [`Builder::private_descriptors`] and the
    /// [module](super#descriptor-tables). Connections and listening sockets come to their loops by
    /// means that do not rely on numbers, whatever the [`Share`](super::Share).
    ///
    /// # Safety
    /// As for [`Builder::private_descriptors`], for each loop's thread.
    pub unsafe fn private_descriptors(mut self) -> Self {
        self.private = true;
        self
    }

    /// Starts the threads, and returns when all loops are set up. `setup` runs on each loop's thread, with its loop as the
    /// current one.
    ///
    /// # Errors
    /// `InvalidInput` for no loops, or a name that threads cannot have. When a thread cannot be started or pinned, a loop
    /// cannot be made, or `setup` fails or panics: what happened to the first such loop. Those that were started are stopped
    /// and joined before this returns.
    pub fn build(
        self,
        setup: impl Fn(&Handle, LoopIndex) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Group, GroupError> {
        let loops = match self.loops {
            Some(loops) => loops,
            None => available_parallelism().map_err(GroupError::of_group)?.get(),
        };
        if loops == 0 || self.name.contains('\0') {
            let what = if loops == 0 {
                "a group has at least one loop"
            } else {
                "a thread's name cannot contain NUL"
            };
            return Err(GroupError::of_group(io::Error::new(io::ErrorKind::InvalidInput, what)));
        }
        let processors =
            if self.pinned { processors::allowed().map_err(GroupError::of_group)? } else { Vec::new() };
        let mut each = self.each;
        each.descriptors.private |= self.private;
        // The ends at which something arrives are closed when this returns: the loops have theirs by then.
        let pairs: Vec<(OwnedFd, OwnedFd)> = match each.descriptors.private {
            true => {
                (0..loops).map(|_| post::pair()).collect::<io::Result<_>>().map_err(GroupError::of_group)?
            }
            false => Vec::new(),
        };
        let circle = Circle::default();
        // The loops' processors are for the loops: what they give away runs on any of them.
        each.workers.processors = self.pinned.then(|| processors.as_slice().into());
        // A pool's threads have the table of the loop that starts them, and are to serve no loop of another.
        if !self.own_pools && !each.descriptors.private {
            let pool = each.workers.pool(crate::sim::machine());
            each = each.work_pool(&pool);
        }
        let roster = Arc::new(Roster::new(loops));
        let setup: Arc<Setup> = Arc::new(setup);
        let mut started = Vec::with_capacity(loops);
        let mut first = None;
        for index in 0..loops {
            let (ready, wait) = sync_channel(1);
            let processor = processors.get(index % processors.len().max(1)).copied();
            let (roster, each, setup) = (roster.clone(), each.clone(), setup.clone());
            let post = (!pairs.is_empty()).then(|| (circle.clone(), Ends::of(&pairs, index)));
            let member = Member { index, roster, each, processor, setup, table: table::here(), post, ready };
            match member.start(format!("{}-{index}", self.name), self.spawn) {
                Ok(thread) => started.push(Started { thread, ready: wait }),
                Err(error) => {
                    first = Some(GroupError::failed(index, error));
                    break;
                }
            }
        }
        let mut group = gather(&roster, started, first)?;
        group.outside = Arc::new(Outside::new(pairs.into_iter().map(|(_, way)| way)));
        Ok(group)
    }
}

/// Waits for the loops to be set up. If one is not, or `failed` already, ends them all.
fn gather(
    roster: &Arc<Roster>,
    started: Vec<Started>,
    failed: Option<GroupError>,
) -> Result<Group, GroupError> {
    if failed.is_some() {
        roster.stop();
    }
    let mut remotes = Vec::with_capacity(started.len());
    let mut threads = Vec::with_capacity(started.len());
    for Started { thread, ready } in started {
        remotes.extend(ready.recv());
        threads.push(thread);
    }
    if failed.is_none() && remotes.len() == threads.len() {
        return Ok(Group::new(roster.clone(), remotes, threads));
    }
    roster.stop();
    let ends = threads.into_iter().enumerate().map(|(index, thread)| ended(index, thread.join()));
    // All are joined, whichever failed.
    let ends: Vec<_> = ends.filter_map(Result::err).collect();
    let unknown = || GroupError::of_group(io::Error::other("a loop ended while it was set up"));
    Err(ends.into_iter().next().or(failed).unwrap_or_else(unknown))
}

/// How a loop ended, be it that its thread panicked.
pub(super) fn ended(index: LoopIndex, joined: thread::Result<End>) -> End {
    joined.unwrap_or_else(|payload| Err(GroupError::panicked(index, payload)))
}

impl Member {
    fn start(self, name: String, spawn: Spawn) -> io::Result<JoinHandle<End>> {
        let (roster, index) = (self.roster.clone(), self.index);
        roster.starts(index);
        let life = move || {
            // The last of it, on the way out of a panic too.
            let _ended = Ended { roster: self.roster.clone(), index: self.index };
            let index = self.index;
            catch_unwind(AssertUnwindSafe(|| self.live()))
                .unwrap_or_else(|payload| Err(GroupError::panicked(index, payload)))
        };
        spawn(name, Box::new(life)).inspect_err(|_| roster.has_ended(index))
    }

    /// The life of a loop.
    fn live(self) -> End {
        let index = self.index;
        let failed = |error| GroupError::failed(index, error);
        if let Some(processor) = self.processor {
            processors::pin(processor).map_err(failed)?;
        }
        table::inherit(self.table);
        let mut events = build(self.each, self.post, index).map_err(failed)?;
        let handle = events.handle();
        let remote = handle.remote();
        self.roster.runs(index, &remote);
        let setup = self.setup;
        // Caught, so that the loop ends as loops do before the panic goes on.
        let set_up = async { catch_unwind(AssertUnwindSafe(|| setup(&handle, index))) };
        let set_up = events.block_on(set_up).map_err(failed)?;
        drop(setup);
        set_up.map_err(|payload| GroupError::panicked(index, payload))?.map_err(failed)?;
        // The builder waits for it, and has room for it.
        let _ = self.ready.send(remote);
        events.run().map_err(failed)
    }
}

/// Makes a loop that descriptors can come to from the others, if there are ends for that.
fn build(mut each: Builder, post: Option<(Circle, Ends)>, index: LoopIndex) -> io::Result<EventLoop> {
    let Some((circle, ends)) = post else { return each.build() };
    each.descriptors.keep.extend(ends.numbers());
    let events = each.build()?;
    let shared = events.handle().shared;
    let ends = ends.take(matches!(shared.descriptors, Descriptors::Private))?;
    // Nobody has it yet, so nobody has set it.
    let _ = shared.inbox.member.set((circle.clone(), index));
    shared.post.replace(Some(Post::new(circle, ends)));
    Ok(events)
}

/// Tells the roster that a loop's thread is over.
struct Ended {
    roster: Arc<Roster>,
    index: LoopIndex,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.roster.has_ended(self.index);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn when_a_thread_cannot_be_started_those_that_were_are_stopped_and_joined() {
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        fn two(name: String, life: Box<dyn FnOnce() -> End + Send>) -> io::Result<JoinHandle<End>> {
            if name == "few-2" {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let counted = move || {
                let end = life();
                ENDED.fetch_add(1, Ordering::Relaxed);
                end
            };
            spawn(name, Box::new(counted))
        }
        let builder = GroupBuilder { spawn: two, ..Group::builder() };
        let error = builder.loops(4).name("few").build(|_, _| Ok(())).unwrap_err();
        assert_eq!(error.index(), Some(2));
        assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(ENDED.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_panic_of_a_thread_reaches_who_joins_it() {
        fn late(name: String, life: Box<dyn FnOnce() -> End + Send>) -> io::Result<JoinHandle<End>> {
            let panics = name == "late-1";
            let then = move || {
                let end = life();
                assert!(!panics, "after the loop");
                end
            };
            spawn(name, Box::new(then))
        }
        let builder = GroupBuilder { spawn: late, ..Group::builder() };
        let group = builder.loops(3).name("late").build(|_, _| Ok(())).unwrap();
        group.stop(Duration::from_secs(30)).unwrap();
        let ends = group.join();
        assert!(ends[0].is_ok() && ends[2].is_ok());
        let error = ends[1].as_ref().unwrap_err();
        assert!(error.is_panic() && error.index() == Some(1), "{error}");
    }
}
