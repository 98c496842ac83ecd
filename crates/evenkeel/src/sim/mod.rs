//! A simulated world.

mod disk;
mod chaos;
mod check;
pub(crate) mod fault;
mod inside;
pub(crate) mod kernel;
mod machine;
pub(crate) mod net;
mod packet;
pub(crate) mod place;
mod report;
mod step;
pub(crate) mod sys;
pub(crate) mod trace;
mod world;

pub use check::Check;
pub use fault::Fault;
pub use inside::{elapsed, fail, hit, is_simulated, note, random, strikes, wall_clock};
pub use report::{Failure, Report};
pub use world::{Host, World};

pub(crate) use place::{machine, start};
