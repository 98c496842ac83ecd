//! For the tests: how many tasks of a future's type are in memory, whichever thread frees them.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

static TASKS: Mutex<BTreeMap<TypeId, isize>> = Mutex::new(BTreeMap::new());

pub(super) fn count<F: 'static>(change: isize) {
    *TASKS.lock().unwrap_or_else(PoisonError::into_inner).entry(TypeId::of::<F>()).or_default() += change;
}

/// The number of tasks in memory whose future has this type. `None` if there never was one.
pub(in crate::task) fn tasks(future: TypeId) -> Option<isize> {
    TASKS.lock().unwrap_or_else(PoisonError::into_inner).get(&future).copied()
}
