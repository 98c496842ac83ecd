//! The hub as a program: what it prints, how it stops, and a process that runs out of descriptors.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use evenkeel::{Backend, EventLoop};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Canary, End, Http, Ws, config, eventually, on_each_backend, on_every_backend, read_to_end,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_evenkeel-hub");

/// A running hub, killed when it is dropped.
struct Program {
    child: Child,
    addr: SocketAddr,
    printed: Vec<String>,
}

/// A configuration file that is removed again.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("evenkeel-hub-test-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What runs here if this one is asked for: io_uring may be refused to the tests, too.
fn runs(backend: Backend) -> Backend {
    EventLoop::builder().backend(backend).on_fallback(|_| {}).build().unwrap().handle().backend()
}

impl Program {
    fn start(mut command: Command) -> Program {
        command.stderr(Stdio::null());
        Program::start_with_log(command)
    }

    /// What it logs goes where the command says.
    fn start_with_log(mut command: Command) -> Program {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (mut printed, mut lines) = (Vec::new(), BufReader::new(child.stdout.take().unwrap()).lines());
        while printed.last().is_none_or(|line: &String| !line.starts_with("backend")) {
            printed.push(lines.next().expect("it says what it does").unwrap());
        }
        let addr = printed[0].strip_prefix("listening on http://").and_then(|addr| addr.parse().ok());
        Program { child, addr: addr.unwrap_or_else(|| panic!("{printed:?}")), printed }
    }

    /// Without a configuration but this.
    fn plain(backend: Backend, more: &[&str]) -> Program {
        let mut command = Command::new(PROGRAM);
        command.args(["--listen", "127.0.0.1:0", "--backend", backend.name()]).args(more);
        Program::start(command)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exits(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    fn metrics(&self, name: &str) -> u64 {
        let text = Http::connect(self.addr).get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_says_where_everything_is_and_which_backend_runs() {
    on_every_backend(|backend| {
        let program = Program::plain(backend, &[]);
        let addr = program.addr;
        for line in [
            format!("console       http://{addr}/console"),
            format!("demo chat     http://{addr}/chat"),
            "demo app      id=1001 key=demo-key secret=demo-secret".to_owned(),
            format!("backend       {}", runs(backend)),
        ] {
            assert!(program.printed.contains(&line), "{line}: {:?}", program.printed);
        }
        assert_eq!(Http::connect(addr).get("/chat").status, 200);
        Ws::open(addr, "demo-key").is_served();
    });
}

#[test]
fn i28_sigterm_ends_it_with_success_once_all_are_told() {
    on_every_backend(|backend| {
        for signal in [Signal::TERM, Signal::INT] {
            let mut program = Program::plain(backend, &["--set", "drain_deadline_seconds=2"]);
            let mut clients: Vec<_> = (0..4).map(|_| Ws::open(program.addr, "demo-key")).collect();
            let mut kept = Http::connect(program.addr);
            assert_eq!(kept.get("/health").status, 200);
            program.signal(signal);
            clients.iter_mut().for_each(|ws| ws.closes(4200));
            kept.ends();
            assert_eq!(program.exits().code(), Some(0));
            assert!(TcpStream::connect(program.addr).is_err());
        }
    });
}

#[test]
fn i28_a_second_signal_ends_it_at_once_and_says_so() {
    on_every_backend(|backend| {
        let mut program = Program::plain(backend, &["--set", "drain_deadline_seconds=600"]);
        let mut clients: Vec<_> = (0..4).map(|_| Ws::open(program.addr, "demo-key")).collect();
        program.signal(Signal::TERM);
        // The first is closed at once: the signal was heard.
        eventually("the drain has begun", || TcpStream::connect(program.addr).is_err());
        program.signal(Signal::TERM);
        assert_eq!(program.exits().code(), Some(3));
        for ws in &mut clients {
            let _ = read_to_end(&mut ws.stream);
        }
        let mut program = Program::plain(backend, &["--set", "drain_deadline_seconds=1"]);
        let mut unfinished = Http::connect(program.addr);
        assert_eq!(unfinished.get("/health").status, 200);
        unfinished.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
        eventually("it is served", || program.metrics("evenkeel_hub_http_connections") == 2);
        program.signal(Signal::TERM);
        assert_eq!(program.exits().code(), Some(3), "the deadline passed");
    });
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn i50_what_it_cannot_do_it_says_and_fails() {
    let good = File::new("good", &config("", "", ""));
    let (status, out, _) = run(&["--check", good.0.to_str().unwrap()]);
    assert_eq!(status, Some(0));
    assert!(out.contains("The configuration is valid.") && !out.contains("secret-a"), "{out}");
    let bad = File::new(
        "bad",
        "listen = ['127.0.0.1:0']\n[limits]\nmax_conections = 5\n[sse]\nheartbeat_seconds = 0\n",
    );
    let (status, _, err) = run(&["--check", bad.0.to_str().unwrap()]);
    assert_eq!(status, Some(1));
    assert!(
        err.contains("did you mean limits.max_connections") && err.contains("heartbeat_seconds"),
        "{err}"
    );
    let (status, _, err) = run(&["--config", bad.0.to_str().unwrap()]);
    assert!(status == Some(1) && err.contains("max_conections"), "{err}");
    let (status, _, err) = run(&["--check", "/nonexistent/hub.toml"]);
    assert!(status == Some(1) && err.contains("/nonexistent/hub.toml"), "{err}");
    assert_eq!(run(&["--nonsense"]).0, Some(2));
    let (status, _, err) = run(&["--listen", "127.0.0.1:0", "--backend", "abacus"]);
    assert!(status == Some(1) && err.contains("abacus") && err.contains("epoll"), "{err}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (status, out, err) = run(&["--listen", &addr]);
    assert!(status == Some(1) && err.contains(&addr) && out.is_empty(), "{out} {err}");
}

/// Starts it with few descriptors, which it cannot raise.
fn with_descriptors(n: u32, backend: Backend, more: &[&str]) -> Program {
    let mut command = Command::new("sh");
    let script = format!("ulimit -S -n {n} && ulimit -H -n {n} && exec \"$@\"");
    command
        .args(["-c", &script, "sh", PROGRAM, "--listen", "127.0.0.1:0", "--backend", backend.name()])
        .args(more);
    Program::start(command)
}

#[test]
fn i27_a_process_without_descriptors_sheds_and_recovers() {
    on_each_backend(|backend| {
        // The server's own limit is set above what the process may have, so that the kernel's is met.
        let program = with_descriptors(48, backend, &["--set", "limits.max_connections=1000"]);
        let mut ws = Ws::open(program.addr, "demo-key");
        ws.is_served();
        let before = program.descriptors();
        let mut crowd: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(program.addr).unwrap()).collect();
        eventually("descriptors have run out", || program.descriptors() >= 46);
        // Those beyond are reset and not kept waiting, and who is there is served.
        let last = crowd.last_mut().unwrap();
        last.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        assert_eq!(read_to_end(last), (Vec::new(), End::Reset));
        ws.is_served();
        drop(crowd);
        eventually("it has descriptors again", || program.descriptors() <= before);
        assert_eq!(Http::connect(program.addr).get("/health").text(), "ok\n");
        assert!(program.metrics("evenkeel_hub_shed_total") > 0);
        assert!(program.metrics("evenkeel_hub_accept_errors_total") > 0);
        assert_eq!(program.metrics("evenkeel_hub_panics_total"), 0);
        ws.is_served();
        let mut program = program;
        drop(ws);
        program.signal(Signal::TERM);
        assert_eq!(program.exits().code(), Some(0));
    });
}

#[test]
fn i27_the_servers_own_limit_keeps_a_reserve_of_descriptors() {
    on_every_backend(|backend| {
        let program = with_descriptors(80, backend, &[]);
        let mut held: Vec<Http> = (0..16).map(|_| Http::connect(program.addr)).collect();
        held.iter_mut().for_each(|http| assert_eq!(http.get("/health").status, 200));
        let mut beyond = Http::connect(program.addr);
        let refused = beyond.response();
        assert_eq!((refused.status, refused.field("Retry-After")), (503, Some("1")));
        beyond.ends();
        assert_eq!(held[0].get("/health").status, 200);
    });
}

#[test]
fn i36_a_program_that_was_used_in_every_way_holds_as_many_descriptors_as_before() {
    on_every_backend(|backend| {
        let program = Program::plain(backend, &[]);
        assert_eq!(Http::connect(program.addr).get("/health").status, 200);
        eventually("it is at rest", || program.metrics("evenkeel_hub_http_connections") == 1);
        std::thread::park_timeout(Duration::from_millis(1));
        let mut before = 0;
        eventually("the number stands", || {
            let last = std::mem::replace(&mut before, program.descriptors());
            last == before
        });
        for n in 0..40 {
            let mut http = Http::connect(program.addr);
            match n % 5 {
                0 => drop(Ws::open(program.addr, "demo-key")),
                1 => drop(crate::support::Sse::open(program.addr, "/sse/demo-key?channel=c", "")),
                2 => Ws::is_refused(program.addr, "/app/unknown", 4001),
                3 => drop(http.get("/metrics")),
                _ => http.send("GET /"),
            }
        }
        eventually("all is given back", || program.descriptors() <= before);
        assert_eq!(program.metrics("evenkeel_hub_panics_total"), 0);
    });
}

#[test]
fn a_path_prefix_stands_before_everything() {
    on_every_backend(|backend| {
        let program = {
            let mut command = Command::new(PROGRAM);
            command.args([
                "--listen",
                "127.0.0.1:0",
                "--set",
                "path_prefix=/rt",
                "--backend",
                backend.name(),
            ]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let mut line = String::new();
            let mut out = BufReader::new(child.stdout.take().unwrap());
            out.read_line(&mut line).unwrap();
            std::thread::spawn(move || drop(out.read_to_end(&mut Vec::new())));
            let addr = line.trim().strip_prefix("listening on http://").and_then(|l| l.strip_suffix("/rt"));
            let addr = addr.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
            Program { child, addr, printed: Vec::new() }
        };
        let mut http = Http::connect(program.addr);
        assert_eq!(http.get("/rt/health").status, 200);
        assert_eq!(http.get("/health").status, 404);
        assert_eq!(http.get("/rtx/health").status, 404);
        assert_eq!(http.get("/rt/console").status, 200);
        let bare = http.get("/rt");
        assert_eq!((bare.status, bare.field("Location")), (308, Some("/rt/console")));
        Ws::on(Http::connect(program.addr), "/rt/app/demo-key?protocol=7", "").is_served();
        assert_eq!(Ws::upgraded(Http::connect(program.addr), "/app/demo-key", "").err().unwrap().status, 404);
    });
}

#[test]
fn the_environment_chooses_the_backend_when_the_configuration_does_not() {
    for backend in Backend::ALL {
        let mut command = Command::new(PROGRAM);
        command.args(["--listen", "127.0.0.1:0"]).env("EVENKEEL_BACKEND", backend.name());
        let program = Program::start(command);
        assert_eq!(program.printed.last().unwrap(), &format!("backend       {}", runs(*backend)));
    }
}

/// Starts a hub in this environment. Returns its log's first line and what it exports about its backend.
fn told_of_the_backend(environment: &[(&str, &str)]) -> (String, String) {
    let mut command = Command::new(PROGRAM);
    command
        .args(["--listen", "127.0.0.1:0"])
        .env_remove("EVENKEEL_BACKEND")
        .envs(environment.iter().copied());
    command.stderr(Stdio::piped());
    let mut program = Program::start_with_log(command);
    let log = BufReader::new(program.child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    let text = Http::connect(program.addr).get("/metrics").text();
    let info = text.lines().find_map(|line| line.strip_prefix("evenkeel_hub_backend_info"));
    (log, info.unwrap().to_owned())
}

#[test]
fn the_log_and_the_metrics_tell_which_backend_runs_and_why() {
    let (log, info) = told_of_the_backend(&[("EVENKEEL_BACKEND", "poll")]);
    assert!(log.contains(" INFO event loop backend=poll loops="), "{log}");
    assert_eq!(info, r#"{backend="poll",fallback=""} 1"#);
    // Whatever the kernel has, this is not enough for `auto`.
    let (log, info) = told_of_the_backend(&[("EVENKEEL_IO_URING_WITHOUT", "defer-taskrun")]);
    assert!(
        log.contains(" INFO event loop: epoll runs instead of io_uring backend=epoll asked=auto "),
        "{log}"
    );
    assert!(log.contains(" reason=") && log.contains(" help="), "{log}");
    assert!(info.starts_with(r#"{backend="epoll",fallback=""#) && !info.contains(r#"fallback="""#), "{info}");
    // By name it runs, or what refuses it is worth a warning.
    let (log, info) = told_of_the_backend(&[("EVENKEEL_BACKEND", "io_uring")]);
    if runs(Backend::IoUring) == Backend::IoUring {
        assert!(log.contains(" INFO event loop backend=io_uring loops="), "{log}");
        assert_eq!(info, r#"{backend="io_uring",fallback=""} 1"#);
    } else {
        assert!(log.contains(" WARN event loop: epoll runs instead of io_uring backend=epoll"), "{log}");
        assert!(!info.contains(r#"fallback="""#), "{info}");
    }
}

#[test]
fn a_configured_program_serves_its_applications() {
    let file = File::new("apps", &config("", "", ""));
    let mut command = Command::new(PROGRAM);
    command.args(["--config", file.0.to_str().unwrap()]);
    let program = Program::start(command);
    assert!(program.printed.iter().all(|line| !line.contains("demo")), "{:?}", program.printed);
    Canary::new(program.addr).sings();
}
