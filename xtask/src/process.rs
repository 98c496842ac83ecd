//! Running other programs: every one has a time limit, and none is left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a running program is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// How long the output may stay open once the program itself has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// What a program printed, and whether it succeeded.
pub(crate) struct Finished {
    pub(crate) success: bool,
    pub(crate) lines: Vec<String>,
}

/// Runs a program with its output passed through as it comes, and collected.
///
/// # Errors
/// It could not be started, or was still running after `limit` and was ended with all that it had started.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Finished, String> {
    let name = describe(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name} does not start: {error}"))?;
    let lines = match child.stdout.take() {
        Some(stdout) => read_lines(stdout, true),
        None => mpsc::channel().1,
    };
    follow(&mut child, &name, &lines, limit)
}

/// As [`run`], but both outputs are collected, as one, and passed through only when `echo`.
pub(crate) fn run_collected(command: &mut Command, limit: Duration, echo: bool) -> Result<Finished, String> {
    let name = describe(command);
    let failed = |error: std::io::Error| format!("{name} does not start: {error}");
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let second = writer.try_clone().map_err(failed)?;
    let child = command.stdin(Stdio::null()).stdout(writer).stderr(second).spawn();
    // The command has its own copies of the pipe's end, which would keep it open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    follow(&mut child.map_err(failed)?, &name, &read_lines(reader, echo), limit)
}

/// Collects lines until the program has ended.
fn follow(
    child: &mut Child,
    name: &str,
    lines: &Receiver<String>,
    limit: Duration,
) -> Result<Finished, String> {
    let deadline = Instant::now() + limit;
    let mut collected = Vec::new();
    let status = loop {
        while let Ok(line) = lines.try_recv() {
            collected.push(line);
        }
        if let Some(status) = ended(child, name)? {
            break status;
        }
        if Instant::now() >= deadline {
            end_tree(child);
            return Err(format!("{name} was ended after {} seconds", limit.as_secs()));
        }
        match lines.recv_timeout(GLANCE) {
            Ok(line) => collected.push(line),
            Err(RecvTimeoutError::Timeout) => {}
            // The program closed its output and goes on.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(GLANCE),
        }
    };
    while let Ok(line) = lines.recv_timeout(DRAIN) {
        collected.push(line);
    }
    Ok(Finished { success: status.success(), lines: collected })
}

/// Runs a program that must succeed. Its output passes through.
pub(crate) fn must(command: &mut Command, limit: Duration) -> Result<(), String> {
    let name = describe(command);
    if run(command, limit)?.success { Ok(()) } else { Err(format!("{name} failed")) }
}

/// Reads lines on a thread of its own, and prints them when `echo`. Ends when the stream does.
pub(crate) fn read_lines(stream: impl Read + Send + 'static, echo: bool) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(length) if length > 0) {
            if echo {
                let mut out = std::io::stdout().lock();
                // Without a reader of our own output there is nobody to tell.
                let _ = out.write_all(&line).and_then(|()| out.flush());
            }
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// Asks a program to end, by `SIGTERM`, and waits for it. `None` when it had to be killed.
pub(crate) fn terminate(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    signal("TERM", &[child.id()]);
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => thread::sleep(GLANCE),
            Err(_) => break,
        }
    }
    end_tree(child);
    None
}

/// Kills a program and everything that it started.
pub(crate) fn end_tree(child: &mut Child) {
    let mut doomed = vec![child.id()];
    let parents = parents();
    let mut next = 0;
    while let Some(&parent) = doomed.get(next) {
        doomed.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    signal("KILL", &doomed);
    // The exit status of what was killed tells nothing.
    let _ = child.wait();
}

/// Every process of this machine with its parent, where the system tells.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything; then come the state and the parent.
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent))
    })
    .collect()
}

fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let mut kill = Command::new("sh");
    kill.arg("-c").arg(format!("kill -{name} {pids}")).stderr(Stdio::null());
    // A process that has ended by itself cannot be signalled, which is what was wanted.
    let _ = kill.status();
}

fn ended(child: &mut Child, name: &str) -> Result<Option<ExitStatus>, String> {
    child.try_wait().map_err(|error| format!("{name} cannot be waited for: {error}"))
}

/// The command as one would type it, shortened.
fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let text = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{end_tree, read_lines, run, run_collected, terminate};
    use std::process::{Command, Stdio};
    use std::sync::mpsc::RecvTimeoutError;
    use std::time::Duration;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_success_are_reported() {
        let finished = run(&mut shell("echo one; echo two; exit 3"), Duration::from_secs(20)).unwrap();
        assert_eq!(finished.lines, ["one", "two"]);
        assert!(!finished.success);
    }

    #[test]
    fn both_outputs_are_collected_in_order() {
        let mut command = shell("echo one; echo two >&2; echo three");
        let finished = run_collected(&mut command, Duration::from_secs(20), false).unwrap();
        assert_eq!(
            (finished.lines, finished.success),
            (["one", "two", "three"].map(str::to_owned).into(), true)
        );
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let error = run(&mut shell("sleep 1000"), Duration::from_millis(100)).err().unwrap();
        assert!(error.contains("was ended after"), "{error}");
    }

    #[test]
    fn a_program_is_ended_with_its_children() {
        let mut parent = shell("sleep 1000 & echo ready; wait").stdout(Stdio::piped()).spawn().unwrap();
        let lines = read_lines(parent.stdout.take().unwrap(), false);
        lines.recv().unwrap();
        end_tree(&mut parent);
        // The grandchild has the output open for as long as it lives.
        let closed = lines.recv_timeout(Duration::from_secs(60));
        assert_eq!(closed, Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_program_that_ignores_the_request_to_end_is_killed() {
        let mut polite = shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done");
        let mut child = polite.stdout(Stdio::piped()).spawn().unwrap();
        read_lines(child.stdout.take().unwrap(), false).recv().unwrap();
        assert!(terminate(&mut child, Duration::from_secs(20)).unwrap().success());

        let mut stubborn = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done");
        let mut child = stubborn.stdout(Stdio::piped()).spawn().unwrap();
        read_lines(child.stdout.take().unwrap(), false).recv().unwrap();
        assert!(terminate(&mut child, Duration::from_millis(200)).is_none());
    }
}
