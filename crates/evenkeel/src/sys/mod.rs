//! The seam between the runtime and the kernel.
//!
//! Every system call that the loop, its drivers and its sockets make is a method of [`Sys`], with plain
//! numbers and plain structs on both sides, so that a simulated kernel can answer *below* a driver: the
//! driver's own code then runs unchanged under seeded faults and virtual time. [`Real`] passes each call on.
//!
//! A descriptor is a bare number here, since a simulated one has no `OwnedFd`. Its owner is the source that
//! holds it; it is closed by [`Sys::close`], once, when the source ends.

#[cfg(feature = "sim")]
pub(crate) mod alone;
pub(crate) mod buffers;
mod gate;
pub(crate) mod inherit;
#[cfg(feature = "udp-offload")]
mod offload;
pub(crate) mod packet;
pub(crate) mod post;
pub(crate) mod processors;
mod real;
pub(crate) mod ring;
pub(crate) mod signal;
pub(crate) mod sigpipe;
pub(crate) mod table;
pub(crate) mod wake;

use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "udp-offload")]
pub(crate) use offload::Offload;

pub(crate) use packet::{MOST_FDS, PacketAddr, PacketKind, Packets};
pub(crate) use real::Real;
pub(crate) use rustix::event::FdSetElement;
pub(crate) use rustix::event::epoll::{Event as EpollEvent, EventFlags as EpollFlags};

use ring::RingParams;

use crate::net::{Addr, ConnectOptions, ListenOptions, SocketOption};
use crate::stand_in::StandIn;

/// Makes a call again for as long as a signal interrupts it.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A descriptor's number in the table of the loop's thread, or in the simulated host's.
pub(crate) type Fd = i32;

/// What `epoll_ctl` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpollOp {
    /// Add the descriptor.
    Add,
    /// Change its flags or data.
    Modify,
    /// Take it out.
    Delete,
}

/// One entry of `poll`'s array.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct PollEntry {
    /// The descriptor; negative numbers are passed over by the kernel.
    pub fd: Fd,
    /// What is asked for.
    pub events: i16,
    /// What is there.
    pub revents: i16,
}

/// `poll`'s bits, the same numbers on every Linux architecture.
pub(crate) mod poll_bits {
    pub(crate) const IN: i16 = 0x001;
    pub(crate) const PRI: i16 = 0x002;
    pub(crate) const OUT: i16 = 0x004;
    pub(crate) const ERR: i16 = 0x008;
    pub(crate) const HUP: i16 = 0x010;
    pub(crate) const NVAL: i16 = 0x020;
    pub(crate) const RDHUP: i16 = 0x2000;
}

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    /// Where.
    pub addr: Addr,
    /// Others may listen there too, each with a queue of its own: `SO_REUSEPORT`.
    pub reuse_port: bool,
}

/// One file of a Unix socket, told from others that have had or will have its path. The number is not given to another file
/// while the socket is open, because the socket keeps its file from being freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketFile {
    /// The file system.
    pub device: u64,
    /// The file's number in it.
    pub inode: u64,
}

/// Wakes a loop's wait from any thread. Cheap to clone; valid after the loop has ended.
pub(crate) type WakeFn = Arc<dyn Fn() + Send + Sync>;

/// Each call that reaches the kernel, or a model of it.
///
/// All sockets are non-blocking and close-on-exec from their creation (I34). No call raises SIGPIPE (I33).
/// No call is restarted or hidden: `Interrupted` and `WouldBlock` reach the caller.
pub(crate) trait Sys: Packets {
    /// Monotonic time since a point that stays the same for the life of the process.
    fn clock(&self) -> Instant;
    /// The machine that its loops are in, if it is not the real one.
    fn stand_in(&self) -> Option<Arc<dyn StandIn>> {
        None
    }

    fn listen(&self, at: &Addr, options: &ListenOptions) -> io::Result<Fd>;
    /// Makes a socket and starts to connect it. True: it is connected already.
    fn connect(&self, to: &Addr, options: &ConnectOptions) -> io::Result<(Fd, bool)>;
    fn accept(&self, listener: Fd) -> io::Result<(Fd, Addr)>;
    /// Never waits, whatever the socket's mode.
    fn recv(&self, fd: Fd, into: &mut [u8]) -> io::Result<usize>;
    /// Never waits, whatever the socket's mode.
    fn send(&self, fd: Fd, from: &[u8]) -> io::Result<usize>;
    fn send_vectored(&self, fd: Fd, from: &[io::IoSlice<'_>]) -> io::Result<usize>;
    /// Sends at most `most` bytes of a file from offset `at`, which is moved on; 0 at its end. To a peer that has gone it
    /// raises SIGPIPE, which the thread blocks.
    fn send_file(&self, fd: Fd, file: BorrowedFd<'_>, at: &mut u64, most: usize) -> io::Result<usize>;
    fn shutdown(&self, fd: Fd, how: Shutdown) -> io::Result<()>;
    fn close(&self, fd: Fd);
    /// The pending error of a socket, which this call clears.
    fn take_error(&self, fd: Fd) -> io::Result<Option<io::Error>>;
    fn set_option(&self, fd: Fd, option: SocketOption) -> io::Result<()>;
    fn local_addr(&self, fd: Fd) -> io::Result<Addr>;
    fn peer_addr(&self, fd: Fd) -> io::Result<Addr>;

    /// Takes over a descriptor from outside; it becomes non-blocking.
    fn import(&self, fd: OwnedFd) -> io::Result<Fd>;
    /// Another number for somebody else's descriptor, close-on-exec: the loop's own.
    fn duplicate(&self, fd: BorrowedFd<'_>) -> io::Result<Fd>;
    /// Whether a descriptor can tell when it is ready. Files and directories are at any time, as far as the kernel is
    /// concerned, and epoll refuses them.
    fn is_pollable(&self, fd: Fd) -> io::Result<bool>;
    /// Gives a descriptor away to code that owns descriptors.
    fn export(&self, fd: Fd) -> io::Result<OwnedFd>;
    /// A descriptor that does nothing but occupy a number, to be closed when numbers run out.
    fn spare(&self) -> io::Result<Fd>;
    /// Another descriptor of the same open socket, for whoever is to have it too.
    fn copy(&self, fd: Fd) -> io::Result<OwnedFd>;
    /// What a socket is that is to be accepted from. `InvalidInput` if it does not listen for streams.
    fn listening(&self, fd: BorrowedFd<'_>) -> io::Result<Listening>;
    /// Which file a Unix socket's path names now; none if it names none, or something that is no socket.
    fn socket_file(&self, path: &Path) -> Option<SocketFile>;
    /// Removes the file of a Unix socket, if it is `only` this one; whatever else is at `path` stays.
    fn remove_socket_file(&self, path: &Path, only: Option<SocketFile>);

    /// A descriptor that becomes readable when the function is called, from any thread and any descriptor table. It is closed
    /// by [`end_wakes`](Self::end_wakes), on the thread that made it.
    fn wake_pair(&self) -> io::Result<(Fd, WakeFn)>;
    /// Closes it; later wakes do nothing.
    fn end_wakes(&self, fd: Fd);
    /// Takes back all wakes so far.
    fn clear_wake(&self, fd: Fd);

    fn epoll_create(&self) -> io::Result<Fd>;
    fn epoll_ctl(&self, ep: Fd, op: EpollOp, fd: Fd, data: u64, flags: EpollFlags) -> io::Result<()>;
    /// Replaces the content of `events`; at most its capacity. `timeout` is rounded up to milliseconds.
    fn epoll_wait(&self, ep: Fd, events: &mut Vec<EpollEvent>, timeout: Option<Duration>) -> io::Result<()>;
    fn poll(&self, entries: &mut [PollEntry], timeout: Option<Duration>) -> io::Result<usize>;
    /// `sets` are the read, write and exception sets, each of 1,024 bits.
    fn select(
        &self,
        bound: i32,
        sets: &mut [[FdSetElement; 16]; 3],
        timeout: Option<Duration>,
    ) -> io::Result<usize>;

    /// Moves at most `most` bytes from one descriptor to another, without waiting; one of them is a pipe. 0 at the end. To a
    /// peer that has gone it raises SIGPIPE, which the thread blocks.
    fn splice(&self, from: Fd, to: Fd, most: usize) -> io::Result<usize>;
    /// A pipe: its reading and its writing end.
    fn pipe(&self) -> io::Result<(Fd, Fd)>;
    /// Reads from what is no socket.
    fn read(&self, fd: Fd, into: &mut [u8]) -> io::Result<usize>;
    /// Writes to what is no socket. To a pipe that nobody reads it raises SIGPIPE, which the thread blocks.
    fn write(&self, fd: Fd, from: &[u8]) -> io::Result<usize>;
    /// As `write`, from at most 1,024 places at once.
    fn write_vectored(&self, fd: Fd, from: &[io::IoSlice<'_>]) -> io::Result<usize>;

    /// A descriptor that becomes readable when a child of this process ends, whose status has not been taken.
    fn pidfd(&self, child: u32) -> io::Result<Fd>;
    /// Sends a signal to the process that a pidfd names, and to no other.
    fn signal(&self, pidfd: Fd, number: i32) -> io::Result<()>;

    /// Two Unix stream sockets that are connected to each other.
    fn socket_pair(&self) -> io::Result<(Fd, Fd)>;

    /// Makes an io_uring. What the kernel chose is in `params` afterwards.
    fn ring_setup(&self, entries: u32, params: &mut RingParams) -> io::Result<Fd>;
    /// The memory of a part of a ring, by the kernel's offset; [`unmap`](Self::unmap) gives it back.
    fn ring_map(&self, ring: Fd, offset: u64, bytes: usize) -> io::Result<NonNull<u8>>;
    /// Names `count` entries at `entries` as the ring of buffers of group 0.
    fn ring_provide(&self, ring: Fd, entries: NonNull<u8>, count: u16, incremental: bool) -> io::Result<()>;
    /// The operations that a ring knows, one bit for each.
    fn ring_operations(&self, ring: Fd) -> io::Result<u128>;
    /// Bounds the kernel's threads that perform, for the calling thread's rings, what blocks on files.
    fn ring_threads(&self, ring: Fd, most: u32) -> io::Result<()>;
    /// A loop's turn that has nothing to ask of the kernel. On a simulated one time passes, and others get their answers.
    #[inline]
    fn skip_turn(&self) {}
    /// Takes `submit` entries; with `events`, completes what it can, and waits for `wait` completions at most `timeout`.
    fn ring_enter(
        &self,
        ring: Fd,
        submit: u32,
        wait: u32,
        events: bool,
        timeout: Option<Duration>,
    ) -> io::Result<u32>;
    /// Fresh, zeroed memory that begins at a page.
    fn map(&self, bytes: usize) -> io::Result<NonNull<u8>>;
    /// Gives memory back.
    fn unmap(&self, at: NonNull<u8>, bytes: usize);
}
