//! Files that the kernel sends by itself.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Duration;

use evenkeel::fs::{self, File};
use evenkeel::net::Stream;
use evenkeel::sim::blocking::{self, TcpListener, UnixStream};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, EventLoop, Message, time};

use crate::support::{PEER, assert_same, event_loop, pattern, reset_on_close, unique, until};

on_every_kernel! {
    parts_of_files_arrive_in_order_with_all_else,
    i35_a_slow_reader_gets_every_byte,
    a_file_that_is_short_or_becomes_so_is_told_by_the_count,
    what_cannot_be_sent_is_an_error,
    a_sender_gives_up_its_turn,
}

// A simulated file is memory, be it a directory, and there are neither other kinds nor pipes that are opened like files.
on_every_backend! {
    what_is_not_in_memory_is_read_without_keeping_the_loop,
    what_has_no_pages_is_sent_all_the_same,
    what_is_no_file_cannot_be_sent,
}

in_processes! {
    i33_a_peer_that_is_gone_raises_no_signal,
}

in_hosts! {
    i33_a_peer_that_is_gone_raises_no_signal,
}

fn run<R>(events: &mut EventLoop, body: impl AsyncFnOnce() -> io::Result<R>) -> R {
    events.block_on(body()).unwrap().unwrap()
}

struct OnDisk(PathBuf);

impl OnDisk {
    fn new(name: &str, backend: Backend, content: &[u8]) -> Self {
        if is_simulated() {
            let path = PathBuf::from("/tmp").join(name);
            event_loop(backend).block_on(fs::write(&path, content)).unwrap().unwrap();
            return OnDisk(path);
        }
        let path = std::env::temp_dir().join(unique(&format!("{name}-{backend}")));
        std::fs::write(&path, content).unwrap();
        OnDisk(path)
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        if !is_simulated() {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// A stream of the loop that runs, and its raw peer.
async fn tcp() -> (Stream, blocking::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = Stream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(PEER)).unwrap();
    (stream, peer)
}

fn read_all(mut peer: impl Read + Send + 'static) -> blocking::JoinHandle<Vec<u8>> {
    blocking::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    })
}

fn parts_of_files_arrive_in_order_with_all_else(backend: Backend) {
    let mut events = event_loop(backend);
    let content = pattern(1_000_000);
    let disk = OnDisk::new("parts", backend, &content);
    let mut wanted = Vec::new();
    let reading = run(&mut events, async || {
        let (mut stream, mut peer) = tcp().await;
        let file = File::open(&disk.0).await?;
        peer.write_all(b"GET")?;
        // A lent answer, a shared message and a write, which wait in three different places.
        stream
            .read_with(|_, reply| {
                reply.write(b"head");
            })
            .await?;
        stream.send(&Message::from(pattern(5000)));
        stream.write_all(b"body").await?;
        let reading = read_all(peer);
        wanted.extend([b"head".to_vec(), pattern(5000), b"body".to_vec()].concat());
        for (at, len) in [(0, 1), (10, 0), (4095, 2), (1, 999_999), (500_000, 300_000)] {
            assert_eq!(stream.send_file(&file, at, len).await?, len);
            stream.send(&Message::from("|"));
            wanted.extend_from_slice(&content[at as usize..(at + len) as usize]);
            wanted.push(b'|');
        }
        stream.write_all(b"end").await?;
        wanted.extend_from_slice(b"end");
        stream.shutdown().await?;
        Ok((reading, stream))
    });
    assert_same(&reading.0.join().unwrap(), &wanted);
    // A Unix socket takes files too.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let reading = read_all(theirs);
    run(&mut events, async || {
        let file = File::open(&disk.0).await?;
        let mut stream = Stream::from_fd(ours.into_fd().unwrap())?;
        assert_eq!(stream.send_file(&file, 0, u32::MAX.into()).await?, 1_000_000);
        stream.shutdown().await
    });
    assert_same(&reading.join().unwrap(), &content);
}

fn i35_a_slow_reader_gets_every_byte(backend: Backend) {
    let mut events = event_loop(backend);
    let content = pattern(20_000_000);
    let disk = OnDisk::new("slow", backend, &content);
    let h = events.handle();
    let (go, may_go) = channel::<()>();
    let (reading, task) = run(&mut events, async || {
        let (mut stream, mut peer) = tcp().await;
        let reading = blocking::spawn(move || {
            blocking::aside(|| may_go.recv()).unwrap();
            let (mut all, mut piece) = (Vec::new(), vec![0; 100_000]);
            loop {
                match peer.read(&mut piece).unwrap() {
                    0 => return all,
                    n => all.extend_from_slice(&piece[..n]),
                }
            }
        });
        let path = disk.0.clone();
        let task = evenkeel::spawn(async move {
            let file = File::open(path).await?;
            let n = stream.send_file(&file, 0, u64::from(u32::MAX)).await?;
            stream.shutdown().await?;
            Ok::<_, io::Error>((n, stream))
        });
        // The peer takes nothing yet: it waits, and costs nothing.
        time::sleep(Duration::from_millis(20)).await;
        Ok((reading, task))
    });
    assert!(!task.is_finished());
    let turns = h.stats().turns;
    run(&mut events, async || {
        time::sleep(Duration::from_millis(20)).await;
        Ok(())
    });
    assert!(h.stats().turns - turns < 10, "{} turns", h.stats().turns - turns);
    go.send(()).unwrap();
    let (n, _stream) = events.block_on(task).unwrap().unwrap().unwrap();
    assert_eq!(n, 20_000_000);
    assert_same(&reading.join().unwrap(), &content);
}

fn what_is_not_in_memory_is_read_without_keeping_the_loop(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let content = pattern(3_000_000);
    let disk = OnDisk::new("cold", backend, &content);
    let before = OpenOptions::new().read(true).write(true).open(&disk.0).unwrap();
    before.sync_all().unwrap();
    // The kernel drops what it has of it, if the file is on a disk.
    rustix::fs::fadvise(&before, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut byte = [0];
    let mut first = [io::IoSliceMut::new(&mut byte)];
    let flags = rustix::io::ReadWriteFlags::NOWAIT;
    let cold =
        rustix::io::preadv2(&before, &mut first, 0, flags).is_err_and(|e| e == rustix::io::Errno::AGAIN);
    let reading = run(&mut events, async || {
        let (mut stream, peer) = tcp().await;
        let reading = read_all(peer);
        let file = File::open(&disk.0).await?;
        let operations = h.stats().file_ops;
        assert_eq!(stream.send_file(&file, 0, 3_000_000).await?, 3_000_000);
        assert!(!cold || h.stats().file_ops > operations, "the disk was waited for on the loop");
        stream.shutdown().await?;
        Ok((reading, stream))
    });
    assert_same(&reading.0.join().unwrap(), &content);
}

fn a_file_that_is_short_or_becomes_so_is_told_by_the_count(backend: Backend) {
    let mut events = event_loop(backend);
    let disk = OnDisk::new("short", backend, &pattern(1000));
    run(&mut events, async || {
        let (mut stream, peer) = tcp().await;
        let file = File::open(&disk.0).await?;
        for (at, len, sent) in [(0, 2000, 1000), (999, 2, 1), (1000, 1, 0), (1 << 40, 10, 0), (0, 0, 0)] {
            assert_eq!(stream.send_file(&file, at, len).await?, sent);
        }
        drop(peer);
        Ok(())
    });
    // It shrinks while the peer is slow.
    let long = OnDisk::new("shrinks", backend, &pattern(30_000_000));
    let path = long.0.clone();
    let (task, peer, early) = run(&mut events, async || {
        let (mut stream, mut peer) = tcp().await;
        let task = evenkeel::spawn(async move {
            let file = File::open(path).await?;
            let n = stream.send_file(&file, 0, 30_000_000).await?;
            stream.shutdown().await?;
            Ok::<_, io::Error>((n, stream))
        });
        // It has begun, and more than will be left has come.
        let mut early = 0;
        peer.set_nonblocking(true)?;
        while early <= 100 {
            match peer.read(&mut [0; 200]) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => time::sleep(Duration::from_millis(1)).await,
                got => early += got?,
            }
        }
        peer.set_nonblocking(false)?;
        Ok((task, peer, early))
    });
    assert!(!task.is_finished());
    run(&mut events, async || fs::OpenOptions::new().write(true).open(&long.0).await?.set_len(100).await);
    let reading = read_all(peer);
    let (n, _stream) = events.block_on(task).unwrap().unwrap().unwrap();
    assert!(n > 100 && n < 30_000_000, "{n}");
    assert_eq!((early + reading.join().unwrap().len()) as u64, n, "as many as were counted");
}

fn what_has_no_pages_is_sent_all_the_same(backend: Backend) {
    let mut events = event_loop(backend);
    let content = pattern(100_000);
    let disk = OnDisk::new("direct", backend, &content);
    let mut wanted = Vec::new();
    let reading = run(&mut events, async || {
        let (mut stream, peer) = tcp().await;
        let reading = read_all(peer);
        let mut direct = OpenOptions::new();
        // Not every file system has it.
        if let Ok(direct) = direct.read(true).custom_flags(libc::O_DIRECT).open(&disk.0) {
            match stream.send_file(&File::from_std(direct), 0, 100_000).await {
                Ok(n) => wanted.extend_from_slice(&content[..n as usize]),
                // What is not aligned for the device may be refused, at the beginning.
                Err(e) => assert_eq!(e.kind(), ErrorKind::InvalidInput),
            }
        }
        let made_up = File::open("/proc/version").await?;
        let version = std::fs::read("/proc/version")?;
        assert_eq!(stream.send_file(&made_up, 0, 1 << 20).await?, version.len() as u64);
        wanted.extend(version);
        let zeros = File::open("/dev/zero").await?;
        match stream.send_file(&zeros, 0, 10_000).await {
            Ok(n) => wanted.extend(vec![0; n as usize]),
            Err(e) => assert_eq!(e.kind(), ErrorKind::NotSeekable),
        }
        stream.shutdown().await?;
        Ok((reading, stream))
    });
    assert_same(&reading.0.join().unwrap(), &wanted);
}

fn what_cannot_be_sent_is_an_error(backend: Backend) {
    let mut events = event_loop(backend);
    let disk = OnDisk::new("errors", backend, &pattern(1000));
    run(&mut events, async || {
        let (mut stream, _peer) = tcp().await;
        let file = File::open(&disk.0).await?;
        for (at, len) in [(u64::MAX, 1), (1 << 63, 0), (i64::MAX as u64, 1)] {
            let refused = stream.send_file(&file, at, len).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        }
        let unreadable = fs::OpenOptions::new().write(true).open(&disk.0).await?;
        assert!(stream.send_file(&unreadable, 0, 10).await.is_err());
        assert_eq!(stream.send_file(&file, 0, 10).await?, 10, "none of this was the stream's fault");
        stream.shutdown().await?;
        assert_eq!(stream.send_file(&file, 0, 10).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        Ok(())
    });
}

fn what_is_no_file_cannot_be_sent(backend: Backend) {
    let mut events = event_loop(backend);
    run(&mut events, async || {
        let (mut stream, _peer) = tcp().await;
        let folder = File::open("/").await?;
        assert_eq!(stream.send_file(&folder, 0, 10).await.unwrap_err().kind(), ErrorKind::IsADirectory);
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let pipe = File::from_std(read.into());
        assert_eq!(stream.send_file(&pipe, 0, 10).await.unwrap_err().kind(), ErrorKind::NotSeekable);
        Ok(())
    });
}

fn a_sender_gives_up_its_turn(backend: Backend) {
    let mut events = event_loop(backend);
    let disk = OnDisk::new("turns", backend, b"x");
    let reading = run(&mut events, async || {
        let (mut stream, mut peer) = tcp().await;
        let reading = blocking::spawn(move || {
            let mut piece = vec![0; 100_000];
            // It ends with the loop, one way or another.
            while peer.read(&mut piece).is_ok_and(|n| n > 0) {}
        });
        let file = File::open(&disk.0).await?;
        evenkeel::spawn(async move {
            loop {
                stream.send_file(&file, 0, 1).await.unwrap();
            }
        })
        .detach();
        time::sleep(Duration::from_millis(2)).await;
        Ok(reading)
    });
    drop(events);
    reading.join().unwrap();
}

fn i33_a_peer_that_is_gone_raises_no_signal(backend: Backend) {
    // A world has no signals, and is not alone in its process.
    if !is_simulated() {
        // SAFETY: sets a disposition to its default; no other thread of this process uses it.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    let mut events = event_loop(backend);
    let h = events.handle();
    let disk = OnDisk::new("gone", backend, &pattern(5_000_000));
    for reset in [true, false] {
        run(&mut events, async || {
            let (mut stream, peer) = tcp().await;
            let file = File::open(&disk.0).await?;
            if reset {
                reset_on_close(&peer);
            }
            drop(peer);
            while stream.send_file(&file, 0, 5_000_000).await.is_ok() {}
            for _ in 0..3 {
                assert!(stream.send_file(&file, 0, 1000).await.is_err());
            }
            Ok(())
        });
        // Each end of running lets the mask go: nothing was left behind it.
        events.poll().unwrap();
    }
    // It is gone while the sender waits for room.
    let (task, peer) = run(&mut events, async || {
        let (mut stream, peer) = tcp().await;
        let file = File::open(&disk.0).await?;
        let task =
            evenkeel::spawn(async move { while stream.send_file(&file, 0, 5_000_000).await.is_ok() {} });
        time::sleep(Duration::from_millis(10)).await;
        Ok((task, peer))
    });
    drop(peer);
    events.block_on(task).unwrap().unwrap();
    until(&mut events, "all is closed", || h.stats().sources == 0);
}
