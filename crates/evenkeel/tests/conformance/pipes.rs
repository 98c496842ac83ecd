//! Pipes, anonymous and named.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use evenkeel::pipe::{Receiver, Sender, pipe};
use evenkeel::sim::{blocking, is_simulated};
use evenkeel::{Backend, EventLoop, time};
use futures_util::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{assert_same, descriptors, event_loop, pattern, unique, until};

on_every_kernel! {
    i35_everything_goes_through_a_full_pipe,
    the_end_comes_after_the_bytes,
    the_traits_of_others_do_the_same,
    waiting_is_cancel_safe_and_costs_no_turns,
    a_reader_gives_up_its_turn,
    the_end_of_the_loop_ends_waiting,
}

// Descriptors of the running kernel, and named pipes, which a simulated disk has not.
on_every_backend! {
    ends_talk_with_threads_that_block,
    a_named_pipe_waits_for_its_writer,
    only_ends_of_pipes_are_taken,
}

in_processes! {
    i33_writing_to_nobody_is_an_error_and_no_signal,
    i36_pipes_leave_no_descriptor_behind,
}

in_hosts! {
    i33_writing_to_nobody_is_an_error_and_no_signal,
    i36_pipes_leave_no_descriptor_behind,
}

fn run<R>(events: &mut EventLoop, body: impl AsyncFnOnce() -> io::Result<R>) -> R {
    events.block_on(body()).unwrap().unwrap()
}

struct Fifo(PathBuf);

impl Fifo {
    fn new(name: &str, backend: Backend) -> Self {
        let path = std::env::temp_dir().join(unique(&format!("{name}-{backend}")));
        let _ = std::fs::remove_file(&path);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        Fifo(path)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn i35_everything_goes_through_a_full_pipe(backend: Backend) {
    let mut events = event_loop(backend);
    let sent = pattern(3_000_000);
    let bytes = sent.clone();
    let got = run(&mut events, async || {
        let (mut sender, mut receiver) = pipe()?;
        let sending = evenkeel::spawn(async move {
            let (first, rest) = bytes.split_at(1_000_000);
            sender.write_all(first).await?;
            let mut rest = rest;
            while !rest.is_empty() {
                let (a, b) = rest.split_at(rest.len().min(777));
                let slices = [IoSlice::new(&[]), IoSlice::new(a), IoSlice::new(b)];
                let n = sender.write_vectored(&slices).await?;
                rest = &rest[n..];
            }
            assert_eq!(sender.write_vectored(&[IoSlice::new(&[])]).await?, 0);
            sender.write(&[]).await
        });
        let mut got = vec![0; 1_500_000];
        receiver.read_exact(&mut got).await?;
        let mut small = [0; 100];
        while got.len() < 2_000_000 {
            let n = receiver.read(&mut small).await?;
            got.extend_from_slice(&small[..n]);
        }
        while let Some(()) = receiver.read_with(|bytes| got.extend_from_slice(bytes)).await? {}
        assert_eq!(sending.await.unwrap()?, 0);
        Ok(got)
    });
    assert_same(&got, &sent);
}

fn the_end_comes_after_the_bytes(backend: Backend) {
    let mut events = event_loop(backend);
    run(&mut events, async || {
        for close in [false, true] {
            let (mut sender, mut receiver) = pipe()?;
            sender.write_all(b"last").await?;
            if close {
                sender.close();
                assert_eq!(sender.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
                assert_eq!(sender.into_fd().unwrap_err().kind(), ErrorKind::NotConnected);
            } else {
                drop(sender);
            }
            let mut all = Vec::new();
            assert_eq!(receiver.read_to_end(&mut all).await?, 4);
            for _ in 0..3 {
                assert_eq!(receiver.read(&mut [0; 4]).await?, 0, "the end stays");
            }
            assert_eq!(receiver.read_exact(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
            assert_eq!(receiver.read(&mut []).await?, 0);
        }
        Ok(())
    });
}

fn ends_talk_with_threads_that_block(backend: Backend) {
    let mut events = event_loop(backend);
    let (theirs_in, theirs_out) = run(&mut events, async || {
        let ((to, from_us), (to_us, from)) = (pipe()?, pipe()?);
        let echo: (OwnedFd, OwnedFd) = (from_us.into_blocking_fd()?, to_us.into_blocking_fd()?);
        evenkeel::spawn(async move {
            let (mut to, mut from) = (to, from);
            for len in [1, 10, 100_000] {
                let sent = pattern(len);
                let writing = async {
                    to.write_all(&sent).await.unwrap();
                };
                let mut back = vec![0; len];
                let (_, read) = futures_util::join!(writing, from.read_exact(&mut back));
                read.unwrap();
                assert_same(&back, &sent);
            }
            drop(to);
            assert_eq!(from.read(&mut [0; 4]).await.unwrap(), 0);
            evenkeel::Handle::current().stop();
        })
        .detach();
        Ok(echo)
    });
    let echo = blocking::spawn(move || {
        let (mut from, mut to) = (std::fs::File::from(theirs_in), std::fs::File::from(theirs_out));
        io::copy(&mut from, &mut to)
    });
    events.run().unwrap();
    drop(events);
    assert_eq!(echo.join().unwrap().unwrap(), 100_011);
}

fn a_named_pipe_waits_for_its_writer(backend: Backend) {
    let mut events = event_loop(backend);
    let fifo = Fifo::new("fifo", backend);
    let nobody = events.block_on(async { Sender::open(&fifo.0).map(drop) }).unwrap();
    assert_eq!(nobody.unwrap_err().raw_os_error(), Some(libc::ENXIO));
    let mut receiver = run(&mut events, async || Receiver::open(&fifo.0));
    // Without a writer it has not ended: it has not begun.
    let early = events.block_on(time::timeout(Duration::from_millis(5), receiver.read(&mut [0; 4])));
    assert!(early.unwrap().is_err());
    let path = fifo.0.clone();
    let reading = events.handle().spawn(async move {
        let mut all = Vec::new();
        receiver.read_to_end(&mut all).await.map(|_| all)
    });
    events.poll().unwrap();
    let writer = blocking::spawn(move || {
        let mut to = OpenOptions::new().write(true).open(path).unwrap();
        to.write_all(b"first").unwrap();
    });
    assert_eq!(events.block_on(reading).unwrap().unwrap().unwrap(), b"first");
    writer.join().unwrap();
    // Opened anew, it waits anew; and one who comes and goes without a word ends it.
    let mut receiver = run(&mut events, async || Receiver::open(&fifo.0));
    let early = events.block_on(time::timeout(Duration::from_millis(2), receiver.read(&mut [0; 4])));
    assert!(early.unwrap().is_err());
    let path = fifo.0.clone();
    let reading = events.handle().spawn(async move { receiver.read(&mut [0; 4]).await });
    events.poll().unwrap();
    drop(OpenOptions::new().write(true).open(path).unwrap());
    assert_eq!(events.block_on(reading).unwrap().unwrap().unwrap(), 0);
    // The other way round.
    let mut reader = OpenOptions::new().read(true).write(true).open(&fifo.0).unwrap();
    run(&mut events, async || Sender::open(&fifo.0)?.write_all(b"hello").await);
    let mut got = [0; 5];
    reader.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
}

fn the_traits_of_others_do_the_same(backend: Backend) {
    let mut events = event_loop(backend);
    let sent = pattern(300_000);
    let got = run(&mut events, async || {
        let (mut sender, mut receiver) = pipe()?;
        let bytes = sent.clone();
        let sending = evenkeel::spawn(async move {
            AsyncWriteExt::write_all(&mut sender, &bytes).await?;
            AsyncWriteExt::flush(&mut sender).await?;
            AsyncWriteExt::close(&mut sender).await?;
            Ok::<_, io::Error>(sender)
        });
        let mut got = Vec::new();
        AsyncReadExt::read_to_end(&mut receiver, &mut got).await?;
        drop(sending.await.unwrap()?);
        Ok(got)
    });
    assert_same(&got, &sent);
    run(&mut events, async || {
        use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
        let (mut sender, mut receiver) = pipe()?;
        let (mut to, mut from) = (std::pin::Pin::new(&mut sender), std::pin::Pin::new(&mut receiver));
        std::future::poll_fn(|cx| AsyncWrite::poll_write(to.as_mut(), cx, b"tokio")).await?;
        std::future::poll_fn(|cx| AsyncWrite::poll_shutdown(to.as_mut(), cx)).await?;
        let mut memory = [std::mem::MaybeUninit::uninit(); 16];
        let mut buf = ReadBuf::uninit(&mut memory);
        std::future::poll_fn(|cx| AsyncRead::poll_read(from.as_mut(), cx, &mut buf)).await?;
        assert_eq!(buf.filled(), b"tokio");
        std::future::poll_fn(|cx| AsyncRead::poll_read(from.as_mut(), cx, &mut buf)).await?;
        assert_eq!(buf.filled(), b"tokio", "the end");
        Ok(())
    });
}

fn waiting_is_cancel_safe_and_costs_no_turns(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let (mut sender, mut receiver) = run(&mut events, async || pipe());
    let turns = h.stats().turns;
    for _ in 0..3 {
        let waited = events.block_on(time::timeout(Duration::from_millis(5), receiver.read(&mut [0; 4])));
        assert!(waited.unwrap().is_err());
    }
    let mut written = 0;
    let full = pattern(1 << 20);
    while let Ok(n) =
        events.block_on(time::timeout(Duration::from_millis(5), sender.write(&full[written..]))).unwrap()
    {
        written += n.unwrap();
    }
    let turns = h.stats().turns - turns;
    assert!(turns < 60, "{turns} turns");
    // What was given up wrote nothing, and what is there is whole.
    drop(sender);
    let mut all = Vec::new();
    run(&mut events, async || receiver.read_to_end(&mut all).await);
    assert_same(&all, &full[..written]);
}

fn only_ends_of_pipes_are_taken(backend: Backend) {
    let mut events = event_loop(backend);
    let fifo = Fifo::new("kinds", backend);
    run(&mut events, async || {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let refused = [
            Receiver::from_fd(write.try_clone()?).map(drop),
            Sender::from_fd(read.try_clone()?).map(drop),
            Receiver::from_fd(std::fs::File::open("/etc/passwd")?).map(drop),
            Sender::from_fd(blocking::UnixStream::pair()?.0.into_fd()?).map(drop),
            Receiver::open("/etc/passwd").map(drop),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(Receiver::open("/no/such/pipe").unwrap_err().kind(), ErrorKind::NotFound);
        let blocks =
            |fd: &OwnedFd| !rustix::fs::fcntl_getfl(fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK);
        assert!(blocks(&read) && blocks(&write), "what was refused was left as it was");
        let (mut receiver, mut sender) = (Receiver::from_fd(read)?, Sender::from_fd(write)?);
        sender.write_all(b"x").await?;
        assert_eq!(receiver.read(&mut [0; 4]).await?, 1);
        assert!(!blocks(&sender.into_fd()?) && blocks(&receiver.into_blocking_fd()?));
        // Both ends of one open file.
        let both = OpenOptions::new().read(true).write(true).open(&fifo.0)?;
        let mut sender = Sender::from_fd(both.as_fd().try_clone_to_owned()?)?;
        let mut receiver = Receiver::from_fd(both)?;
        sender.write_all(b"y").await?;
        assert_eq!(receiver.read(&mut [0; 4]).await?, 1);
        Ok(())
    });
}

fn a_reader_gives_up_its_turn(backend: Backend) {
    let mut events = event_loop(backend);
    run(&mut events, async || {
        let (mut sender, mut receiver) = pipe()?;
        // Neither ever has to wait for the other.
        let busy = evenkeel::spawn(async move {
            loop {
                sender.write_all(b"x").await.unwrap();
                receiver.read(&mut [0; 4]).await.unwrap();
            }
        });
        time::sleep(Duration::from_millis(2)).await;
        busy.abort();
        Ok(())
    });
}

fn the_end_of_the_loop_ends_waiting(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut sender, mut receiver) = run(&mut events, async || pipe());
    let kept = run(&mut events, async || pipe());
    let task = events.handle().spawn(async move { receiver.read(&mut [0; 4]).await });
    events.poll().unwrap();
    drop(events);
    assert!(task.is_finished());
    let mut other = event_loop(backend);
    let late = other.block_on(sender.write(b"x")).unwrap();
    assert_eq!(late.unwrap_err().kind(), ErrorKind::NotConnected);
    drop(kept);
}

fn i33_writing_to_nobody_is_an_error_and_no_signal(backend: Backend) {
    // A world has no signals, and is not alone in its process.
    if !is_simulated() {
        // SAFETY: sets a disposition to its default; no other thread of this process uses it.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    let mut events = event_loop(backend);
    for _ in 0..3 {
        run(&mut events, async || {
            let (mut sender, receiver) = pipe()?;
            sender.write_all(b"x").await?;
            drop(receiver);
            for _ in 0..2 {
                assert_eq!(sender.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            }
            Ok(())
        });
    }
    // One that waits for room when the reader goes.
    run(&mut events, async || {
        let (mut sender, receiver) = pipe()?;
        let waits = evenkeel::spawn(async move { sender.write_all(&pattern(1 << 20)).await });
        evenkeel::task::yield_now().await;
        drop(receiver);
        assert_eq!(waits.await.unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
        Ok(())
    });
    events.poll().unwrap();
}

fn i36_pipes_leave_no_descriptor_behind(backend: Backend) {
    let before = descriptors();
    let mut events = event_loop(backend);
    let h = events.handle();
    let open = descriptors();
    for _ in 0..3 {
        run(&mut events, async || {
            let (mut sender, mut receiver) = pipe()?;
            let kept = pipe()?;
            let _ = time::timeout(Duration::from_millis(1), receiver.read(&mut [0; 4])).await;
            sender.write_all(b"x").await?;
            drop((sender.into_fd()?, kept));
            Ok(())
        });
    }
    until(&mut events, "all are closed", || h.stats().sources == 0 && descriptors() == open);
    let kept = run(&mut events, async || pipe());
    drop(events);
    drop((kept, h));
    assert_eq!(descriptors(), before);
}
