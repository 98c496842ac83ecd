//! The hub's program, as it is measured.

use std::path::Path;
use std::process::Command;

use evenkeel::Backend;

use super::{APP, KEY, SECRET};

/// Runs the hub on a port of the kernel's choice. Pings and heartbeats would be counted with the deliveries, and this much
/// connecting and publishing is no attack.
pub(crate) fn command(program: &Path, backend: Backend) -> Command {
    let mut command = Command::new(program);
    command.args(["--listen", "127.0.0.1:0", "--log-level", "warn", "--backend", backend.name()]);
    for option in ["ping_interval_seconds=3600", "sse.heartbeat_seconds=3600", "limits.accept_rate=0"] {
        command.args(["--set", option]);
    }
    for (name, value) in [("ID", APP), ("KEY", KEY), ("SECRET", SECRET), ("PUBLISH_RATE", "0")] {
        command.env(format!("EVENKEEL_HUB_APP_{name}"), value);
    }
    command
}
