//! The end of connecting, whoever was told that there is news of it.

use std::io;

use super::{Core, Kind, Shared, Token, flag};
use crate::handler::CloseReason;
use crate::sys::Fd;

impl Shared {
    /// What came of a connection in progress of which something was reported: no error, then a peer, in this order
    /// (I32). None if it is in progress still: the report was a stray one.
    pub(crate) fn connect_outcome(&self, fd: Fd) -> Option<io::Result<()>> {
        let sys = self.driver.sys();
        match sys.take_error(fd) {
            Ok(Some(e)) | Err(e) => Some(Err(e)),
            Ok(None) => match sys.peer_addr(fd) {
                Ok(_) => Some(Ok(())),
                Err(e) if e.kind() == io::ErrorKind::NotConnected => None,
                Err(e) => Some(Err(e)),
            },
        }
    }

    /// Tells the owner that there will be no connection.
    pub(crate) fn connect_failed(&self, token: Token, error: io::Error) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get(token) else { return };
        if s.kind() == Kind::Callback {
            core.end(token, CloseReason::ConnectFailed(error));
        } else {
            core.fail_async(token, error);
            drop(core);
            self.run_wakes();
        }
    }
}

impl Core {
    /// The connection is there; `hung_up` is the bit for it, if the peer's end was reported with that. Its owner is told
    /// next. Returns what it is.
    pub(crate) fn established(&mut self, token: Token, hung_up: u32, now: u32) -> Option<Kind> {
        let s = self.sources.get_mut(token)?;
        s.clear(flag::CONNECTING | flag::HUNG_UP);
        s.set(flag::WRITABLE | flag::READABLE | hung_up);
        s.stamp = now;
        let (kind, deadline) = (s.kind(), s.take_deadline());
        if let Some(deadline) = deadline {
            self.wheel.cancel(deadline);
        }
        if kind == Kind::Callback {
            self.pending.push(token);
        } else {
            self.wake(token, true, true);
        }
        Some(kind)
    }
}
