//! A hub for the client tests: started on a port that it chooses, stopped by asking it to.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::process;

const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What the hub says when it is ready, before its address.
const READY: &str = "listening on http://";

/// Two applications that differ in everything, so that each test can tell whether one sees the other, and short waits.
const CONFIGURATION: &str = r#"
drain_deadline_seconds = 3

[sse]
retry_milliseconds = 200

[[apps]]
id = "1001"
key = "demo-key"
secret = "demo-secret"
name = "First"
client_events = true
subscription_counts = true

[[apps]]
id = "1002"
key = "other-key"
secret = "other-secret"
name = "Second"
client_events = true
subscription_counts = true
"#;

/// Builds the hub beside this program, in the same profile.
pub(crate) fn build(root: &Path) -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let mut cargo = Command::new(crate::test::cargo());
    cargo.args(["build", "--package", "evenkeel-hub"]).current_dir(root);
    if this.parent().is_some_and(|directory| directory.ends_with("release")) {
        cargo.arg("--release");
    }
    process::must(&mut cargo, BUILD_LIMIT)?;
    Ok(this.with_file_name("evenkeel-hub"))
}

/// Writes the configuration of the hub under test.
pub(crate) fn write_configuration(root: &Path) -> Result<PathBuf, String> {
    let path = root.join("build/hub.toml");
    let written = fs::create_dir_all(root.join("build")).and_then(|()| fs::write(&path, CONFIGURATION));
    written.map_err(|error| format!("{}: {error}", path.display())).map(|()| path)
}

/// A hub that runs. Dropping it kills it.
pub(crate) struct Hub {
    child: Child,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) log: PathBuf,
}

impl Hub {
    /// Starts a hub and waits until it listens. What it prints goes to `log`.
    pub(crate) fn start(
        program: &Path,
        configuration: &Path,
        backend: &str,
        log: PathBuf,
    ) -> Result<Self, String> {
        let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let file = Arc::new(Mutex::new(file));
        let mut child = Command::new(program)
            .arg("--config")
            .arg(configuration)
            .args(["--listen", "127.0.0.1:0"])
            .env("EVENKEEL_BACKEND", backend)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", program.display()))?;
        let (found, address) = std::sync::mpsc::channel();
        let out = child.stdout.take().map(|stream| process::read_lines(stream, false));
        let err = child.stderr.take().map(|stream| process::read_lines(stream, false));
        for lines in [out, err].into_iter().flatten() {
            keep_log(lines, Arc::clone(&file), found.clone());
        }
        drop(found);
        let mut hub = Self { child, host: String::new(), port: 0, log };
        match address.recv_timeout(START_LIMIT) {
            Ok((host, port)) => (hub.host, hub.port) = (host, port),
            Err(_) => return Err(format!("the hub did not say \"{READY}...\"\n{}", hub.last_lines())),
        }
        Ok(hub)
    }

    /// Asks the hub to stop. An error when it does not, or does not succeed.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        let begun = Instant::now();
        match process::terminate(&mut self.child, STOP_LIMIT) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the hub ended with {status}\n{}", self.last_lines())),
            None => Err(format!("the hub did not stop in {} seconds", begun.elapsed().as_secs())),
        }
    }

    /// The end of what the hub printed.
    pub(crate) fn last_lines(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            process::end_tree(&mut self.child);
        }
    }
}

/// Writes lines to the log, and tells the address when the hub says it.
fn keep_log(lines: Receiver<String>, log: Arc<Mutex<File>>, found: std::sync::mpsc::Sender<(String, u16)>) {
    thread::spawn(move || {
        for line in lines {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            // A full disk shows elsewhere; the hub must not block on its output.
            let _ = writeln!(log, "{line}");
            if let Some(address) = address_in(&line) {
                // The receiver is gone after the first address.
                let _ = found.send(address);
            }
        }
    });
}

fn address_in(line: &str) -> Option<(String, u16)> {
    let (_, rest) = line.split_once(READY)?;
    let (host, port) = rest.split([' ', '/', '"']).next()?.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Hub, address_in};
    use std::fs;
    use std::path::{Path, PathBuf};

    #[test]
    fn the_address_is_found_in_the_line() {
        let expected = Some(("127.0.0.1".to_owned(), 40123));
        assert_eq!(address_in("listening on http://127.0.0.1:40123"), expected);
        assert_eq!(address_in("12:00 info listening on http://127.0.0.1:40123/ backend=epoll"), expected);
        assert_eq!(address_in("listening on nothing"), None);
        assert_eq!(address_in("listening on http://127.0.0.1:no"), None);
    }

    /// A script of `fixtures`, and a place for its log. It is not written by the test, because a program that is still open
    /// for writing, if only in a child that another test has just forked, cannot be executed.
    fn fixture(name: &str) -> (PathBuf, PathBuf) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        (program, std::env::temp_dir().join(format!("xtask-{name}-{}.log", std::process::id())))
    }

    #[test]
    fn a_hub_is_started_and_stopped() {
        let (program, log) = fixture("hub-that-runs");
        let hub = Hub::start(&program, &program, "poll", log.clone()).unwrap();
        assert_eq!((hub.host.as_str(), hub.port), ("127.0.0.1", 7));
        assert!(hub.last_lines().contains("poll"));
        hub.stop().unwrap();
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_hub_that_does_not_listen_is_an_error_with_its_last_words() {
        let (program, log) = fixture("hub-that-fails");
        let error = Hub::start(&program, &program, "poll", log.clone()).err().unwrap();
        assert!(error.contains("the address is in use"), "{error}");
        fs::remove_file(log).unwrap();
    }
}
