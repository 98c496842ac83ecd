//! Small operations inside one process: tasks, switches, channels, timers.
//!
//! One process measures one operation and ends, so that rounds of several runtimes can be interleaved and none
//! inherits another's heap. What happens on one thread is measured by the process's clock, which other programs do
//! not move; what crosses threads or waits, by the wall's.

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_channel::bounded;

use crate::place::{cpu_time, processors, stay_on};
use crate::{Runtime, bad};

/// Samples that one process takes of one operation.
const SAMPLES: usize = 5;
/// Timers that wait while others come and go.
const CROWD: u64 = 30_000;
/// Tasks that sleep at once.
const SLEEPERS: u64 = 1_000_000;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Spawn an empty task and wait for its end.
    SpawnJoin,
    /// Spawn 1,000 empty tasks, then wait for the end of each.
    SpawnMany,
    /// A task that lets others run, and there are none.
    YieldAlone,
    /// 100 tasks that let each other run.
    YieldAmong,
    /// A number to another task of the same thread and back, by async-channel.
    ChannelLocal,
    /// A number to a task on another thread and back, by async-channel.
    ChannelThreads,
    /// Arm a timer and drop it.
    TimerAlone,
    /// The same while 30,000 others wait.
    TimerAmong,
    /// A million tasks that sleep until some moment of one second.
    Sleepers,
}

/// What one number says, in the order of the lab's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// As printed and parsed.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
}

/// What was measured of one figure.
type Samples = (Figure, Vec<f64>);

const fn figure(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit }
}

const SLEEPER_BYTES: Figure = figure("a million sleeping tasks: resident bytes of each", "B");
const SLEEPER_CPU: Figure = figure("a million sleeping tasks: CPU to spawn, wake and join each", "ns");
const SLEEPER_LATE: Figure = figure("a million sleeping tasks: the latest wake-up", "ms");

impl Op {
    /// All of them.
    pub const ALL: [Op; 9] = [
        Op::SpawnJoin,
        Op::SpawnMany,
        Op::YieldAlone,
        Op::YieldAmong,
        Op::ChannelLocal,
        Op::ChannelThreads,
        Op::TimerAlone,
        Op::TimerAmong,
        Op::Sleepers,
    ];

    /// The name by which the command line knows it.
    pub fn name(self) -> &'static str {
        match self {
            Op::SpawnJoin => "spawn-join",
            Op::SpawnMany => "spawn-many",
            Op::YieldAlone => "yield-alone",
            Op::YieldAmong => "yield-among",
            Op::ChannelLocal => "channel-local",
            Op::ChannelThreads => "channel-threads",
            Op::TimerAlone => "timer-alone",
            Op::TimerAmong => "timer-among",
            Op::Sleepers => "sleepers",
        }
    }

    /// The figures that it yields.
    pub fn figures(self) -> &'static [Figure] {
        match self {
            Op::SpawnJoin => const { &[figure("spawn and join", "ns")] },
            Op::SpawnMany => const { &[figure("spawn 1000, join 1000: each", "ns")] },
            Op::YieldAlone => const { &[figure("yield, one task", "ns")] },
            Op::YieldAmong => const { &[figure("yield among 100 tasks", "ns")] },
            Op::ChannelLocal => const { &[figure("channel round trip, one thread", "ns")] },
            Op::ChannelThreads => const { &[figure("channel round trip, two threads", "ns")] },
            Op::TimerAlone => const { &[figure("timer armed and dropped", "ns")] },
            Op::TimerAmong => const { &[figure("timer armed and dropped among 30,000", "ns")] },
            Op::Sleepers => &[SLEEPER_BYTES, SLEEPER_CPU, SLEEPER_LATE],
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Measures the operation that `name` names and prints its figures.
///
/// # Errors
/// `InvalidInput` if there is no such operation.
pub fn main<R: Runtime>(name: Option<&str>) -> io::Result<()> {
    let op = Op::ALL.into_iter().find(|op| Some(op.name()) == name);
    let op = op.ok_or_else(|| bad(format!("there is no operation {name:?}")))?;
    let samples = Arc::new(Mutex::new(Vec::new()));
    if op == Op::ChannelThreads {
        across_threads::<R>(samples.clone());
    } else {
        let out = samples.clone();
        enter::<R>(async move {
            let found = match op {
                Op::Sleepers => sleepers::<R>().await,
                _ => vec![(op.figures()[0], small::<R>(op).await)],
            };
            out.lock().expect("nothing panics while it holds this").extend(found);
        });
    }
    for (figure, values) in samples.lock().expect("nothing panics while it holds this").iter() {
        let values: Vec<_> = values.iter().map(|v| format!("{v:.2}")).collect();
        println!("{} = {}", figure.name, values.join(" "));
    }
    Ok(())
}

/// Runs `work` as a task, so that it is scheduled like any other.
fn enter<R: Runtime>(work: impl Future<Output = ()> + 'static) {
    R::run(async move { R::spawn(work).await });
}

async fn small<R: Runtime>(op: Op) -> Vec<f64> {
    match op {
        Op::SpawnJoin => sample(100_000, spawn_join::<R>).await,
        Op::SpawnMany => sample(100_000, spawn_many::<R>).await,
        Op::YieldAlone => sample(500_000, |n| yields::<R>(n, 1)).await,
        Op::YieldAmong => sample(500_000, |n| yields::<R>(n, 100)).await,
        Op::ChannelLocal => sample(50_000, round_trips::<R>).await,
        Op::TimerAlone => sample(100_000, timers::<R>).await,
        Op::TimerAmong => {
            let mut crowd: Vec<_> = (0..CROWD).map(|i| Box::pin(R::sleep(far(i * 911)))).collect();
            std::future::poll_fn(|cx| {
                crowd.iter_mut().for_each(|timer| assert!(timer.as_mut().poll(cx).is_pending()));
                Poll::Ready(())
            })
            .await;
            sample(100_000, timers::<R>).await
        }
        Op::ChannelThreads | Op::Sleepers => unreachable!("measured in their own ways"),
    }
}

/// Nanoseconds of CPU for each of `n`, several times, after a warm-up.
async fn sample<F: Future<Output = ()>>(n: u64, mut work: impl FnMut(u64) -> F) -> Vec<f64> {
    work(n / 4).await;
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let start = cpu_time();
        work(n).await;
        samples.push((cpu_time() - start) as f64 / n as f64);
    }
    samples
}

async fn spawn_join<R: Runtime>(n: u64) {
    for _ in 0..n {
        R::spawn(async {}).await;
    }
}

async fn spawn_many<R: Runtime>(n: u64) {
    for _ in 0..n.div_ceil(1000) {
        let tasks: Vec<_> = (0..1000).map(|_| R::spawn(async {})).collect();
        for task in tasks {
            task.await;
        }
    }
}

async fn yields<R: Runtime>(n: u64, tasks: u64) {
    let yielder = |_| {
        R::spawn(async move {
            for _ in 0..n / tasks {
                Yield(false).await;
            }
        })
    };
    for task in (0..tasks).map(yielder).collect::<Vec<_>>() {
        task.await;
    }
}

async fn round_trips<R: Runtime>(n: u64) {
    let ((to, inbox), (reply, back)) = (bounded::<u64>(1), bounded::<u64>(1));
    let echo = R::spawn(async move {
        while let Ok(number) = inbox.recv().await {
            if reply.send(number).await.is_err() {
                return;
            }
        }
    });
    for i in 0..n {
        to.send(i).await.expect("the other task lives as long as this channel");
        assert_eq!(back.recv().await, Ok(i));
    }
    drop(to);
    echo.await;
}

async fn timers<R: Runtime>(n: u64) {
    let mut seed = SEED;
    for _ in 0..n {
        let mut timer = pin!(R::sleep(far(random(&mut seed) % 90_000_000)));
        PollOnce(timer.as_mut()).await;
    }
}

/// A time that does not come while the lab measures.
fn far(microseconds: u64) -> Duration {
    Duration::from_micros(90_000_000 + microseconds)
}

/// Two runtimes on two processors, if there are two.
fn across_threads<R: Runtime>(out: Arc<Mutex<Vec<Samples>>>) {
    let ((to, inbox), (reply, back)) = (bounded::<u64>(1), bounded::<u64>(1));
    let all = processors();
    let other = all.last().copied();
    let echo = std::thread::spawn(move || {
        let _ = stay_on(other.as_slice());
        enter::<R>(async move {
            while let Ok(number) = inbox.recv().await {
                if reply.send(number).await.is_err() {
                    return;
                }
            }
        });
    });
    let _ = stay_on(&all[..all.len().min(1)]);
    enter::<R>(async move {
        let mut samples = Vec::new();
        for round in 0..=SAMPLES {
            let start = Instant::now();
            for i in 0..2000 {
                to.send(i).await.expect("the other thread lives as long as this channel");
                assert_eq!(back.recv().await, Ok(i));
            }
            if round > 0 {
                samples.push(start.elapsed().as_nanos() as f64 / 2000.0);
            }
        }
        let figure = Op::ChannelThreads.figures()[0];
        out.lock().expect("nothing panics while it holds this").push((figure, samples));
    });
    echo.join().expect("its own panic has been printed");
}

/// A million tasks whose moments lie within one second, which begins when all are asleep.
async fn sleepers<R: Runtime>() -> Vec<Samples> {
    let latest = Arc::new(AtomicU64::new(0));
    let (memory, cpu, start) = (resident(), cpu_time(), Instant::now());
    let base = start + Duration::from_secs(6);
    let mut seed = SEED;
    let mut tasks = Vec::with_capacity(SLEEPERS as usize);
    for _ in 0..SLEEPERS {
        let (due, latest) = (base + Duration::from_nanos(random(&mut seed) % 1_000_000_000), latest.clone());
        tasks.push(R::spawn(async move {
            R::sleep(due.saturating_duration_since(Instant::now())).await;
            let late = Instant::now().saturating_duration_since(due).as_nanos() as u64;
            latest.fetch_max(late, Ordering::Relaxed);
        }));
    }
    // Every task before this one in the queue has been polled when it runs again, so their timers are armed.
    R::sleep(Duration::from_millis(1)).await;
    Yield(false).await;
    let asleep = resident();
    assert!(Instant::now() < base, "arming the timers took longer than they sleep; this machine is too busy");
    for task in tasks {
        task.await;
    }
    let cpu = (cpu_time() - cpu) as f64 / SLEEPERS as f64;
    let bytes = asleep.saturating_sub(memory) as f64 / SLEEPERS as f64;
    let late = latest.load(Ordering::Relaxed) as f64 / 1e6;
    vec![(SLEEPER_BYTES, vec![bytes]), (SLEEPER_CPU, vec![cpu]), (SLEEPER_LATE, vec![late])]
}

/// Resident bytes of this process; zero where the kernel does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The same numbers for every runtime.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Marsaglia's xorshift.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Wakes itself and lets the others run.
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Polls a future that is not ready, once.
struct PollOnce<'a, F>(Pin<&'a mut F>);

impl<F: Future> Future for PollOnce<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        assert!(self.0.as_mut().poll(cx).is_pending(), "a timer that is far away was ready");
        Poll::Ready(())
    }
}
