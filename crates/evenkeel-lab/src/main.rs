//! The lab: measures Evenkeel's models and backends, its peers and the hub, on the same work, in one run.
//!
//! Every command says on which machine it ran and how to repeat it. README.md says how to read the figures.

mod baseline;
mod client;
mod command;
mod hub;
mod machine;
mod peers;
mod plot;
mod serve;
mod server;
mod stats;
mod syscalls;
mod table;
mod turns;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use evenkeel::Backend;
use lab_work::place;

use crate::machine::{Machine, Places, Quiet};
use crate::serve::{Model, Way};

/// Measures concurrency models, backends, peers and the hub on the same work in one run.
#[derive(Parser)]
#[command(version)]
struct Lab {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Small operations inside one process: tasks, switches, channels, timers.
    Micro(command::micro::Micro),
    /// What a message costs a server.
    #[command(subcommand)]
    Echo(command::echo::Echo),
    /// The memory of idle connections.
    Idle(command::idle::Idle),
    /// What busy connections pay for idle ones.
    Active(command::active::Active),
    /// User-space instructions per message.
    Instr(command::instr::Instr),
    /// The hub: memory of idle subscribers, and what a delivery costs.
    Hub(command::hub::Hub),
    /// Very many subscribers of one hub, whose loops have descriptor tables of their own.
    HubHold(command::hub_hold::HubHold),
    /// What a delivery and a publication cost a hub with several loops, compared with one loop's.
    HubLoops(command::hub_loops::HubLoops),
    /// Threads, select, poll, epoll, io_uring and tasks over the number of connections, with a plot.
    Models(command::models::Models),
    /// What io_uring and each of its features is worth to our own servers.
    Ring(command::ring::Ring),
    /// What a descriptor table of its own is worth to a loop, and how many connections one process can hold so.
    Tables(command::tables::Tables),
    /// How evenly connections come to several loops, in each way to share a port, with a plot.
    Spread(command::spread::Spread),
    /// What a message costs a server with several loops.
    Loops(command::loops::Loops),
    /// A server of this program, for the other commands.
    #[command(subcommand)]
    Serve(Serve),
    /// One micro benchmark, for `micro`.
    #[command(hide = true)]
    MicroOp { op: String },
}

#[derive(Subcommand)]
enum Serve {
    /// A handler for each connection.
    Callbacks(Options),
    /// A task for each connection.
    Async(Options),
    /// A task for each connection, with a buffer of its own.
    OwnBuffer(Options),
    /// A thread for each connection.
    Threads(Options),
    /// Loops that share a descriptor table, or have one each.
    Tables(command::tables::Serve),
    /// Several loops.
    Group {
        model: Model,
        #[arg(long)]
        loops: usize,
        #[arg(long)]
        share: Way,
        #[command(flatten)]
        options: Options,
    },
    /// Sends to every connection when it is told to.
    FanOut { count: usize, size: usize },
}

#[derive(clap::Args)]
struct Options {
    #[arg(long, default_value = "auto")]
    backend: Backend,
    /// The kernel chooses if it is 0.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

fn main() -> ExitCode {
    place::raise_descriptor_limit();
    match run(Lab::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    match command {
        Command::Serve(Serve::Callbacks(o)) => serve::serve(Model::Callbacks, o.backend, o.port),
        Command::Serve(Serve::Async(o)) => serve::serve(Model::Async, o.backend, o.port),
        Command::Serve(Serve::OwnBuffer(o)) => serve::serve(Model::OwnBuffer, o.backend, o.port),
        Command::Serve(Serve::Threads(o)) => serve::threads(o.port),
        Command::Serve(Serve::Tables(serve)) => serve.run(),
        Command::Serve(Serve::Group { model, loops, share, options: o }) => {
            serve::serve_group(model, o.backend, loops, share, o.port)
        }
        Command::Serve(Serve::FanOut { count, size }) => serve::fan_out(count, size),
        Command::MicroOp { op } => lab_work::micro::main::<serve::Evenkeel>(Some(&op)),
        measurement => measure(measurement),
    }
}

fn measure(command: Command) -> io::Result<()> {
    let _quiet = Quiet::wait()?;
    let places = Places::take()?;
    println!("machine: {Machine}");
    let words: Vec<_> = std::env::args().skip(1).collect();
    println!("repeat:  cargo run --release -p evenkeel-lab -- {}\n", words.join(" "));
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures say nothing. Build it with --release.");
    }
    match command {
        Command::Micro(micro) => micro.run(&places),
        Command::Echo(echo) => echo.run(&places),
        Command::Idle(idle) => idle.run(&places),
        Command::Active(active) => active.run(&places),
        Command::Instr(instr) => instr.run(&places),
        Command::Hub(hub) => hub.run(&places),
        Command::HubHold(hold) => hold.run(&places),
        Command::HubLoops(loops) => loops.run(&places),
        Command::Models(models) => models.run(&places),
        Command::Ring(ring) => ring.run(&places),
        Command::Tables(tables) => tables.run(&places),
        Command::Spread(spread) => spread.run(&places),
        Command::Loops(loops) => loops.run(&places),
        Command::Serve(_) | Command::MicroOp { .. } => unreachable!("not measurements"),
    }
}
