//! The state of one loop that its driver, its handlers' contexts and its tasks share.

pub(crate) mod accept;
pub(crate) mod async_io;
mod caught;
pub(crate) mod close;
mod connect;
pub(crate) mod cork;
mod flow;
pub(crate) mod flush;
pub(crate) mod out;
pub(crate) mod parcel;
pub(crate) mod pool;
pub(crate) mod shared;
mod slab;
pub(crate) mod source;
pub(crate) mod watch;
pub(crate) mod whole;
mod write;

pub(crate) use caught::{Payload, caught};
pub(crate) use shared::{Core, Shared};
pub(crate) use source::{Kind, Source, Token, flag};
