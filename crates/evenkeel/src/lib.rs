//! Event-based concurrency.
