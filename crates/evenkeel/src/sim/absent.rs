//! What the rest of the library asks of the simulation, where it is not built in.

use std::io;
use std::sync::Arc;

use crate::backend::Backend;
use crate::choice::Started;
use crate::stand_in::StandIn;

/// No thread is in a simulated host.
pub(crate) fn start(_: Backend) -> Option<io::Result<Started>> {
    None
}

/// No thread is in another machine than the real one.
pub(crate) fn machine() -> Option<Arc<dyn StandIn>> {
    None
}
