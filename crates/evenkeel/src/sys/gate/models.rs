//! Whoever passes and the owner who shuts.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering::Relaxed;

use loom::thread;

use super::Gate;
use crate::sync::{Arc, AtomicUsize, Cell, model};

/// What is used behind the gate: loom fails the model if its end is not ordered after each use.
struct Counter {
    gate: Gate,
    open: Cell<bool>,
    counted: AtomicUsize,
}

impl Counter {
    fn count(&self) {
        self.gate.pass(|| {
            assert!(self.open.get(), "used after its end");
            self.counted.fetch_add(1, Relaxed);
        });
    }

    fn end(&self) {
        self.gate.shut();
        self.open.set(false);
    }
}

fn counter() -> Arc<Counter> {
    Arc::new(Counter { gate: Gate::new(), open: Cell::new(true), counted: AtomicUsize::new(0) })
}

/// Two threads wake a loop that ends: its counter is closed when nobody is about to write to it, and nobody writes later.
#[test]
fn i02_what_a_gate_guards_is_ended_when_nobody_uses_it() {
    model(|| {
        let counter = counter();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let counter = counter.clone();
                thread::spawn(move || counter.count())
            })
            .collect();
        counter.end();
        let counted = counter.counted.load(Relaxed);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(counter.counted.load(Relaxed), counted, "nothing is done after the end");
    });
}
