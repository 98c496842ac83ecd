//! Where io_uring is refused, epoll keeps the contract in its place, and says so. Each test has a process to itself, under
//! a filter of system calls like a container's where it needs one.

use std::ffi::c_ulong;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use evenkeel::{Backend, Builder, EventLoop, Fallback};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::runs;

/// Marks the process of a test, and says which answer the kernel gives it when it asks for a ring.
const ALONE: &str = "EVENKEEL_FALLBACK_ALONE";

/// Rings of fewer entries are made to try what io_uring can do, the others for loops.
const FOR_A_LOOP: u32 = 64;

/// What is refused, and how: rings to try, and rings for loops.
#[derive(Clone, Copy)]
struct Filter {
    tries: bool,
    loops: bool,
    errno: i32,
}

impl Filter {
    /// Puts the calling thread, and what it becomes or starts, under this filter, for good.
    fn apply(self) -> std::io::Result<()> {
        let call = libc::SYS_io_uring_setup as u32;
        let answer = |refused: bool| {
            if refused { libc::SECCOMP_RET_ERRNO | self.errno as u32 } else { libc::SECCOMP_RET_ALLOW }
        };
        let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
        // The call's number is the first word of what a filter sees; its first argument begins at the 16th byte.
        let low = if cfg!(target_endian = "big") { 20 } else { 16 };
        let mut steps = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call, 0, 4),
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, low, 0, 0),
            step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, FOR_A_LOOP, 0, 1),
            step(libc::BPF_RET | libc::BPF_K, answer(self.loops), 0, 0),
            step(libc::BPF_RET | libc::BPF_K, answer(self.tries), 0, 0),
            step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
        ];
        let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        let (on, none): (c_ulong, c_ulong) = (1, 0);
        let mode = c_ulong::from(libc::SECCOMP_MODE_FILTER);
        // SAFETY: the filter outlives the second call, and both only restrict who calls them.
        let set = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, none, none, none) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) == 0
        };
        if set { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

/// This test program, under a filter that it cannot take off.
fn program(filter: Option<Filter>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env_remove("EVENKEEL_BACKEND").env_remove("EVENKEEL_IO_URING_WITHOUT");
    if let Some(filter) = filter {
        // SAFETY: after the fork it makes two system calls and neither allocates nor locks.
        unsafe { command.pre_exec(move || filter.apply()) };
    }
    command
}

/// Runs a test again, alone in a process.
fn again(test: &str, filter: Option<Filter>, environment: &[(&str, &str)]) -> Output {
    let mut command = program(filter);
    command.args([&format!("fallback::{test}"), "--exact", "--nocapture", "--test-threads=1"]);
    let errno = filter.map_or(0, |filter| filter.errno);
    command.env(ALONE, errno.to_string()).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}: {}\n{text}\n{errors}", output.status);
    assert!(text.contains("1 passed"), "{test} did not run in its process:\n{text}");
    output
}

/// The answer that this process gets, if it is one of a test's own.
fn alone() -> Option<i32> {
    std::env::var(ALONE).ok()?.parse().ok()
}

fn asked(backend: Backend) -> Builder {
    EventLoop::builder().backend(backend)
}

/// Whether io_uring is refused to the tests themselves.
fn refused_here() -> bool {
    runs(Backend::IoUring) != Backend::IoUring
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect()
}

const REFUSED: [Filter; 2] = [
    Filter { tries: true, loops: true, errno: libc::EPERM },
    Filter { tries: true, loops: true, errno: libc::ENOSYS },
];

#[test]
fn the_suite_passes_where_rings_are_refused() {
    for filter in REFUSED {
        // The simulated kernel refuses nothing.
        let tests = ["::io_uring", "--skip", "simulated::", "--test-threads=4"];
        let output = program(Some(filter)).args(tests).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        // That something was run, and all of it.
        let passed = text.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next());
        let ran: usize = passed.unwrap().parse().unwrap();
        assert!(ran > 100, "{text}");
        let told = lines(&output).iter().filter(|line| line.contains("epoll runs instead")).count();
        assert_eq!(told, 1, "{:#?}", lines(&output));
    }
}

#[test]
fn where_rings_are_refused_epoll_runs_and_one_line_says_why() {
    if let Some(errno) = alone() {
        return on_epoll_for(errno);
    }
    for filter in REFUSED {
        let test = "where_rings_are_refused_epoll_runs_and_one_line_says_why";
        let output = again(test, Some(filter), &[("EVENKEEL_BACKEND", "io_uring")]);
        let said = lines(&output);
        assert_eq!(said.len(), 1, "{said:#?}");
        let error = std::io::Error::from_raw_os_error(filter.errno).to_string();
        let helps = if filter.errno == libc::EPERM { "kernel.io_uring_disabled" } else { "Linux 5.19" };
        let whole = said[0].starts_with("evenkeel: epoll runs instead of io_uring: ");
        assert!(whole && said[0].contains(&error) && said[0].contains(helps), "{said:#?}");
    }
}

fn on_epoll_for(errno: i32) {
    let check = move |events: EventLoop, by_name: Backend| {
        let handle = events.handle();
        assert_eq!(handle.backend(), Backend::Epoll);
        let fallback = handle.fallback().unwrap();
        assert_eq!((fallback.asked(), fallback.wanted()), (by_name, Backend::IoUring));
        assert_eq!(fallback.reason().raw_os_error(), Some(errno));
    };
    // Auto says nothing: it has chosen.
    check(asked(Backend::Auto).on_fallback(|why| panic!("{why}")).build().unwrap(), Backend::Auto);
    check(asked(Backend::Auto).build().unwrap(), Backend::Auto);
    // One who listens is told of each loop, and standard error is not.
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = told.clone();
    let builder = asked(Backend::IoUring).on_fallback(move |why| list.lock().unwrap().push(why.to_string()));
    for _ in 0..2 {
        check(builder.clone().build().unwrap(), Backend::IoUring);
    }
    let told = told.lock().unwrap();
    assert!(told.len() == 2 && told[0] == told[1], "{told:?}");
    // By name, by the environment, and on other threads: one line for all of them.
    check(asked(Backend::IoUring).build().unwrap(), Backend::IoUring);
    check(EventLoop::new().unwrap(), Backend::IoUring);
    std::thread::spawn(move || check(EventLoop::new().unwrap(), Backend::IoUring)).join().unwrap();
    // Other interfaces were not refused anything.
    for backend in Backend::ALL.iter().filter(|backend| **backend != Backend::IoUring) {
        let handle = asked(*backend).build().unwrap().handle();
        assert!(handle.backend() == *backend && handle.fallback().is_none());
    }
}

#[test]
fn a_loop_that_is_refused_its_own_ring_falls_back_and_says_so() {
    if let Some(errno) = alone() {
        for backend in [Backend::Auto, Backend::IoUring] {
            let told: Arc<Mutex<Vec<Fallback>>> = Arc::default();
            let list = told.clone();
            let builder = asked(backend).on_fallback(move |why| list.lock().unwrap().push(why.clone()));
            let events = builder.build().unwrap();
            assert_eq!(events.handle().backend(), Backend::Epoll);
            let told = told.lock().unwrap();
            assert!(told.len() == 1 && told[0].asked() == backend, "{told:?}");
            assert_eq!(told[0].reason().raw_os_error(), Some(errno));
            assert!(told[0].help().contains("ulimit -l"), "{}", told[0]);
        }
        return;
    }
    if auto_takes_it() {
        let filter = Filter { tries: false, loops: true, errno: libc::ENOMEM };
        let test = "a_loop_that_is_refused_its_own_ring_falls_back_and_says_so";
        assert_eq!(lines(&again(test, Some(filter), &[])), [""; 0]);
    }
}

#[test]
fn io_uring_is_tried_once_in_a_process() {
    if alone().is_some() {
        let auto = runs(Backend::Auto);
        assert_eq!(runs(Backend::IoUring), Backend::IoUring);
        // A second try would find that there is none.
        Filter { tries: true, loops: false, errno: libc::EPERM }.apply().unwrap();
        assert_eq!((runs(Backend::Auto), runs(Backend::IoUring)), (auto, Backend::IoUring));
        let elsewhere = std::thread::spawn(move || runs(Backend::IoUring)).join().unwrap();
        assert_eq!(elsewhere, Backend::IoUring);
        return;
    }
    if !refused_here() {
        again("io_uring_is_tried_once_in_a_process", None, &[]);
    }
}

/// Whether this kernel has all that makes io_uring Auto's choice.
fn auto_takes_it() -> bool {
    let handle = asked(Backend::Auto).build().unwrap().handle();
    assert_eq!(handle.fallback().is_some(), handle.backend() == Backend::Epoll, "Auto tells why it is epoll");
    handle.backend() == Backend::IoUring
}

#[test]
fn auto_takes_epoll_in_silence_where_io_uring_would_not_pay() {
    if alone().is_some() {
        let handle = asked(Backend::Auto).on_fallback(|why| panic!("{why}")).build().unwrap().handle();
        assert_eq!(handle.backend(), Backend::Epoll);
        let fallback = handle.fallback().unwrap();
        assert_eq!((fallback.asked(), fallback.reason().kind()), (Backend::Auto, ErrorKind::Unsupported));
        // By name it runs all the same.
        let handle = asked(Backend::IoUring).build().unwrap().handle();
        assert!(handle.backend() == Backend::IoUring && handle.fallback().is_none());
        return;
    }
    if refused_here() {
        return;
    }
    for without in ["defer-taskrun", "multishot-recv", "quiet-sends,multishot-recv"] {
        let test = "auto_takes_epoll_in_silence_where_io_uring_would_not_pay";
        let output = again(test, None, &[("EVENKEEL_IO_URING_WITHOUT", without)]);
        assert_eq!(lines(&output), [""; 0]);
    }
}

#[test]
fn a_mistyped_variable_is_an_error_and_no_fallback() {
    if alone().is_some() {
        for backend in [Backend::Auto, Backend::IoUring, Backend::IoUring] {
            let error = asked(backend).build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.contains("there is no `defer-taskrum`") && text.contains("defer-taskrun"), "{text}");
        }
        // Who does not use it is not held up by it.
        asked(Backend::Epoll).build().unwrap();
        return;
    }
    let test = "a_mistyped_variable_is_an_error_and_no_fallback";
    let output = again(test, None, &[("EVENKEEL_IO_URING_WITHOUT", "quiet-sends,defer-taskrum")]);
    assert_eq!(lines(&output), [""; 0]);
}

#[test]
fn a_shortage_of_descriptors_is_an_error_as_on_epoll_and_passes() {
    if alone().is_some() {
        let old = getrlimit(Resource::Nofile);
        let next = rustix::io::dup(std::io::stdin()).unwrap().as_raw_fd() as u64;
        // Each loop gives its descriptors back before the next is made.
        let build = |backend: Backend| asked(backend).build().map(|events| events.handle().backend());
        for left in 0..8 {
            setrlimit(Resource::Nofile, Rlimit { current: Some(next + left), maximum: old.maximum }).unwrap();
            let (ring, epoll) = (build(Backend::IoUring), build(Backend::Epoll));
            match (ring, epoll) {
                (Ok(_), Ok(_)) => {}
                (Err(ring), Err(epoll)) => {
                    assert_eq!(ring.raw_os_error(), Some(libc::EMFILE));
                    assert_eq!(epoll.raw_os_error(), Some(libc::EMFILE));
                }
                other => panic!("with {left} descriptors: {other:?}"),
            }
        }
        setrlimit(Resource::Nofile, old).unwrap();
        // It was not taken for the kernel's last word.
        assert_eq!(build(Backend::IoUring).unwrap(), Backend::IoUring);
        return;
    }
    if !refused_here() {
        again("a_shortage_of_descriptors_is_an_error_as_on_epoll_and_passes", None, &[]);
    }
}
