//! The suite itself: finding a Python that can run it, installing it, running it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::report::{self, Case};
use crate::{process, setup};

const INSTALL_LIMIT: Duration = Duration::from_secs(10 * 60);
const RUN_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The suite's own entry point, which its installation would put into a script.
const START: &str = "from autobahntestsuite.wstest import run; run()";

/// The suite, installed.
pub(super) struct Suite {
    python: PathBuf,
    modules: PathBuf,
    /// For specifications and reports.
    work: PathBuf,
}

/// Finds the suite, or installs it.
///
/// # Errors
/// Why it cannot be had here, in a sentence.
pub(super) fn find(root: &Path) -> Result<Suite, String> {
    let python = candidates()
        .into_iter()
        .find(|candidate| is_python_2(candidate))
        .ok_or("There is no Python 2.7 here, which the Autobahn test suite needs.")?;
    let work = setup::target(root)?.join("autobahn");
    let modules = work.join("suite");
    let installed = setup::refresh(&modules, &root.join("xtask/autobahn"), &["requirements.txt"], || {
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--target",
        ])
        .arg(&modules)
        .arg("--requirement")
        .arg(root.join("xtask/autobahn/requirements.txt"))
        .env("PYTHONWARNINGS", "ignore");
        process::must(&mut pip, INSTALL_LIMIT)?;
        // Without it Python 2.7 does not take the folder for a package.
        let mark = modules.join("zope/__init__.py");
        fs::write(&mark, "").map_err(|error| format!("{}: {error}", mark.display()))
    });
    match installed {
        Ok(()) => Ok(Suite { python, modules, work }),
        Err(error) => Err(format!("The Autobahn test suite cannot be installed: {error}.")),
    }
}

/// Where a Python 2.7 may be: on the path, and where pyenv keeps what is not.
fn candidates() -> Vec<PathBuf> {
    let mut candidates: Vec<PathBuf> = ["python2.7", "python2"].into_iter().filter_map(setup::find).collect();
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv"));
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from).or(home);
    let versions = pyenv.and_then(|pyenv| fs::read_dir(pyenv.join("versions")).ok());
    for version in versions.into_iter().flatten().flatten() {
        candidates.push(version.path().join("bin/python2.7"));
    }
    candidates.retain(|candidate| candidate.is_file());
    candidates
}

/// Whether it runs and is what it is called. A shim of pyenv is there whether its version is or not.
fn is_python_2(program: &Path) -> bool {
    let mut python = Command::new(program);
    python.args(["-c", "import pip, sys; print(sys.version_info[:2])"]);
    let finished = process::run_collected(&mut python, Duration::from_secs(60), false);
    finished.is_ok_and(|finished| finished.success && finished.lines.iter().any(|line| line == "(2, 7)"))
}

impl Suite {
    /// Runs cases against the server at an address. `name` is what it is called in the report.
    pub(super) fn run(&self, name: &str, address: &str, cases: &[String]) -> Result<Vec<Case>, String> {
        let folder = self.work.join("reports").join(name);
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        if folder.exists() {
            // What is left of an earlier run must not pass for a report of this one.
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        let all = ["*".to_owned()];
        let specification = serde_json::json!({
            "outdir": folder,
            "servers": [{ "agent": name, "url": format!("ws://{address}") }],
            "cases": if cases.is_empty() { &all[..] } else { cases },
            "exclude-cases": ["12.*", "13.*"],
            "exclude-agent-cases": {},
        });
        let file = folder.join("specification.json");
        fs::write(&file, specification.to_string()).map_err(failed)?;
        let mut python = Command::new(&self.python);
        python.args(["-c", START, "-m", "fuzzingclient", "-s"]).arg(&file).env("PYTHONPATH", &self.modules);
        let finished = process::run_collected(python.current_dir(&folder), RUN_LIMIT, false)?;
        if !finished.success {
            let from = finished.lines.len().saturating_sub(20);
            return Err(format!(
                "the Autobahn test suite failed on {name}:\n{}",
                finished.lines[from..].join("\n")
            ));
        }
        let index = folder.join("index.json");
        let text = fs::read_to_string(&index).map_err(|error| format!("{}: {error}", index.display()))?;
        report::read(&text, name).map_err(|error| format!("{}: {error}", index.display()))
    }
}
