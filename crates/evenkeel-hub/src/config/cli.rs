//! The command line.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::load::FILE_VARIABLE;
use super::{Config, Problem, Sources, print};

/// A self-hosted realtime push server: WebSocket, SSE and HTTP publish, speaking the Pusher Channels protocol.
#[derive(Debug, Parser)]
#[command(name = "evenkeel-hub", version)]
struct Arguments {
    /// The configuration file [environment: EVENKEEL_HUB_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An address to listen on; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<String>,
    /// The kernel interface: auto, io_uring, epoll, epoll-lt, poll or select
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// error, warn, info or debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Sets any option by its full name, such as limits.max_connections=1000
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Checks a configuration file, with the environment and these arguments, and says what is wrong
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check: Option<PathBuf>,
    /// Prints a configuration file with every option, its meaning and its default
    #[arg(long)]
    print_default_config: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run the server.
    Run(Box<Config>),
    /// Write `text` to standard output (standard error, if `status` is not 0) and exit with `status`: 0 for what was
    /// asked for, 1 for a wrong configuration, 2 for wrong arguments.
    Exit {
        /// What to write.
        text: String,
        /// The exit status.
        status: u8,
    },
}

/// Interprets the arguments (the first is the program's name) and the environment. Files are read by `read`.
pub fn command(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &[(String, String)],
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Command {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let status = if error.use_stderr() { 2 } else { 0 };
            return Command::Exit { text: error.render().to_string(), status };
        }
    };
    if arguments.print_default_config {
        return Command::Exit { text: print::default_toml(), status: 0 };
    }
    let checking = arguments.check.is_some();
    match load(&arguments, environment, read) {
        Ok(config) if checking => {
            let text = format!("The configuration is valid.\n{}", config.summary());
            Command::Exit { text, status: 0 }
        }
        Ok(config) => Command::Run(Box::new(config)),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Command::Exit { text: format!("{}\n", lines.join("\n")), status: 1 }
        }
    }
}

fn load(
    arguments: &Arguments,
    environment: &[(String, String)],
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Config, Vec<Problem>> {
    let from_environment = || {
        let variable = environment.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        variable.map(|(_, value)| PathBuf::from(value))
    };
    let path = arguments.check.clone().or_else(|| arguments.config.clone()).or_else(from_environment);
    let name = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let text = match &path {
        None => None,
        Some(path) => Some(read(path).map_err(|error| {
            vec![Problem { place: name.clone(), message: format!("cannot be read: {error}") }]
        })?),
    };
    let options = options(arguments)?;
    let file = text.as_deref().map(|text| (name.as_str(), text));
    Config::load(&Sources { file, environment, arguments: &options })
}

/// The options among the arguments. `--set` comes last, so it wins.
fn options(arguments: &Arguments) -> Result<Vec<(String, String)>, Vec<Problem>> {
    let mut options = Vec::new();
    let mut add = |name: &str, value: String| options.push((name.to_owned(), value));
    if !arguments.listen.is_empty() {
        add("listen", arguments.listen.join(","));
    }
    for (name, value) in [
        ("backend", &arguments.backend),
        ("log.level", &arguments.log_level),
        ("log.format", &arguments.log_format),
    ] {
        if let Some(value) = value {
            add(name, value.clone());
        }
    }
    let mut problems = Vec::new();
    for set in &arguments.set {
        match set.split_once('=') {
            Some((name, value)) => add(name.trim(), value.to_owned()),
            None => problems.push(Problem {
                place: "--set".to_owned(),
                message: format!("needs NAME=VALUE, not \"{}\"", crate::text::escaped(set, 100)),
            }),
        }
    }
    if problems.is_empty() { Ok(options) } else { Err(problems) }
}
