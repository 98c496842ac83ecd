//! The configuration: a TOML file, over it the environment, over that the command line.
//!
//! Every option has the same name everywhere: `limits.max_connections` is `max_connections` in the table `[limits]` of the
//! file, `EVENKEEL_HUB_LIMITS_MAX_CONNECTIONS` in the environment, and `--set limits.max_connections=N` on the command
//! line. Options of the server itself stand at the top of the file and have no table in their names. Applications are
//! `[[apps]]` in the file; the environment can describe one, by `EVENKEEL_HUB_APP_ID`, `EVENKEEL_HUB_APP_KEY` and so on.
//!
//! A wrong configuration is refused as a whole, with every [`Problem`] at once. What is not given has a default that is
//! safe; with nothing given at all, the server listens on loopback with a demonstration application.
//!
//! ```
//! use evenkeel_hub::config::{Config, Sources};
//! let config = Config::load(&Sources::default()).expect("the defaults are valid");
//! assert!(config.demo && config.apps[0].id == "1001");
//!
//! let file = "listen = '127.0.0.1:80'\n[limits]\nmax_conections = 5\n";
//! let problems = Config::load(&Sources { file: Some(("hub.toml", file)), ..Sources::default() }).unwrap_err();
//! assert_eq!(
//!     problems[0].to_string(),
//!     "hub.toml:3: limits.max_conections: there is no such option; did you mean limits.max_connections?"
//! );
//! ```

mod app;
mod check;
pub mod cli;
mod load;
mod print;
pub mod secret;
pub mod settings;
pub mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

pub use app::{MAX_BATCH, MAX_CHANNELS};
pub use load::Sources;
pub use print::default_toml;
pub use secret::Secret;
pub use settings::{AppSettings, LimitSettings, LogSettings, ProxySettings, ServerSettings, SseSettings};

/// A complete, checked configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The server itself.
    pub server: ServerSettings,
    /// Limits for clients.
    pub limits: LimitSettings,
    /// Proxies in front of it.
    pub proxy: ProxySettings,
    /// Event streams.
    pub sse: SseSettings,
    /// Logs.
    pub log: LogSettings,
    /// The applications. At least one.
    pub apps: Vec<AppSettings>,
    /// Whether the only application is the demonstration, because none was configured.
    pub demo: bool,
}

/// Something that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: a file and line, an environment variable, an argument. Empty when it is nowhere in particular.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.place, self.message)
        }
    }
}

impl std::error::Error for Problem {}

/// Who may use the console or the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// Everyone who can connect, which is this machine.
    Open,
    /// Who has the token.
    Token(&'a Secret),
    /// Nobody: the server can be reached from elsewhere and no token is set.
    Nobody,
}

impl Config {
    /// Whether others than this machine can connect: the server listens off loopback, or a proxy stands in front of it.
    pub fn exposed(&self) -> bool {
        let beyond_loopback = |ip: IpAddr| !ip.to_canonical().is_loopback();
        self.server.listen.iter().any(|address| beyond_loopback(address.ip()))
            || !self.proxy.trusted.is_empty()
            || self.proxy.proxy_protocol
    }

    /// Who may use the console.
    pub fn console_access(&self) -> Access<'_> {
        self.access(self.server.console_token.as_ref())
    }

    /// Who may read the metrics.
    pub fn metrics_access(&self) -> Access<'_> {
        self.access(self.server.metrics_token.as_ref())
    }

    fn access<'a>(&self, token: Option<&'a Secret>) -> Access<'a> {
        match token {
            Some(token) => Access::Token(token),
            None if self.exposed() => Access::Nobody,
            None => Access::Open,
        }
    }

    /// Whether `address` is a proxy whose word on the client's address is taken.
    pub fn trusts_proxy(&self, address: IpAddr) -> bool {
        self.proxy.trusted.iter().any(|block| block.contains(address))
    }
}
