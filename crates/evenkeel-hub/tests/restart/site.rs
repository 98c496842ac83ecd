//! A program that is replaced, and what it tells its manager and its log.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel::Backend;
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, test_kill_process, waitpid,
};

use crate::support::{Canary, Http, Response, Sse, Ws, config, event};

pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_evenkeel-hub");
/// How long a test waits for a process. It is never waited out but in a failure.
const LONG: Duration = Duration::from_secs(60);

/// A folder of its own with the program and its configuration, and the processes that come one after another. All are
/// killed when it is dropped.
pub(super) struct Site {
    pub(super) addr: SocketAddr,
    /// The process that serves.
    pub(super) main: Pid,
    dir: PathBuf,
    manager: UnixDatagram,
    log: Arc<Mutex<Vec<String>>>,
    all: Vec<Pid>,
    replaced: usize,
}

/// A configuration: `top` and `app` as in [`config`].
pub(super) fn settings(backend: Backend, top: &str, app: &str) -> String {
    let top = format!("backend = '{}'\n{top}", backend.name());
    config(&top, app, "").replace("level = 'error'", "level = 'info'")
}

impl Site {
    pub(super) fn start(backend: Backend, top: &str) -> Site {
        Site::configured(&settings(backend, top, ""))
    }

    pub(super) fn configured(toml: &str) -> Site {
        Site::launched(toml, None, true)
    }

    /// With a socket that a manager has opened, at an address that the configuration has, too, or does not.
    pub(super) fn activated(backend: Backend, socket: TcpListener, configured: bool) -> Site {
        let addr = socket.local_addr().unwrap();
        let mut toml = settings(backend, "drain_deadline_seconds = 0\nloops = 2", "");
        if configured {
            toml = toml.replace("127.0.0.1:0", &addr.to_string());
        }
        let mut site = Site::launched(&toml, Some(socket), true);
        site.addr = addr;
        site
    }

    /// Starts it; if nobody is `listening` to what it prints, the pipe is closed once it has said where it is.
    pub(super) fn launched(toml: &str, socket: Option<TcpListener>, listening: bool) -> Site {
        static SITES: AtomicU32 = AtomicU32::new(0);
        // Whoever loses the process that has started it is a child of this one.
        set_child_subreaper(Some(getpid())).unwrap();
        let name = format!("restart-{}-{}", std::process::id(), SITES.fetch_add(1, Ordering::Relaxed));
        // Beside the program, so that it can be linked and need not be copied.
        let dir = Path::new(PROGRAM).with_file_name(&name);
        std::fs::create_dir(&dir).unwrap();
        let manager =
            UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(format!("evenkeel-hub-{name}")).unwrap());
        let manager = manager.unwrap();
        manager.set_read_timeout(Some(LONG)).unwrap();
        std::fs::hard_link(PROGRAM, dir.join("hub")).unwrap();
        std::fs::write(dir.join("hub.toml"), toml).unwrap();
        let mut command = match socket {
            Some(socket) => with_socket(&dir.join("hub"), socket),
            None => Command::new(dir.join("hub")),
        };
        command.arg("--config").arg(dir.join("hub.toml"));
        command.env("NOTIFY_SOCKET", format!("@evenkeel-hub-{name}"));
        // The tests' own variables, which are no options.
        let own =
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EVENKEEL_HUB_TEST_"));
        own.for_each(|(name, _)| _ = command.env_remove(name));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let main = Pid::from_child(&child);
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, to) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| to.lock().unwrap().push(line))
        });
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = printed.next().unwrap_or_else(|| {
            let status = child.wait().unwrap();
            panic!("{status} instead of saying where it listens; the log: {:#?}", log.lock().unwrap())
        });
        let first = first.unwrap();
        let addr = first.strip_prefix("listening on http://").and_then(|addr| addr.parse().ok());
        if listening {
            std::thread::spawn(move || printed.for_each(drop));
        }
        let site = Site { addr: addr.expect(&first), main, dir, manager, log, all: vec![main], replaced: 0 };
        assert_eq!(site.told(), "READY=1");
        site
    }

    // ---- what it is made of ----

    pub(super) fn configure(&self, toml: &str) {
        let (new, place) = (self.dir.join("new.toml"), self.dir.join("hub.toml"));
        std::fs::write(&new, toml).unwrap();
        std::fs::rename(new, place).unwrap();
    }

    /// A configuration that is never read to its end until somebody writes it: who starts waits. Its path.
    pub(super) fn hold_the_configuration(&self) -> PathBuf {
        let (new, place) = (self.dir.join("pipe"), self.dir.join("hub.toml"));
        mkfifoat(CWD, &new, Mode::RUSR | Mode::WUSR).unwrap();
        std::fs::rename(new, &place).unwrap();
        place
    }

    /// Puts another program in the place of this one; none: this one again.
    pub(super) fn put_program(&self, other: Option<&str>) {
        let (new, place) = (self.dir.join("new"), self.dir.join("hub"));
        match other {
            Some(other) => std::os::unix::fs::symlink(other, &new).unwrap(),
            None => std::fs::hard_link(PROGRAM, &new).unwrap(),
        }
        std::fs::rename(new, place).unwrap();
    }

    pub(super) fn remove_program(&self) {
        std::fs::remove_file(self.dir.join("hub")).unwrap();
    }

    // ---- processes ----

    pub(super) fn signal(&self, pid: Pid, signal: Signal) {
        kill_process(pid, signal).unwrap();
    }

    pub(super) fn ask(&self) {
        self.signal(self.main, Signal::USR2);
    }

    /// Waits for a process to end; its exit status, none if it was killed.
    pub(super) fn ended(&mut self, pid: Pid) -> Option<i32> {
        let mut status = None;
        eventually_long(&format!("process {pid:?} ends; the log: {:#?}", self.log.lock().unwrap()), || {
            // An orphan is this process's child only when its own parent has ended.
            status = waitpid(Some(pid), WaitOptions::NOHANG).ok().flatten();
            status.is_some()
        });
        self.all.retain(|other| *other != pid);
        status.unwrap().1.exit_status()
    }

    /// The next thing that the manager is told.
    pub(super) fn told(&self) -> String {
        let mut message = [0; 256];
        let len = self.manager.recv(&mut message).unwrap_or_else(|e| panic!("{e}: {:#?}", self.log.lock()));
        String::from_utf8(message[..len].to_vec()).unwrap()
    }

    /// Has the program replaced and waits until the new process serves. Returns the old one.
    pub(super) fn replace(&mut self) -> Pid {
        self.ask();
        self.is_replaced()
    }

    /// Waits until the new process serves. Returns the old one.
    pub(super) fn is_replaced(&mut self) -> Pid {
        // By two processes, so in any order.
        let both = [self.told(), self.told()];
        let ready = both.iter().any(|told| told == "READY=1");
        let new = both.iter().find_map(|told| told.strip_prefix("MAINPID="));
        let (true, Some(new)) = (ready, new) else { panic!("{both:?}") };
        let new = Pid::from_raw(new.parse().unwrap()).unwrap();
        self.all.push(new);
        // Until then the old one may still accept somebody.
        self.replaced += 1;
        self.logs(&["INFO replaced "], self.replaced);
        std::mem::replace(&mut self.main, new)
    }

    /// As [`replace`](Self::replace), and waits until the old process has ended with success, and the new one knows, which
    /// may be replaced then.
    pub(super) fn replace_wholly(&mut self) {
        let old = self.replace();
        assert_eq!(self.ended(old), Some(0), "{:#?}", self.log.lock().unwrap());
        self.logs(&["INFO the process before is gone "], self.replaced);
    }

    /// Waits for the process that the one that serves has started, and does not know to serve yet.
    pub(super) fn starting(&self) -> Pid {
        let mut found = None;
        eventually_long("a new process is started", || {
            found = children(self.main).pop();
            found.is_some()
        });
        found.unwrap()
    }

    pub(super) fn is_gone(&self, pid: Pid) {
        eventually_long("it is gone", || test_kill_process(pid).is_err());
    }

    /// Waits until a line of the log has all of these so often, counted from the beginning.
    pub(super) fn logs(&self, parts: &[&str], times: usize) {
        eventually_long(&format!("{parts:?} in the log"), || {
            let log = self.log.lock().unwrap();
            log.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count() >= times
        });
    }

    pub(super) fn said(&self, part: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(part))
    }

    // ---- clients ----

    pub(super) fn ws(&self) -> Ws {
        Ws::open(self.addr, "key-a")
    }

    pub(super) fn http(&self) -> Http {
        Http::connect(self.addr)
    }

    pub(super) fn sse(&self, fields: &str) -> Sse {
        Sse::open(self.addr, "/sse/key-a?channel=c", fields)
    }

    pub(super) fn canary(&self) -> Canary {
        Canary::new(self.addr)
    }

    pub(super) fn publish(&self, channel: &str, data: &str) -> Response {
        self.http().api("POST", "/apps/1/events", &event(channel, data))
    }

    /// A member of the room.
    pub(super) fn joins(&self, user: &str) -> (Ws, String) {
        let mut ws = self.ws();
        let data = serde_json::json!({ "user_id": user, "user_info": {} }).to_string();
        let answer = ws.subscribe_as("presence-room", Some(&data));
        (ws, answer["data"].as_str().unwrap().to_owned())
    }
}

/// A command with a listening socket as descriptor 3, as a manager starts it: a shell puts it there, and knows the number
/// of the process that it becomes.
pub(super) fn with_socket(program: &Path, socket: TcpListener) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$@\"", "sh"]).arg(program);
    shell.env("LISTEN_FDS", "1").stdin(OwnedFd::from(socket));
    shell
}

/// As [`eventually`](crate::support::eventually), for processes: they start and end on a machine that does much else.
fn eventually_long(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < end, "never came true: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The processes that a process has started and not reaped.
fn children(of: Pid) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", of.as_raw_nonzero()));
    let mut all = Vec::new();
    for task in tasks.into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
    }
    all
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of {:?}: {:#?}", self.dir, self.log.lock());
        }
        let mut all = std::mem::take(&mut self.all);
        all.extend(all.clone().into_iter().flat_map(children));
        for pid in &all {
            let _ = kill_process(*pid, Signal::KILL);
        }
        for pid in all {
            // Each becomes this process's child once its parent is gone, unless that has reaped it.
            while test_kill_process(pid).is_ok() {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
