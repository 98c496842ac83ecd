//! A client that is not listened to any more, and is still owed what the state answers to what it said before.

use std::collections::VecDeque;
use std::time::Duration;

use evenkeel::{Conn, ConnId};

use super::Server;
use super::conn::Role;
use crate::state::SessionId;

/// How long the state may take to answer before the client is closed without that.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last that a client hears.
pub(super) struct Farewell {
    pub(super) frame: Vec<u8>,
    /// It may still be sending, and is to read this all the same.
    pub(super) lingers: bool,
}

impl Farewell {
    fn say(&self, conn: &mut Conn<'_>) {
        conn.write(&self.frame);
        if self.lingers {
            conn.close_lingering();
        } else {
            conn.close();
        }
    }
}

/// Boxed, for it is soon over.
pub(super) struct Parting {
    farewell: Farewell,
    /// How much the state must have done.
    after: u64,
    /// When it has had time enough, by the server's clock.
    until: u64,
}

/// Connections that part, in the order in which the state comes to them.
pub(super) type Waiting = VecDeque<(u64, ConnId)>;

impl Parting {
    /// The state may have answered: then the client is told, and closed.
    pub(super) fn look(&self, server: &Server, conn: &mut Conn<'_>) -> Option<Role> {
        let over = server.link().done() >= self.after || server.now() >= self.until;
        over.then(|| {
            self.farewell.say(conn);
            Role::Parted
        })
    }
}

impl Server {
    /// A subscriber leaves the state, and hears `farewell` behind all that the state has for it.
    pub(super) fn part(&self, conn: &mut Conn<'_>, session: SessionId, farewell: Farewell) -> Role {
        self.leave_session(session);
        let Some(after) = self.link().wait_for_all(conn.id()) else {
            farewell.say(conn);
            return Role::Parted;
        };
        conn.pause();
        conn.message_done();
        conn.notify_after(PATIENCE);
        Role::Parting(Box::new(Parting { farewell, after, until: self.now() + PATIENCE.as_millis() as u64 }))
    }
}
