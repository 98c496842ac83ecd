//! What a child process has for its input and output: files, pipes that others hold, nothing, and what its parent has. Each
//! test has a process to itself.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use evenkeel::net::{Stream, TcpListener};
use evenkeel::process::{Command, Stdio};
use evenkeel::{Backend, EventLoop, time};

use crate::children::let_sigpipe_end_us;
use crate::standard_streams::put;
use crate::support::{PEER, assert_same, event_loop, pattern, unique};

in_processes! {
    output_goes_to_files,
    both_outputs_go_to_one_file_and_change_places,
    one_childs_output_is_anothers_input,
    streams_of_the_parent_are_inherited,
    a_child_without_streams,
    i33_a_child_that_has_closed_its_input,
    i30_the_end_of_output_and_the_end_of_the_child_are_two_things,
    a_child_has_a_socket_for_its_streams,
    many_children_talk_at_once,
    i28_the_loop_ends_before_its_children,
    what_a_child_says_at_its_end_is_whole,
}

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn run<R>(events: &mut EventLoop, body: impl AsyncFnOnce() -> io::Result<R>) -> R {
    events.block_on(time::timeout(PEER, body())).unwrap().expect("it ends").unwrap()
}

/// A file without a name.
fn file() -> File {
    let path: PathBuf = std::env::temp_dir().join(unique("output"));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

fn output_goes_to_files(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut input, mut out, mut err) = (file(), file(), file());
    input.write_all(b"from a file").unwrap();
    input.seek(SeekFrom::Start(5)).unwrap();
    let status = run(&mut events, async || {
        let mut command = sh("cat; echo bad >&2; exit 3");
        command.stdin(input.try_clone()?).stdout(out.try_clone()?).stderr(err.try_clone()?);
        command.status().await
    });
    assert_eq!(status.code(), Some(3));
    assert_eq!(
        (text(&mut out), text(&mut err)),
        ("a file".into(), "bad\n".into()),
        "from where the file was"
    );
}

fn both_outputs_go_to_one_file_and_change_places(backend: Backend) {
    let mut events = event_loop(backend);
    let mut both = file();
    run(&mut events, async || {
        let mut command = sh("echo one; echo two >&2; echo three");
        command.stdout(both.try_clone()?).stderr(both.try_clone()?);
        command.status().await
    });
    assert_eq!(text(&mut both), "one\ntwo\nthree\n");
    // The parent's own output and error, the other way round: none is closed before it was copied.
    let (mut out, mut err) = (file(), file());
    run(&mut events, async || {
        let mut command = sh("echo out; echo err >&2");
        command.stdout(err.try_clone()?).stderr(out.try_clone()?);
        command.status().await
    });
    assert_eq!((text(&mut out), text(&mut err)), ("err\n".into(), "out\n".into()));
}

fn one_childs_output_is_anothers_input(backend: Backend) {
    let mut events = event_loop(backend);
    let sent = pattern(500_000);
    let got = run(&mut events, async || {
        let (reader, writer) = io::pipe()?;
        let mut first = Command::new("cat").stdin(Stdio::piped()).stdout(OwnedFd::from(writer)).spawn()?;
        let mut second = Command::new("cat").stdin(OwnedFd::from(reader)).stdout(Stdio::piped()).spawn()?;
        let (mut to, bytes) = (first.stdin.take().unwrap(), sent.clone());
        let sending = evenkeel::spawn(async move { to.write_all(&bytes).await });
        let mut got = Vec::new();
        second.stdout.take().unwrap().read_to_end(&mut got).await?;
        sending.await.unwrap()?;
        assert!(first.wait().await?.success() && second.wait().await?.success());
        Ok(got)
    });
    assert_same(&got, &sent);
}

fn streams_of_the_parent_are_inherited(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut reader, writer) = io::pipe().unwrap();
    let old = rustix::io::dup(io::stderr()).unwrap();
    put(&writer, 2);
    let ended = events.block_on(async { sh("echo inherited >&2").stderr(Stdio::inherit()).status().await });
    put(&old, 2);
    drop(writer);
    assert!(ended.unwrap().unwrap().success());
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "inherited\n");
}

fn a_child_without_streams(backend: Backend) {
    let mut events = event_loop(backend);
    let status = run(&mut events, async || {
        let mut command = sh("cat && echo to nobody && echo to nobody >&2");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
        child.wait().await
    });
    assert!(status.success(), "{status}");
}

fn i33_a_child_that_has_closed_its_input(backend: Backend) {
    let_sigpipe_end_us();
    let mut events = event_loop(backend);
    run(&mut events, async || {
        let mut child =
            sh("exec <&-; echo closed; read x <&1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = [0; 7];
        child.stdout.as_mut().unwrap().read_exact(&mut said).await?;
        let to = child.stdin.as_mut().unwrap();
        for _ in 0..3 {
            assert_eq!(to.write(b"anybody?").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
        child.wait().await
    });
    // One that is waiting for room when the child ends without having read.
    run(&mut events, async || {
        let mut child = sh("read x; exit 7").stdin(Stdio::piped()).spawn()?;
        let mut to = child.stdin.take().unwrap();
        let sending = evenkeel::spawn(async move { to.write_all(&[b'\n'; 1 << 20]).await });
        assert_eq!(child.wait().await?.code(), Some(7));
        assert_eq!(sending.await.unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
        Ok(())
    });
}

/// A child may close its output and go on, and end while a child of its own still holds it.
fn i30_the_end_of_output_and_the_end_of_the_child_are_two_things(backend: Backend) {
    let mut events = event_loop(backend);
    run(&mut events, async || {
        let mut child =
            sh("exec >&-; read x; exit 4").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        assert_eq!(child.stdout.as_mut().unwrap().read(&mut [0; 4]).await?, 0, "the output ends first");
        assert_eq!(child.try_wait()?, None);
        child.stdin.as_mut().unwrap().write_all(b"go on\n").await?;
        assert_eq!(child.wait().await?.code(), Some(4));
        Ok(())
    });
    let (reader, writer) = io::pipe().unwrap();
    run(&mut events, async || {
        // The grandchild waits for the test; the child does not wait for it.
        let mut command = sh("exec 3<&0; (read x <&3; echo late) & exit 5");
        let mut child = command.stdin(OwnedFd::from(reader)).stdout(Stdio::piped()).spawn()?;
        let mut out = child.stdout.take().unwrap();
        assert_eq!(child.wait().await?.code(), Some(5), "the child ends first");
        let early = time::timeout(Duration::from_millis(2), out.read(&mut [0; 4])).await;
        assert!(early.is_err(), "its output has not ended");
        File::from(OwnedFd::from(writer)).write_all(b"now\n")?;
        let mut said = Vec::new();
        out.read_to_end(&mut said).await?;
        assert_eq!(said, b"late\n");
        Ok(())
    });
}

fn a_child_has_a_socket_for_its_streams(backend: Backend) {
    let mut events = event_loop(backend);
    let sent = pattern(200_000);
    let got = run(&mut events, async || {
        let mut listener = TcpListener::bind("127.0.0.1:0")?;
        let mut client = Stream::connect(listener.local_addr()?).await?;
        let (served, _) = listener.accept().await?;
        let fd = served.into_fd()?;
        // A child expects streams that block.
        rustix::io::ioctl_fionbio(&fd, false)?;
        let mut child = Command::new("cat").stdin(fd.try_clone()?).stdout(fd).spawn()?;
        let mut got = vec![0; sent.len()];
        let (mut read, mut write) = client.split();
        let writing = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let reading = async {
            let mut at = 0;
            while at < got.len() {
                at += read.read(&mut got[at..]).await.unwrap();
            }
        };
        futures_util::join!(writing, reading);
        assert!(child.wait().await?.success());
        Ok(got)
    });
    assert_same(&got, &sent);
}

fn many_children_talk_at_once(backend: Backend) {
    let mut events = event_loop(backend);
    run(&mut events, async || {
        let tasks: Vec<_> = (0..20_usize)
            .map(|i| {
                evenkeel::spawn(async move {
                    let mut child =
                        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
                    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
                    for round in 0..10 {
                        let word = pattern(100 * i + round + 1);
                        to.write_all(&word).await.unwrap();
                        let mut back = vec![0; word.len()];
                        from.read_exact(&mut back).await.unwrap();
                        assert_same(&back, &word);
                    }
                    drop(to);
                    assert_eq!(from.read(&mut [0; 4]).await.unwrap(), 0);
                    child.wait().await.unwrap().success()
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap());
        }
        Ok(())
    });
}

fn i28_the_loop_ends_before_its_children(backend: Backend) {
    let mut events = event_loop(backend);
    let mut children = run(&mut events, async || {
        (0..5)
            .map(|_| Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn())
            .collect::<io::Result<Vec<_>>>()
    });
    drop(events);
    let mut other = event_loop(backend);
    let mut left = Vec::new();
    for child in &mut children {
        let late = other.block_on(async { child.stdin.as_mut().unwrap().write(b"x").await }).unwrap();
        assert_eq!(late.unwrap_err().kind(), ErrorKind::NotConnected);
        // Waiting closes its input, so that it may have ended when it is asked for; otherwise there is nobody who waits.
        let waited = other.block_on(time::timeout(PEER, child.wait())).unwrap();
        if waited.expect("nothing waits for a loop that has ended").is_err() {
            left.push(rustix::process::Pid::from_raw(child.id() as i32).unwrap());
        }
    }
    // What dropping them has not taken, this process can take.
    drop(children);
    for id in left {
        let options = rustix::process::WaitOptions::empty();
        match rustix::process::waitpid(Some(id), options) {
            Ok(Some((_, status))) => assert!(status.exited() || status.signaled()),
            // Whose child had ended by then, dropping it took its status.
            other => assert_eq!(other.unwrap_err(), rustix::io::Errno::CHILD),
        }
    }
}

/// The status may be known before the last bytes were read; they are there all the same.
fn what_a_child_says_at_its_end_is_whole(backend: Backend) {
    let mut events = event_loop(backend);
    for killed in [false, true] {
        let script = if killed { "printf 'last words'; kill -9 $$" } else { "printf 'last words'; exit 2" };
        let (status, said) = run(&mut events, async || {
            let mut child = sh(script).stdout(Stdio::piped()).spawn()?;
            let mut out = child.stdout.take().unwrap();
            let status = child.wait().await?;
            let mut said = Vec::new();
            out.read_to_end(&mut said).await?;
            Ok((status, said))
        });
        assert_eq!(said, b"last words");
        let ended = (status.code(), status.signal());
        assert_eq!(ended, if killed { (None, Some(libc::SIGKILL)) } else { (Some(2), None) });
    }
}
