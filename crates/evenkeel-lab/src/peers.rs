//! The peers' programs: built when a measurement asks for them, in a workspace of their own.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use lab_work::place;

use crate::machine;

/// What nothing is general in, on epoll and on io_uring: the floors.
pub(crate) const FLOORS: [&str; 2] = ["raw", "raw-uring"];

/// The runtimes beside which ours is measured.
pub(crate) const RUNTIMES: &[&str] = &["tokio", "smol", "monoio", "compio", "glommio"];

/// Peers that have been built by this process.
static BUILT: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);

/// The program of a peer, brought up to date first.
///
/// # Errors
/// When Cargo cannot build it; what Cargo says goes to standard error.
pub(crate) fn program(name: &'static str) -> io::Result<PathBuf> {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let target = std::env::var_os("EVENKEEL_LAB_PEERS").map_or_else(|| folder().join("peers"), PathBuf::from);
    let package = format!("peer-{name}");
    if !built.get_or_insert_default().contains(name) {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/Cargo.toml");
        build(&manifest, &package, &target)?;
        built.get_or_insert_default().insert(name);
    }
    Ok(target.join("release").join(package))
}

/// The hub's program, brought up to date first.
///
/// # Errors
/// When Cargo cannot build it.
pub(crate) fn hub() -> io::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../evenkeel-hub/Cargo.toml");
    build(&manifest, "evenkeel-hub", &target())?;
    Ok(target().join("release/evenkeel-hub"))
}

fn build(manifest: &Path, package: &str, target: &Path) -> io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--locked", "--quiet", "--package", package]);
    build.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(target);
    let status = everywhere(|| build.status());
    let status = status.map_err(|e| io::Error::new(e.kind(), format!("cargo: {e}")))?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{package} could not be built"))) }
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

/// The folder that Cargo built this program in.
fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.unwrap_or(Path::new("target")).to_owned()
}

/// Where the lab puts what it makes; `cargo clean` removes it.
pub(crate) fn folder() -> PathBuf {
    target().join("lab")
}
