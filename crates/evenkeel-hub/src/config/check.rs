//! What options must be together, beyond what each must be by itself.

use std::fmt::Write as _;

use super::settings::{AppSettings, DEMO_SECRET};
use super::{Access, Config, Problem, Secret};
use crate::text;

/// A token or secret that is shorter than this can be guessed.
const GUESSABLE: usize = 16;

/// All that is wrong. `app_places` says where each application was described; the demonstration has no place.
pub(super) fn problems(config: &Config, app_places: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |place: &str, message: String| {
        problems.push(Problem { place: place.to_owned(), message });
    };
    server(config, &mut say);
    for (index, app) in config.apps.iter().enumerate() {
        let place = app_places.get(index).map_or("", String::as_str);
        application(config, app, &mut |message| {
            say(place, format!("application \"{}\": {message}", shown(&app.id)))
        });
        for other in &config.apps[..index] {
            if other.id == app.id && !app.id.is_empty() {
                say(place, format!("application \"{}\": another one has the same id", shown(&app.id)));
            }
            if other.key == app.key && !app.key.is_empty() {
                say(
                    place,
                    format!("application \"{}\": \"{}\" has the same key", shown(&app.id), shown(&other.id)),
                );
            }
        }
    }
    problems
}

fn shown(name: &str) -> String {
    text::escaped(name, 64)
}

fn server(config: &Config, say: &mut dyn FnMut(&str, String)) {
    let server = &config.server;
    if server.listen.is_empty() {
        say("", "listen: no address is given".to_owned());
    }
    for (index, address) in server.listen.iter().enumerate() {
        if server.listen[..index].contains(address) {
            say("", format!("listen: {address} is given twice"));
        }
    }
    if let Err(error) = server.backend.parse::<evenkeel::Backend>() {
        say("", format!("backend: {}", text::escaped(&error.to_string(), 256)));
    }
    if !matches!(server.share.as_str(), "acceptor" | "reuse-port" | "shared") {
        let given = shown(&server.share);
        say("", format!("share: \"{given}\" is none of acceptor, reuse-port, shared"));
    }
    if config.apps.is_empty() {
        let why = "the server can be reached from elsewhere, where there is no demonstration application";
        say("", format!("apps: none is configured, and {why}; add [[apps]] with id, key and secret"));
    }
    if !is_path_prefix(&server.path_prefix) {
        let form = "must begin with / and not end with it, with letters, digits and - _ . ~ between";
        say("", format!("path_prefix: {form}, not \"{}\"", shown(&server.path_prefix)));
    }
    if config.proxy.proxy_protocol && config.proxy.trusted.is_empty() {
        say("", "proxy.proxy_protocol: needs proxy.trusted, the addresses of the proxies".to_owned());
    }
    for (name, token) in [("console_token", &server.console_token), ("metrics_token", &server.metrics_token)]
    {
        if token.as_ref().is_some_and(|token| token.expose().len() < GUESSABLE) {
            say("", format!("{name}: must have at least {GUESSABLE} characters"));
        }
    }
    if config.limits.max_queue_bytes < config.limits.max_message_bytes {
        say("", "limits.max_queue_bytes: must be at least limits.max_message_bytes".to_owned());
    }
}

fn is_path_prefix(prefix: &str) -> bool {
    let segment = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
    };
    prefix.is_empty() || prefix.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}

fn application(config: &Config, app: &AppSettings, say: &mut dyn FnMut(String)) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    for (name, value) in [("id", &app.id), ("key", &app.key)] {
        if value.is_empty() {
            say(format!("{name} is missing"));
        } else if value.len() > 100 || !value.bytes().all(plain) {
            say(format!("{name}: at most 100 letters, digits and - _ ."));
        }
    }
    if app.secret.expose().is_empty() {
        say("secret is missing".to_owned());
    }
    if app.previous_secrets.iter().any(|secret| secret.expose().is_empty()) {
        say("previous_secrets: one of them is empty".to_owned());
    }
    if config.exposed() && app.secrets().any(|secret| secret.expose() == DEMO_SECRET) {
        say("secret: this is the demonstration's, which everyone knows".to_owned());
    }
    // A control character is six bytes in JSON. One event must always fit.
    if app.max_event_bytes.saturating_mul(6) > config.limits.max_queue_bytes {
        say("max_event_bytes: must be at most a sixth of limits.max_queue_bytes".to_owned());
    }
    if app.max_event_bytes > config.limits.max_body_bytes {
        say("max_event_bytes: must be at most limits.max_body_bytes".to_owned());
    }
}

impl Config {
    /// What is allowed and still worth a word when the server starts.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.demo {
            warnings.push("no application is configured: the demonstration application is on".to_owned());
        }
        for (name, access) in [("console", self.console_access()), ("metrics", self.metrics_access())] {
            if access == Access::Nobody {
                let why = "is not set, and the server can be reached from elsewhere";
                warnings.push(format!("{name}: off, because {name}_token {why}"));
            }
        }
        for app in &self.apps {
            if self.exposed() && app.secrets().any(|secret| secret.expose().len() < GUESSABLE) {
                let advice = format!("a secret has fewer than {GUESSABLE} characters and can be guessed");
                warnings.push(format!("application \"{}\": {advice}", app.id));
            }
        }
        warnings
    }

    /// What the configuration comes to, for people, without secrets.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        let addresses: Vec<String> = self.server.listen.iter().map(ToString::to_string).collect();
        // Writing into a string cannot fail.
        let _ =
            writeln!(out, "listens on {} (backend {})", addresses.join(", "), shown(&self.server.backend));
        if !self.server.path_prefix.is_empty() {
            let _ = writeln!(out, "under {}", self.server.path_prefix);
        }
        let access = |access: Access<'_>| match access {
            Access::Open => "open, to this machine only",
            Access::Token(_) => "by token",
            Access::Nobody => "off",
        };
        let _ = writeln!(out, "console {}", access(self.console_access()));
        let _ = writeln!(out, "metrics {}", access(self.metrics_access()));
        for app in &self.apps {
            let state = if app.enabled { "" } else { " (disabled)" };
            let name = if app.name.is_empty() { String::new() } else { format!(" \"{}\"", shown(&app.name)) };
            let _ = writeln!(
                out,
                "application {}{name}, key {}, secret {}{state}",
                app.id,
                app.key,
                Secret::default()
            );
        }
        for warning in self.warnings() {
            let _ = writeln!(out, "note: {warning}");
        }
        out
    }
}
