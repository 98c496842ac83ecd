//! Files at their edges: holes, many tasks on one file, files that go while they are open, and names that cannot be.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::fs::{self, File, OpenOptions};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, spawn, time};

use crate::asynchronous::once;
use crate::files::Folder;
use crate::support::{PEER, Server, assert_same, event_loop, pattern};

on_every_kernel! {
    writes_past_the_end_leave_a_hole,
    empty_files_and_empty_operations,
    tasks_share_one_file,
    readers_and_a_writer_of_one_file,
    a_file_that_is_removed_is_there_while_it_is_open,
    renaming_takes_the_place_of_what_is_there,
    opening_truncates_or_not,
    names_that_cannot_be_are_errors,
    i07_dropped_reads_and_writes_end_by_themselves,
}

// A simulated disk has neither devices nor links.
on_every_backend! {
    devices_are_read_and_written,
    links_that_lead_in_a_circle_are_an_error,
}

// It takes many descriptors.
in_processes! {
    i26_a_crowd_of_files_keeps_no_timer_waiting,
}

in_hosts! {
    i26_a_crowd_of_files_keeps_no_timer_waiting,
}

async fn open(path: &std::path::Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).open(path).await.unwrap()
}

fn writes_past_the_end_leave_a_hole(backend: Backend) {
    let folder = Folder::new();
    event_loop(backend)
        .block_on(async {
            let file = open(&folder.path("hole")).await;
            // The last byte of a 32-bit offset, and the first that does not fit into one. On a simulated disk holes take room.
            let far = if is_simulated() { 1 << 24 } else { 1 << 32 };
            for at in [10, 4095, 4096, far - 1, far, 2 * far + 7] {
                assert_eq!(file.write_at(b"x", at).await.unwrap(), 1);
                assert_eq!(file.metadata().await.unwrap().len(), at + 1);
                let mut got = [b'-'; 4];
                assert_eq!(file.read_at(&mut got, at - 3).await.unwrap(), 4);
                assert!(got[3] == b'x' && (at == 4096 || at == far || got[2] == 0), "{at}: {got:?}");
                assert_eq!(file.read_at(&mut got, at + 1).await.unwrap(), 0, "and behind it is the end");
            }
            file.set_len(0).await.unwrap();
            file.set_len(5).await.unwrap();
            let mut got = [b'-'; 8];
            assert_eq!(file.read_at(&mut got, 0).await.unwrap(), 5);
            assert_eq!(&got, b"\0\0\0\0\0---");
        })
        .unwrap();
}

fn empty_files_and_empty_operations(backend: Backend) {
    let folder = Folder::new();
    event_loop(backend)
        .block_on(async {
            let path = folder.path("empty");
            fs::write(&path, "").await.unwrap();
            assert_eq!(fs::read(&path).await.unwrap(), b"");
            let file = open(&path).await;
            assert_eq!(file.read_at(&mut [0; 8], 0).await.unwrap(), 0);
            file.read_exact_at(&mut [], 0).await.unwrap();
            file.read_exact_at(&mut [], 1 << 40).await.unwrap();
            assert_eq!(file.write_at(b"", 7).await.unwrap(), 0);
            file.write_all_at(b"", 7).await.unwrap();
            assert_eq!(file.metadata().await.unwrap().len(), 0, "nothing was written, not even a hole");
            let end = file.read_exact_at(&mut [0], 0).await.unwrap_err();
            assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
        })
        .unwrap();
}

fn devices_are_read_and_written(backend: Backend) {
    event_loop(backend)
        .block_on(async {
            let null = OpenOptions::new().read(true).write(true).open("/dev/null").await.unwrap();
            assert_eq!(null.write_at(b"away", 0).await.unwrap(), 4);
            assert_eq!(null.read_at(&mut [0; 8], 0).await.unwrap(), 0);
            let zero = File::open("/dev/zero").await.unwrap();
            let mut got = [7; 100];
            zero.read_exact_at(&mut got, 0).await.unwrap();
            assert_eq!(got, [0; 100]);
        })
        .unwrap();
}

/// Each writes its own pieces of one file, and reads them back, all at once.
fn tasks_share_one_file(backend: Backend) {
    const PIECE: usize = 1000;
    let folder = Folder::new();
    event_loop(backend)
        .block_on(async {
            let path = folder.path("shared");
            let (file, all) = (Rc::new(open(&path).await), Rc::new(pattern(20 * 10 * PIECE)));
            let tasks: Vec<_> = (0..20)
                .map(|task| {
                    let (file, all) = (file.clone(), all.clone());
                    spawn(async move {
                        for round in 0..10 {
                            let at = (round * 20 + task) * PIECE;
                            file.write_all_at(&all[at..at + PIECE], at as u64).await.unwrap();
                            let mut back = [0; PIECE];
                            file.read_exact_at(&mut back, at as u64).await.unwrap();
                            assert_same(&back, &all[at..at + PIECE]);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_same(&fs::read(&path).await.unwrap(), &all);
        })
        .unwrap();
}

/// What a write has returned from is seen by every read that begins after it.
fn readers_and_a_writer_of_one_file(backend: Backend) {
    let folder = Folder::new();
    event_loop(backend)
        .block_on(async {
            let file = Rc::new(open(&folder.path("grows")).await);
            let written = Rc::new(std::cell::Cell::new(0_u64));
            let (own, count) = (file.clone(), written.clone());
            let writer = spawn(async move {
                for i in 0..200_u64 {
                    own.write_all_at(&i.to_le_bytes(), i * 8).await.unwrap();
                    count.set(i + 1);
                }
            });
            let mut reads = 0;
            while !writer.is_finished() || reads < 10 {
                let last = written.get();
                if let Some(last) = last.checked_sub(1) {
                    let mut got = [0; 8];
                    file.read_exact_at(&mut got, last * 8).await.unwrap();
                    assert_eq!(u64::from_le_bytes(got), last);
                    reads += 1;
                } else {
                    evenkeel::task::yield_now().await;
                }
            }
            writer.await.unwrap();
        })
        .unwrap();
}

fn a_file_that_is_removed_is_there_while_it_is_open(backend: Backend) {
    let folder = Folder::new();
    event_loop(backend)
        .block_on(async {
            let path = folder.path("gone");
            fs::write(&path, "still here").await.unwrap();
            let file = open(&path).await;
            fs::remove_file(&path).await.unwrap();
            assert_eq!(fs::metadata(&path).await.unwrap_err().kind(), ErrorKind::NotFound);
            let mut got = [0; 10];
            file.read_exact_at(&mut got, 0).await.unwrap();
            assert_eq!(&got, b"still here");
            file.write_all_at(b"!", 10).await.unwrap();
            let found = file.metadata().await.unwrap();
            assert_eq!((found.len(), found.links()), (11, 0));
            // Another file of that name is another file.
            fs::write(&path, "new").await.unwrap();
            assert_eq!(file.metadata().await.unwrap().len(), 11);
            file.sync_all().await.unwrap();
            file.close().await.unwrap();
            assert_eq!(fs::read(&path).await.unwrap(), b"new");
        })
        .unwrap();
}

fn renaming_takes_the_place_of_what_is_there(backend: Backend) {
    let folder = Folder::new();
    event_loop(backend)
        .block_on(async {
            let (a, b, dir) = (folder.path("a"), folder.path("b"), folder.path("dir"));
            fs::write(&a, "from a").await.unwrap();
            fs::write(&b, "from b, which is longer").await.unwrap();
            let old = open(&b).await;
            fs::rename(&a, &b).await.unwrap();
            assert_eq!(fs::read(&b).await.unwrap(), b"from a");
            assert_eq!(old.metadata().await.unwrap().links(), 0);
            fs::rename(&b, &b).await.unwrap();
            fs::create_dir(&dir).await.unwrap();
            assert_eq!(fs::rename(&b, &dir).await.unwrap_err().kind(), ErrorKind::IsADirectory);
            assert_eq!(fs::rename(&dir, &b).await.unwrap_err().kind(), ErrorKind::NotADirectory);
            let below = fs::rename(&dir, dir.join("below")).await.unwrap_err();
            assert_eq!(below.kind(), ErrorKind::InvalidInput);
        })
        .unwrap();
}

fn opening_truncates_or_not(backend: Backend) {
    let folder = Folder::new();
    event_loop(backend)
        .block_on(async {
            let path = folder.path("file");
            fs::write(&path, "0123456789").await.unwrap();
            let mut write = OpenOptions::new();
            drop(write.write(true).open(&path).await.unwrap());
            assert_eq!(fs::metadata(&path).await.unwrap().len(), 10);
            write.truncate(true);
            drop(write.open(&path).await.unwrap());
            assert_eq!(fs::metadata(&path).await.unwrap().len(), 0);
            fs::write(&path, "0123456789").await.unwrap();
            let made = File::create(&path).await.unwrap();
            assert_eq!(made.metadata().await.unwrap().len(), 0);
            assert!(made.read_at(&mut [0; 4], 0).await.is_err(), "it is to be written only");
            let exists = OpenOptions::new().write(true).create_new(true).open(&path).await.unwrap_err();
            assert_eq!(exists.kind(), ErrorKind::AlreadyExists);
            let none = OpenOptions::new().write(true).open(folder.path("none")).await.unwrap_err();
            assert_eq!(none.kind(), ErrorKind::NotFound);
        })
        .unwrap();
}

fn names_that_cannot_be_are_errors(backend: Backend) {
    let folder = Folder::new();
    event_loop(backend)
        .block_on(async {
            let name = "n".repeat(256);
            let long = folder.path(&name);
            let deep = folder.path(&"d/".repeat(2500));
            for path in [&long, &deep] {
                let all = [
                    File::open(path).await.map(drop),
                    fs::metadata(path).await.map(drop),
                    fs::create_dir(path).await,
                    fs::remove_file(path).await,
                    fs::rename(path, folder.path("x")).await,
                ];
                for result in all {
                    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
                }
            }
            fs::write(folder.path(&name[1..]), "the longest name there is").await.unwrap();
            for path in ["", "/dev/null/below"] {
                assert!(File::open(path).await.is_err(), "{path:?}");
            }
        })
        .unwrap();
}

fn links_that_lead_in_a_circle_are_an_error(backend: Backend) {
    let folder = Folder::new();
    event_loop(backend)
        .block_on(async {
            let (here, there) = (folder.path("here"), folder.path("there"));
            std::os::unix::fs::symlink(&here, &there).unwrap();
            std::os::unix::fs::symlink(&there, &here).unwrap();
            let circle = fs::read(&here).await.unwrap_err();
            assert_eq!(circle.raw_os_error(), Some(libc::ELOOP));
            assert!(fs::symlink_metadata(&here).await.unwrap().is_symlink());
        })
        .unwrap();
}

/// Those that nobody waits for any more do what they were asked, or nothing, and the file is whole either way.
fn i07_dropped_reads_and_writes_end_by_themselves(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let folder = Folder::new();
    let (old, new) = (vec![b'o'; 100_000], vec![b'n'; 100_000]);
    events
        .block_on(async {
            let path = folder.path("file");
            for round in 0..30 {
                fs::write(&path, &old).await.unwrap();
                let file = open(&path).await;
                {
                    let mut buffer = vec![0; 100_000];
                    assert!(once(file.read_at(&mut buffer, 0)).await.is_none());
                    assert!(once(file.write_at(&new, 0)).await.is_none());
                    if round % 2 == 0 {
                        time::sleep(Duration::ZERO).await;
                    }
                    assert!(once(file.write_at(&new, 0)).await.is_none());
                }
                while h.stats().files_in_flight + h.stats().files_waiting > 0 {
                    time::sleep(Duration::from_millis(1)).await;
                }
                let got = fs::read(&path).await.unwrap();
                assert!(got == old || got == new, "a part of what was written, in round {round}");
            }
        })
        .unwrap();
    assert_eq!(h.stats().panics, 0);
}

fn i26_a_crowd_of_files_keeps_no_timer_waiting(backend: Backend) {
    let mut s = Server::new(backend);
    let folder = Rc::new(Folder::new());
    let tasks: Vec<_> = (0..300)
        .map(|i: usize| {
            let folder = folder.clone();
            s.h.spawn(async move {
                for round in 0..3 {
                    let path = folder.path(&i.to_string());
                    fs::write(&path, pattern(i + round)).await.unwrap();
                    assert_same(&fs::read(&path).await.unwrap(), &pattern(i + round));
                }
            })
        })
        .collect();
    // Timers go on firing long before all is done.
    let ticks = Rc::new(std::cell::Cell::new(0));
    let count = ticks.clone();
    let ticking = s.h.spawn(async move {
        loop {
            time::sleep(Duration::from_millis(1)).await;
            count.set(count.get() + 1);
        }
    });
    let work = async {
        for task in tasks {
            task.await.unwrap();
        }
    };
    assert!(s.events.block_on(time::timeout(PEER, work)).unwrap().is_ok());
    let before = ticks.get();
    s.until("it ticks", || ticks.get() > before);
    ticking.abort();
    assert_eq!((s.h.stats().files_in_flight, s.h.stats().panics), (0, 0));
}
