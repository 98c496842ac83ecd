//! The peers' programs: built when a measurement asks for them, in a workspace of their own.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use lab_work::place;

use crate::machine;

/// The runtimes beside which ours is measured. `raw` is not one of them: it is the floor.
pub(crate) const RUNTIMES: &[&str] = &["tokio", "smol", "monoio", "compio", "glommio"];

/// Peers that have been built by this process.
static BUILT: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);

/// The program of a peer, brought up to date first.
///
/// # Errors
/// When Cargo cannot build it; what Cargo says goes to standard error.
pub(crate) fn program(name: &'static str) -> io::Result<PathBuf> {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let target = target();
    if built.get_or_insert_default().insert(name) {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/Cargo.toml");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]).arg(manifest);
        build.arg("--package").arg(format!("peer-{name}")).arg("--target-dir").arg(&target);
        let status = everywhere(|| build.status());
        let status = status.map_err(|e| io::Error::new(e.kind(), format!("cargo: {e}")))?;
        if !status.success() {
            return Err(io::Error::other(format!("the peer `{name}` could not be built")));
        }
    }
    Ok(target.join("release").join(format!("peer-{name}")))
}

/// Lets a child use every processor, whatever this thread keeps to.
fn everywhere<T>(make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let here = place::processors();
    let all: Vec<_> = (0..machine::cores()).collect();
    place::stay_on(&all)?;
    let made = make();
    place::stay_on(&here)?;
    made
}

/// Beside this program's own build, so that `cargo clean` removes it and nothing else shares it.
fn target() -> PathBuf {
    let named = std::env::var_os("EVENKEEL_LAB_PEERS").map(PathBuf::from);
    named.unwrap_or_else(|| folder().join("peers"))
}

/// Where the lab puts what it makes: `lab` in the target folder that this program was built in.
pub(crate) fn folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.unwrap_or(Path::new("target")).join("lab")
}
