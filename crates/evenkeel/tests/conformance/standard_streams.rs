//! Standard input, output and error, whatever they are. Each test has a process to itself, since they are the process's.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use evenkeel::{Backend, EventLoop, stdio, time};
use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use rustix::fs::OFlags;

use crate::support::{assert_same, descriptors, event_loop, pattern};

in_processes! {
    i34_input_from_a_pipe,
    i34_output_to_a_pipe_that_is_full,
    i34_a_terminal,
    i34_a_socket,
    files_are_read_and_written_where_they_are,
    devices_that_are_always_ready,
    i33_output_to_nobody_is_an_error_and_no_signal,
    i36_no_descriptor_stays,
}

fn run<R>(events: &mut EventLoop, body: impl AsyncFnOnce() -> io::Result<R>) -> R {
    events.block_on(body()).unwrap().unwrap()
}

/// Puts an open file in the place of a standard stream of this process.
pub fn put(file: impl AsFd, number: i32) {
    // SAFETY: numbers 0 to 2 are the standard streams, which nobody owns.
    let done = unsafe { libc::dup2(file.as_fd().as_raw_fd(), number) };
    assert_eq!(done, number);
}

/// What others see who share the open file: that a loop uses it must not show.
fn blocks(file: impl AsFd) -> bool {
    !rustix::fs::fcntl_getfl(file).unwrap().contains(OFlags::NONBLOCK)
}

fn temporary(name: &str, backend: Backend) -> PathBuf {
    std::env::temp_dir().join(format!("evenkeel-{name}-{}-{backend}", std::process::id()))
}

fn i34_input_from_a_pipe(backend: Backend) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    put(&read, 0);
    let mut events = event_loop(backend);
    let h = events.handle();
    let mut stdin = run(&mut events, async || stdio::stdin());
    let turns = h.stats().turns;
    for _ in 0..3 {
        let waited = events.block_on(time::timeout(Duration::from_millis(5), stdin.read(&mut [0; 4])));
        assert!(waited.unwrap().is_err());
    }
    assert!(h.stats().turns - turns < 40);
    assert!(blocks(&read) && blocks(io::stdin()), "while somebody waits");
    let sent = pattern(500_000);
    let bytes = sent.clone();
    let writing = thread::spawn(move || File::from(write).write_all(&bytes).unwrap());
    let mut got = vec![0; 7];
    let n = run(&mut events, async || {
        assert_eq!(stdin.read(&mut []).await?, 0);
        stdin.read(&mut got).await
    });
    got.truncate(n);
    run(&mut events, async || AsyncReadExt::read_to_end(&mut stdin, &mut got).await);
    assert_same(&got, &sent);
    writing.join().unwrap();
    drop((stdin, events));
    assert!(blocks(&read) && blocks(io::stdin()), "and afterwards");
}

fn i34_output_to_a_pipe_that_is_full(backend: Backend) {
    let saved = io::stdout().as_fd().try_clone_to_owned().unwrap();
    let (read, write) = rustix::pipe::pipe().unwrap();
    // First, since it may have something to say on standard error.
    let mut events = event_loop(backend);
    put(&write, 1);
    put(&write, 2);
    let sent = pattern(1_000_000);
    let (mut out, mut err) = run(&mut events, async || Ok((stdio::stdout()?, stdio::stderr()?)));
    let mut written = 0;
    while let Ok(n) =
        events.block_on(time::timeout(Duration::from_millis(5), out.write(&sent[written..]))).unwrap()
    {
        written += n.unwrap();
    }
    let no_room = events.block_on(time::timeout(Duration::from_millis(5), err.write(b"x"))).unwrap();
    let shared = blocks(&write) && blocks(io::stdout()) && blocks(io::stderr());
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        File::from(read).read_to_end(&mut all).unwrap();
        all
    });
    run(&mut events, async || {
        out.write_all(&sent[written..]).await?;
        AsyncWriteExt::flush(&mut out).await?;
        err.write_all(b"err").await?;
        AsyncWriteExt::close(&mut err).await
    });
    drop((out, err, events, write));
    // The end comes when the process's own copies are gone, too.
    put(&saved, 1);
    put(&saved, 2);
    let mut all = reading.join().unwrap();
    assert!(shared && no_room.is_err());
    assert_eq!(all.split_off(all.len() - 3), b"err");
    assert_same(&all, &sent);
}

/// A new terminal: what a person would look at, and what a program has.
pub fn terminal() -> (File, OwnedFd) {
    // SAFETY: opens and unlocks a new terminal, both of whose ends are the caller's.
    unsafe {
        let far = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(far >= 0 && libc::grantpt(far) == 0 && libc::unlockpt(far) == 0);
        let mut name = [0; 64];
        assert_eq!(libc::ptsname_r(far, name.as_mut_ptr(), name.len()), 0);
        let near = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(near >= 0);
        (File::from_raw_fd(far), OwnedFd::from_raw_fd(near))
    }
}

fn i34_a_terminal(backend: Backend) {
    let (mut far, near) = terminal();
    let saved = io::stdout().as_fd().try_clone_to_owned().unwrap();
    put(&near, 0);
    put(&near, 1);
    let mut events = event_loop(backend);
    let (mut stdin, mut stdout) = run(&mut events, async || Ok((stdio::stdin()?, stdio::stdout()?)));
    let waited = events.block_on(time::timeout(Duration::from_millis(5), stdin.read(&mut [0; 4])));
    let nothing = waited.unwrap().is_err();
    let shared = blocks(&near) && blocks(io::stdin()) && blocks(io::stdout());
    far.write_all(b"a line\n").unwrap();
    let mut line = [0; 100];
    let n = run(&mut events, async || stdin.read(&mut line).await);
    run(&mut events, async || stdout.write_all(b"answer").await);
    put(&saved, 1);
    assert!(nothing && shared);
    assert_eq!(&line[..n], b"a line\n");
    // The terminal has echoed the line, and then there is the answer.
    let mut seen = Vec::new();
    while !seen.ends_with(b"answer") {
        let mut piece = [0; 100];
        let n = far.read(&mut piece).unwrap();
        seen.extend_from_slice(&piece[..n]);
    }
    // Ctrl-D is the end.
    far.write_all(&[4]).unwrap();
    assert_eq!(run(&mut events, async || stdin.read(&mut line).await), 0);
}

fn i34_a_socket(backend: Backend) {
    let saved = io::stdout().as_fd().try_clone_to_owned().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    put(&ours, 0);
    put(&ours, 1);
    let mut events = event_loop(backend);
    let (mut stdin, mut stdout) = run(&mut events, async || Ok((stdio::stdin()?, stdio::stdout()?)));
    let waited = events.block_on(time::timeout(Duration::from_millis(5), stdin.read(&mut [0; 4])));
    let nothing = waited.unwrap().is_err();
    let sent = pattern(1_000_000);
    let echo = thread::spawn(move || {
        let mut got = vec![0; 1_000_000];
        theirs.read_exact(&mut got).unwrap();
        theirs.write_all(b"all").unwrap();
        (got, theirs)
    });
    run(&mut events, async || stdout.write_all(&sent).await);
    let mut answer = [0; 10];
    let n = run(&mut events, async || stdin.read(&mut answer).await);
    let shared = blocks(&ours) && blocks(io::stdin()) && blocks(io::stdout());
    put(&saved, 1);
    assert!(nothing && shared);
    assert_eq!(&answer[..n], b"all");
    let (got, theirs) = echo.join().unwrap();
    assert_same(&got, &sent);
    drop(theirs);
    assert_eq!(run(&mut events, async || stdin.read(&mut answer).await), 0);
}

fn files_are_read_and_written_where_they_are(backend: Backend) {
    let saved = io::stdout().as_fd().try_clone_to_owned().unwrap();
    let (from, to) = (temporary("stdin", backend), temporary("stdout", backend));
    let content = pattern(200_000);
    std::fs::write(&from, &content).unwrap();
    let mut input = File::open(&from).unwrap();
    // Somebody has read and written before, and goes on afterwards.
    input.seek(SeekFrom::Start(100)).unwrap();
    let mut output = File::create(&to).unwrap();
    output.write_all(b"before|").unwrap();
    put(&input, 0);
    put(&output, 1);
    let mut events = event_loop(backend);
    let h = events.handle();
    let (mut got, mut position) = (vec![0; 1000], 0);
    run(&mut events, async || {
        let (mut stdin, mut stdout) = (stdio::stdin()?, stdio::stdout()?);
        let n = stdin.read(&mut got).await?;
        got.truncate(n);
        position = input.stream_position()?;
        // What an abandoned read has read is not lost.
        drop(time::timeout(Duration::ZERO, stdin.read(&mut [0; 500])).await);
        stdin.read_to_end(&mut got).await?;
        for part in content.chunks(30_000) {
            stdout.write_all(part).await?;
        }
        stdout.flush().await
    });
    put(&saved, 1);
    output.write_all(b"|after").unwrap();
    assert_eq!(position, 1100, "no more is read than was asked for");
    assert_same(&got, &content[100..]);
    assert_same(&std::fs::read(&to).unwrap(), &[b"before|", &content[..], b"|after"].concat());
    assert!(h.stats().file_ops_on_threads > 0);
    // One that cannot be written.
    put(&input, 2);
    let mut events = event_loop(backend);
    let error = events.block_on(async {
        let mut err = stdio::stderr()?;
        err.write_all(b"x").await?;
        err.flush().await
    });
    assert_eq!(error.unwrap().unwrap_err().raw_os_error(), Some(libc::EBADF));
    let _ = (std::fs::remove_file(from), std::fs::remove_file(to));
}

fn devices_that_are_always_ready(backend: Backend) {
    let saved = io::stdout().as_fd().try_clone_to_owned().unwrap();
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    put(&null, 0);
    put(&null, 1);
    let mut events = event_loop(backend);
    let n = run(&mut events, async || {
        let mut out = stdio::stdout()?;
        out.write_all(&pattern(1_000_000)).await?;
        out.flush().await?;
        stdio::stdin()?.read(&mut [0; 10]).await
    });
    put(File::open("/dev/zero").unwrap(), 0);
    let mut some = [1; 10];
    run(&mut events, async || stdio::stdin()?.read(&mut some).await);
    put(&saved, 1);
    assert_eq!((n, some), (0, [0; 10]));
    assert!(blocks(&null));
}

fn i33_output_to_nobody_is_an_error_and_no_signal(backend: Backend) {
    let saved = io::stdout().as_fd().try_clone_to_owned().unwrap();
    // SAFETY: sets a disposition to its default; no other thread of this process uses it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let mut kinds = Vec::new();
    for early in [true, false] {
        let (read, write) = rustix::pipe::pipe().unwrap();
        put(&write, 1);
        drop(write);
        let mut read = Some(read);
        if early {
            // It cannot be opened anew then, and a thread finds it out.
            read.take();
        }
        let mut events = event_loop(backend);
        let result = events.block_on(async {
            let mut out = stdio::stdout()?;
            read.take();
            out.write_all(b"x").await?;
            out.flush().await
        });
        kinds.push(result.unwrap().unwrap_err().kind());
        events.poll().unwrap();
    }
    put(&saved, 1);
    assert_eq!(kinds, [ErrorKind::BrokenPipe; 2]);
}

fn i36_no_descriptor_stays(backend: Backend) {
    let (read, _write) = rustix::pipe::pipe().unwrap();
    put(&read, 0);
    let before = descriptors();
    let mut events = event_loop(backend);
    let open = descriptors();
    run(&mut events, async || {
        let mut stdin = stdio::stdin()?;
        let all = (stdio::stdout()?, stdio::stderr()?, stdio::stdin()?);
        let _ = time::timeout(Duration::from_millis(1), stdin.read(&mut [0; 4])).await;
        drop((stdin, all));
        Ok(())
    });
    assert_eq!(descriptors(), open);
    let kept = run(&mut events, async || Ok((stdio::stdin()?, stdio::stderr()?)));
    drop(events);
    drop(kept);
    assert_eq!(descriptors(), before);
}
