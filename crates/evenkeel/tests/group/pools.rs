//! What the loops of a group share: the threads for names and the user's work.

use std::collections::HashSet;
use std::thread::{self, ThreadId};

use evenkeel::group::{Group, GroupBuilder};
use evenkeel::pool::{PoolOptions, WorkPool};
use evenkeel::{Backend, EventLoop, Handle};

use crate::support::LONG;

on_every_backend! {
    i41_loops_share_one_pool_unless_each_asks_for_its_own,
    what_pinned_loops_give_away_runs_on_all_processors,
}

/// One thread for work in each pool.
fn options() -> PoolOptions {
    let mut options = PoolOptions::default();
    options.work.threads = Some(1);
    options
}

/// The threads on which the work of each loop runs.
fn workers(builder: GroupBuilder) -> HashSet<ThreadId> {
    let group = builder.build(|_, _| Ok(())).unwrap();
    let work = || async { Handle::current().offload(|| thread::current().id()).await.unwrap() };
    let workers = (0..group.len()).map(|i| group.spawn_on(i, work).unwrap().wait().unwrap()).collect();
    group.stop(LONG).unwrap();
    assert!(group.join().into_iter().all(|end| end.is_ok()));
    workers
}

fn i41_loops_share_one_pool_unless_each_asks_for_its_own(backend: Backend) {
    let each = EventLoop::builder().backend(backend).pool_options(options());
    let group = || Group::builder().loops(3);
    assert_eq!(workers(group().event_loop(each.clone())).len(), 1);
    assert_eq!(workers(group().event_loop(each.clone()).own_pools(true)).len(), 3);
    let pool = WorkPool::new(&options());
    let given = workers(group().event_loop(each.work_pool(&pool)).own_pools(true));
    assert_eq!((given.len(), pool.stats().work.done), (1, 3));
    assert!(pool.shut_down(LONG));
}

fn what_pinned_loops_give_away_runs_on_all_processors(backend: Backend) {
    let allowed = || rustix::thread::sched_getaffinity(None).unwrap().count();
    let all = allowed();
    let each = EventLoop::builder().backend(backend);
    let group = Group::builder().loops(2).pinned(true).event_loop(each).build(|_, _| Ok(())).unwrap();
    let both = move || async move { (allowed(), Handle::current().offload(allowed).await.unwrap()) };
    assert_eq!(group.spawn_on(1, both).unwrap().wait().unwrap(), (1, all));
    group.stop(LONG).unwrap();
    assert!(group.join().into_iter().all(|end| end.is_ok()));
}
