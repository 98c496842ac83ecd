//! Event-based concurrency.

#[allow(dead_code, reason = "the loop, which calls it, is not in this module yet")]
pub mod task;
mod time {
    #[allow(dead_code, reason = "as above")]
    pub(crate) mod wheel;
}
