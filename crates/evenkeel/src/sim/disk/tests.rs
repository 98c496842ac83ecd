#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use rustix::io::Errno;

use crate::Backend;
use crate::fs::{self, File, OpenOptions};
use crate::sim::{Check, Failure, Fault, World, elapsed};

fn one<Fut: Future<Output = io::Result<()>> + 'static>(
    world: &mut World,
    program: impl Fn() -> Fut + 'static,
) -> Result<(), Failure> {
    world.client("one", program);
    world.run()
}

fn code<T>(result: io::Result<T>) -> Errno {
    let error = result.map(|_| ()).unwrap_err();
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or_else(|| panic!("not the kernel's: {error}")))
}

#[test]
fn files_are_made_written_read_and_renamed() {
    for backend in [Backend::Sim, Backend::IoUring, Backend::Epoll, Backend::Poll, Backend::Select] {
        Check::new().seeds(0..4).run(|world| {
            world.set_backend(backend);
            one(world, || async {
                fs::create_dir_all("/var/lib/hub").await?;
                fs::write("/var/lib/hub/state.new", "good morning").await?;
                fs::rename("/var/lib/hub/state.new", "/var/lib/hub/state").await?;
                assert_eq!(fs::read("/var/lib/hub/state").await?, b"good morning");
                let file =
                    OpenOptions::new().read(true).write(true).open("/var/lib/../lib/hub/state").await?;
                file.write_all_at(b"evening", 5).await?;
                file.set_len(9).await?;
                file.sync_all().await?;
                let found = file.metadata().await?;
                assert_eq!(
                    (found.len(), found.is_file(), found.links(), found.mode() & 0o777),
                    (9, true, 1, 0o644)
                );
                // A name means another file from now on, and who has this one open keeps it.
                fs::write("/other", [7]).await?;
                fs::rename("/other", "/var/lib/hub/state").await?;
                let mut got = [0; 20];
                assert_eq!(file.read_at(&mut got, 5).await?, 4);
                assert_eq!((&got[..4], file.metadata().await?.links()), (&b"even"[..], 0));
                let mut appended = OpenOptions::new().append(true).open("/var/lib/hub/state").await?;
                appended.write_all_at(b"!", 0).await?;
                assert_eq!(fs::read("var/lib/hub/state").await?, [7, b'!']);
                assert_eq!(code(appended.read_at(&mut got, 0).await), Errno::BADF);
                appended = File::open("/var/lib/hub/state").await?;
                assert_eq!(code(appended.write_at(b"x", 0).await), Errno::BADF);
                // A file that is given away is one for the standard library.
                let mut all = Vec::new();
                appended.into_std()?.read_to_end(&mut all)?;
                assert_eq!(all, [7, b'!']);
                assert!(elapsed() > Duration::ZERO && elapsed() < Duration::from_secs(1));
                Ok(())
            })
        });
    }
}

#[test]
fn errors_are_those_of_linux() {
    let real = std::env::temp_dir().join(format!("evenkeel-sim-disk-{}", std::process::id()));
    let root = real.to_str().unwrap().to_owned();
    // The same calls on the real kernel's disk and on a simulated one.
    let _ = std::fs::remove_dir_all(&real);
    let mut events = crate::EventLoop::new().unwrap();
    let expected = events.block_on(errors(root.clone())).unwrap();
    std::fs::remove_dir_all(&real).unwrap();
    assert!(expected.iter().any(|(_, code)| *code == Some(Errno::NOTEMPTY)));
    let (expected, root) = (Rc::new(expected), Rc::new(root));
    let mut world = World::new(3);
    one(&mut world, move || {
        let (expected, root) = (expected.clone(), root.clone());
        async move {
            for ((what, real), (_, simulated)) in expected.iter().zip(&errors(root.to_string()).await) {
                assert_eq!(simulated, real, "{what}");
            }
            Ok(())
        }
    })
    .unwrap();
}

/// Calls in this order, and what came of each.
async fn errors(root: String) -> Vec<(&'static str, Option<Errno>)> {
    let at = |name: &str| format!("{root}/{name}");
    let seen = RefCell::new(Vec::new());
    let see = |what, done: io::Result<()>| {
        let code = done.err().map(|e| Errno::from_raw_os_error(e.raw_os_error().unwrap()));
        seen.borrow_mut().push((what, code));
    };
    let open = |options: &OpenOptions, path: String| {
        let options = options.clone();
        async move { options.open(path).await.map(drop) }
    };
    let (read, write, new) = (
        OpenOptions::new().read(true).clone(),
        OpenOptions::new().write(true).create(true).clone(),
        OpenOptions::new().write(true).create_new(true).clone(),
    );
    see("make the root", fs::create_dir(&root).await);
    see("make it again", fs::create_dir(&root).await);
    see("make below nothing", fs::create_dir(at("no/dir")).await);
    see("open nothing", open(&read, at("no")).await);
    see("open in nothing", open(&write, at("no/file")).await);
    see("make a file", open(&write, at("file")).await);
    see("make it anew", open(&new, at("file")).await);
    see("a file with a slash", open(&read, at("file/")).await);
    see("below a file", open(&read, at("file/x")).await);
    see("make below a file", fs::create_dir(at("file/x")).await);
    see("a new file with a slash", open(&write, at("other/")).await);
    see("make a directory", fs::create_dir(at("dir/")).await);
    see("open a directory", open(&read, at("dir")).await);
    see("write to a directory", open(&write, at("dir")).await);
    see("read a directory", fs::read(at("dir")).await.map(drop));
    see("a directory in it", fs::create_dir(at("dir/in")).await);
    see("remove what is not empty", fs::remove_dir(at("dir")).await);
    see("remove a directory as a file", fs::remove_file(at("dir")).await);
    see("remove a file as a directory", fs::remove_dir(at("file")).await);
    see("remove nothing", fs::remove_file(at("no")).await);
    see("remove a file with a slash", fs::remove_file(at("file/")).await);
    see("into itself", fs::rename(at("dir"), at("dir/in/dir")).await);
    see("onto a full directory", fs::rename(at("dir/in"), at("dir")).await);
    see("a file onto a directory", fs::rename(at("file"), at("dir")).await);
    see("a directory onto a file", fs::rename(at("dir"), at("file")).await);
    see("nothing onto a file", fs::rename(at("no"), at("file")).await);
    see("onto itself", fs::rename(at("file"), at("file")).await);
    see("to nowhere", fs::rename(at("file"), at("no/file")).await);
    see("a directory elsewhere", fs::rename(at("dir/in"), at("moved")).await);
    see("up from there", open(&read, at("moved/../file")).await);
    see("remove by a dot", fs::remove_dir(at("moved/.")).await);
    see("a long name", open(&read, at(&"x".repeat(256))).await);
    see("a long path", open(&read, at(&"x/".repeat(2500))).await);
    see("no path", open(&read, String::new()).await);
    see("remove it", fs::remove_dir(at("moved")).await);
    see("remove it again", fs::remove_dir(at("moved")).await);
    see("stat of nothing", fs::metadata(at("moved")).await.map(drop));
    see("stat below a file", fs::metadata(at("file/..")).await.map(drop));
    seen.into_inner()
}

#[test]
fn a_disk_fails_in_each_of_its_ways() {
    let seen = Mutex::new(std::collections::BTreeMap::new());
    let report = Check::new().seeds(0..60).run(|world| {
        world.set_fault(Fault::Disk, 0.15);
        let counts = Rc::new(RefCell::new(Vec::new()));
        let told = counts.clone();
        one(world, move || {
            let told = told.clone();
            async move {
                let see = |what: &'static str| told.borrow_mut().push(what);
                let begun = elapsed();
                let Ok(file) = OpenOptions::new().read(true).write(true).create(true).open("/file").await
                else {
                    see("open");
                    return Ok(());
                };
                match file.write_at(&[1; 100], 0).await {
                    Ok(100) => {}
                    Ok(_) => see("short write"),
                    Err(e) if e.kind() == io::ErrorKind::StorageFull => see("full"),
                    Err(_) => see("write"),
                }
                let len = file.metadata().await.map(|found| found.len()).unwrap_or(0);
                match file.read_at(&mut [0; 100], 0).await {
                    Ok(n) if (n as u64) < len => see("short read"),
                    Ok(_) => {}
                    Err(e) => {
                        assert_eq!(code::<()>(Err(e)), Errno::IO);
                        see("read");
                    }
                }
                if file.sync_all().await.is_err() {
                    see("sync");
                    file.sync_all().await.ok();
                }
                if elapsed() - begun > Duration::from_millis(10) {
                    see("slow");
                }
                Ok(())
            }
        })?;
        for what in counts.borrow().iter() {
            *seen.lock().unwrap().entry(*what).or_insert(0) += 1;
        }
        Ok(())
    });
    let seen = seen.into_inner().unwrap();
    let ways = ["full", "open", "read", "short read", "short write", "slow", "sync", "write"];
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), ways, "{seen:?}");
    assert!(report.hits(Fault::Disk) > 60);
}

/// A server that writes a state in one step, as it is to be done, or without syncing, and notes what it finds after a crash.
fn after_crash(syncs: bool) -> std::collections::BTreeSet<Option<Vec<u8>>> {
    let found = Mutex::new(std::collections::BTreeSet::new());
    Check::new().seeds(0..64).run(|world| {
        let seen = Rc::new(RefCell::new(None));
        let told = seen.clone();
        let server = world.host("server", move || {
            let told = told.clone();
            async move {
                if fs::metadata("/begun").await.is_ok() {
                    *told.borrow_mut() = Some(fs::read("/state").await.ok());
                    return std::future::pending().await;
                }
                fs::write("/begun", "").await?;
                fs::write("/state", "old").await?;
                File::open("/state").await?.sync_all().await?;
                let root = File::open("/").await?;
                root.sync_all().await?;
                fs::write("/state.new", "newer").await?;
                if syncs {
                    File::open("/state.new").await?.sync_all().await?;
                }
                fs::rename("/state.new", "/state").await?;
                std::future::pending().await
            }
        });
        world.run_for(Duration::from_secs(1))?;
        world.crash(server, Duration::from_secs(1));
        world.run_for(Duration::from_secs(3))?;
        let Some(state) = seen.borrow_mut().take() else { panic!("it has not started again") };
        found.lock().unwrap().insert(state);
        Ok(())
    });
    found.into_inner().unwrap()
}

#[test]
fn what_was_not_synced_may_be_lost_with_the_power() {
    let state = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(after_crash(true), [state("old"), state("newer")].into());
    let torn = after_crash(false);
    assert!(torn.contains(&state("old")) && torn.contains(&state("newer")), "{torn:?}");
    assert!(torn.contains(&state("")) && torn.contains(&state("\0\0\0\0\0")), "{torn:?}");
}

#[test]
fn a_killed_process_loses_nothing_that_it_wrote() {
    Check::new().seeds(0..4).run(|world| {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let told = seen.clone();
        let server = world.host("server", move || {
            let told = told.clone();
            async move {
                if let Ok(found) = fs::read("/file").await {
                    told.borrow_mut().extend(found);
                } else {
                    fs::write("/file", "kept").await?;
                }
                std::future::pending().await
            }
        });
        world.run_for(Duration::from_secs(1))?;
        world.kill(server, Duration::ZERO);
        world.run_for(Duration::from_secs(1))?;
        assert_eq!(*seen.borrow(), b"kept");
        Ok(())
    });
}

#[test]
fn a_full_disk_takes_no_more_and_other_files_are_refused() {
    let mut world = World::new(1);
    let real = std::fs::File::open("/proc/self/exe").unwrap();
    let real = Rc::new(real);
    one(&mut world, move || {
        let real = real.clone();
        async move {
            let file = File::create("/big").await?;
            file.write_all_at(&[1], super::CAPACITY - 2).await?;
            // The first byte and the last one that there is room for.
            assert_eq!(file.write_at(&[1, 2, 3], super::CAPACITY - 1).await?, 1);
            assert_eq!(code(file.write_at(&[1], super::CAPACITY).await), Errno::NOSPC);
            assert_eq!(code(fs::write("/small", "x").await), Errno::NOSPC);
            fs::remove_file("/big").await?;
            fs::write("/small", "x").await?;
            let outside = File::from_std(real.as_fd().try_clone_to_owned()?.into());
            assert_eq!(outside.metadata().await.unwrap_err().kind(), io::ErrorKind::Unsupported);
            Ok(())
        }
    })
    .unwrap();
}
