//! What is done to both kernels: calls on descriptors that have names, so that leaving one call out changes no other.

use std::fmt;
use std::net::Shutdown;

use super::packets::PacketOp;
use super::rings::Ask;
use crate::sys::EpollOp;

/// The name of a descriptor: the call that makes it gives it. It goes on to mean the number when that is closed, and when
/// somebody else has it.
pub(super) type Handle = u16;

/// As many connections as one turn of a ring may bring.
pub(super) const MOST_ACCEPTED: Handle = 64;

/// A number that is never open.
pub(super) const NEVER: Handle = Handle::MAX;

/// Where a socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp4,
    Tcp6,
    /// A file of this number.
    Unix(u8),
}

/// Whom a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Where this one listens, or did.
    Listener(Handle),
    /// A port that nobody has.
    Nobody,
    /// A file that does not exist.
    NoFile,
}

/// An option of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    NoDelay(bool),
    KeepAlive(bool),
    ResetOnClose,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Listen {
        at: Place,
        backlog: u32,
        into: Handle,
    },
    /// Where another one listens, or did.
    ListenAgain {
        at: Handle,
        into: Handle,
    },
    Unlink {
        at: Handle,
    },
    Connect {
        to: Target,
        into: Handle,
    },
    Accept {
        from: Handle,
        into: Handle,
    },
    Pair {
        into: [Handle; 2],
    },
    Spare {
        into: Handle,
    },
    Bell {
        into: Handle,
    },
    Epoll {
        into: Handle,
    },
    /// `tag` decides what the bytes are.
    Send {
        on: Handle,
        bytes: usize,
        tag: u8,
    },
    SendVectored {
        on: Handle,
        parts: Vec<usize>,
        tag: u8,
    },
    Recv {
        on: Handle,
        most: usize,
    },
    Shutdown {
        on: Handle,
        how: Shutdown,
    },
    Close {
        on: Handle,
    },
    /// Closes with a reset.
    Abort {
        on: Handle,
    },
    TakeError {
        on: Handle,
    },
    LocalAddr {
        on: Handle,
    },
    PeerAddr {
        on: Handle,
    },
    Set {
        on: Handle,
        setting: Setting,
    },
    Wake {
        on: Handle,
    },
    ClearWake {
        on: Handle,
    },
    Ctl {
        epoll: Handle,
        op: EpollOp,
        on: Handle,
        flags: u32,
    },
    Wait {
        epoll: Handle,
        most: usize,
    },
    Poll {
        on: Vec<(Handle, i16)>,
    },
    /// An io_uring, whose buffers are filled piece by piece or one for each receive.
    Ring {
        into: Handle,
        incremental: bool,
    },
    /// `into` is what the request is known by, and what the first connection is that it accepts; more of them follow it.
    Ask {
        ring: Handle,
        ask: Ask,
        on: Handle,
        into: Handle,
    },
    /// Gives buffers back, and takes completions. Connections are known from `into` on.
    Turn {
        ring: Handle,
        into: Handle,
    },
    /// About datagrams, sequenced packets and pipes.
    Packet(PacketOp),
    /// Of each, in which of the three sets it is, by bits.
    Select {
        on: Vec<(Handle, u8)>,
    },
}

/// The descriptor flags by name, as a reader of a report wants them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(pub(super) u32);

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::sim::kernel::bits;
        const NAMES: [(u32, &str); 9] = [
            (bits::IN, "IN"),
            (bits::PRI, "PRI"),
            (bits::OUT, "OUT"),
            (bits::ERR, "ERR"),
            (bits::HUP, "HUP"),
            (bits::RDHUP, "RDHUP"),
            (bits::EXCLUSIVE, "EXCLUSIVE"),
            (bits::ONESHOT, "ONESHOT"),
            (bits::EDGE, "ET"),
        ];
        let mut rest = self.0;
        let mut first = true;
        for (bit, name) in NAMES {
            if self.0 & bit != 0 {
                write!(f, "{}{name}", if first { "" } else { "|" })?;
                first = false;
                rest &= !bit;
            }
        }
        match (rest, first) {
            (0, true) => f.write_str("0"),
            (0, false) => Ok(()),
            (rest, _) => write!(f, "|{rest:#x}"),
        }
    }
}

/// A handle as reports have it.
struct Name(Handle);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == NEVER { f.write_str("never") } else { write!(f, "h{}", self.0) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Listener(handle) => write!(f, "{}", Name(*handle)),
            Target::Nobody => f.write_str("nobody"),
            Target::NoFile => f.write_str("no file"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |handle: &Handle| Name(*handle);
        match self {
            Op::Listen { at, backlog, into } => write!(f, "{} = listen({at:?}, {backlog})", name(into)),
            Op::ListenAgain { at, into } => {
                write!(f, "{} = listen(where {} does)", name(into), name(at))
            }
            Op::Unlink { at } => write!(f, "unlink(file of {})", name(at)),
            Op::Connect { to, into } => write!(f, "{} = connect({to})", name(into)),
            Op::Accept { from, into } => write!(f, "{} = accept({})", name(into), name(from)),
            Op::Pair { into: [a, b] } => write!(f, "({}, {}) = socket_pair()", name(a), name(b)),
            Op::Spare { into } => write!(f, "{} = spare()", name(into)),
            Op::Bell { into } => write!(f, "{} = wake_pair()", name(into)),
            Op::Epoll { into } => write!(f, "{} = epoll_create()", name(into)),
            Op::Send { on, bytes, .. } => write!(f, "send({}, {bytes})", name(on)),
            Op::SendVectored { on, parts, .. } => write!(f, "send_vectored({}, {parts:?})", name(on)),
            Op::Recv { on, most } => write!(f, "recv({}, {most})", name(on)),
            Op::Shutdown { on, how } => write!(f, "shutdown({}, {how:?})", name(on)),
            Op::Close { on } => write!(f, "close({})", name(on)),
            Op::Abort { on } => write!(f, "abort({})", name(on)),
            Op::TakeError { on } => write!(f, "take_error({})", name(on)),
            Op::LocalAddr { on } => write!(f, "local_addr({})", name(on)),
            Op::PeerAddr { on } => write!(f, "peer_addr({})", name(on)),
            Op::Set { on, setting } => write!(f, "set_option({}, {setting:?})", name(on)),
            Op::Wake { on } => write!(f, "wake({})", name(on)),
            Op::ClearWake { on } => write!(f, "clear_wake({})", name(on)),
            Op::Ctl { epoll, op, on, flags } => {
                write!(f, "epoll_ctl({}, {op:?}, {}, {})", name(epoll), name(on), Flags(*flags))
            }
            Op::Wait { epoll, most } => write!(f, "epoll_wait({}, {most})", name(epoll)),
            Op::Poll { on } => {
                let asked = on.iter().map(|(h, mask)| format!("{}: {}", name(h), Flags(*mask as u16 as u32)));
                write!(f, "poll({})", asked.collect::<Vec<_>>().join(", "))
            }
            Op::Ring { into, incremental } => write!(f, "{} = ring(incremental: {incremental})", name(into)),
            Op::Ask { ring, ask, on, into } => {
                write!(f, "{}: {ask:?} on {}, known by {into}", name(ring), name(on))
            }
            Op::Turn { ring, into } => write!(f, "{}: turn, connections from {}", name(ring), name(into)),
            Op::Packet(op) => write!(f, "{op:?}"),
            Op::Select { on } => {
                let asked = on.iter().map(|(h, sets)| format!("{}: {sets:03b}", name(h)));
                write!(f, "select({})", asked.collect::<Vec<_>>().join(", "))
            }
        }
    }
}
