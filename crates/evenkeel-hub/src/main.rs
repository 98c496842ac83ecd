//! The hub as a program. `--help` says how to run it.

use std::io;
use std::process::ExitCode;

use evenkeel::{Backend, EventLoop};
use evenkeel_hub::config::Config;
use evenkeel_hub::config::cli::{Command, command};
use evenkeel_hub::log::{Level, Value};
use evenkeel_hub::server::{Drained, Server};

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
    let backend: Backend = match config.server.backend.as_str() {
        // The runtime's own variable decides when the hub's configuration leaves the choice open.
        "auto" => Backend::from_env()?,
        name => name.parse()?,
    };
    let warnings = config.warnings();
    // The server's log says it, in its format, when there is one.
    let mut events = EventLoop::builder().backend(backend).on_fallback(|_| {}).build()?;
    let handle = events.handle();
    events.block_on(async {
        let server = Server::start(&handle, config)?;
        log_backend(&server);
        for warning in warnings {
            server.note(Level::Warn, &warning, &[]);
        }
        announce(&server);
        server.run_until_signal().await
    })?
}

/// Logs which kernel interface runs, and why io_uring does not.
fn log_backend(server: &Server) {
    let name = server.backend().name();
    let Some(fallback) = server.fallback() else {
        return server.note(Level::Info, "event loop", &[("backend", Value::Text(name))]);
    };
    // What was merely chosen is nothing to act upon.
    let level = if fallback.by_choice() { Level::Info } else { Level::Warn };
    let fields = [
        ("backend", Value::Text(name)),
        ("asked", Value::Text(fallback.asked().name())),
        ("reason", Value::Display(&fallback.reason())),
        ("help", Value::Text(fallback.help())),
    ];
    server.note(level, "event loop: epoll runs instead of io_uring", &fields);
}

/// Tells a person where everything is.
fn announce(server: &Server) {
    let prefix = &server.config().server.path_prefix;
    for address in server.addresses() {
        println!("listening on http://{address}{prefix}");
    }
    if let Some(address) = server.addresses().first() {
        println!("console       http://{address}{prefix}/console");
        if let (true, Some(app)) = (server.config().demo, server.config().apps.first()) {
            println!("demo chat     http://{address}{prefix}/chat");
            println!("demo app      id={} key={} secret={}", app.id, app.key, app.secret.expose());
            server.note(
                Level::Info,
                "no applications are configured: serving a demonstration on loopback",
                &[],
            );
        }
    }
    println!("backend       {}", server.backend());
}
