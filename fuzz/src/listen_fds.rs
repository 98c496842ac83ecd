//! The variables of a service manager that has opened sockets for this process.

use evenkeel::fuzzing::passed;

use crate::pieces::parts;

/// The values of `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`, with zero bytes between them. An empty one is not set.
pub fn run(bytes: &[u8]) {
    let [pid, fds, names] =
        parts(bytes).map(|value| std::str::from_utf8(value).ok().filter(|text| !text.is_empty()));
    let this = 4711;
    let number = |text: &str| {
        let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| plain)
    };
    let told = passed(this, pid, fds, names);
    let (Some(pid), Some(fds)) = (pid, fds) else {
        assert!(matches!(told, Ok(None)), "without a number and a process nothing is passed");
        return;
    };
    match number(pid).filter(|pid| *pid <= u64::from(u32::MAX)) {
        None => assert!(told.is_err(), "LISTEN_PID={pid:?}"),
        Some(pid) if pid != u64::from(this) => assert!(matches!(told, Ok(None))),
        Some(_) => {
            let count = number(fds).filter(|count| *count < 1 << 20);
            let told = told.ok().flatten();
            assert_eq!(told.as_ref().map(|told| told.len() as u64), count, "LISTEN_FDS={fds:?}");
            let given: Vec<&str> = names.map(|names| names.split(':').collect()).unwrap_or_default();
            for (at, (number, name)) in told.into_iter().flatten().enumerate() {
                assert_eq!((number as usize, name.as_deref()), (at + 3, given.get(at).copied()));
            }
        }
    }
}
