//! The floor of completions: one io_uring, nothing general. Connections are accepted, and bytes received, by one
//! request each; what came is sent from where it was received, in the call that waits for more.
//!
//! A send is over when that call returns, and says nothing unless it failed. So a connection has no state, and one whose
//! socket is full is given up: the load never lets it fill.

mod buffers;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use lab_work::Echo;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, shutdown};

use crate::buffers::Buffers;

const ACCEPT: u64 = 0;
const RECV: u64 = 1;
const SEND: u64 = 2;

/// Completions from which on one call may have left some behind: the kernel does a bounded amount of work in each.
const WORK_PER_CALL: usize = 16;
/// Completions that are collected, by several calls if need be, before they are served: it pays to receive from many,
/// and then to send to many.
const BATCH: usize = 256;

/// Received bytes that go back to where they came from.
struct Answer {
    fd: RawFd,
    from: *const u8,
    n: usize,
}

struct Server {
    ring: IoUring,
    buffers: Buffers,
    listener: TcpListener,
    /// By their descriptors.
    sockets: Vec<Option<OwnedFd>>,
    /// What is to be sent next, if more of it does not come right behind.
    next: Option<Answer>,
    /// Ended, but an answer may have yet to leave.
    over: Vec<RawFd>,
    /// Found no buffer to receive into.
    starved: Vec<RawFd>,
}

impl Server {
    fn push(&mut self, entry: squeue::Entry, operation: u64, fd: RawFd) -> io::Result<()> {
        let entry = entry.user_data(operation << 32 | fd as u64);
        // SAFETY: memory that an entry names is a buffer's, which is given back after the entry was submitted, when it
        // is over.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let fd = self.listener.as_raw_fd();
        let flags = SocketFlags::CLOEXEC.bits() as i32;
        self.push(opcode::AcceptMulti::new(types::Fd(fd)).flags(flags).build(), ACCEPT, fd)
    }

    fn receive(&mut self, fd: RawFd) -> io::Result<()> {
        self.push(opcode::RecvMulti::new(types::Fd(fd), 0).build(), RECV, fd)
    }

    /// Joins a message that comes in pieces: its bytes lie one behind the other, unless a buffer ends between.
    fn answer(&mut self, fd: RawFd, from: *const u8, n: usize) -> io::Result<()> {
        match &mut self.next {
            Some(next) if next.fd == fd && next.from.wrapping_add(next.n) == from => next.n += n,
            _ => {
                self.send()?;
                self.next = Some(Answer { fd, from, n });
            }
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(Answer { fd, from, n }) = self.next.take() else { return Ok(()) };
        let flags = SendFlags::DONTWAIT.bits() | SendFlags::NOSIGNAL.bits() | RecvFlags::WAITALL.bits();
        let entry = opcode::Send::new(types::Fd(fd), from, n as u32).flags(flags as i32).build();
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), SEND, fd)
    }

    fn accepted(&mut self, done: &cqueue::Entry) -> io::Result<()> {
        let fd = check(done.result())? as RawFd;
        let at = fd as usize;
        self.sockets.resize_with(self.sockets.len().max(at + 1), || None);
        // SAFETY: the kernel has just made this descriptor for us.
        self.sockets[at] = Some(unsafe { OwnedFd::from_raw_fd(fd) });
        self.receive(fd)?;
        if cqueue::more(done.flags()) { Ok(()) } else { self.accept() }
    }

    fn received(&mut self, fd: RawFd, done: &cqueue::Entry) -> io::Result<()> {
        match (done.result(), cqueue::buffer_select(done.flags())) {
            (n @ 1.., Some(buffer)) => {
                let bytes = self.buffers.take(buffer, n as usize);
                self.answer(fd, bytes, n as usize)?;
                if !cqueue::more(done.flags()) {
                    self.receive(fd)?;
                }
            }
            (error, _) if error == -Errno::NOBUFS.raw_os_error() => self.starved.push(fd),
            _ => self.over.push(fd),
        }
        Ok(())
    }

    /// A send has failed, or fell short. What its connection sent after it in the same call may have left nevertheless.
    fn not_sent(&mut self, fd: RawFd, result: i32) {
        if let Some(socket) = &self.sockets[fd as usize] {
            if ![Errno::PIPE, Errno::CONNRESET].map(Errno::raw_os_error).contains(&-result) {
                eprintln!("a connection is given up: its socket is full ({result})");
            }
            // Its receive ends then, and it with that. An error says that it has ended already.
            let _ = shutdown(socket, Shutdown::Both);
        }
    }

    /// Once the kernel has taken everything that was pushed, the sends among it are over.
    fn submitted(&mut self) {
        if !self.ring.submission().is_empty() {
            return;
        }
        self.buffers.give_back();
        for fd in self.over.drain(..) {
            self.sockets[fd as usize] = None;
        }
    }

    /// Receives again for those that found no buffer, when there are some.
    fn feed(&mut self) -> io::Result<()> {
        if !self.starved.is_empty() {
            self.ring.submit()?;
            self.submitted();
            for fd in std::mem::take(&mut self.starved) {
                self.receive(fd)?;
            }
        }
        Ok(())
    }

    /// Hands over what was pushed, waits for a completion, and takes those that have come.
    fn collect(&mut self, batch: &mut Vec<cqueue::Entry>) -> io::Result<()> {
        let mut least = 1;
        loop {
            match self.ring.submit_and_wait(least) {
                // A signal has ended the wait, or completions must be taken first.
                Err(e) if !matches!(Errno::from_io_error(&e), Some(Errno::INTR | Errno::BUSY)) => {
                    return Err(e);
                }
                _ => self.submitted(),
            }
            let before = batch.len();
            batch.extend(self.ring.completion());
            if batch.len() - before < WORK_PER_CALL || batch.len() >= BATCH {
                return Ok(());
            }
            least = 0;
        }
    }

    fn run(&mut self) -> io::Result<()> {
        self.accept()?;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.collect(&mut batch)?;
            for done in batch.drain(..) {
                let fd = done.user_data() as u32 as RawFd;
                match done.user_data() >> 32 {
                    ACCEPT => self.accepted(&done)?,
                    RECV => self.received(fd, &done)?,
                    _ => self.not_sent(fd, done.result()),
                }
            }
            self.send()?;
            self.feed()?;
        }
    }
}

fn check(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn serve(listener: TcpListener, _: Echo) -> io::Result<()> {
    let mut options = IoUring::builder();
    options.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_no_sqarray();
    // A call that waits for nothing does then what work there is.
    options.setup_taskrun_flag();
    let ring = options.setup_cqsize(8192).build(1024)?;
    let buffers = Buffers::new(&ring)?;
    Server { ring, buffers, listener, sockets: vec![], next: None, over: vec![], starved: vec![] }.run()
}

fn main() -> io::Result<()> {
    lab_work::serve(std::env::args().skip(2), serve)
}
