//! The hub as a program. `--help` says how to run it.

use std::io::{self, Write};
use std::process::ExitCode;

use evenkeel_hub::config::Config;
use evenkeel_hub::config::cli::{Command, command};
use evenkeel_hub::log::{Level, Value};
use evenkeel_hub::server::{Drained, Inheritance, Service};

fn main() -> ExitCode {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let config = match command(std::env::args_os(), &environment, &|path| std::fs::read_to_string(path)) {
        Command::Run(config) => *config,
        Command::Exit { text, status } => {
            if status == 0 {
                print!("{text}");
            } else {
                eprint!("{text}");
            }
            return ExitCode::from(status);
        }
    };
    match run(config) {
        Ok(Drained::Completely) => ExitCode::SUCCESS,
        Ok(Drained::Forced { .. }) => ExitCode::from(3),
        Err(error) => {
            eprintln!("evenkeel-hub: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> io::Result<Drained> {
    let warnings = config.warnings();
    // Found now: when the time comes, the file may be another one, which is the point.
    let program = std::env::current_exe().map(|program| (program, std::env::args_os().skip(1).collect()));
    let service = Service::start_with(config, Inheritance::take()?)?;
    service.listen_for_signals()?;
    log_backend(&service);
    for warning in warnings {
        service.note(Level::Warn, &warning, &[]);
    }
    // Nobody may be listening any more, least of all to a process that has replaced another.
    let _ = announce(&service, &mut io::stdout().lock());
    service.run_replaceable(program.ok())
}

/// Logs which kernel interface runs, and why io_uring does not.
fn log_backend(service: &Service) {
    let name = service.backend().name();
    let loops = ("loops", Value::Number(service.loops() as u64));
    let Some(fallback) = service.fallback() else {
        return service.note(Level::Info, "event loop", &[("backend", Value::Text(name)), loops]);
    };
    // What was merely chosen is nothing to act upon.
    let level = if fallback.by_choice { Level::Info } else { Level::Warn };
    let fields = [
        ("backend", Value::Text(name)),
        ("asked", Value::Text(fallback.asked.name())),
        ("reason", Value::Text(&fallback.reason)),
        ("help", Value::Text(fallback.help)),
        loops,
    ];
    service.note(level, "event loop: epoll runs instead of io_uring", &fields);
}

/// Tells a person where everything is.
fn announce(service: &Service, out: &mut impl Write) -> io::Result<()> {
    let prefix = &service.config().server.path_prefix;
    for address in service.addresses() {
        writeln!(out, "listening on http://{address}{prefix}")?;
    }
    if let Some(address) = service.addresses().first() {
        writeln!(out, "console       http://{address}{prefix}/console")?;
        if let (true, Some(app)) = (service.config().demo, service.config().apps.first()) {
            writeln!(out, "demo chat     http://{address}{prefix}/chat")?;
            writeln!(out, "demo app      id={} key={} secret={}", app.id, app.key, app.secret.expose())?;
            service.note(
                Level::Info,
                "no applications are configured: serving a demonstration on loopback",
                &[],
            );
        }
    }
    writeln!(out, "loops         {}", service.loops())?;
    writeln!(out, "backend       {}", service.backend())
}
