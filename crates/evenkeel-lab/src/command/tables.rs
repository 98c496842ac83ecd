//! `tables`: what a descriptor table of its own is worth to a loop, and how many connections one process holds with them.

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel::group::{Group, Share};
use evenkeel::net::{Limits, ListenOptions};
use evenkeel::{Backend, Descriptors, EventLoop};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::time::{ClockId, clock_gettime};

use super::holder::{Holder, descriptors, held_by_one};
use super::seconds;
use crate::client::{Side, open_echo};
use crate::machine::{MARK, Noise, Places, mark, meminfo, quietest};
use crate::serve::Echo;
use crate::server::{Running, own_command};
use crate::stats::{Spread, median, number, ratio_by_turns};
use crate::table::Table;
use crate::turns::take_turns;

/// Connections that exchange messages.
const BUSY: usize = 50;
/// Calls of one slice.
const CALLS: u32 = 20_000;
/// Slices of each of two that take turns.
const SLICES: usize = 30;

#[derive(Args)]
pub(crate) struct Tables {
    /// Seconds of turns for each comparison.
    #[arg(long, default_value = "6", value_parser = seconds)]
    secs: Duration,
    /// Loops that hold connections at once, in one process.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    loops: u32,
    /// Connections that each of them holds. Fewer if its table does not allow so many.
    #[arg(long, default_value_t = 19_000, value_parser = clap::value_parser!(u32).range(1..=250_000))]
    conns: u32,
}

/// A server of this program, for this command.
#[derive(Args)]
pub(crate) struct Serve {
    #[arg(long, default_value = "auto")]
    backend: Backend,
    #[arg(long, default_value_t = 1)]
    loops: usize,
    /// Each loop has a descriptor table of its own.
    #[arg(long)]
    private: bool,
}

/// The options of loops that have tables of their own.
pub(super) fn private() -> evenkeel::Builder {
    // SAFETY: in this program, what is opened on the thread of a loop, or on one that holds connections, is used and
    // closed there.
    unsafe { EventLoop::builder().private_descriptors() }
}

fn group(loops: usize, backend: Backend, own: bool) -> io::Result<Group> {
    let each = if own { private() } else { EventLoop::builder() };
    let each = each.backend(backend).on_fallback(|_| {});
    let check = move |handle: &evenkeel::Handle, _| match handle.descriptors() {
        // A measurement under a wrong name is worse than none.
        Descriptors::Refused(why) => Err(io::Error::other(why.to_string())),
        _ => Ok(()),
    };
    Ok(Group::builder().loops(loops).event_loop(each).build(check)?)
}

impl Serve {
    /// Serves until it is killed.
    pub(crate) fn run(&self) -> io::Result<()> {
        let group = group(self.loops, self.backend, self.private)?;
        let mut limits = Limits::default();
        limits.idle_timeout = None;
        let options = ListenOptions::default();
        let listener = group.listen("127.0.0.1:0", &options, &limits, Share::Acceptor, |_, _| Echo)?;
        println!("listening on {}", listener.addr());
        group.join().into_iter().collect::<Result<(), _>>().map_err(Into::into)
    }
}

fn start(places: &Places, backend: Backend, loops: usize, private: bool) -> io::Result<Running> {
    let mut command = own_command(&["serve", "tables", "--backend", backend.name()])?;
    command.args(["--loops", &loops.to_string()]).args(private.then_some("--private"));
    let start = || Running::start(&mut command);
    if loops == 1 { places.spawn(start) } else { places.spawn_anywhere(start) }
}

impl Tables {
    pub(crate) fn run(&self, places: &Places) -> io::Result<()> {
        let mut table = Table::new(["what", "shared, ns", "private, ns", "private over shared"]);
        for backend in [Backend::Epoll, Backend::IoUring] {
            for loops in [1, 2] {
                eprintln!("{backend}, {loops} loops");
                let heard = quietest(|| self.echo(places, backend, loops))?;
                let ([private, shared], ratio) = heard.value;
                let what = format!("CPU of an echoed message, {backend}, loops: {loops}");
                let ratio = format!("{ratio}{}", mark(heard.noise));
                table.row([what, number(shared), number(private), ratio]);
            }
        }
        eprintln!("plain calls");
        let ([private, shared], ratio) = calls()?;
        let row = ["CPU of a send and a recv, no loop".to_owned(), number(shared), number(private)];
        table.row(row.into_iter().chain([ratio.to_string()]));
        eprintln!("wake-ups");
        let ([private, shared], ratio) = wakes()?;
        let row = ["a task on another loop and back, wall".to_owned(), number(shared), number(private)];
        table.row(row.into_iter().chain([ratio.to_string()]));
        println!(
            "{BUSY} busy connections, 64 bytes. By turns: two processes, two threads, two groups of one process."
        );
        println!(
            "The shared table is that of several threads: the kernel spares a thread alone its reference count.\n"
        );
        println!("{table}\n{MARK}\n");
        self.hold(places)
    }

    fn echo(&self, places: &Places, backend: Backend, loops: usize) -> io::Result<(Figures, f64)> {
        let (private, shared) = (start(places, backend, loops, true)?, start(places, backend, loops, false)?);
        let (mut first, mut second) = (Side::open(&private, BUSY, 0, 64)?, Side::open(&shared, BUSY, 0, 64)?);
        let noise = Noise::watch(&[private.process, shared.process])?;
        let compared = take_turns(&mut first, &mut second, self.secs)?;
        Ok(((compared.each, compared.cpu), noise.share()?))
    }

    /// All connections at once, in one process, held from threads that have tables of their own too.
    fn hold(&self, places: &Places) -> io::Result<()> {
        let limit = descriptors();
        let each = (self.conns as usize).min(held_by_one());
        let loops = self.loops as usize;
        eprintln!("{} connections", loops * each);
        let server = start(places, Backend::Auto, loops, true)?;
        let (own, system, began) = (server.process.own_memory()?, meminfo("MemAvailable")?, Instant::now());
        let holders = (0..loops).map(|at| hold_echo(server.addr, at * each, each));
        let holders = holders.collect::<io::Result<Vec<_>>>()?;
        holders.iter().try_for_each(Holder::opened)?;
        let took = began.elapsed();
        // One more message over every connection, while all are open.
        holders.iter().try_for_each(Holder::go)?;
        holders.iter().try_for_each(Holder::done)?;
        let total = (loops * each) as f64;
        let (own, system) = (
            server.process.own_memory()?.saturating_sub(own),
            system.saturating_sub(meminfo("MemAvailable")?),
        );
        println!(
            "{loops} loops of one process, in tables that allow {limit} each, hold {} connections,",
            loops * each
        );
        println!("opened in {:.1} s; each has exchanged a message while all were open.", took.as_secs_f64());
        println!("Descriptors in each loop's table: {:?}.", in_tables(server.process.pid(), "evenkeel")?);
        println!("Memory of each connection: {} bytes of the process's own,", number(own as f64 / total));
        println!("{} of the whole machine, with both ends' sockets.", number(system as f64 / total));
        Ok(())
    }
}

/// What the first and the second of two cost, and the first over the second.
type Figures = ([f64; 2], Spread);

/// Samples of two that take turns.
fn by_turns(mut sample: impl FnMut(usize) -> io::Result<f64>) -> io::Result<Figures> {
    let _warm = (sample(0)?, sample(1)?);
    let samples = (0..2 * SLICES).map(|at| sample(at % 2)).collect::<io::Result<Vec<_>>>()?;
    let of = |n| median(&samples.iter().copied().skip(n).step_by(2).collect::<Vec<_>>());
    let ratio = ratio_by_turns(&samples).ok_or_else(|| io::Error::other("too few slices"))?;
    Ok(([of(0), of(1)], ratio))
}

/// Threads, one with a table of its own, send a byte to themselves and receive it.
fn calls() -> io::Result<Figures> {
    let threads = [true, false].map(|own| {
        let (go, begin) = channel();
        let (done, wait) = channel();
        thread::spawn(move || done.send(send_and_receive(own, &begin, &done)));
        (go, wait)
    });
    by_turns(|n| {
        let (go, wait) = &threads[n];
        let _ = go.send(());
        wait.recv().map_err(io::Error::other)?
    })
}

/// Reports the time of each slice; returns, with an error, when there are no more.
fn send_and_receive(own: bool, begin: &Receiver<()>, done: &Sender<io::Result<f64>>) -> io::Result<f64> {
    let _table = own.then(|| private().build()).transpose()?;
    let (from, to) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let clock = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    while let Ok(()) = begin.recv() {
        let start = clock();
        for _ in 0..CALLS {
            rustix::net::send(&from, b"x", SendFlags::NOSIGNAL)?;
            rustix::net::recv(&to, &mut [0_u8; 8][..], RecvFlags::empty())?;
        }
        let _ = done.send(Ok((clock() - start) / f64::from(CALLS)));
    }
    Err(io::ErrorKind::BrokenPipe.into())
}

/// Round trips from this thread to a loop: by a signal where its table is another one, by a counter where it is not.
fn wakes() -> io::Result<Figures> {
    const TRIPS: u32 = 300;
    let groups = [group(1, Backend::Auto, true)?, group(1, Backend::Auto, false)?];
    by_turns(|n| {
        let start = Instant::now();
        for _ in 0..TRIPS {
            let answer = groups[n].spawn_on(0, || async {}).map_err(io::Error::from)?;
            answer.wait().map_err(|_| io::Error::other("the task did not end"))?;
        }
        Ok(start.elapsed().as_nanos() as f64 / f64::from(TRIPS))
    })
}

/// Holds connections to an echo server, each of which exchanges a message whenever it is told to.
fn hold_echo(to: SocketAddr, from: usize, count: usize) -> io::Result<Holder<()>> {
    Holder::start(move || {
        let mut streams = open_echo(to, from, count)?;
        Ok(move || {
            for chunk in streams.chunks_mut(256) {
                for stream in &mut *chunk {
                    stream.write_all(b"again")?;
                }
                for stream in chunk {
                    stream.read_exact(&mut [0; 5])?;
                }
            }
            Ok(())
        })
    })
}

/// The descriptors in the table of each thread that is a loop of the group with this name.
pub(super) fn in_tables(process: i32, group: &str) -> io::Result<Vec<usize>> {
    let mut loops = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?;
        // A dash and its index; the first thread is called as the program is.
        let index = name.strip_prefix(group).and_then(|rest| rest.strip_prefix('-'));
        if let Some(Ok(index)) = index.map(|index| index.trim_end().parse::<usize>()) {
            loops.push((index, fs::read_dir(task.join("fd"))?.count()));
        }
    }
    loops.sort_unstable();
    Ok(loops.into_iter().map(|(_, count)| count).collect())
}
