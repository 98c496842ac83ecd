//! Where a program runs and what it listens on: alike for all of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, listen as rustix_listen, socket_with, sockopt,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// A non-blocking listener on the loopback address. `TCP_NODELAY` is set on it, and accepted sockets inherit it on
/// Linux.
///
/// # Errors
/// The kernel's, such as an address in use.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    rustix_listen(&socket, 4096)?;
    Ok(socket.into())
}

/// Lets this process have as many descriptors as it may ask for; children inherit it. Where the kernel refuses, the
/// limit stays, and opening too many connections says so.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// The processors that this thread may run on, in order.
pub fn processors() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Keeps this thread, and the children and threads that it makes from now on, on some processors.
///
/// # Errors
/// The kernel's, when none of them may be used.
pub fn stay_on(processors: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in processors {
        set.set(*cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The processor time that this process has used, in nanoseconds, all its threads together.
pub fn cpu_time() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
