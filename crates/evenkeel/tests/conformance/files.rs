//! Files: each operation and its errors, many at once, abandoned ones, and calls that block for ever.

use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::SystemTime;

use evenkeel::fs::{self, File, OpenOptions};
use evenkeel::sim::{is_simulated, wall_clock};
use evenkeel::{Backend, EventLoop, spawn};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Probe, Server, assert_same, descriptors, event_loop, pattern, until};

on_every_kernel! {
    a_file_is_made_written_read_and_removed,
    reads_at_the_end_are_short,
    big_files_are_whole,
    a_file_that_grows_is_read_to_its_end,
    appending_ignores_the_offset,
    directories_come_and_go,
    errors_are_those_of_the_kernel,
    what_the_kernel_would_misread_is_refused,
    i07_of_several_that_make_a_file_one_succeeds,
    files_of_the_standard_library_come_and_go,
}

// A simulated disk has files and directories: no links, no named pipes, whose opening blocks, and nothing that a kernel makes up.
on_every_backend! {
    what_is_told_of_a_file_is_what_others_are_told,
    lengths_that_nobody_knows_are_no_matter,
    links_are_followed_or_not,
    errors_of_special_files_are_those_of_the_kernel,
    i26_a_call_that_blocks_keeps_neither_the_loop_nor_the_others,
}

// Likewise, and the threads are the system's.
in_processes! {
    a_future_that_is_dropped_in_line_does_nothing,
    i09_a_future_that_outlives_its_loop_gets_an_error,
    i41_more_operations_than_places_wait_and_all_end,
    i10_dropped_futures_leave_no_descriptor_open,
    i28_a_loop_that_ends_with_operations_in_flight,
    i41_threads_are_few_and_end_with_the_loop,
}

/// A folder of the test's own, for as long as the test runs. A simulated host has one from the beginning, on its own disk.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        if is_simulated() {
            return Folder("/tmp".into());
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("evenkeel-files-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A named pipe: opening it to read blocks until somebody opens it to write.
    pub fn pipe(&self) -> PathBuf {
        let path = self.path("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !is_simulated() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Opens the other end of a pipe, which does not block in this mode.
pub fn unblock(pipe: &Path) -> std::fs::File {
    std::fs::OpenOptions::new().read(true).write(true).open(pipe).unwrap()
}

fn on<F: Future>(backend: Backend, future: impl FnOnce(Folder) -> F) -> F::Output {
    event_loop(backend).block_on(future(Folder::new())).unwrap()
}

/// A file as other programs see it, which a world has not.
async fn content(path: &Path) -> Vec<u8> {
    if is_simulated() { fs::read(path).await.unwrap() } else { std::fs::read(path).unwrap() }
}

async fn exists(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).await.is_ok()
}

/// Polls a future once, which must not be ready.
async fn begin(future: impl Future) {
    let mut future = pin!(future);
    let ready = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
    assert!(!ready, "nothing completes inside the call that asks for it");
}

fn a_file_is_made_written_read_and_removed(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let folder = Folder::new();
    let work = async {
        let (path, other) = (folder.path("one"), folder.path("two"));
        let before = if is_simulated() { wall_clock() } else { SystemTime::now() };
        let file =
            OpenOptions::new().read(true).write(true).create(true).mode(0o640).open(&path).await.unwrap();
        assert_eq!(file.write_at(b"hello world", 0).await.unwrap(), 11);
        file.write_all_at(b"W", 6).await.unwrap();
        let mut part = [0; 5];
        file.read_exact_at(&mut part, 6).await.unwrap();
        assert_eq!(&part, b"World");
        file.sync_data().await.unwrap();
        file.sync_all().await.unwrap();
        file.set_len(5).await.unwrap();
        file.set_len(7).await.unwrap();
        let found = file.metadata().await.unwrap();
        assert!(found.is_file() && !found.is_dir() && !found.is_symlink());
        assert_eq!((found.len(), found.links()), (7, 1));
        // File systems stamp with a coarse clock, which may lag by some milliseconds.
        assert!(found.modified() + std::time::Duration::from_secs(1) > before);
        file.close().await.unwrap();
        fs::rename(&path, &other).await.unwrap();
        assert_eq!(fs::metadata(&path).await.unwrap_err().kind(), ErrorKind::NotFound);
        let renamed = fs::metadata(&other).await.unwrap();
        assert_eq!((renamed.inode(), renamed.len()), (found.inode(), 7));
        fs::remove_file(&other).await.unwrap();
        assert!(!exists(&other).await);
    };
    events.block_on(work).unwrap();
    let stats = h.stats();
    assert_eq!((stats.file_ops, stats.files_in_flight, stats.files_waiting), (15, 0, 0));
}

fn what_is_told_of_a_file_is_what_others_are_told(backend: Backend) {
    on(backend, async |folder| {
        let path = folder.path("told");
        let file = OpenOptions::new().write(true).create(true).mode(0o640).open(&path).await.unwrap();
        file.write_all_at(b"hello", 2).await.unwrap();
        let (found, same) = (file.metadata().await.unwrap(), std::fs::metadata(&path).unwrap());
        let std = {
            use std::os::unix::fs::MetadataExt;
            (same.mode(), same.ino(), same.dev(), (same.uid(), same.gid()))
        };
        assert_eq!((found.mode(), found.inode(), found.device(), found.owner()), std);
        assert_eq!(found.modified(), same.modified().unwrap());
        assert_eq!(found.accessed(), same.accessed().unwrap());
        assert_eq!(found.created(), same.created().ok());
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0hello");
    });
}

fn reads_at_the_end_are_short(backend: Backend) {
    on(backend, async |folder| {
        let path = folder.path("short");
        fs::write(&path, "0123456789").await.unwrap();
        let file = File::open(&path).await.unwrap();
        let mut into = [b'-'; 8];
        assert_eq!(file.read_at(&mut into, 6).await.unwrap(), 4);
        assert_eq!(&into, b"6789----");
        assert_eq!(file.read_at(&mut into, 10).await.unwrap(), 0);
        assert_eq!(file.read_at(&mut into, 1 << 40).await.unwrap(), 0);
        assert_eq!(file.read_at(&mut [], 0).await.unwrap(), 0);
        let cut = file.read_exact_at(&mut into, 6).await.unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::UnexpectedEof);
    });
}

fn big_files_are_whole(backend: Backend) {
    on(backend, async |folder| {
        for len in [0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, (3 << 20) + 13] {
            let (path, want) = (folder.path("big"), pattern(len));
            fs::write(&path, &want).await.unwrap();
            assert_same(&content(&path).await, &want);
            assert_same(&fs::read(&path).await.unwrap(), &want);
            let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
            let mut got = vec![0; len];
            file.read_exact_at(&mut got, 0).await.unwrap();
            assert_same(&got, &want);
            let most = len.min(256 << 10);
            assert_eq!(file.read_at(&mut got, 0).await.unwrap(), most, "one operation has a bounded length");
            assert_eq!(file.write_at(&want, 0).await.unwrap(), most);
        }
    });
}

fn lengths_that_nobody_knows_are_no_matter(backend: Backend) {
    on(backend, async |_| {
        let status = fs::read("/proc/self/status").await.unwrap();
        assert!(status.starts_with(b"Name:") && status.ends_with(b"\n"));
        // Longer than the first guess.
        let maps = fs::read("/proc/self/smaps").await.unwrap();
        assert!(maps.len() > 8 << 10 && maps.ends_with(b"\n"));
    });
}

/// The end is where it is found.
fn a_file_that_grows_is_read_to_its_end(backend: Backend) {
    on(backend, async |folder| {
        let path = folder.path("grows");
        fs::write(&path, pattern(100_000)).await.unwrap();
        let grows = OpenOptions::new().append(true).open(&path).await.unwrap();
        let growing = async {
            for _ in 0..10 {
                grows.write_all_at(b"x", 0).await.unwrap();
            }
        };
        let (got, ()) = futures_util::join!(fs::read(&path), growing);
        let got = got.unwrap();
        assert_same(&got[..100_000], &pattern(100_000));
        assert!(got[100_000..].iter().all(|byte| *byte == b'x'));
    });
}

fn appending_ignores_the_offset(backend: Backend) {
    on(backend, async |folder| {
        let path = folder.path("log");
        let log = OpenOptions::new().append(true).create(true).open(&path).await.unwrap();
        log.write_all_at(b"one ", 0).await.unwrap();
        log.write_all_at(b"two ", 0).await.unwrap();
        let other = OpenOptions::new().append(true).open(&path).await.unwrap();
        other.write_all_at(b"three ", 0).await.unwrap();
        log.write_all_at(b"four", 1 << 30).await.unwrap();
        assert_eq!(fs::read(&path).await.unwrap(), b"one two three four");
    });
}

fn directories_come_and_go(backend: Backend) {
    on(backend, async |folder| {
        let (top, deep) = (folder.path("a"), folder.path("a/b/c/d"));
        assert_eq!(fs::create_dir(&deep).await.unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir_all(&deep).await.unwrap();
        fs::create_dir_all(&deep).await.unwrap();
        fs::create_dir_all("/").await.unwrap();
        fs::create_dir_all("").await.unwrap();
        assert!(fs::metadata(&deep).await.unwrap().is_dir());
        assert_eq!(fs::create_dir(&top).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::remove_dir(&top).await.unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
        fs::remove_dir(&deep).await.unwrap();
        fs::rename(folder.path("a/b/c"), folder.path("moved")).await.unwrap();
        assert!(fs::metadata(folder.path("moved")).await.unwrap().is_dir());
        assert!(!exists(folder.path("a/b/c")).await);
        fs::write(folder.path("file"), "").await.unwrap();
        let e = fs::create_dir_all(folder.path("file")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists);
        let e = fs::create_dir_all(folder.path("file/below")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotADirectory);
    });
}

fn links_are_followed_or_not(backend: Backend) {
    on(backend, async |folder| {
        let (link, dangling) = (folder.path("link"), folder.path("dangling"));
        fs::write(folder.path("target"), "12345").await.unwrap();
        std::os::unix::fs::symlink("target", &link).unwrap();
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        let (to, itself) = (fs::metadata(&link).await.unwrap(), fs::symlink_metadata(&link).await.unwrap());
        assert!(to.is_file() && to.len() == 5);
        assert!(itself.is_symlink() && itself.len() == 6);
        assert_eq!(fs::metadata(&dangling).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(fs::symlink_metadata(&dangling).await.unwrap().is_symlink());
        let e = fs::create_dir_all(dangling.join("below")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists, "the link is in the way");
        fs::remove_file(&link).await.unwrap();
        assert!(folder.path("target").exists(), "the link is removed and not what it leads to");
    });
}

fn errors_are_those_of_the_kernel(backend: Backend) {
    on(backend, async |folder| {
        let (file, none) = (folder.path("file"), folder.path("none"));
        fs::write(&file, "x").await.unwrap();
        let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(File::open(&none).await.map(drop)), ErrorKind::NotFound);
        assert_eq!(kind(fs::read(&none).await.map(drop)), ErrorKind::NotFound);
        assert_eq!(kind(fs::write(none.join("x"), "").await), ErrorKind::NotFound);
        assert_eq!(kind(fs::remove_file(&none).await), ErrorKind::NotFound);
        assert_eq!(kind(fs::remove_dir(&none).await), ErrorKind::NotFound);
        assert_eq!(kind(fs::rename(&none, &file).await), ErrorKind::NotFound);
        assert_eq!(kind(fs::symlink_metadata(&none).await.map(drop)), ErrorKind::NotFound);
        assert_eq!(kind(fs::read(&folder.0).await.map(drop)), ErrorKind::IsADirectory);
        assert_eq!(kind(File::create(&folder.0).await.map(drop)), ErrorKind::IsADirectory);
        assert_eq!(kind(fs::remove_file(&folder.0).await), ErrorKind::IsADirectory);
        assert_eq!(kind(fs::remove_dir(&file).await), ErrorKind::NotADirectory);
        let reads = File::open(&file).await.unwrap();
        let badf = Some(rustix::io::Errno::BADF.raw_os_error());
        assert_eq!(reads.write_at(b"y", 0).await.unwrap_err().raw_os_error(), badf);
        assert_eq!(kind(reads.set_len(0).await), ErrorKind::InvalidInput);
    });
}

fn errors_of_special_files_are_those_of_the_kernel(backend: Backend) {
    on(backend, async |folder| {
        let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
        // Nobody may, root included.
        assert_eq!(kind(fs::remove_file("/proc/self/status").await), ErrorKind::PermissionDenied);
        let pipe = folder.pipe();
        let pipe = OpenOptions::new().read(true).write(true).open(&pipe).await.unwrap();
        assert_eq!(kind(pipe.read_at(&mut [0; 8], 0).await.map(drop)), ErrorKind::NotSeekable);
        assert_eq!(kind(pipe.write_at(b"y", 0).await.map(drop)), ErrorKind::NotSeekable);
        let full = OpenOptions::new().write(true).open("/dev/full").await.unwrap();
        assert_eq!(kind(full.write_all_at(b"y", 0).await), ErrorKind::StorageFull);
    });
}

fn what_the_kernel_would_misread_is_refused(backend: Backend) {
    on(backend, async |folder| {
        let path = folder.path("file");
        fs::write(&path, "0123").await.unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
        for at in [u64::MAX, 1 << 63] {
            let all = [
                file.read_at(&mut [0; 4], at).await.map(drop),
                file.write_at(b"y", at).await.map(drop),
                file.read_exact_at(&mut [0; 4], at).await,
                file.write_all_at(b"y", at).await,
                file.set_len(at).await,
            ];
            for result in all {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
            }
        }
        for path in ["a\0b", "\0"] {
            assert_eq!(fs::read(path).await.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(fs::rename("/", path).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let none = OpenOptions::new().open(&path).await.unwrap_err();
        assert_eq!(none.kind(), ErrorKind::InvalidInput);
        assert_eq!(content(&path).await, b"0123");
    });
}

fn i07_of_several_that_make_a_file_one_succeeds(backend: Backend) {
    on(backend, async |folder| {
        for round in 0..20 {
            let path: Rc<Path> = folder.path(&round.to_string()).into();
            let tasks: Vec<_> = (0..16)
                .map(|_| {
                    let path = path.clone();
                    spawn(async move { OpenOptions::new().write(true).create_new(true).open(path).await })
                })
                .collect();
            let mut made = 0;
            for task in tasks {
                match task.await.unwrap() {
                    Ok(_) => made += 1,
                    Err(e) => assert_eq!(e.kind(), ErrorKind::AlreadyExists),
                }
            }
            assert_eq!(made, 1);
        }
    });
}

fn files_of_the_standard_library_come_and_go(backend: Backend) {
    on(backend, async |folder| {
        let path = folder.path("file");
        fs::write(&path, "standard").await.unwrap();
        let std = File::open(&path).await.unwrap().into_std().unwrap();
        let file = File::from_std(std);
        let mut got = [0; 8];
        file.read_exact_at(&mut got, 0).await.unwrap();
        assert_eq!(&got, b"standard");
        // While an abandoned operation may still hold the file, too.
        begin(file.read_at(&mut got, 0)).await;
        let mut std = file.into_std().unwrap();
        assert_eq!(std.stream_position().unwrap(), 0, "the file's own position was not touched");
        let mut text = String::new();
        std.read_to_string(&mut text).unwrap();
        assert_eq!(text, "standard");
    });
}

fn i26_a_call_that_blocks_keeps_neither_the_loop_nor_the_others(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, _) = s.pair(Probe::echo());
    let folder = Folder::new();
    let pipe = folder.pipe();
    let blocked = s.h.spawn(File::open(pipe.clone()));
    let path = folder.path("others");
    s.events
        .block_on(async {
            for round in 0..50_u32 {
                fs::write(&path, round.to_string()).await.unwrap();
                assert_eq!(fs::read(&path).await.unwrap(), round.to_string().as_bytes());
            }
        })
        .unwrap();
    peer.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut peer, 4), b"ping");
    assert!(!blocked.is_finished());
    assert_eq!(s.h.stats().files_in_flight, 1);
    let _other_end = unblock(&pipe);
    s.events.block_on(blocked).unwrap().unwrap().unwrap();
    assert_eq!(s.h.stats().files_in_flight, 0);
}

/// As many operations as there are places, all blocked. Their descriptors need a process of the test's own.
fn fill(events: &mut EventLoop, pipe: &Path) -> Vec<evenkeel::task::JoinHandle<std::io::Result<File>>> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(maximum.unwrap_or(8192).min(8192)), maximum })
        .unwrap();
    let h = events.handle();
    let blocked = (0..1024).map(|_| h.spawn(File::open(pipe.to_owned()))).collect();
    until(events, "every place is taken", || h.stats().files_in_flight == 1024);
    blocked
}

fn i41_more_operations_than_places_wait_and_all_end(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, _) = s.pair(Probe::echo());
    let folder = Folder::new();
    let pipe = folder.pipe();
    let blocked = fill(&mut s.events, &pipe);
    let waiting: Vec<_> = (0..2000_usize)
        .map(|i| {
            let path = folder.path(&(i % 100).to_string());
            s.h.spawn(async move {
                fs::write(&path, pattern(i + 1)).await?;
                fs::metadata(&path).await
            })
        })
        .collect();
    let h = s.h.clone();
    s.until("the rest waits", || h.stats().files_waiting == 2000);
    assert_eq!(s.h.stats().files_in_flight, 1024);
    peer.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut peer, 4), b"ping", "the loop goes on meanwhile");
    let _other_end = unblock(&pipe);
    s.events
        .block_on(async {
            for task in blocked {
                task.await.unwrap().unwrap();
            }
            for task in waiting {
                task.await.unwrap().unwrap();
            }
        })
        .unwrap();
    let stats = s.h.stats();
    assert_eq!((stats.files_in_flight, stats.files_waiting), (0, 0));
    assert_eq!(stats.file_ops, 1024 + 2000 * 3);
}

fn a_future_that_is_dropped_in_line_does_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let folder = Folder::new();
    let pipe = folder.pipe();
    let blocked = fill(&mut events, &pipe);
    let (never, then) = (folder.path("never"), folder.path("then"));
    events
        .block_on(async {
            // Each leaves the line at once: it does not grow by those who gave up.
            for _ in 0..3 {
                begin(fs::create_dir(&never)).await;
                assert_eq!(h.stats().files_waiting, 0);
            }
        })
        .unwrap();
    let next = h.spawn(fs::create_dir(then.clone()));
    until(&mut events, "one waits", || h.stats().files_waiting == 1);
    // Those that are abandoned in flight keep their places until they end.
    drop(blocked.into_iter().map(|task| task.abort()).collect::<Vec<_>>());
    events.poll().unwrap();
    assert_eq!((h.stats().files_in_flight, h.stats().files_waiting), (1024, 1));
    let _other_end = unblock(&pipe);
    events.block_on(next).unwrap().unwrap().unwrap();
    until(&mut events, "the abandoned have ended", || h.stats().files_in_flight == 0);
    assert!(then.exists() && !never.exists());
}

fn i09_a_future_that_outlives_its_loop_gets_an_error(backend: Backend) {
    let folder = Folder::new();
    let (path, pipe) = (folder.path("file"), folder.pipe());
    std::fs::write(&path, "x").unwrap();
    let mut first = event_loop(backend);
    let mut second = event_loop(backend);
    let file = first.block_on(File::open(&path)).unwrap().unwrap();
    let mut buffer = [0; 1];
    let blocked = fill(&mut first, &pipe);
    let mut in_line = Box::pin(file.read_at(&mut buffer, 0));
    let mut in_flight = Box::pin(async { blocked.into_iter().next().unwrap().await });
    first
        .block_on(poll_fn(|cx| {
            assert!(in_line.as_mut().poll(cx).is_pending() && in_flight.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        }))
        .unwrap();
    drop(first);
    let over =
        |result: std::io::Result<usize>| assert_eq!(result.unwrap_err().kind(), ErrorKind::NotConnected);
    over(second.block_on(in_line).unwrap());
    assert!(second.block_on(in_flight).unwrap().is_err_and(|e| e.is_cancelled()));
    over(second.block_on(file.read_at(&mut [0; 1], 0)).unwrap());
    let mut text = String::new();
    file.into_std().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "x", "the file itself is still open");
    // The threads that are blocked can end.
    drop(unblock(&pipe));
}

fn i10_dropped_futures_leave_no_descriptor_open(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let folder = Folder::new();
    let (path, pipe) = (folder.path("file"), folder.pipe());
    std::fs::write(&path, pattern(1000)).unwrap();
    // What the loop opens for itself is open from here on.
    let kept = events.block_on(File::open(&path)).unwrap().unwrap();
    let before = descriptors();
    events
        .block_on(async {
            drop(File::open(&path));
            for _ in 0..200 {
                begin(File::open(&path)).await;
                begin(fs::read(&path)).await;
                begin(kept.read_at(&mut [0; 100], 0)).await;
                let file = File::open(&path).await.unwrap();
                begin(file.metadata()).await;
                begin(file.close()).await;
            }
            begin(File::open(&pipe)).await;
        })
        .unwrap();
    // One whose result is there, and not taken.
    let mut open = Box::pin(File::open(&path));
    events.block_on(begin(open.as_mut())).unwrap();
    let other_end = unblock(&pipe);
    until(&mut events, "all have ended", || h.stats().files_in_flight == 0);
    drop(other_end);
    assert_eq!(descriptors().len(), before.len() + 1, "the one that can still be taken");
    drop(open);
    assert_eq!(descriptors(), before);
    assert_eq!(events.block_on(fs::read(&path)).unwrap().unwrap(), pattern(1000), "and nothing is lost");
}

fn i28_a_loop_that_ends_with_operations_in_flight(backend: Backend) {
    let folder = Folder::new();
    let (path, pipe) = (folder.path("file"), folder.pipe());
    std::fs::write(&path, "x").unwrap();
    let mut other = event_loop(backend);
    let (before, mapped) = (descriptors(), ring_mappings());
    let mut events = event_loop(backend);
    let h = events.handle();
    // More than there are threads, so that some are still queued.
    let blocked: Vec<_> = (0..10).map(|_| h.spawn(File::open(pipe.clone()))).collect();
    let more: Vec<_> = (0..10).map(|_| h.spawn(fs::read(path.clone()))).collect();
    until(&mut events, "they are in flight", || h.stats().files_in_flight >= 10);
    drop((events, h));
    assert!(blocked.iter().all(|task| task.is_finished()), "nobody waits for them");
    // Whoever could wake the loop keeps its wake-up's descriptor.
    drop((blocked, more));
    // Threads that are in a call keep nothing of the loop.
    until(&mut other, "the loop's descriptors are closed", || descriptors() == before);
    assert_eq!(ring_mappings(), mapped, "the kernel gave everything back, so nothing had to be leaked");
    // Kept until the last has ended: a thread may have its operation already and only then come to open the pipe.
    let other_end = unblock(&pipe);
    until(&mut other, "the threads have ended", || threads() == 0);
    until(&mut other, "what they opened is closed", || descriptors().len() == before.len() + 1);
    drop(other_end);
    assert_eq!(descriptors(), before);
}

/// Memory of rings in this process.
fn ring_mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().matches("[io_uring]").count()
}

/// The pool's threads in this process.
fn threads() -> usize {
    threads_named("evenkeel-files")
}

/// The kernel's threads for rings of this process.
fn workers() -> usize {
    threads_named("iou-wrk")
}

fn threads_named(start: &str) -> usize {
    let all = std::fs::read_dir("/proc/self/task").unwrap();
    let names = all.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(start)).count()
}

fn i41_threads_are_few_and_end_with_the_loop(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    assert_eq!(threads(), 0, "none is started before there is work for one");
    let folder = Folder::new();
    for round in 0..20 {
        let tasks: Vec<_> =
            (0..50).map(|i| h.spawn(fs::write(folder.path(&i.to_string()), pattern(round)))).collect();
        for task in tasks {
            events.block_on(task).unwrap().unwrap().unwrap();
        }
        assert!(threads() <= 4, "{} threads", threads());
    }
    let stats = h.stats();
    let without = std::env::var("EVENKEEL_IO_URING_WITHOUT").unwrap_or_default();
    if h.backend() == Backend::IoUring && !without.contains("files") {
        assert_eq!((threads(), stats.file_ops_on_threads), (0, 0), "the ring has all that was asked for");
        assert!(workers() <= 4, "{} threads of the kernel's", workers());
    } else {
        assert_eq!(stats.file_ops_on_threads, stats.file_ops);
    }
    drop((events, h));
    let mut other = event_loop(backend);
    until(&mut other, "they have ended", || threads() == 0);
}
