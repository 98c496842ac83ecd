//! `cargo xtask fuzz`: builds the fuzz targets and runs each for a while.
//!
//! The targets are built by cargo with the compiler's instrumentation, which is stable but for AddressSanitizer: hence
//! `RUSTC_BOOTSTRAP`. No other tool is needed than a C++ compiler, for libFuzzer itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Outcome, process, test};

/// For a first build, on a machine that is busy.
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);
/// What a target may take beside its own time: to read its corpus, and to end.
const GRACE: Duration = Duration::from_secs(300);
/// How often a running target is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// How long one target runs if nothing else is said, and in the continuous integration, which builds for longer than that.
const SECONDS: u64 = 10;
const BOUNDED: u64 = 5;
/// An input that takes longer is a failure. In seconds.
const SLOWEST: u32 = 30;
/// The most memory that a target may use. In mebibytes.
const MEMORY: u32 = 2_048;
/// What a failure shows of a target's output.
const SHOWN: usize = 40;

/// The instrumentation that libFuzzer steers by, and AddressSanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
    -Zsanitizer=address";

/// What to run, and for how long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    seconds: u64,
    /// For so long all of them together, in place of `seconds` each.
    within: Option<u64>,
    /// All of them, if empty.
    targets: Vec<String>,
    /// Inputs to run once, and nothing else.
    inputs: Vec<PathBuf>,
}

impl Options {
    /// What the continuous integration does.
    pub(crate) fn bounded() -> Self {
        Self { seconds: BOUNDED, within: None, targets: Vec::new(), inputs: Vec::new() }
    }

    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { seconds: SECONDS, ..Self::bounded() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--seconds" => options.seconds = seconds(value()?)?,
                "--within" => options.within = Some(seconds(value()?)?),
                "--target" => options.targets.push(value()?.clone()),
                "--input" => options.inputs.push(absolute(value()?)?),
                _ => return Err(format!("no such option of fuzz: {argument}")),
            }
        }
        if !options.inputs.is_empty() && options.targets.len() != 1 {
            return Err("--input needs the --target that it is for".to_owned());
        }
        Ok(options)
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{text} is no number of seconds"))
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{path}: {error}"))
}

/// Where everything is.
struct Place {
    /// Sources, seeds and dictionaries.
    sources: PathBuf,
    /// The program, what targets have learnt, their output, and the inputs by which they failed.
    build: PathBuf,
    program: PathBuf,
}

/// How a target has ended.
struct Ran {
    target: String,
    executions: u64,
    features: u64,
    corpus: u64,
    /// What went wrong.
    failure: Option<String>,
}

/// Seconds for each of so many targets, which run beside one another on all processors.
fn share(all: u64, targets: usize) -> u64 {
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(targets.max(1));
    let rounds = targets.div_ceil(at_once).max(1);
    (all / rounds as u64).max(1)
}

/// Runs the targets, and prints what they did; the totals are the last line.
pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let place = build(root)?;
    let targets = chosen(&place, &options.targets)?;
    if !options.inputs.is_empty() {
        return replay(&place, &targets, &options.inputs);
    }
    let each = options.within.map_or(options.seconds, |all| share(all, targets.len()));
    let ran = run_all(&place, targets, Duration::from_secs(each));
    for failure in ran.iter().filter_map(|ran| ran.failure.as_ref()) {
        println!("\n{failure}");
    }
    let failed = ran.iter().filter(|ran| ran.failure.is_some()).count();
    let executions: u64 = ran.iter().map(|ran| ran.executions).sum();
    println!("totals: fuzz_executions={executions} fuzz_targets={} fuzz_failures={failed}", ran.len());
    Ok(failed == 0)
}

fn build(root: &Path) -> Result<Place, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let (sources, build) = (root.join("fuzz"), root.join(target).join("fuzz"));
    let host = host()?;
    println!("Building the fuzz targets");
    let mut cargo = Command::new(test::cargo());
    cargo
        .args(["build", "--quiet", "--locked", "--release", "--target", &host, "--target-dir"])
        .arg(&build)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", FLAGS)
        .current_dir(&sources);
    process::must(&mut cargo, BUILD_LIMIT)?;
    let program = build.join(host).join("release/targets");
    Ok(Place { sources, build, program })
}

/// The compiler's own platform. Named, so that build scripts and macros are built without instrumentation.
fn host() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().map_err(|error| format!("rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not tell its host".to_owned())
}

/// The targets that there are, which have a folder of seeds each, or those that were asked for.
fn chosen(place: &Place, asked: &[String]) -> Result<Vec<String>, String> {
    let seeds = place.sources.join("corpus-seeds");
    let entries = fs::read_dir(&seeds).map_err(|error| format!("{}: {error}", seeds.display()))?;
    let mut all: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    all.sort();
    if let Some(unknown) = asked.iter().find(|target| !all.contains(target)) {
        return Err(format!("there is no target {unknown}; there are {}", all.join(", ")));
    }
    Ok(if asked.is_empty() { all } else { asked.to_vec() })
}

/// Runs as many at once as there are processors.
fn run_all(place: &Place, mut targets: Vec<String>, time: Duration) -> Vec<Ran> {
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    targets.reverse();
    let (queue, ran) = (Mutex::new(targets), Mutex::new(Vec::new()));
    let next = || queue.lock().ok()?.pop();
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let result = run_one(place, &target, time);
                    let Ran { executions, features, corpus, failure, .. } = &result;
                    let verdict = if failure.is_some() { "FAILED" } else { "ok" };
                    println!(
                        "fuzz {target:<12} {executions:>9} executions {features:>6} features {corpus:>5} inputs  {verdict}"
                    );
                    if let Ok(mut ran) = ran.lock() {
                        ran.push(result);
                    }
                }
            });
        }
    });
    ran.into_inner().unwrap_or_default()
}

fn run_one(place: &Place, target: &str, time: Duration) -> Ran {
    let none = Ran { target: target.to_owned(), executions: 0, features: 0, corpus: 0, failure: None };
    match fuzz(place, target, time) {
        Ok((success, log)) => {
            let mut ran = Ran { target: target.to_owned(), ..read(&log, none) };
            if !success {
                ran.failure = Some(explain(&ran.target, &log));
            } else if ran.executions == 0 {
                ran.failure = Some(format!("{target} has executed nothing:\n{log}"));
            }
            ran
        }
        Err(error) => Ran { failure: Some(error), ..none },
    }
}

/// Runs one target. Whether it succeeded, and its output.
fn fuzz(place: &Place, target: &str, time: Duration) -> Result<(bool, String), String> {
    let seeds = place.sources.join("corpus-seeds").join(target);
    let dictionary = place.sources.join("dictionaries").join(target).with_extension("dict");
    let folder = |name: &str| {
        let folder = place.build.join(name).join(target);
        fs::create_dir_all(&folder).map(|()| folder).map_err(|error| format!("{target}: {error}"))
    };
    let (learnt, failures) = (folder("corpus")?, folder("artifacts")?);
    let mut command = program(place, target);
    command
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-artifact_prefix={}/", failures.display()))
        .arg("-print_final_stats=1");
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.arg(learnt).arg(seeds);
    let log = place.build.join(format!("{target}.log"));
    let success = to_file(&mut command, &log, time + GRACE)?;
    // A mutated input is printed as it is, whatever it is.
    let output = fs::read(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    Ok((success, String::from_utf8_lossy(&output).into_owned()))
}

fn program(place: &Place, target: &str) -> Command {
    let mut command = Command::new(&place.program);
    command
        .env("EVENKEEL_FUZZ_TARGET", target)
        .arg(format!("-timeout={SLOWEST}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .current_dir(&place.build);
    command
}

/// Runs a program whose output goes to a file, for at most so long.
fn to_file(command: &mut Command, log: &Path, limit: Duration) -> Result<bool, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", log.display());
    let out = File::create(log).map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(failed)?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            process::end_tree(&mut child);
            return Err(format!(
                "a fuzz target was ended after {} seconds; see {}",
                limit.as_secs(),
                log.display()
            ));
        }
        thread::sleep(GLANCE);
    }
}

/// The numbers in libFuzzer's output: `#2048 pulse cov: 12 ft: 15 corp: 1/1b ...` and `stat::number_of_executed_units: 7`.
fn read(log: &str, mut ran: Ran) -> Ran {
    for line in log.lines() {
        let mut words = line.split_whitespace();
        if let Some(units) = line.strip_prefix("stat::number_of_executed_units:") {
            ran.executions = units.trim().parse().unwrap_or(ran.executions);
        } else if let Some(number) = words.next().and_then(|word| word.strip_prefix('#')) {
            ran.executions = ran.executions.max(number.parse().unwrap_or(0));
            while let Some(word) = words.next() {
                let number = |word: Option<&str>| word?.split('/').next()?.parse().ok();
                match word {
                    "ft:" => ran.features = number(words.next()).unwrap_or(ran.features),
                    "corp:" => ran.corpus = number(words.next()).unwrap_or(ran.corpus),
                    _ => {}
                }
            }
        }
    }
    ran
}

/// What went wrong, by which input, and how to see it again.
fn explain(target: &str, log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let of_frames = |line: &&&str| !line.trim_start().starts_with('#');
    let end: Vec<&str> = lines.iter().filter(of_frames).copied().collect();
    let shown = end[end.len().saturating_sub(SHOWN)..].join("\n");
    let input =
        log.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path.trim()));
    match input {
        Some(input) => format!(
            "{shown}\n\nfuzz target {target} failed by the input {input}\n\
             replay: cargo xtask fuzz --target {target} --input {input}\n\
             keep it: cp {input} fuzz/corpus-seeds/{target}/"
        ),
        None => format!("{shown}\n\nfuzz target {target} failed without an input"),
    }
}

/// Runs inputs once, with all their output.
fn replay(place: &Place, targets: &[String], inputs: &[PathBuf]) -> Outcome {
    let Some(target) = targets.first() else { return Ok(false) };
    let mut command = program(place, target);
    command.args(inputs).env("RUST_BACKTRACE", "1");
    Ok(process::run(&mut command, GRACE)?.success)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Options, Ran, explain, read};

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_choose_targets_times_and_inputs() {
        assert_eq!(parse("").unwrap(), Options { seconds: 10, ..Options::bounded() });
        assert_eq!(parse("--seconds 90").unwrap().seconds, 90);
        assert_eq!(parse("--target a --target b").unwrap().targets, ["a", "b"]);
        assert!(parse("--target a --input x").unwrap().inputs[0].is_absolute());
        for words in ["--seconds", "--seconds 0", "--seconds x", "--input x", "websocket"] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    const LOG: &str = "INFO: Seed: 1\n#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 40Mb\n\
        #4096\tpulse  cov: 30 ft: 52 corp: 9/80b lim: 43 exec/s: 1365 rss: 50Mb\n";

    fn none() -> Ran {
        Ran { target: "t".into(), executions: 0, features: 0, corpus: 0, failure: None }
    }

    #[test]
    fn numbers_are_read_from_the_output_of_one_that_ends_and_of_one_that_fails() {
        let ended = read(&format!("{LOG}stat::number_of_executed_units: 5000\n"), none());
        assert_eq!((ended.executions, ended.features, ended.corpus), (5_000, 52, 9));
        assert_eq!(read(LOG, none()).executions, 4_096);
        assert_eq!(read("nothing", none()).executions, 0);
    }

    #[test]
    fn a_failure_names_its_input_and_how_to_see_it_again() {
        let log = format!(
            "{LOG}assertion failed\n    #0 0x1 in f\nTest unit written to /t/crash-1\nBase64: AA==\n"
        );
        let told = explain("websocket", &log);
        assert!(told.contains("assertion failed") && !told.contains("0x1"), "{told}");
        assert!(told.contains("cargo xtask fuzz --target websocket --input /t/crash-1"), "{told}");
        assert!(explain("websocket", "killed").contains("without an input"));
    }
}
