//! A simulated world.

mod disk;
pub(crate) mod fault;
pub(crate) mod kernel;
mod machine;
pub(crate) mod net;
mod packet;
pub(crate) mod sys;
pub(crate) mod trace;

pub use fault::Fault;
