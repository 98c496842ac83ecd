//! System calls of a server, counted by the kernel's own tracepoint through `perf stat`: the server is not stopped at
//! each of them, as it would be by a tracer, and finds as many messages at once as without it.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::Process;

/// A running count.
pub(crate) struct Count {
    perf: Child,
    lines: BufReader<ChildStderr>,
}

impl Count {
    /// Begins to count; the server does nothing meanwhile.
    ///
    /// # Errors
    /// `NotFound` without `perf`, and what it says when it may not count, such as for want of privileges.
    pub(crate) fn begin(server: Process) -> io::Result<Self> {
        let mut command = Command::new("perf");
        // It says every tenth of a second how many there were; the first line proves that it has begun.
        command.args(["stat", "-x,", "-I", "100", "-e", "raw_syscalls:sys_enter", "-p"]);
        command.arg(server.pid().to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        let spawned = command.stderr(Stdio::piped()).spawn();
        let mut perf = spawned.map_err(|e| io::Error::new(e.kind(), format!("perf: {e}")))?;
        let errors = perf.stderr.take().ok_or_else(|| io::Error::other("no output of perf"))?;
        let mut count = Count { perf, lines: BufReader::new(errors) };
        let mut line = String::new();
        count.lines.read_line(&mut line)?;
        if parse(&line).is_some() {
            return Ok(count);
        }
        Err(io::Error::other(format!("perf cannot count system calls here: {}", line.trim())))
    }

    /// Ends it; how many calls there were.
    pub(crate) fn end(mut self) -> io::Result<u64> {
        let pid = i32::try_from(self.perf.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or_else(|| io::Error::other("no such process"))?, Signal::INT)?;
        let mut total = 0;
        for line in self.lines.by_ref().lines() {
            total += parse(&line?).unwrap_or(0);
        }
        self.perf.wait()?;
        Ok(total)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        // It has mostly ended by then.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}

/// The count in `TIME,COUNT,,EVENT,...`.
fn parse(line: &str) -> Option<u64> {
    let mut cells = line.split(',').map(str::trim);
    let (time, count) = (cells.next()?, cells.next()?);
    time.parse::<f64>().ok()?;
    // So it says that there were none.
    if count == "<not counted>" { Some(0) } else { count.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_counts_are_parsed() {
        assert_eq!(parse("     0.100139,1234,,raw_syscalls:sys_enter,100,100.00,,"), Some(1234));
        assert_eq!(parse("     0.2,<not counted>,,raw_syscalls:sys_enter,0,100.00,,"), Some(0));
        assert_eq!(parse("     0.2,<not supported>,,raw_syscalls:sys_enter,0,100.00,,"), None);
        assert_eq!(parse("event syntax error: 'raw_syscalls:sys_enter'"), None);
        assert_eq!(parse(""), None);
    }
}
