//! The client tests: one hub for each backend, and all the scripts of `tests/clients` against it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::hub::{self, Hub};
use crate::process;
use crate::setup::{self, Tools};
use crate::tally::Tally;

const LIMIT: Duration = Duration::from_secs(10 * 60);

/// The backends that the hub must behave alike on.
pub(crate) const BACKENDS: [&str; 5] = ["select", "poll", "epoll-lt", "epoll", "io_uring"];

/// Runs every script on each of `backends`, against `program` or a hub that is built here.
pub(crate) fn run(root: &Path, backends: &[String], program: Option<&Path>) -> Result<Tally, String> {
    let tools = setup::prepare(root)?;
    let program = match program {
        Some(path) => path.to_path_buf(),
        None => hub::build(root)?,
    };
    let logs = root.join("build/logs");
    fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let bench = Bench {
        root,
        tools,
        program,
        configuration: hub::write_configuration(root)?,
        scripts: scripts(&root.join("tests/clients"))?,
    };
    let mut tally = Tally::default();
    for backend in backends {
        println!("\nClient tests on {backend}");
        let log = logs.join(format!("hub-{backend}.log"));
        tally += match Hub::start(&bench.program, &bench.configuration, backend, log) {
            Ok(hub) => bench.run(hub, backend),
            Err(error) => failure(&error),
        };
    }
    Ok(tally)
}

/// What is the same for every backend.
struct Bench<'a> {
    root: &'a Path,
    tools: Tools,
    program: PathBuf,
    configuration: PathBuf,
    scripts: Vec<PathBuf>,
}

impl Bench<'_> {
    fn run(&self, hub: Hub, backend: &str) -> Tally {
        let mut tally = match process::run(&mut self.node(&hub, backend), LIMIT) {
            Ok(finished) => Tally::read(finished.lines.iter().map(String::as_str), finished.success),
            Err(error) => failure(&error),
        };
        if !tally.success() {
            println!("\nThe hub's last lines ({}):\n{}", hub.log.display(), hub.last_lines());
        }
        // That the hub ends well after all this is a check too.
        tally += match hub.stop() {
            Ok(()) => Tally::new(1, 0),
            Err(error) => failure(&error),
        };
        tally
    }

    fn node(&self, hub: &Hub, backend: &str) -> Command {
        let mut node = Command::new(&self.tools.node);
        node.args([
            "--test",
            "--test-reporter=spec",
            "--test-force-exit",
            "--test-concurrency=2",
            "--test-timeout=120000",
        ])
        .args(&self.scripts)
        .current_dir(self.root.join("tests/clients"))
        .envs([("HUB_HOST", hub.host.as_str()), ("EVENKEEL_BACKEND", backend)])
        .env("HUB_PORT", hub.port.to_string())
        .envs([("APP_ID", "1001"), ("APP_KEY", "demo-key"), ("APP_SECRET", "demo-secret")])
        .envs([
            ("OTHER_APP_ID", "1002"),
            ("OTHER_APP_KEY", "other-key"),
            ("OTHER_APP_SECRET", "other-secret"),
        ])
        .env("HUB_PROGRAM", &self.program)
        .env("HUB_CONFIGURATION", &self.configuration)
        .env("PYTHON", &self.tools.python)
        .env("PYTHONPATH", &self.tools.python_modules)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("CHROMIUM", &self.tools.chromium)
        .env("SCREENSHOTS", self.root.join("build/screenshots").join(backend));
        node
    }
}

fn failure(error: &str) -> Tally {
    println!("{error}");
    Tally::failure(error)
}

fn scripts(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.to_string_lossy().ends_with(".test.mjs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
