use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel::{Backend, EventLoop, Remote};
use evenkeel_hub::config::{Config, Sources};
use evenkeel_hub::server::{Drained, Server};

use super::{Canary, Http, Response, Sse, Ws, app_key, eventually, unix_seconds};

thread_local! {
    static SERVER: RefCell<Option<Rc<Server>>> = const { RefCell::new(None) };
}

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

/// A server in a thread of its own.
pub(crate) struct Hub {
    pub(crate) addr: SocketAddr,
    remote: Remote,
    thread: Option<JoinHandle<()>>,
    /// Sources that the loop has without any connection.
    at_rest: usize,
}

/// What the loop holds.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    connections: usize,
    sources: usize,
    tasks: usize,
    panics: u64,
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

    pub(crate) fn from_config(backend: Backend, config: Config) -> Hub {
        let (started, starts) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut events = EventLoop::builder().backend(backend).build().unwrap();
            let server = Server::start(&events.handle(), config).unwrap();
            let sources = events.handle().stats().sources;
            started.send((server.addresses()[0], events.handle().remote(), sources)).unwrap();
            SERVER.set(Some(server));
            events.run().unwrap();
            SERVER.set(None);
        });
        let (addr, remote, at_rest) = starts.recv().unwrap();
        Hub { addr, remote, thread: Some(thread), at_rest }
    }

    /// Runs a call on the server's thread.
    fn ask<R: Send + 'static>(
        &self,
        call: impl FnOnce(&evenkeel::Handle, &Rc<Server>) -> R + Send + 'static,
    ) -> R {
        let (answer, answers) = mpsc::channel();
        let call = move |handle: &evenkeel::Handle| {
            let server = SERVER.with_borrow(|server| server.clone()).unwrap();
            let _ = answer.send(call(handle, &server));
        };
        self.remote.run(call).unwrap();
        answers.recv_timeout(super::PATIENCE).expect("the loop answers")
    }

    fn held(&self) -> Held {
        self.ask(|handle, server| {
            let text = format!("{server:?}");
            let count = text.split("value: ").nth(1).and_then(|rest| rest.split([' ', ',', '}']).next());
            let stats = handle.stats();
            Held {
                connections: count.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{text}")),
                sources: stats.sources,
                tasks: stats.tasks,
                panics: stats.panics,
            }
        })
    }

    /// Connections that the server counts.
    pub(crate) fn connections(&self) -> usize {
        self.held().connections
    }

    /// Waits until the server holds nothing of any client.
    pub(crate) fn comes_to_rest(&self) {
        let rest = Held { connections: 0, sources: self.at_rest, tasks: 0, panics: 0 };
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
        self.at_rest = 0;
        self.ask(move |handle, server| {
            let server = server.clone();
            handle.spawn(async move {
                let _ = outcome.send(server.drain(deadline).await);
            });
        });
        outcomes
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
        let _ = self.remote.run(evenkeel::Handle::stop);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().expect("the server's thread does not panic");
        }
    }
}
