#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::cli::{Command, command};
use super::*;
use crate::proto::auth::AppKey;
use crate::proto::origin::Origins;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn load(file: &str) -> Result<Config, Vec<Problem>> {
    Config::load(&Sources { file: Some(("hub.toml", file)), ..Sources::default() })
}

fn problems(file: &str) -> Vec<String> {
    load(file).unwrap_err().iter().map(ToString::to_string).collect()
}

const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 'a-secret-of-twenty-x'\n";

#[test]
fn the_printed_default_is_the_default() {
    assert_eq!(load(&default_toml()).unwrap(), Config::load(&Sources::default()).unwrap());
}

#[test]
fn the_printed_application_is_the_default_too() {
    let printed = default_toml();
    let (server, apps) = printed.split_once("#[[apps]]").unwrap();
    // Options are commented out by '#' alone, documentation by "# ".
    let apps: String = apps
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| line.trim_start_matches('#').to_owned() + "\n")
        .collect();
    let apps = apps.replacen("id = \"\"", "id = \"1\"", 1);
    let apps = apps.replacen("key = \"\"", "key = \"k\"", 1).replacen("secret = \"\"", "secret = \"s\"", 1);
    let config = load(&format!("{server}\n[[apps]]\n{apps}")).unwrap();
    let expected = AppSettings {
        id: "1".into(),
        key: "k".into(),
        secret: Secret::new("s"),
        // It has no default; what is printed is an example.
        signin_deadline_seconds: Some(3600),
        ..AppSettings::default()
    };
    assert_eq!(config.apps, [expected]);
}

#[test]
fn every_option_is_documented_and_has_one_variable() {
    let printed = default_toml();
    let mut variables = BTreeSet::new();
    for full in load::all_names() {
        let name = full.rsplit('.').next().unwrap();
        assert_eq!(full.matches('.').count(), usize::from(full != name));
        let line = printed.lines().position(|line| {
            line.trim_start_matches('#').strip_prefix(name).is_some_and(|rest| rest.starts_with(" ="))
        });
        let line = line.unwrap_or_else(|| panic!("{full} is not printed"));
        assert!(printed.lines().nth(line - 1).unwrap().starts_with("# "), "{full} has no documentation");
    }
    for (variable, full) in load::variables() {
        assert!(variables.insert(variable.clone()), "{variable} is ambiguous");
        assert!(variable.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{full}");
    }
    assert_eq!(variables.len(), load::all_names().len());
    assert!(printed.lines().all(|line| line.len() <= 110), "lines fit a terminal");
}

#[test]
fn nothing_given_is_a_demonstration_on_loopback() {
    let config = Config::load(&Sources::default()).unwrap();
    assert!(config.demo && !config.exposed());
    assert_eq!(config.server.listen, ["127.0.0.1:6001".parse().unwrap()]);
    assert_eq!(config.apps, [AppSettings::demonstration()]);
    assert_eq!((config.apps[0].id.as_str(), config.apps[0].key.as_str()), ("1001", "demo-key"));
    assert_eq!(config.apps[0].secret.expose(), "demo-secret");
    assert!(config.apps[0].client_events);
    assert_eq!((config.console_access(), config.metrics_access()), (Access::Open, Access::Open));
}

#[test]
fn the_limits_are_those_that_are_promised() {
    let config = Config::load(&Sources::default()).unwrap();
    let limits = &config.limits;
    assert_eq!((limits.max_connections_per_address, limits.max_head_bytes), (256, 8192));
    assert_eq!((limits.handshake_deadline_seconds, limits.max_message_bytes), (10, 65536));
    assert_eq!(
        (limits.max_queue_bytes, limits.max_queue_messages, limits.max_queue_age_seconds),
        (262144, 1024, 10)
    );
    assert_eq!(
        (limits.body_deadline_seconds, limits.min_body_rate, limits.queue_memory_percent),
        (30, 1024, 25)
    );
    assert_eq!((config.server.ping_interval_seconds, config.server.pong_timeout_seconds), (30, 10));
    let app = AppSettings::default();
    assert_eq!(
        (app.max_channels_per_connection, app.client_event_rate, app.client_event_burst),
        (256, 10, 20)
    );
    assert_eq!(
        (app.publish_rate, app.max_event_bytes, app.max_event_name, app.max_channel_name),
        (1000, 10240, 200, 200)
    );
    assert_eq!((app.max_presence_members, app.max_user_info_bytes, app.max_user_id), (100, 1024, 128));
    assert_eq!((app.cache_ttl_seconds, app.client_events, app.signin_deadline_seconds), (1800, false, None));
}

#[test]
fn off_loopback_there_is_no_demonstration_and_no_open_console() {
    for exposed in [
        "listen = '0.0.0.0:6001'\n",
        "listen = ['127.0.0.1:6001', '[::]:6001']\n",
        "listen = '[::ffff:10.0.0.1]:80'\n",
        "[proxy]\ntrusted = ['127.0.0.1']\n",
    ] {
        let refused = problems(exposed);
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].starts_with("apps: none is configured"), "{refused:?}");
        let config = load(&format!("{exposed}{APP}")).unwrap();
        assert!(config.exposed() && !config.demo);
        assert_eq!((config.console_access(), config.metrics_access()), (Access::Nobody, Access::Nobody));
        assert_eq!(config.warnings().len(), 2);
        let refused = problems(&format!("{exposed}{}", APP.replace("a-secret-of-twenty-x", "demo-secret")));
        assert!(refused[0].contains("everyone knows"), "{refused:?}");
        let refused = problems(&format!("{exposed}{APP}previous_secrets = ['demo-secret']\n"));
        assert!(refused[0].contains("everyone knows"), "{refused:?}");
    }
    for loopback in ["listen = '127.5.0.1:1'\n", "listen = '[::1]:1'\n", "listen = '[::ffff:127.0.0.1]:1'\n"]
    {
        assert!(load(loopback).unwrap().demo);
    }
    let config = load(&format!("listen = '0.0.0.0:1'\nconsole_token = '0123456789abcdef'\n{APP}")).unwrap();
    assert!(matches!(config.console_access(), Access::Token(token) if token.matches("0123456789abcdef")));
    assert!(matches!(config.console_access(), Access::Token(token) if !token.matches("0123456789abcdeF")));
}

#[test]
fn i50_every_mistake_is_told_at_once_with_its_line() {
    let file = "lissten = '127.0.0.1:1'\nbackend = 7\nmax_message_bytes = 70000\n\n[limits]\nmax_head_bytes = 10\n\
                max_queue_bytes = '1'\nmax_queue_messages = -1\n\n[logs]\nlevel = 'info'\n\n[log]\nlevel = 'loud'\n\n\
                [proxy]\ntrusted = ['10.0.0.0/40']\n\n[[apps]]\nid = '1'\nsecrt = 'x'\nenabled = 'yes'\n";
    let expected = [
        "hub.toml:1: lissten: there is no such option; did you mean listen?",
        "hub.toml:2: backend: must be a text in quotes, not an integer",
        "hub.toml:3: max_message_bytes: there is no such option; did you mean limits.max_message_bytes?",
        "hub.toml:6: limits.max_head_bytes: must be 1024 to 65536, not 10",
        "hub.toml:7: limits.max_queue_bytes: must be a number, not a string",
        "hub.toml:8: limits.max_queue_messages: must be 0 to 4294967295, not -1",
        "hub.toml:10: logs: there is no such table; did you mean [log]?",
        "hub.toml:14: log.level: must be one of error, warn, info, debug, not \"loud\"",
        "hub.toml:17: proxy.trusted: \"10.0.0.0/40\": prefix length is not a number from 0 to 32, or to 128 for IPv6",
        "hub.toml:21: apps.secrt: there is no such option; did you mean apps.secret?",
        "hub.toml:22: apps.enabled: must be true or false, not a string",
    ];
    assert_eq!(problems(file), expected);
}

#[test]
fn i50_broken_toml_is_told_with_its_line() {
    let told = problems("listen = '127.0.0.1:1'\nbackend = \n[limits\n");
    assert!(told[0].starts_with("hub.toml:2: "), "{told:?}");
    assert!(problems("listen = 1\nlisten = 2\n")[0].contains("duplicate"), "{:?}", problems("a=1\na=2"));
    assert!(problems("limits = 3\n")[0].contains("must be a table, [limits]"));
    assert!(problems("apps = 3\n")[0].contains("each [[apps]]"));
    assert!(problems("apps = [3]\n")[0].contains("each [[apps]]"));
    assert!(problems("listen = ['a', 3]\n")[0].contains("\"a\" is not an address with a port"));
    for file in ["\u{0}", "\u{feff}x", "[[[", "=", "a.b.c = 1", "x = 9999999999999999999999"] {
        assert!(!problems(file).is_empty(), "{file:?}");
    }
}

#[test]
fn applications_are_checked_by_themselves_and_against_each_other() {
    let app = |id: &str, key: &str, more: &str| {
        format!("[[apps]]\nid = '{id}'\nkey = '{key}'\nsecret = 'a-secret-of-twenty-x'\n{more}\n")
    };
    let told = problems(&format!("{}{}{}", app("1", "a", ""), app("1", "b", ""), app("2", "a", "")));
    assert_eq!(
        told,
        [
            "hub.toml:6: application \"1\": another one has the same id",
            "hub.toml:11: application \"2\": \"1\" has the same key",
        ]
    );
    assert_eq!(problems("[[apps]]\n").len(), 3, "id, key and secret are missing");
    assert!(problems(&app("1", "a:b", ""))[0].contains("key: at most 100 letters"));
    assert!(problems(&app("a/b", "a", ""))[0].contains("id: at most 100 letters"));
    let told = problems(&app("1", "a", "max_event_bytes = 700000"));
    assert!(
        told[0].contains("limits.max_queue_bytes") && told[1].contains("limits.max_body_bytes"),
        "{told:?}"
    );
}

#[test]
fn origins_and_proxies_are_read_as_rules() {
    let origins = |list: &str| {
        load(&format!("{APP}allowed_origins = {list}\n")).map(|c| c.apps[0].allowed_origins.clone())
    };
    assert_eq!(origins("[]").unwrap(), Origins::any(), "none given: all");
    assert_eq!(origins("['*']").unwrap(), Origins::any());
    assert!(!origins("'https://a.example'").unwrap().allow("https://b.example"));
    let wrong = origins("['https://a.example', 'https://a/b']").unwrap_err();
    assert!(
        wrong[0]
            .to_string()
            .starts_with("hub.toml:5: apps.allowed_origins: \"https://a/b\" is not an origin"),
        "{wrong:?}"
    );
    let trusted = |list: &str| load(&format!("{APP}[proxy]\ntrusted = {list}\n"));
    assert_eq!(trusted("['10.0.0.0/8', '::1']").unwrap().proxy.trusted.len(), 2);
    let wrong = trusted("'10.1.0.0/8'").unwrap_err();
    assert!(
        wrong[0]
            .to_string()
            .ends_with("\"10.1.0.0/8\": address has bits outside of its prefix: write 10.0.0.0/8"),
        "{wrong:?}"
    );
}

#[test]
fn options_must_fit_together() {
    for (file, part) in [
        ("listen = []\n", "listen: no address"),
        ("listen = ['127.0.0.1:1', '127.0.0.1:1']\n", "given twice"),
        ("path_prefix = 'hub'\n", "path_prefix: must begin with /"),
        ("path_prefix = '/hub/'\n", "path_prefix"),
        ("path_prefix = '/../x'\n", "path_prefix"),
        ("path_prefix = '/a b'\n", "path_prefix"),
        ("console_token = 'short'\n", "console_token: must have at least 16"),
        (&format!("{APP}previous_secrets = ['']\n"), "previous_secrets: one of them is empty"),
        ("metrics_token = ''\n", "metrics_token: must have at least 16"),
        ("[limits]\nmax_queue_bytes = 65535\n", "limits.max_queue_bytes: must be at least"),
        (&format!("{APP}[proxy]\nproxy_protocol = true\n"), "needs proxy.trusted"),
    ] {
        let told = problems(file);
        assert!(told.len() == 1 && told[0].contains(part), "{file}: {told:?}");
    }
    assert_eq!(load("path_prefix = '/a/b-c'\n").unwrap().server.path_prefix, "/a/b-c");
}

#[test]
fn the_environment_wins_over_the_file_and_arguments_over_both() {
    let file = "backend = 'poll'\npath_prefix = '/a'\n[limits]\nmax_connections = 1\n[log]\nlevel = 'warn'\n";
    let environment = pairs(&[
        ("EVENKEEL_HUB_BACKEND", "b"),
        ("EVENKEEL_HUB_PATH_PREFIX", "/b"),
        ("EVENKEEL_HUB_LIMITS_MAX_CONNECTIONS", "2"),
        ("EVENKEEL_HUB_LISTEN", "127.0.0.1:1, [::1]:2"),
        ("EVENKEEL_HUB_SSE_ENABLED", "no"),
        ("EVENKEEL_HUB_CONFIG", "elsewhere.toml"),
        ("PATH", "/bin"),
    ]);
    let arguments = pairs(&[("backend", "select"), ("limits.max_connections", "3")]);
    let sources = Sources { file: Some(("f", file)), environment: &environment, arguments: &arguments };
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.server.backend.as_str(), config.limits.max_connections), ("select", 3));
    assert_eq!(config.server.path_prefix, "/b");
    assert_eq!(config.log.level, crate::log::Level::Warn);
    assert_eq!((config.server.listen.len(), config.sse.enabled), (2, false));
}

#[test]
fn the_environment_can_describe_or_change_one_application() {
    let environment = pairs(&[
        ("EVENKEEL_HUB_APP_ID", "7"),
        ("EVENKEEL_HUB_APP_KEY", "k7"),
        ("EVENKEEL_HUB_APP_SECRET", "s7"),
        ("EVENKEEL_HUB_APP_ALLOWED_ORIGINS", "https://a.example,https://*.b.example"),
        ("EVENKEEL_HUB_APP_SIGNIN_DEADLINE_SECONDS", "5"),
    ]);
    let from = |file| {
        Config::load(&Sources { file: Some(("f", file)), environment: &environment, arguments: &[] }).unwrap()
    };
    let config = from("");
    assert!(!config.demo && config.apps.len() == 1);
    assert_eq!((config.apps[0].key.as_str(), config.apps[0].secret.expose()), ("k7", "s7"));
    assert_eq!(config.apps[0].signin_deadline_seconds, Some(5));
    let origins = &config.apps[0].allowed_origins;
    assert!(origins.allow("https://x.b.example"));
    assert!(!origins.allow("https://evil.example") && !origins.allow("null"));
    assert!(AppSettings::default().allowed_origins.allow("https://anything"));
    let config = from("[[apps]]\nid = '7'\nkey = 'old'\nsecret = 'old'\nname = 'kept'\n");
    assert_eq!(
        (config.apps.len(), config.apps[0].key.as_str(), config.apps[0].name.as_str()),
        (1, "k7", "kept")
    );
    assert_eq!(from(APP).apps.len(), 2);
}

#[test]
fn the_environment_can_give_the_secret_of_the_only_application() {
    let environment = pairs(&[("EVENKEEL_HUB_APP_SECRET", "from-the-environment")]);
    let from =
        |file| Config::load(&Sources { file: Some(("f", file)), environment: &environment, arguments: &[] });
    let config = from("[[apps]]\nid = '1'\nkey = 'k'\n").unwrap();
    assert_eq!((config.apps.len(), config.apps[0].secret.expose()), (1, "from-the-environment"));
    let two = format!("{APP}{}", APP.replace("'1'", "'2'").replace("'k'", "'l'"));
    let told = from(&two).unwrap_err();
    assert!(told.len() == 1 && told[0].to_string().starts_with("EVENKEEL_HUB_APP_ID: is needed"), "{told:?}");
    let told = from("").unwrap_err();
    assert!(told.len() == 2 && told[0].place == "EVENKEEL_HUB_APP_*", "id and key are missing: {told:?}");
}

#[test]
fn i50_no_file_whatever_makes_loading_panic() {
    let printed = default_toml();
    let options: Vec<&str> =
        printed.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let sample = format!("{}\n{APP}", options.join("\n"));
    let mut seed = 1_u64;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    let mut refused = 0;
    for _ in 0..2_000 {
        let mut bytes = sample.clone().into_bytes();
        for _ in 0..=below(3) {
            let at = below(bytes.len());
            match below(3) {
                0 => bytes[at] = b"\"'[]{}=.,#\n\\0x-_ \xff"[below(18)],
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        if let Err(problems) = load(&String::from_utf8_lossy(&bytes)) {
            refused += 1;
            for problem in problems {
                assert!(
                    !problem.message.is_empty() && !problem.message.contains(char::is_control),
                    "{problem}"
                );
            }
        }
    }
    assert!(refused > 1_000, "only {refused} were refused");
}

#[test]
fn i50_wrong_variables_and_arguments_are_told() {
    let environment = pairs(&[
        ("EVENKEEL_HUB_LIMITS_MAX_CONECTIONS", "1"),
        ("EVENKEEL_HUB_LIMITS_MAX_HEAD_BYTES", "\u{1b}[2J"),
        ("EVENKEEL_HUB_APP_PUBLISH_RATE", "fast"),
        ("EVENKEEL_HUB_XYZZY_PLUGH_FROBOZZ", "1"),
    ]);
    let arguments = pairs(&[("limit.max_connections", "1"), ("apps.id", "1"), ("sse.enabled", "maybe")]);
    let sources = Sources { file: None, environment: &environment, arguments: &arguments };
    let told: Vec<String> = Config::load(&sources).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            r#"EVENKEEL_HUB_LIMITS_MAX_CONECTIONS: there is no such variable; did you mean EVENKEEL_HUB_LIMITS_MAX_CONNECTIONS?"#,
            r#"EVENKEEL_HUB_LIMITS_MAX_HEAD_BYTES: must be a number from 0 to 18446744073709551615, not "\u{1b}[2J""#,
            r#"EVENKEEL_HUB_XYZZY_PLUGH_FROBOZZ: there is no such variable"#,
            r#"EVENKEEL_HUB_APP_PUBLISH_RATE: must be a number from 0 to 4294967295, not "fast""#,
            r#"--set limit.max_connections: there is no such option; did you mean limits.max_connections?"#,
            r#"--set apps.id: applications are set in the file or by EVENKEEL_HUB_APP_ID"#,
            r#"--set sse.enabled: must be true or false, not "maybe""#,
        ]
    );
}

#[test]
fn no_secret_is_ever_shown() {
    let file = format!(
        "listen = '0.0.0.0:1'\nconsole_token = 'console-token-console'\n{APP}previous_secrets = 'the-secret-before-this'\n"
    );
    let config = load(&file).unwrap();
    assert!(
        config.apps[0]
            .app_key()
            .verify_user("1.2", "{}", &AppKey::new("k", "the-secret-before-this").user_auth("1.2", "{}"))
            .is_ok()
    );
    let shown = format!("{config:?}{}{:?}", config.summary(), config.warnings());
    for secret in ["console-token-console", "a-secret-of-twenty-x", "the-secret-before-this"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("[redacted]"));
    let wrong = load(&file.replace("id = '1'", "id = ''")).unwrap_err();
    assert!(!format!("{wrong:?}").contains("a-secret-of-twenty-x"));
    let printed: Vec<_> =
        AppSettings::OPTIONS.iter().filter_map(|option| (option.get)(&config.apps[0])).collect();
    assert!(!printed.join(" ").contains("secret-"), "{printed:?}");
}

/// Runs the command line with files that are given by name.
fn run(arguments: &[&str], environment: &[(&str, &str)], files: &[(&str, &str)]) -> Command {
    let read = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    let arguments = ["evenkeel-hub"].iter().chain(arguments).map(OsString::from);
    command(arguments, &pairs(environment), &read)
}

fn exit(command: Command) -> (u8, String) {
    match command {
        Command::Exit { status, text } => (status, text),
        Command::Run(config) => panic!("runs with {config:?}"),
    }
}

fn config(command: Command) -> Config {
    match command {
        Command::Run(config) => *config,
        Command::Exit { text, .. } => panic!("{text}"),
    }
}

#[test]
fn the_command_line_sets_options_and_finds_the_file() {
    assert!(config(run(&[], &[], &[])).demo);
    let arguments = ["--config", "a", "--listen", "127.0.0.1:1", "--listen", "[::1]:2", "--backend", "poll"];
    let files = [("a", "backend = 'epoll'\n"), ("b", "backend = 'select'\n")];
    let loaded = config(run(&arguments, &[("EVENKEEL_HUB_CONFIG", "b")], &files));
    assert_eq!((loaded.server.listen.len(), loaded.server.backend.as_str()), (2, "poll"));
    let loaded = config(run(&[], &[("EVENKEEL_HUB_CONFIG", "b")], &files));
    assert_eq!(loaded.server.backend, "select");
    let arguments = [
        "--log-level",
        "warn",
        "--log-format",
        "json",
        "--set",
        "log.level=debug",
        "--set",
        "limits.accept_rate=5",
    ];
    let loaded = config(run(&arguments, &[], &[]));
    assert_eq!((loaded.log.level, loaded.log.format), (crate::log::Level::Debug, crate::log::Format::Json));
    assert_eq!(loaded.limits.accept_rate, 5);
}

#[test]
fn checking_says_what_is_wrong_or_what_it_comes_to() {
    let files = [("good", "[limits]\nmax_connections = 5\n"), ("bad", "x = 1\n[limits]\ny = 2\n")];
    let (status, text) = exit(run(&["--check", "good"], &[], &files));
    assert_eq!(status, 0);
    for part in
        ["is valid", "127.0.0.1:6001", "application 1001", "demonstration application is on", "[redacted]"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (status, text) = exit(run(&["--check", "bad"], &[], &files));
    assert_eq!(status, 1);
    assert!(text.contains("bad:1: x: ") && text.contains("bad:3: limits.y: "), "{text}");
    let (status, text) = exit(run(&["--check", "none"], &[], &files));
    assert!(status == 1 && text.starts_with("none: cannot be read"), "{text}");
}

#[test]
fn help_version_and_wrong_arguments_have_their_status() {
    assert_eq!(exit(run(&["--print-default-config"], &[], &[])), (0, default_toml()));
    assert!(matches!(exit(run(&["--help"], &[], &[])), (0, text) if text.contains("--check")));
    assert!(
        matches!(exit(run(&["--version"], &[], &[])), (0, text) if text.contains(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(exit(run(&["--frobnicate"], &[], &[])).0, 2);
    assert_eq!(exit(run(&["--config", "a", "--check", "b"], &[], &[])).0, 2);
    assert_eq!(exit(run(&["--set", "nonsense"], &[], &[])).0, 1);
    assert_eq!(exit(run(&["--config", "none"], &[], &[])).0, 1);
}
