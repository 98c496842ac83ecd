//! A simulated world.

pub(crate) mod fault;
pub(crate) mod kernel;
pub(crate) mod net;
mod packet;
pub(crate) mod sys;
pub(crate) mod trace;

pub use fault::Fault;
