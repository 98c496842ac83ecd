//! The configuration: TOML, environment and command line. What is accepted is within its ranges and is read again as it
//! was printed; an option means the same wherever it stands.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::OnceLock;

use evenkeel_hub::config::cli::{Command, command};
use evenkeel_hub::config::settings::{
    AppSettings, LimitSettings, LogSettings, ProxySettings, ServerSettings, SseSettings,
};
use evenkeel_hub::config::table::Opt;
use evenkeel_hub::config::{Config, Problem, Sources};

use crate::pieces::parts;

/// Options beside the file. Each that is unknown costs a search for what it may have meant.
const MOST: usize = 4;

/// A file, the environment, and the command line's options, in this order, with zero bytes between them. The latter two
/// are lines of `NAME=VALUE`.
pub fn run(bytes: &[u8]) {
    let [file, environment, arguments] = parts(bytes).map(String::from_utf8_lossy);
    let pairs = |text: &str| -> Vec<(String, String)> {
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        text.lines().filter_map(pair).take(MOST).collect()
    };
    let (environment, arguments) = (pairs(&environment), pairs(&arguments));
    let sources =
        Sources { file: Some(("hub.toml", &file)), environment: &environment, arguments: &arguments };
    match Config::load(&sources) {
        Ok(config) => accepted(&config),
        Err(problems) => refused(&problems),
    }
    for (name, value) in &arguments {
        same_everywhere(name, value);
    }
    program(&file, &environment, &arguments);
}

fn refused(problems: &[Problem]) {
    assert!(!problems.is_empty());
    for problem in problems {
        let shown = problem.to_string();
        assert!(shown.len() < 4_000 && !shown.contains(|c: char| c.is_control()), "{shown:?}");
    }
}

fn accepted(config: &Config) {
    assert!(!config.apps.is_empty());
    let ids: BTreeSet<&str> = config.apps.iter().map(|app| app.id.as_str()).collect();
    let keys: BTreeSet<&str> = config.apps.iter().map(|app| app.key.as_str()).collect();
    assert_eq!((ids.len(), keys.len()), (config.apps.len(), config.apps.len()));
    let mut printed = String::new();
    group(&mut printed, "", ServerSettings::OPTIONS, &config.server);
    group(&mut printed, "limits", LimitSettings::OPTIONS, &config.limits);
    group(&mut printed, "proxy", ProxySettings::OPTIONS, &config.proxy);
    group(&mut printed, "sse", SseSettings::OPTIONS, &config.sse);
    group(&mut printed, "log", LogSettings::OPTIONS, &config.log);
    for app in &config.apps {
        group(&mut printed, "[apps]", AppSettings::OPTIONS, app);
        // A secret is not printed.
        printed.push_str("secret = \"not the one that it was\"\n");
    }
    let tokens =
        [("console_token", &config.server.console_token), ("metrics_token", &config.server.metrics_token)];
    let tokens = tokens.into_iter().filter_map(|(name, token)| Some((name, token.as_ref()?)));
    let arguments: Vec<(String, String)> =
        tokens.map(|(name, token)| (name.to_owned(), token.expose().to_owned())).collect();
    let sources = Sources { file: Some(("printed", &printed)), environment: &[], arguments: &arguments };
    let mut again = match Config::load(&sources) {
        Ok(config) => config,
        Err(problems) => panic!("{problems:?} of what was printed:\n{printed}"),
    };
    again.demo = config.demo;
    for (app, before) in again.apps.iter_mut().zip(&config.apps) {
        app.secret = before.secret.clone();
        app.previous_secrets.clone_from(&before.previous_secrets);
    }
    assert_eq!(again, *config, "printed and read again it is another one:\n{printed}");
    assert!(!config.summary().is_empty());
    let secret = config.apps.iter().flat_map(|app| app.secrets()).map(|secret| secret.expose().to_owned());
    let shown = format!("{config:?}");
    for secret in secret.filter(|secret| secret.len() > 30 && !config.demo) {
        let named = config.apps.iter().any(|app| app.id.contains(&secret) || app.key.contains(&secret));
        assert!(named || !shown.contains(&secret), "a secret is shown");
    }
}

fn group<T>(out: &mut String, name: &str, table: &[Opt<T>], settings: &T) {
    if !name.is_empty() {
        out.push_str(&format!("[{name}]\n"));
    }
    for option in table {
        let Some(value) = (option.get)(settings) else { continue };
        if let Some((least, most)) = option.range {
            let number: u64 = value.parse().expect("an option with a range is a number");
            assert!((least..=most).contains(&number), "{name}.{} is {value}", option.name);
        }
        out.push_str(&format!("{} = {value}\n", option.name));
    }
}

/// The full names of all options but those of applications.
static NAMES: OnceLock<BTreeSet<String>> = OnceLock::new();

fn names() -> BTreeSet<String> {
    fn of<'t, T>(group: &'t str, table: &'t [Opt<T>]) -> impl Iterator<Item = String> + 't {
        table.iter().map(move |option| format!("{group}{}", option.name))
    }
    of("", ServerSettings::OPTIONS)
        .chain(of("limits.", LimitSettings::OPTIONS))
        .chain(of("proxy.", ProxySettings::OPTIONS))
        .chain(of("sse.", SseSettings::OPTIONS))
        .chain(of("log.", LogSettings::OPTIONS))
        .collect()
}

/// As an argument and as a variable, an option has one meaning.
fn same_everywhere(name: &str, value: &str) {
    if !NAMES.get_or_init(names).contains(name) {
        return;
    }
    let argument = [(name.to_owned(), value.to_owned())];
    let variable = format!("EVENKEEL_HUB_{}", name.replace('.', "_").to_ascii_uppercase());
    let variable = [(variable, value.to_owned())];
    let by_argument = Config::load(&Sources { arguments: &argument, ..Sources::default() });
    let by_variable = Config::load(&Sources { environment: &variable, ..Sources::default() });
    match (by_argument, by_variable) {
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (Err(_), Err(_)) => {}
        (one, other) => panic!("{name}={value:?} is {one:?} and {other:?}"),
    }
}

/// The program's own way to all this.
fn program(file: &str, environment: &[(String, String)], arguments: &[(String, String)]) {
    let mut words: Vec<OsString> = vec!["evenkeel-hub".into(), "--config".into(), "hub.toml".into()];
    for (name, value) in arguments {
        words.push(format!("--set={name}={value}").into());
    }
    let read = |_: &Path| Ok(file.to_owned());
    let sources = Sources { file: Some(("hub.toml", file)), environment, arguments };
    let names_are_trimmed = arguments.iter().all(|(name, _)| name.trim() == name);
    match (command(words, environment, &read), Config::load(&sources)) {
        (Command::Run(config), Ok(loaded)) => assert_eq!(*config, loaded),
        (Command::Exit { status, text }, Err(_)) => assert!(status != 0 && !text.is_empty()),
        (ran, loaded) => assert!(!names_are_trimmed, "{ran:?}, but {loaded:?}"),
    }
}
