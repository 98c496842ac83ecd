//! The user-space cost of a message does not grow unnoticed: a count that repeats, where times do not.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Whether callgrind is there to count.
fn has_valgrind() -> bool {
    Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// The lab as it measures: built for release, in the folder that this test was built in.
fn release_build() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_evenkeel-lab"));
    let target = built.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--quiet", "--package", "evenkeel-lab", "--target-dir"]).arg(target);
    assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    target.join("release/evenkeel-lab")
}

/// Runs it with a lock of its own: counts do not mind a measurement, and a test need not wait for one.
fn lab(words: &[&str], baseline: &Path) -> Output {
    let lock = baseline.with_extension("lock");
    let lock = std::env::temp_dir().join(lock.file_name().unwrap());
    let mut command = Command::new(release_build());
    command.args(words).arg(baseline).env("EVENKEEL_LAB_LOCK", &lock).output().unwrap()
}

#[test]
fn instructions_per_message_have_not_grown_by_a_tenth() {
    if !has_valgrind() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.toml");
    let output = lab(&["instr", "--check"], &baseline);
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// A check that cannot fail guards nothing.
#[test]
fn a_count_that_has_grown_is_a_failure() {
    if !has_valgrind() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let low = std::env::temp_dir().join(format!("evenkeel-lab-baseline-{}.toml", std::process::id()));
    let text =
        "rustc = \"another\"\n[instructions]\n\"callbacks/epoll, 1\" = 10\n\"callbacks/epoll, 50\" = 10\n";
    std::fs::write(&low, text).unwrap();
    let output = lab(&["instr", "callbacks/epoll", "--check"], &low);
    std::fs::remove_file(&low).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("callbacks/epoll, 50"), "{said}");
}
