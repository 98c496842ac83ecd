//! What a builder knows of its loop's threads.

use std::sync::Arc;

use super::{FEW_THREADS, PoolOptions, WorkPool};
use crate::dns::Resolver;

/// By their numbers.
pub(crate) type Processors = Arc<[usize]>;

#[derive(Clone, Default)]
pub(crate) struct Workers {
    pub(crate) options: PoolOptions,
    /// None: the loop gets a pool of its own.
    pub(crate) shared: Option<WorkPool>,
    /// Where a pool's threads run. None: where the loop's thread does that starts them.
    pub(crate) processors: Option<Processors>,
    /// None: the system's.
    pub(crate) resolver: Option<Arc<dyn Resolver>>,
}

impl Workers {
    /// The pool for names and the user's work.
    pub(crate) fn pool(&self) -> WorkPool {
        self.shared.clone().unwrap_or_else(|| WorkPool::on(&self.options, self.processors.clone()))
    }

    /// Threads for files at most, the loop's or its ring's.
    pub(crate) fn file_threads(&self) -> usize {
        self.options.files.threads.unwrap_or(FEW_THREADS).max(1)
    }
}
