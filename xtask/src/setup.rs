//! What the client tests need from outside: programs, npm modules and Python modules. Whatever is there is used again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process;

const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A program, and the Debian packages that have it.
const PROGRAMS: [(&str, &[&str]); 6] = [
    ("node", &["nodejs"]),
    ("npm", &["npm"]),
    ("python3", &["python3", "python3-pip"]),
    ("chromium", &["chromium", "fonts-dejavu-core"]),
    // Counts the instructions of a message, for the lab's test.
    ("valgrind", &["valgrind"]),
    // Compiles libFuzzer, for the fuzz targets.
    ("c++", &["g++"]),
];

/// Where everything is, once it is there.
pub(crate) struct Tools {
    pub(crate) node: PathBuf,
    pub(crate) python: PathBuf,
    pub(crate) chromium: PathBuf,
    /// For `PYTHONPATH`.
    pub(crate) python_modules: PathBuf,
}

/// Provides everything, installing what is missing.
pub(crate) fn prepare(root: &Path) -> Result<Tools, String> {
    install_packages()?;
    let tools = Tools {
        node: required("node")?,
        python: required("python3")?,
        chromium: required("chromium")?,
        python_modules: root.join("build/pypi"),
    };
    prepare_npm(root)?;
    prepare_python(root, &tools)?;
    Ok(tools)
}

fn install_packages() -> Result<(), String> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .flat_map(|(_, packages)| packages.iter().copied())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() || !is_root() {
        return Err(format!("missing programs; install them with: apt-get install {}", missing.join(" ")));
    }
    println!("Installing {}", missing.join(" "));
    process::must(apt_get().arg("update"), INSTALL_LIMIT)?;
    process::must(
        apt_get().args(["install", "--yes", "--no-install-recommends"]).args(missing),
        INSTALL_LIMIT,
    )
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// The modules of `tests/clients/package-lock.json`, in `build/npm`, which the tests reach by a link.
fn prepare_npm(root: &Path) -> Result<(), String> {
    let sources = root.join("tests/clients");
    let directory = root.join("build/npm");
    let inputs = ["package.json", "package-lock.json", ".npmrc"];
    refresh(&directory, &sources, &inputs, || {
        for input in inputs {
            fs::copy(sources.join(input), directory.join(input))
                .map_err(|error| format!("{input}: {error}"))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&directory);
        process::must(&mut npm, INSTALL_LIMIT)
    })?;
    link(&directory.join("node_modules"), &sources.join("node_modules"))
}

/// The modules of `tests/clients/requirements.txt`, in `build/pypi`.
fn prepare_python(root: &Path, tools: &Tools) -> Result<(), String> {
    let sources = root.join("tests/clients");
    refresh(&tools.python_modules, &sources, &["requirements.txt"], || {
        let mut pip = Command::new(&tools.python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
            .args(["--root-user-action", "ignore", "--target"])
            .arg(&tools.python_modules)
            .arg("--requirement")
            .arg(sources.join("requirements.txt"));
        process::must(&mut pip, INSTALL_LIMIT)
    })
}

/// Fills `directory` anew by `install`, unless it was completed with the same `inputs`. A copy of them is the mark of
/// completion, written last, so that an interrupted installation is not taken for a complete one.
pub(crate) fn refresh(
    directory: &Path,
    sources: &Path,
    inputs: &[&str],
    install: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let mut wanted = String::new();
    for input in inputs {
        let path = sources.join(input);
        wanted += &fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mark = directory.join(".complete");
    if fs::read_to_string(&mark).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    println!("Installing into {}", directory.display());
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(failed)?;
    }
    fs::create_dir_all(directory).map_err(failed)?;
    install()?;
    fs::write(&mark, wanted).map_err(failed)
}

/// Makes `link` point to `target`. Node.js looks for modules beside the files that import them.
fn link(target: &Path, link: &Path) -> Result<(), String> {
    if fs::read_link(link).is_ok_and(|found| found == target) {
        return Ok(());
    }
    let failed = |error: std::io::Error| format!("{}: {error}", link.display());
    if link.is_symlink() {
        fs::remove_file(link).map_err(failed)?;
    } else if link.is_dir() {
        fs::remove_dir_all(link).map_err(failed)?;
    }
    std::os::unix::fs::symlink(target, link).map_err(failed)
}

/// The build folder, in which this program lies.
pub(crate) fn target(root: &Path) -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    // TARGET/PROFILE/xtask
    Ok(this.ancestors().nth(2).map_or_else(|| root.join("target"), Path::to_path_buf))
}

fn required(program: &str) -> Result<PathBuf, String> {
    find(program).ok_or_else(|| format!("{program} is still missing after its installation"))
}

/// The full path of a program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").stdin(Stdio::null()).output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::refresh;
    use std::cell::Cell;
    use std::fs;

    #[test]
    fn what_is_complete_is_used_again_until_its_lock_file_changes() {
        let base = std::env::temp_dir().join(format!("xtask-setup-{}", std::process::id()));
        let (sources, directory) = (base.join("sources"), base.join("installed"));
        fs::create_dir_all(&sources).unwrap();
        let installs = Cell::new(0);
        let go = |succeeds: bool| {
            let install = || {
                installs.set(installs.get() + 1);
                if succeeds { Ok(()) } else { Err("no network".to_owned()) }
            };
            refresh(&directory, &sources, &["lock"], install)
        };
        fs::write(sources.join("lock"), "1").unwrap();
        assert!(go(false).is_err());
        assert!(go(true).is_ok() && go(true).is_ok());
        assert_eq!(installs.get(), 2, "failed, then done; the third call had nothing to do");
        fs::write(sources.join("lock"), "2").unwrap();
        fs::write(directory.join("old-file"), "").unwrap();
        assert!(go(true).is_ok());
        assert_eq!(installs.get(), 3);
        assert!(!directory.join("old-file").exists());
        fs::remove_dir_all(&base).unwrap();
    }
}
