//! `cargo xtask autobahn`: the Autobahn test suite against the hub's WebSocket codec on the runtime, on every backend.
//!
//! The suite is the reference that WebSocket implementations are measured with. It has not left Python 2.7, which few
//! machines have; without it the same cases run as they were rebuilt in the hub's tests (`tests/autobahn`).

mod report;
mod suite;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::clients::BACKENDS;
use crate::tally::Tally;
use crate::{Outcome, process, test};
use report::Report;
use suite::Suite;

/// What the suite has without sections 12 and 13, which are about compression: the hub does not offer it.
const CASES: usize = 301;

const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
const START_LIMIT: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    backends: Vec<String>,
    /// The suite's patterns, such as `7.*`. Everything if there are none.
    cases: Vec<String>,
}

impl Options {
    pub(crate) fn all() -> Self {
        Self { backends: BACKENDS.map(str::to_owned).to_vec(), cases: Vec::new() }
    }

    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let (mut options, mut chosen) = (Self::all(), Vec::new());
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().cloned().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--backend" => {
                    let name = value()?;
                    if !BACKENDS.contains(&name.as_str()) {
                        return Err(format!("no such backend: {name}; there are {}", BACKENDS.join(", ")));
                    }
                    chosen.push(name);
                }
                "--cases" => options.cases.push(value()?),
                _ => return Err(format!("no such option of autobahn: {argument}")),
            }
        }
        if !chosen.is_empty() {
            options.backends = chosen;
        }
        Ok(options)
    }
}

/// Runs the suite, or its cases as they were rebuilt where it cannot run.
pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let suite = match suite::find(root) {
        Ok(suite) => suite,
        Err(why) => {
            println!("{why}\nThe same cases run as they were rebuilt in the hub's tests.");
            return rebuilt(root);
        }
    };
    let reports = on_backends(root, &suite, options)?;
    let cases: usize = reports.iter().map(|report| report.count(Report::is_good)).sum();
    let success = passed(options, &reports);
    println!("totals: autobahn_cases={cases}");
    Ok(success)
}

/// For the tests of everything, in which the rebuilt cases have run already: each case on each backend is a check, and a
/// machine without the suite is told so.
pub(crate) fn count(root: &Path) -> Result<Tally, String> {
    println!("\nThe Autobahn test suite");
    let suite = match suite::find(root) {
        Ok(suite) => suite,
        Err(why) => {
            println!("{why}\nIt is left out: its cases ran as they were rebuilt in the hub's tests.");
            return Ok(Tally::default());
        }
    };
    let options = Options::all();
    let reports = on_backends(root, &suite, &options)?;
    let mut tally = Tally::default();
    for report in &reports {
        tally += Tally::new(report.count(Report::is_good) as u64, 0);
        report.failures().for_each(|line| tally += Tally::failure(&line));
    }
    if !passed(&options, &reports) && tally.success() {
        tally += Tally::failure("The Autobahn suite did not run all of its cases.");
    }
    Ok(tally)
}

/// Prints what was found. Whether all was as it must be.
fn passed(options: &Options, reports: &[Report]) -> bool {
    print!("{}", report::table(reports));
    let mut success = true;
    for report in reports {
        for line in report.noteworthy() {
            println!("{line}");
        }
        let complete = !options.cases.is_empty() || report.cases.len() == CASES;
        if !complete || report.cases.is_empty() {
            println!("{}: {} cases were run instead of {CASES}", report.backend, report.cases.len());
        }
        success &= complete && !report.cases.is_empty() && report.cases.iter().all(Report::is_good);
    }
    success
}

fn rebuilt(root: &Path) -> Outcome {
    let mut command = Command::new(test::cargo());
    command.args(["test", "--package", "evenkeel-hub", "--test", "autobahn"]).current_dir(root);
    let finished = process::run(&mut command, BUILD_LIMIT)?;
    let tally = Tally::read(finished.lines.iter().map(String::as_str), finished.success);
    // One test is about the cases' number, and the others run all of them.
    println!("totals: autobahn_rebuilt_tests={}", tally.passed);
    Ok(tally.success())
}

/// The suite spends most of its time waiting, so all backends are tested at once.
fn on_backends(root: &Path, suite: &Suite, options: &Options) -> Result<Vec<Report>, String> {
    let mut cargo = Command::new(test::cargo());
    cargo.args(["build", "--package", "evenkeel-hub", "--example", "ws_echo"]).current_dir(root);
    let this = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let folder = this.parent().unwrap_or(root);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    process::must(&mut cargo, BUILD_LIMIT)?;
    let program = folder.join("examples/ws_echo");
    std::thread::scope(|scope| {
        let begin = |backend: &String| {
            let (backend, program) = (backend.clone(), &program);
            scope.spawn(move || {
                let server = Server::start(program, &backend)?;
                let cases = suite.run(&backend, &server.address, &options.cases)?;
                Ok(Report { backend, cases })
            })
        };
        let running: Vec<_> = options.backends.iter().map(begin).collect();
        let end = |thread: std::thread::ScopedJoinHandle<'_, Result<Report, String>>| {
            thread.join().unwrap_or_else(|_| Err("a thread of the Autobahn suite panicked".to_owned()))
        };
        running.into_iter().map(end).collect()
    })
}

/// An echo server that runs. Dropping it kills it.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(program: &Path, backend: &str) -> Result<Self, String> {
        let name = program.display();
        let child = Command::new(program)
            .env("EVENKEEL_BACKEND", backend)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        let mut server = Self { child, address: String::new() };
        let lines = server.child.stdout.take().map(|stdout| process::read_lines(stdout, false));
        let line = lines.and_then(|lines| lines.recv_timeout(START_LIMIT).ok());
        let line = line.ok_or_else(|| format!("{name} does not say where it listens"))?;
        let (address, runs) = line.split_once(' ').ok_or_else(|| format!("{name} says: {line}"))?;
        if runs != backend {
            println!("{backend} is not to be had here: {runs} is tested instead");
        }
        server.address = address.to_owned();
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        process::end_tree(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Options;

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_choose_backends_and_cases() {
        assert_eq!(parse("").unwrap(), Options::all());
        let options = parse("--backend poll --cases 7.* --cases 1.1.1 --backend epoll").unwrap();
        assert_eq!(
            (options.backends, options.cases),
            (vec!["poll".to_owned(), "epoll".to_owned()], vec!["7.*".to_owned(), "1.1.1".to_owned()],)
        );
        for words in ["--backend", "--backend kqueue", "--cases", "--fast", "epoll"] {
            assert!(parse(words).is_err(), "{words}");
        }
    }
}
