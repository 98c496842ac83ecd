use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use evenkeel::{Backend, Remote};
use evenkeel_hub::config::{Config, Sources};
use evenkeel_hub::server::{Drained, Service};

use super::{Canary, Http, Response, Sse, Ws, app_key, eventually, unix_seconds};

/// The token of the console and the metrics.
pub(crate) const TOKEN: &str = "a token that nobody can guess";

/// The configuration of most tests: two applications and a disabled one. `top` is put at the top of the file, `rest`
/// behind it; `app` into the table of the first application.
pub(crate) fn config(top: &str, app: &str, rest: &str) -> String {
    format!(
        "listen = ['127.0.0.1:0']\nconsole_token = '{TOKEN}'\nmetrics_token = '{TOKEN}'\n{top}\n\
         [log]\nlevel = 'error'\n{rest}\n\
         [[apps]]\nid = '1'\nkey = 'key-a'\nsecret = 'secret-a'\nclient_events = true\n{app}\n\
         [[apps]]\nid = '2'\nkey = 'key-b'\nsecret = 'secret-b'\nclient_events = true\n\
         [[apps]]\nid = '3'\nkey = 'key-off'\nsecret = 'secret-off'\nenabled = false\n"
    )
}

/// A server on loops of its own.
pub(crate) struct Hub {
    pub(crate) addr: SocketAddr,
    service: Option<Service>,
    /// Sources that the loops have without any connection.
    at_rest: usize,
}

/// What the loops hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    connections: usize,
    sources: usize,
    tasks: usize,
    panics: u64,
}

/// How many loops a server of the tests has: what is asked for, or two, so that commands and effects cross. The variable is
/// not named as those are that configure a hub.
fn loops() -> u32 {
    std::env::var("EVENKEEL_TEST_LOOPS").map_or(2, |loops| loops.parse().unwrap())
}

impl Hub {
    /// A server with the usual configuration.
    pub(crate) fn start(backend: Backend) -> Hub {
        Hub::with(backend, &config("", "", ""))
    }

    pub(crate) fn with(backend: Backend, toml: &str) -> Hub {
        let config = Config::load(&Sources { file: Some(("hub.toml", toml)), ..Sources::default() })
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        Hub::from_config(backend, config)
    }

    pub(crate) fn from_config(backend: Backend, mut config: Config) -> Hub {
        config.server.backend = backend.name().to_owned();
        if config.server.loops == 0 {
            config.server.loops = loops();
        }
        let service = Service::start(config).unwrap();
        let addr = service.addresses()[0];
        let mut hub = Hub { addr, service: Some(service), at_rest: 0 };
        hub.at_rest = hub.held().sources;
        hub
    }

    fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    fn held(&self) -> Held {
        let mut held = Held { connections: self.service().connections(), ..Held::default() };
        for remote in self.service().remotes() {
            let (answer, answers) = mpsc::channel();
            let tell = move |handle: &evenkeel::Handle| answer.send(handle.stats()).unwrap();
            remote.run(tell).unwrap();
            let stats = answers.recv_timeout(super::PATIENCE).expect("the loop answers");
            held.sources += stats.sources;
            held.tasks += stats.tasks;
            held.panics += stats.panics;
        }
        held
    }

    /// Connections that the server counts.
    pub(crate) fn connections(&self) -> usize {
        self.held().connections
    }

    /// Waits until the server holds nothing of any client.
    pub(crate) fn comes_to_rest(&self) {
        let rest = Held { sources: self.at_rest, ..Held::default() };
        let mut last = None;
        let end = std::time::Instant::now() + super::PATIENCE;
        while last.as_ref() != Some(&rest) {
            assert!(std::time::Instant::now() < end, "the server still holds {last:?}, at rest {rest:?}");
            std::thread::park_timeout(Duration::from_millis(5));
            last = Some(self.held());
        }
    }

    /// Begins to drain; the outcome comes from the channel.
    pub(crate) fn drain(&mut self, deadline: Duration) -> mpsc::Receiver<Drained> {
        let (outcome, outcomes) = mpsc::channel();
        // The listeners' sources go.
        self.at_rest -= self.service().addresses().len();
        let answer = self.service().drain(deadline).unwrap();
        std::thread::spawn(move || outcome.send(answer.wait().unwrap()));
        outcomes
    }

    // ---- loops ----

    pub(crate) fn remote(&self, index: usize) -> &Remote {
        &self.service().remotes()[index]
    }

    /// What a loop says of itself.
    pub(crate) fn stats(&self, index: usize) -> evenkeel::LoopStats {
        let (answer, answers) = mpsc::channel();
        self.remote(index).run(move |handle| answer.send(handle.stats()).unwrap()).unwrap();
        answers.recv_timeout(super::PATIENCE).expect("the loop answers")
    }

    /// Keeps a loop from doing anything, until what this returns is dropped.
    pub(crate) fn block(&self, index: usize) -> mpsc::Sender<()> {
        let (until, released) = mpsc::channel::<()>();
        let (answer, answers) = mpsc::channel();
        let block = move |_: &evenkeel::Handle| {
            answer.send(()).unwrap();
            // Its end is that the sender is gone.
            let _ = released.recv();
        };
        self.remote(index).run(block).unwrap();
        answers.recv_timeout(super::PATIENCE).expect("the loop blocks");
        until
    }

    /// A connection to one of the loops, while nobody else comes or goes.
    pub(crate) fn on_loop(&self, index: usize) -> Http {
        let loops = self.service().loops();
        let mut others = Vec::new();
        loop {
            let before: Vec<_> = (0..loops).map(|index| self.stats(index).sources).collect();
            let http = self.http();
            let mut at = None;
            eventually("it is accepted", || {
                at = (0..loops).find(|index| self.stats(*index).sources > before[*index]);
                at.is_some()
            });
            if at == Some(index) {
                let all = 1 + before.iter().sum::<usize>() - others.len();
                drop(others);
                eventually("the others are gone", || {
                    (0..loops).map(|index| self.stats(index).sources).sum::<usize>() == all
                });
                return http;
            }
            others.push(http);
        }
    }

    pub(crate) fn ws_on_loop(&self, index: usize) -> Ws {
        Ws::on(self.on_loop(index), "/app/key-a?protocol=7", "")
    }

    // ---- clients ----

    /// A WebSocket of the first application.
    pub(crate) fn ws(&self) -> Ws {
        Ws::open(self.addr, "key-a")
    }

    pub(crate) fn http(&self) -> Http {
        Http::connect(self.addr)
    }

    pub(crate) fn sse(&self, query: &str) -> Sse {
        Sse::open(self.addr, &format!("/sse/key-a?{query}"), "")
    }

    /// A client that behaves, to be asked at the end whether all is well.
    pub(crate) fn canary(&self) -> Canary {
        Canary::new(self.addr)
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Response {
        let mut http = self.http();
        http.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"));
        let response = http.response();
        http.ends();
        response
    }

    /// A sample of the metrics, 0 if there is none yet.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    pub(crate) fn refusals(&self, reason: &str) -> u64 {
        self.metric(&format!("evenkeel_hub_refusals_total{{reason=\"{reason}\"}}"))
    }

    pub(crate) fn app_refusals(&self, reason: &str) -> u64 {
        self.metric(&format!("evenkeel_hub_app_refusals_total{{app=\"1\",reason=\"{reason}\"}}"))
    }

    /// Waits until a refusal was counted so often.
    pub(crate) fn refused(&self, reason: &str, times: u64) {
        eventually(&format!("{times} refusals for {reason}"), || self.refusals(reason) == times);
    }

    pub(crate) fn app_refused(&self, reason: &str, times: u64) {
        eventually(&format!("{times} refusals for {reason}"), || self.app_refusals(reason) == times);
    }

    /// Publishes one event of the first application; its status and body.
    pub(crate) fn publish(&self, channel: &str, data: &str) -> Response {
        let mut http = self.http();
        http.send_api("POST", "/apps/1/events", &event(channel, data));
        http.response()
    }
}

/// The body of a publish request.
pub(crate) fn event(channel: &str, data: &str) -> String {
    format!(
        r#"{{"name":"news","channel":{},"data":{}}}"#,
        serde_json::to_string(channel).unwrap(),
        serde_json::to_string(data).unwrap()
    )
}

/// A path of the first application's HTTP API with the query that signs a request.
pub(crate) fn signed(method: &str, path: &str, body: &str) -> String {
    format!("{path}?{}", app_key().sign_request(method, path, &[], body.as_bytes(), unix_seconds()))
}

impl Drop for Hub {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.comes_to_rest();
        }
        let ended = self.service.take().unwrap().stop();
        if !std::thread::panicking() {
            ended.expect("the loops end, and none panics");
        }
    }
}
