//! What the rest of the library asks of the simulation, where it is not built in.

use std::io;

use crate::backend::Backend;
use crate::choice::Started;

/// No thread is in a simulated host.
pub(crate) fn start(_: Backend) -> Option<io::Result<Started>> {
    None
}
