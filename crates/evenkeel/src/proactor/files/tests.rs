//! Operations on files at each state that they can be in, over a ring of the test's own.

#![allow(clippy::unwrap_used)]

use std::ffi::CString;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use super::super::submit::Wait;
use super::super::uring::Completion;
use super::super::{Features, probe};
use super::*;
use crate::fs::{self, waiter};
use crate::sys::Real;
use crate::sys::ring::FILE_OPERATIONS;
use crate::{Backend, EventLoop};

fn features() -> Features {
    probe(&Real, "").unwrap()
}

/// A ring by itself, and a loop over another interface for what it tells of.
struct Bench {
    events: EventLoop,
    ring: Uring<Real>,
    file: PathBuf,
}

impl Bench {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("evenkeel-ring-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, "0123456789").unwrap();
        let events = EventLoop::builder().backend(Backend::Poll).build().unwrap();
        Bench { events, ring: Uring::new(Real, features()).unwrap(), file }
    }

    fn lp(&self) -> std::rc::Rc<Shared> {
        self.events.handle().shared
    }

    fn path(&self) -> CString {
        CString::new(self.file.to_str().unwrap()).unwrap()
    }

    fn open(&self) -> Arc<OpenFile> {
        Arc::new(OpenFile::new(std::fs::File::open(&self.file).unwrap().into()))
    }

    /// Has the ring take an operation, which must not complete by that.
    fn begin(&self, asked: FileOp) -> impl Future<Output = FileDone> + use<> {
        let (waiter, done) = waiter(&self.lp());
        assert!(self.ring.take_file_op(asked, waiter).is_ok(), "the ring has it");
        done
    }

    /// The next completion of an operation: its place and its result.
    fn completion(&self) -> (u32, i32) {
        for _ in 0..100 {
            while let Some(Completion { done, .. }) = self.ring.batch.borrow_mut().pop_front() {
                if Op::of(done.data) == Op::File {
                    return (Op::index(done.data), done.result);
                }
            }
            self.ring.submit(&self.lp(), Wait::For(Some(Duration::from_millis(100)))).unwrap();
        }
        panic!("nothing completes");
    }

    fn pass_on(&self, (place, result): (u32, i32)) {
        self.ring.file_done(&self.lp(), place, result);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !self.lp().ended.get() {
            self.ring.end_all(&self.lp());
        }
        let _ = std::fs::remove_file(&self.file);
    }
}

fn now(future: impl Future<Output = FileDone>) -> Option<FileDone> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

fn reading(fd: &Arc<OpenFile>) -> FileOp {
    FileOp::Read { fd: fd.clone(), into: Vec::with_capacity(4), most: 100, at: 3 }
}

#[test]
fn i09_all_that_is_lent_stays_until_the_completion() {
    let bench = Bench::new();
    let fd = bench.open();
    let done = bench.begin(reading(&fd));
    assert_eq!(Arc::strong_count(&fd), 2);
    drop(done);
    assert_eq!(Arc::strong_count(&fd), 2, "who waits is gone, and the operation is not");
    let completion = bench.completion();
    assert_eq!((Arc::strong_count(&fd), completion.1), (2, 4));
    bench.pass_on(completion);
    assert_eq!(Arc::strong_count(&fd), 1);
    assert!(bench.ring.files.borrow().is_empty());
}

#[test]
fn i10_what_nobody_waits_for_any_more_is_closed() {
    let bench = Bench::new();
    let open = || FileOp::Open { path: bench.path(), flags: OFlags::CLOEXEC, mode: Mode::empty() };
    let (abandoned, kept) = (bench.begin(open()), bench.begin(open()));
    drop(abandoned);
    for _ in 0..2 {
        bench.pass_on(bench.completion());
    }
    let Some(Ok(Output::Opened(fd))) = now(kept) else { panic!("it was not opened") };
    let link = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}"));
    assert_eq!(link(fd.as_raw_fd()).unwrap(), bench.file);
    let ours = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = ours.filter(|entry| {
        std::fs::read_link(entry.as_ref().unwrap().path()).ok().as_ref() == Some(&bench.file)
    });
    assert_eq!(open.count(), 1);
}

#[test]
fn an_interrupted_operation_is_asked_for_again() {
    let bench = Bench::new();
    let fd = bench.open();
    let mut done = pin!(bench.begin(reading(&fd)));
    for error in [4, 512, 513, 514, 516] {
        let (place, _) = bench.completion();
        bench.pass_on((place, -error));
        assert!(now(done.as_mut()).is_none());
        assert!(!bench.ring.files.borrow().is_empty());
    }
    bench.pass_on(bench.completion());
    assert!(matches!(now(done), Some(Ok(Output::Read(got))) if got == b"3456"));
}

#[test]
fn a_close_is_never_asked_for_again() {
    let bench = Bench::new();
    let done = bench.begin(FileOp::Close { fd: bench.open() });
    let (place, result) = bench.completion();
    assert_eq!(result, 0);
    bench.pass_on((place, -4));
    assert!(matches!(now(done), Some(Ok(Output::Done))));
    assert!(bench.ring.files.borrow().is_empty());
}

#[test]
fn closing_what_others_hold_is_done_but_not_at_once() {
    let bench = Bench::new();
    let fd = bench.open();
    let mut done = pin!(bench.begin(FileOp::Close { fd: fd.clone() }));
    assert!(now(done.as_mut()).is_none());
    bench.pass_on(bench.completion());
    assert!(matches!(now(done), Some(Ok(Output::Done))));
    assert_eq!(number(&fd), fd.as_fd().as_raw_fd());
    assert!(rustix::io::fcntl_getfd(&*fd).is_ok(), "it is still open");
}

#[test]
fn i17_what_the_ring_refuses_after_all_threads_perform() {
    for error in REFUSALS {
        let mut bench = Bench::new();
        let fd = bench.open();
        let done = bench.begin(reading(&fd));
        let (place, _) = bench.completion();
        bench.pass_on((place, -error));
        let done = bench.events.block_on(done).unwrap();
        assert!(matches!(done, Ok(Output::Read(got)) if got == b"3456"));
        assert_eq!(bench.events.handle().stats().file_ops_on_threads, 1);
    }
}

#[test]
fn what_has_no_positions_is_not_for_the_ring() {
    let bench = Bench::new();
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let counter = rustix::event::eventfd(1, rustix::event::EventfdFlags::empty()).unwrap();
    for fd in [OwnedFd::from(ours), counter, std::fs::File::open("/dev/zero").unwrap().into()] {
        let fd = Arc::new(OpenFile::new(fd));
        let (waiter, _done) = waiter(&bench.lp());
        assert!(bench.ring.take_file_op(reading(&fd), waiter).is_err());
    }
    assert!(bench.open().is_positioned());
}

#[test]
fn i16_the_end_cancels_what_blocks_and_frees_it() {
    let bench = Bench::new();
    let pipe = bench.file.with_extension("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let path = CString::new(pipe.to_str().unwrap()).unwrap();
    let open = || FileOp::Open { path: path.clone(), flags: OFlags::CLOEXEC, mode: Mode::empty() };
    let blocked: Vec<_> = (0..20).map(|_| bench.begin(open())).collect();
    // Behind them: the kernel's threads are all in a call, and these are not cancelled. They end one by one.
    let (numbers, closed): (Vec<_>, Vec<_>) = (0..200)
        .map(|_| {
            let fd = bench.open();
            (number(&fd), bench.begin(FileOp::Close { fd }))
        })
        .unzip();
    bench.ring.submit(&bench.lp(), Wait::No).unwrap();
    // One more that the kernel has not been told of.
    let unsubmitted = bench.begin(open());
    bench.lp().ended.set(true);
    bench.ring.end_all(&bench.lp());
    std::fs::remove_file(&pipe).unwrap();
    assert!(!bench.ring.leaked.get() && bench.ring.files.borrow().is_empty());
    for done in blocked.into_iter().chain([unsubmitted]) {
        let error = now(done).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }
    for (number, closed) in numbers.into_iter().zip(closed) {
        assert!(matches!(now(closed), Some(Ok(Output::Done))));
        let link = std::fs::read_link(format!("/proc/self/fd/{number}"));
        assert!(link.ok().as_ref() != Some(&bench.file), "it was closed");
    }
}

#[test]
fn i16_what_the_kernel_does_not_end_is_never_freed() {
    let bench = Bench::new();
    let fd = bench.open();
    let (waiter, done) = waiter(&bench.lp());
    let lent = Lent { what: What::Op(reading(&fd)), stat: MaybeUninit::uninit() };
    let mut lents = Lents::default();
    // An entry that is never handed over is one that never completes.
    let _entry = lents.lend(InFlight { lent: Box::new(lent), waiter, cancellable: true });
    drop(lents);
    assert_eq!(Arc::strong_count(&fd), 2, "its share of the file is with the kernel for ever");
    assert_eq!(now(done).unwrap().unwrap_err().kind(), io::ErrorKind::NotConnected);
}

/// What the loop's threads performed of everything that this module can ask for.
fn performed_by_threads(files: u128) -> (u64, u64) {
    let ring = Uring::new(Real, Features { files, ..features() }).unwrap();
    let mut events = EventLoop::over(Backend::IoUring, Box::new(ring));
    let bench = Bench::new();
    let path = bench.file.with_extension("folder");
    events
        .block_on(async {
            fs::create_dir(&path).await?;
            let (one, two) = (path.join("one"), path.join("two"));
            let file = fs::OpenOptions::new().read(true).write(true).create(true).open(&one).await?;
            assert_eq!(file.write_at(b"0123", 0).await?, 4);
            file.set_len(3).await?;
            file.sync_all().await?;
            assert_eq!(file.read_at(&mut [0; 8], 1).await?, 2);
            assert_eq!(file.metadata().await?.len(), 3);
            file.close().await?;
            fs::rename(&one, &two).await?;
            assert!(fs::metadata(&two).await?.is_file());
            fs::remove_file(&two).await?;
            fs::remove_dir(&path).await
        })
        .unwrap()
        .unwrap();
    let stats = events.handle().stats();
    (stats.file_ops_on_threads, stats.file_ops)
}

#[test]
fn i17_each_operation_that_the_ring_lacks_threads_perform() {
    let has = features().files;
    let lacks = u64::from((FILE_OPERATIONS & !has).count_ones());
    assert_eq!(performed_by_threads(has), (lacks, 12), "what there is, is used");
    assert_eq!(performed_by_threads(0), (12, 12));
    let asked = |op| if op == op::STATX || op == op::UNLINKAT { 2 } else { 1 };
    for op in (0..64).filter(|op| has & 1 << op != 0) {
        assert_eq!(performed_by_threads(has & !(1 << op)).0, lacks + asked(op), "without {op}");
    }
    assert_eq!(probe(&Real, "files").unwrap().files, 0);
}
