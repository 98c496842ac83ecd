//! Many worlds, one for each seed, and the seed of the one that failed.

use std::fmt::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::report::{Failure, Report};
use super::world::World;

/// Lines of a failed world's trace that are shown.
const SHOWN: usize = 40;

/// A check of many worlds: each seed makes another one, and the same seed always the same.
///
/// The environment can say which: `EVENKEEL_SIM_SEED=17` runs that one alone and writes its trace to standard error,
/// `EVENKEEL_SIM_SEEDS=1000` runs that many, `EVENKEEL_SIM_SEEDS=5000..6000` these.
///
/// ```
/// use evenkeel::{sim::Check, time};
/// use std::time::Duration;
///
/// let report = Check::new().seeds(0..4).run(|world| {
///     // A day takes no time at all.
///     world.set_limit(Duration::from_secs(200_000));
///     world.client("sleeper", || async {
///         time::sleep(Duration::from_secs(86_400)).await;
///         Ok(())
///     });
///     world.run()
/// });
/// assert!(report.elapsed >= 4 * Duration::from_secs(86_400));
/// ```
#[derive(Clone, Debug)]
pub struct Check {
    seeds: Range<u64>,
    threads: usize,
    /// One seed, with its trace: what a replay is.
    replay: bool,
}

impl Default for Check {
    fn default() -> Self {
        Self::new()
    }
}

impl Check {
    /// A check of a few worlds, on as many threads as there are processors.
    pub fn new() -> Self {
        Check { seeds: 0..16, threads: thread::available_parallelism().map_or(1, usize::from), replay: false }
    }

    /// Which worlds, unless the environment says otherwise.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// How many worlds run at once, each on a thread of its own.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Makes a world of each seed and lets `body` fill and run it. The first seed runs twice, to see that it does the same both
    /// times.
    ///
    /// # Panics
    /// If a world fails: with its seed, what was wrong, the end of its trace, and the command that runs it again.
    pub fn run(self, body: impl Fn(&mut World) -> Result<(), Failure> + Sync) -> Report {
        match self.try_run(body) {
            Ok(report) => report,
            Err(failed) => panic!("{failed}"),
        }
    }

    /// As [`run`](Self::run), with the failure as a text.
    ///
    /// # Errors
    /// What `run` panics with.
    pub fn try_run(
        mut self,
        body: impl Fn(&mut World) -> Result<(), Failure> + Sync,
    ) -> Result<Report, String> {
        self.ask_environment()?;
        let next = AtomicU64::new(self.seeds.start);
        let (stop, failed, total) = (AtomicBool::new(false), Mutex::new(None), Mutex::new(Vec::new()));
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.seeds.end {
                    return;
                }
                match self.one(seed, &body) {
                    Ok(report) => lock(&total).push((seed, report)),
                    Err(text) => {
                        stop.store(true, Ordering::Relaxed);
                        lock(&failed).get_or_insert((seed, text));
                    }
                }
            }
        };
        let count = usize::try_from(self.seeds.end.saturating_sub(self.seeds.start)).unwrap_or(usize::MAX);
        if self.threads == 1 || count <= 1 {
            work();
        } else {
            thread::scope(|scope| {
                for _ in 0..self.threads.min(count) {
                    scope.spawn(work);
                }
            });
        }
        if let Some((seed, text)) = lock(&failed).take() {
            let tried = seed - self.seeds.start + 1;
            return Err(format!(
                "{text}found after {tried} seeds\nreplay: EVENKEEL_SIM_SEED={seed} {}",
                command()
            ));
        }
        let mut reports = std::mem::take(&mut *lock(&total));
        reports.sort_by_key(|(seed, _)| *seed);
        let mut sum = Report::default();
        reports.iter().for_each(|(_, report)| sum.add(report));
        Ok(sum)
    }

    fn ask_environment(&mut self) -> Result<(), String> {
        let number = |text: &str| {
            text.trim().parse::<u64>().map_err(|_| format!("`{text}` is no number of a seed, or of seeds"))
        };
        if let Ok(seed) = std::env::var("EVENKEEL_SIM_SEED") {
            let seed = number(&seed)?;
            self.seeds = seed..seed.saturating_add(1);
            self.replay = true;
        } else if let Ok(seeds) = std::env::var("EVENKEEL_SIM_SEEDS") {
            self.seeds = match seeds.split_once("..") {
                Some((from, to)) => number(from)?..number(to)?,
                None => self.seeds.start..self.seeds.start.saturating_add(number(&seeds)?),
            };
        }
        Ok(())
    }

    fn one(&self, seed: u64, body: &impl Fn(&mut World) -> Result<(), Failure>) -> Result<Report, String> {
        let report = self.world(seed, body)?;
        if seed == self.seeds.start {
            let again = self.world(seed, body)?;
            if (report.trace, report.events) != (again.trace, again.events) {
                let what = format!(
                    "two runs differ: {} and {} events. Something in the program is not decided by the seed, such as \
                     the system's clock, a hash map's order, or a thread",
                    report.events, again.events
                );
                return Err(explain(seed, &what, &[]));
            }
        }
        Ok(report)
    }

    fn world(&self, seed: u64, body: &impl Fn(&mut World) -> Result<(), Failure>) -> Result<Report, String> {
        let mut world = World::with_trace(seed, self.replay);
        match catch_unwind(AssertUnwindSafe(|| body(&mut world))) {
            Ok(Ok(())) => Ok(world.report()),
            Ok(Err(failure)) => Err(explain(seed, &failure.described(), failure.trace())),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                let tail: Vec<String> = {
                    let kernel = world.sim().kernel.borrow();
                    kernel.trace.tail().map(str::to_owned).collect()
                };
                Err(explain(seed, &format!("panicked: {text}"), &tail))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a failure's reader needs: what, where, and how to see it again.
fn explain(seed: u64, what: &str, trace: &[String]) -> String {
    let mut text = format!("seed {seed}: {what}\n");
    for line in &trace[trace.len().saturating_sub(SHOWN)..] {
        // Writing into memory cannot fail.
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// What runs this again: the test, or the program with its arguments.
fn command() -> String {
    let thread = thread::current();
    match (thread.name().filter(|name| *name != "main"), std::env::var("CARGO_PKG_NAME")) {
        (Some(test), Ok(package)) => {
            format!("cargo test -p {package} --all-features {test} -- --exact --nocapture")
        }
        _ => std::env::args().collect::<Vec<_>>().join(" "),
    }
}
