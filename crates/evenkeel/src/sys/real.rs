//! The kernel itself, through rustix: system calls without `errno` in thread-local memory.

use std::io::{self, IoSlice};
use std::net::{Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use rustix::event::{FdSetElement, PollFd, PollFlags, Timespec, epoll, eventfd, poll, select};
use rustix::io::Errno;
use rustix::io_uring::{self, IoringEnterFlags as EnterFlags, IoringRegisterOp as RegisterOp};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags,
    SocketType, sockopt,
};
use rustix::pipe::{PipeFlags, SpliceFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::ring::RingParams;
use super::{EpollEvent, EpollFlags, EpollOp, Fd, Listening, PollEntry, SocketFile, Sys, WakeFn, wake};
use crate::net::{Addr, ConnectOptions, ListenOptions, SocketOption};

/// The running kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Real;

pub(super) const SOCKET: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// The descriptor for the length of one call.
pub(super) fn at(fd: Fd) -> BorrowedFd<'static> {
    // SAFETY: a source owns its number from creation until `close`, and callers pass only numbers of live
    // sources, which are never -1; the borrow ends with the call it is made for.
    unsafe {
        std::hint::assert_unchecked(fd != -1);
        BorrowedFd::borrow_raw(fd)
    }
}

fn own(fd: Fd) -> OwnedFd {
    // SAFETY: the caller gives up the number that it owned; it is not used afterwards.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// An error where there mostly is none.
#[cold]
#[inline(never)]
fn refused(e: Errno) -> io::Error {
    e.into()
}

/// Kernel waits take whole milliseconds; rounding up keeps a timer from firing early, and from spinning in
/// its last millisecond (I18, I20).
fn timespec(timeout: Duration) -> Timespec {
    const LONGEST: u64 = 24 * 3600;
    let ms = timeout.subsec_nanos().div_ceil(1_000_000);
    // The kernel takes no whole second in nanoseconds.
    let carry = ms / 1000;
    let seconds = timeout.as_secs().min(LONGEST) + u64::from(carry);
    Timespec { tv_sec: seconds as i64, tv_nsec: i64::from(ms - carry * 1000) * 1_000_000 }
}

fn from_any(addr: SocketAddrAny) -> io::Result<Addr> {
    if let Ok(ip) = SocketAddr::try_from(addr.clone()) {
        return Ok(Addr::Ip(ip));
    }
    let unix = SocketAddrUnix::try_from(addr)?;
    let path = unix.path_bytes().filter(|p| !p.is_empty());
    Ok(Addr::Unix(
        path.map(|p| PathBuf::from(std::ffi::OsStr::from_bytes(p.strip_suffix(&[0]).unwrap_or(p)))),
    ))
}

fn unix_addr(path: &Option<PathBuf>) -> io::Result<SocketAddrUnix> {
    let path = path.as_deref().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "a Unix socket needs a path to listen on or to connect to",
        )
    })?;
    Ok(SocketAddrUnix::new(path)?)
}

fn stream_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(family, SocketType::STREAM, SOCKET, None)?)
}

fn family(ip: &SocketAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

impl Sys for Real {
    fn clock(&self) -> Instant {
        Instant::now()
    }

    fn listen(&self, at: &Addr, o: &ListenOptions) -> io::Result<Fd> {
        let fd = match at {
            Addr::Ip(ip) => {
                let fd = stream_socket(family(ip))?;
                sockopt::set_socket_reuseaddr(&fd, o.reuse_addr)?;
                if o.reuse_port {
                    sockopt::set_socket_reuseport(&fd, true)?;
                }
                if ip.is_ipv6() {
                    // Dual stack only makes sense on the wildcard address; elsewhere the kernel ignores it.
                    sockopt::set_ipv6_v6only(&fd, !(o.dual_stack && ip.ip() == Ipv6Addr::UNSPECIFIED))?;
                }
                if let Some(size) = o.recv_buffer {
                    sockopt::set_socket_recv_buffer_size(&fd, size)?;
                }
                if let Some(size) = o.send_buffer {
                    sockopt::set_socket_send_buffer_size(&fd, size)?;
                }
                rustix::net::bind(&fd, ip)?;
                fd
            }
            Addr::Unix(path) => {
                let fd = stream_socket(AddressFamily::UNIX)?;
                rustix::net::bind(&fd, &unix_addr(path)?)?;
                fd
            }
        };
        rustix::net::listen(&fd, o.backlog.clamp(1, i32::MAX as u32) as i32)?;
        Ok(fd.into_raw_fd())
    }

    fn connect(&self, to: &Addr, o: &ConnectOptions) -> io::Result<(Fd, bool)> {
        let (fd, result) = match to {
            Addr::Ip(ip) => {
                let fd = stream_socket(family(ip))?;
                if let Some(from) = o.bind {
                    sockopt::set_socket_reuseaddr(&fd, true)?;
                    rustix::net::bind(&fd, &from)?;
                }
                if o.nodelay {
                    sockopt::set_tcp_nodelay(&fd, true)?;
                }
                let result = rustix::net::connect(&fd, ip);
                (fd, result)
            }
            Addr::Unix(path) => {
                let fd = stream_socket(AddressFamily::UNIX)?;
                let result = rustix::net::connect(&fd, &unix_addr(path)?);
                (fd, result)
            }
        };
        match result {
            Ok(()) => Ok((fd.into_raw_fd(), true)),
            // An interrupted connect goes on in the background, as one in progress does.
            Err(Errno::INPROGRESS | Errno::INTR) => Ok((fd.into_raw_fd(), false)),
            Err(e) => Err(e.into()),
        }
    }

    fn accept(&self, listener: Fd) -> io::Result<(Fd, Addr)> {
        let (fd, addr) = rustix::net::acceptfrom_with(at(listener), SOCKET)?;
        let addr = match addr {
            Some(addr) => from_any(addr).unwrap_or(Addr::Unix(None)),
            None => Addr::Unix(None),
        };
        Ok((fd.into_raw_fd(), addr))
    }

    #[inline]
    fn recv(&self, fd: Fd, into: &mut [u8]) -> io::Result<usize> {
        match rustix::net::recv(at(fd), into, RecvFlags::DONTWAIT) {
            Ok((n, _)) => Ok(n),
            Err(e) => Err(refused(e)),
        }
    }

    #[inline]
    fn send(&self, fd: Fd, from: &[u8]) -> io::Result<usize> {
        rustix::net::send(at(fd), from, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map_err(refused)
    }

    fn send_vectored(&self, fd: Fd, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut control = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(at(fd), from, &mut control, SendFlags::NOSIGNAL)?)
    }

    fn send_file(&self, fd: Fd, file: BorrowedFd<'_>, from: &mut u64, most: usize) -> io::Result<usize> {
        rustix::fs::sendfile(at(fd), file, Some(from), most).map_err(refused)
    }

    fn shutdown(&self, fd: Fd, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(at(fd), how)?)
    }

    fn close(&self, fd: Fd) {
        drop(own(fd));
    }

    fn take_error(&self, fd: Fd) -> io::Result<Option<io::Error>> {
        Ok(sockopt::socket_error(at(fd))?.err().map(Into::into))
    }

    fn set_option(&self, fd: Fd, option: SocketOption) -> io::Result<()> {
        let fd = at(fd);
        match option {
            SocketOption::NoDelay(on) => sockopt::set_tcp_nodelay(fd, on)?,
            SocketOption::KeepAlive(None) => sockopt::set_socket_keepalive(fd, false)?,
            SocketOption::KeepAlive(Some(keep)) => {
                sockopt::set_tcp_keepidle(fd, keep.idle)?;
                sockopt::set_tcp_keepintvl(fd, keep.interval)?;
                sockopt::set_tcp_keepcnt(fd, keep.probes)?;
                sockopt::set_socket_keepalive(fd, true)?;
            }
            SocketOption::SendBuffer(size) => sockopt::set_socket_send_buffer_size(fd, size)?,
            SocketOption::RecvBuffer(size) => sockopt::set_socket_recv_buffer_size(fd, size)?,
            SocketOption::ResetOnClose => sockopt::set_socket_linger(fd, Some(Duration::ZERO))?,
        }
        Ok(())
    }

    fn local_addr(&self, fd: Fd) -> io::Result<Addr> {
        from_any(rustix::net::getsockname(at(fd))?)
    }

    fn peer_addr(&self, fd: Fd) -> io::Result<Addr> {
        match rustix::net::getpeername(at(fd))? {
            Some(addr) => from_any(addr),
            None => Ok(Addr::Unix(None)),
        }
    }

    fn import(&self, fd: OwnedFd) -> io::Result<Fd> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(fd.into_raw_fd())
    }

    fn duplicate(&self, fd: BorrowedFd<'_>) -> io::Result<Fd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(fd, 0)?.into_raw_fd())
    }

    fn is_pollable(&self, fd: Fd) -> io::Result<bool> {
        use rustix::fs::FileType;
        match FileType::from_raw_mode(rustix::fs::fstat(at(fd))?.st_mode) {
            FileType::Fifo | FileType::Socket => return Ok(true),
            FileType::RegularFile | FileType::Directory | FileType::BlockDevice => return Ok(false),
            _ => {}
        }
        // Devices, and what has no name in any file system: the driver in the kernel decides, and only epoll says so.
        let ep = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        match epoll::add(&ep, at(fd), epoll::EventData::new_u64(0), EpollFlags::IN) {
            Ok(()) => Ok(true),
            Err(Errno::PERM) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn export(&self, fd: Fd) -> io::Result<OwnedFd> {
        Ok(own(fd))
    }

    fn spare(&self) -> io::Result<Fd> {
        Ok(eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?.into_raw_fd())
    }

    fn copy(&self, fd: Fd) -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(at(fd), 0)?)
    }

    fn listening(&self, fd: BorrowedFd<'_>) -> io::Result<Listening> {
        let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        match sockopt::socket_type(fd) {
            Ok(SocketType::STREAM) => {}
            Ok(_) => return invalid("it is a socket, but none for streams"),
            Err(Errno::NOTSOCK) => return invalid("it is no socket"),
            Err(e) => return Err(e.into()),
        }
        if !sockopt::socket_acceptconn(fd)? {
            return invalid("it is a stream socket, but does not listen");
        }
        let addr = from_any(rustix::net::getsockname(fd)?)?;
        let reuse_port = addr.socket_addr().is_some() && sockopt::socket_reuseport(fd)?;
        Ok(Listening { addr, reuse_port })
    }

    fn socket_file(&self, path: &Path) -> Option<SocketFile> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let file = std::fs::symlink_metadata(path).ok().filter(|file| file.file_type().is_socket())?;
        Some(SocketFile { device: file.dev(), inode: file.ino() })
    }

    fn remove_socket_file(&self, path: &Path, only: Option<SocketFile>) {
        let there = self.socket_file(path);
        // Between this look and the removal another process may put its file there: the kernel has no call for both.
        if there.is_some_and(|there| only.is_none_or(|only| only == there)) {
            // It may have been removed by another process just now; nothing depends on the outcome.
            let _ = std::fs::remove_file(path);
        }
    }

    fn wake_pair(&self) -> io::Result<(Fd, WakeFn)> {
        wake::pair()
    }

    fn end_wakes(&self, fd: Fd) {
        wake::end(fd);
    }

    fn clear_wake(&self, fd: Fd) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(at(fd), &mut count);
    }

    fn epoll_create(&self) -> io::Result<Fd> {
        Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?.into_raw_fd())
    }

    fn epoll_ctl(&self, ep: Fd, op: EpollOp, fd: Fd, data: u64, flags: EpollFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(data);
        match op {
            EpollOp::Add => epoll::add(at(ep), at(fd), data, flags)?,
            EpollOp::Modify => epoll::modify(at(ep), at(fd), data, flags)?,
            EpollOp::Delete => epoll::delete(at(ep), at(fd))?,
        }
        Ok(())
    }

    fn epoll_wait(&self, ep: Fd, events: &mut Vec<EpollEvent>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let timeout = timeout.map(timespec);
        epoll::wait(at(ep), rustix::buffer::spare_capacity(events), timeout.as_ref())?;
        Ok(())
    }

    fn poll(&self, entries: &mut [PollEntry], timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(timespec);
        // SAFETY: `PollEntry` and `PollFd` are both `repr(C)` with the layout of the kernel's `pollfd`: a
        // descriptor (`BorrowedFd` is a transparent `i32`) and two 16-bit sets. Entries hold live numbers only.
        let entries: &mut [PollFd<'_>] =
            unsafe { std::slice::from_raw_parts_mut(entries.as_mut_ptr().cast(), entries.len()) };
        const { assert!(size_of::<PollFd<'static>>() == size_of::<PollEntry>()) };
        const { assert!(PollFlags::RDHUP.bits() == super::poll_bits::RDHUP as u16) };
        Ok(poll(entries, timeout.as_ref())?)
    }

    fn select(
        &self,
        bound: i32,
        sets: &mut [[FdSetElement; 16]; 3],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let timeout = timeout.map(timespec);
        let [read, write, except] = sets;
        // SAFETY: each set has 1,024 bits, `bound` is at most 1,024, and the selector keeps in its sets only
        // numbers of live sources.
        let n = unsafe { select(bound, Some(read), Some(write), Some(except), timeout.as_ref())? };
        Ok(n as usize)
    }

    fn splice(&self, from: Fd, to: Fd, most: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        rustix::pipe::splice(at(from), None, at(to), None, most, flags).map_err(refused)
    }

    fn pipe(&self) -> io::Result<(Fd, Fd)> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((read.into_raw_fd(), write.into_raw_fd()))
    }

    fn read(&self, fd: Fd, into: &mut [u8]) -> io::Result<usize> {
        rustix::io::read(at(fd), into).map_err(refused)
    }

    fn write(&self, fd: Fd, from: &[u8]) -> io::Result<usize> {
        rustix::io::write(at(fd), from).map_err(refused)
    }

    fn write_vectored(&self, fd: Fd, from: &[IoSlice<'_>]) -> io::Result<usize> {
        rustix::io::writev(at(fd), from).map_err(refused)
    }

    fn pidfd(&self, child: u32) -> io::Result<Fd> {
        let pid = i32::try_from(child).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?.into_raw_fd())
    }

    fn signal(&self, pidfd: Fd, number: i32) -> io::Result<()> {
        // SAFETY: the kernel checks the number, and what it means to the other process is that process's business. Numbers
        // that the C library keeps for itself have no name in our `Signal`.
        let signal = unsafe { Signal::from_raw_unchecked(number) };
        Ok(rustix::process::pidfd_send_signal(at(pidfd), signal)?)
    }

    fn socket_pair(&self) -> io::Result<(Fd, Fd)> {
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SOCKET, None)?;
        Ok((a.into_raw_fd(), b.into_raw_fd()))
    }

    fn ring_setup(&self, entries: u32, params: &mut RingParams) -> io::Result<Fd> {
        // SAFETY: no flag asks for memory or a descriptor of ours. The ring's descriptor is close-on-exec.
        Ok(unsafe { io_uring::io_uring_setup(entries, params)? }.into_raw_fd())
    }

    fn ring_map(&self, ring: Fd, offset: u64, bytes: usize) -> io::Result<NonNull<u8>> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping, placed by the kernel, aliases nothing of ours.
        let map = unsafe { mm::mmap(ptr::null_mut(), bytes, access, flags, at(ring), offset)? };
        mapped(map, bytes)
    }

    fn ring_provide(&self, ring: Fd, entries: NonNull<u8>, count: u16, incremental: bool) -> io::Result<()> {
        let mut what = io_uring::io_uring_buf_reg::default();
        what.ring_addr = io_uring::io_uring_ptr::new(entries.as_ptr().cast());
        what.ring_entries = count.into();
        const INCREMENTAL: u16 = 2;
        what.flags = if incremental { INCREMENTAL } else { 0 };
        // SAFETY: the description outlives the call. The ring of buffers and the buffers themselves stay mapped until
        // nothing is in flight, which their owner sees to.
        unsafe {
            io_uring::io_uring_register(at(ring), RegisterOp::RegisterPbufRing, (&raw const what).cast(), 1)?
        };
        Ok(())
    }

    fn ring_operations(&self, ring: Fd) -> io::Result<u128> {
        // The kernel's struct: a head of 16 bytes, of which the first is the last operation, then 8 bytes for each
        // operation, of which the first is its number and the third says whether it is supported.
        const MOST: usize = 128;
        let mut probe = [0u8; 16 + 8 * MOST];
        // SAFETY: the kernel writes at most the head and `MOST` operations.
        unsafe {
            let to = probe.as_mut_ptr().cast_const().cast();
            io_uring::io_uring_register(at(ring), RegisterOp::RegisterProbe, to, MOST as u32)?
        };
        let known = probe[16..].chunks_exact(8).filter(|op| op[2] & 1 != 0);
        Ok(known.fold(0, |all, op| all | 1u128.checked_shl(op[0].into()).unwrap_or(0)))
    }

    fn ring_threads(&self, ring: Fd, most: u32) -> io::Result<()> {
        // Those for files and block devices, and all others, whose number stays as it is.
        let mut bounds = [most, 0u32];
        // SAFETY: the kernel reads two numbers, and writes what they were.
        unsafe {
            let both = bounds.as_mut_ptr().cast_const().cast();
            io_uring::io_uring_register(at(ring), RegisterOp::RegisterIowqMaxWorkers, both, 2)?
        };
        Ok(())
    }

    #[inline]
    fn ring_enter(
        &self,
        ring: Fd,
        submit: u32,
        wait: u32,
        events: bool,
        timeout: Option<Duration>,
    ) -> io::Result<u32> {
        let flags = if events { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
        let Some(timeout) = timeout else {
            // SAFETY: what the entries name is in order, since pushing them required it.
            return unsafe { io_uring::io_uring_enter(at(ring), submit, wait, flags) }.map_err(refused);
        };
        let time = timespec(timeout);
        let ts = io_uring::io_uring_ptr::new((&raw const time).cast_mut().cast());
        let arg = io_uring::io_uring_getevents_arg { ts, ..Default::default() };
        // SAFETY: as above; the kernel's `timespec` here is the 64-bit one, as rustix's is.
        let taken = unsafe {
            io_uring::io_uring_enter_arg(at(ring), submit, wait, flags | EnterFlags::EXT_ARG, Some(&arg))
        };
        taken.map_err(|e| if e == Errno::TIME { io::ErrorKind::TimedOut.into() } else { refused(e) })
    }

    fn map(&self, bytes: usize) -> io::Result<NonNull<u8>> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, placed by the kernel, aliases nothing of ours.
        let map = unsafe { mm::mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE)? };
        mapped(map, bytes)
    }

    fn unmap(&self, at: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller got it from one of the calls above, and gives it up. Failing would only leak it.
        let _ = unsafe { mm::munmap(at.as_ptr().cast(), bytes) };
    }
}

/// Keeps a mapping from a child process, which would share it or see it change under a fork.
fn mapped(map: *mut std::ffi::c_void, bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a mapping of this size that was made just now. Failing is harmless to us.
    let _ = unsafe { mm::madvise(map, bytes, Advice::LinuxDontFork) };
    NonNull::new(map.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
