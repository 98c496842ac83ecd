//! What a builder knows of its loop's threads.

use std::sync::Arc;

use super::{FEW_THREADS, PoolOptions, WorkPool};
use crate::dns::{Resolver, System};
use crate::stand_in::StandIn;

/// By their numbers.
pub(crate) type Processors = Arc<[usize]>;

#[derive(Clone, Default)]
pub(crate) struct Workers {
    pub(crate) options: PoolOptions,
    /// None: the loop gets a pool of its own.
    pub(crate) shared: Option<WorkPool>,
    /// Where a pool's threads run. None: where the loop's thread does that starts them.
    pub(crate) processors: Option<Processors>,
    /// None: the system's, or the simulated host's.
    pub(crate) resolver: Option<Arc<dyn Resolver>>,
}

impl Workers {
    /// The pool for names and the user's work.
    pub(crate) fn pool(&self, host: Option<Arc<dyn StandIn>>) -> WorkPool {
        let own = || WorkPool::on(&self.options, self.processors.clone(), host);
        self.shared.clone().unwrap_or_else(own)
    }

    /// What resolves names.
    pub(crate) fn resolver(&self, host: Option<&dyn StandIn>) -> Arc<dyn Resolver> {
        let default = || host.map_or_else(|| Arc::new(System) as Arc<dyn Resolver>, StandIn::resolver);
        self.resolver.clone().unwrap_or_else(default)
    }

    /// Threads for files at most, the loop's or its ring's.
    pub(crate) fn file_threads(&self) -> usize {
        self.options.files.threads.unwrap_or(FEW_THREADS).max(1)
    }
}
