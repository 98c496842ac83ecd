//! Kept seats: the presence of users whose clients are on their way from one connection to the next.
//!
//! A restart closes every client with a code that brings it back at once. To the others on its presence channels that
//! would be a member that goes and comes, and to those who watch the user one that is offline and online, for thousands
//! of users within seconds. So a client that is moved leaves its user's seat taken: until the user joins the channel
//! again (or signs in again, for watchers), or until the time is over and the user has gone after all.
//!
//! A kept seat is a user without a connection, and nothing else: it gets no events, is no subscription and keeps no
//! connection's place. It counts wherever users are counted, and a channel with one is occupied.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::Hub;
use super::app::AppId;
use super::outbox::{Outbox, Wire};
use super::session::SessionId;
use super::slab::Key;

/// How many seats are kept at most. Past that, who is moved is gone for the others until the return.
const MOST: usize = 1 << 18;

/// The books of the kept seats. The seats themselves are with the users.
#[derive(Debug, Default)]
pub(super) struct Seats {
    /// By the time when they are given up. An entry whose seat was taken again, or is kept for longer by now, stays until
    /// it is met or the queue is swept.
    queue: BinaryHeap<Reverse<(u64, Seat)>>,
    /// Seats that are kept.
    live: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seat {
    /// A user's place in a presence channel.
    Present { channel: Key, user: Key },
    /// A user who is online for those who watch.
    Online { app: AppId, user: Arc<str> },
}

impl Seats {
    /// Notes a seat that is kept until then. `new` when it was not kept before.
    pub(super) fn add(&mut self, until: u64, seat: Seat, new: bool) {
        self.queue.push(Reverse((until, seat)));
        self.live += usize::from(new);
    }

    /// Notes that a seat is not kept any more.
    pub(super) fn forget(&mut self) {
        self.live -= 1;
        if self.live == 0 {
            self.queue = BinaryHeap::new();
        }
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((due, _))| *due)
    }

    /// The next seat that is due.
    fn pop_due(&mut self, now: u64) -> Option<(u64, Seat)> {
        if self.next_due()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse(entry)| entry)
    }

    /// Whether sweeping out dead entries is worth its cost.
    fn is_crowded(&self) -> bool {
        self.queue.len() > 2 * self.live + 64
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn live(&self) -> usize {
        self.live
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn queued(&self) -> impl Iterator<Item = &(u64, Seat)> {
        self.queue.iter().map(|Reverse(entry)| entry)
    }
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// Ends a session whose client has been told to come back, as [`Hub::disconnect`] does, but keeps the user's seat for
    /// `grace_ms`: the user stays in its presence channels until the same user id joins there again, and online until it
    /// signs in again. The others are told nothing then; in a channel the info that the user brings along replaces the
    /// old one. Who does not come back in time is gone with a [`Hub::tick`].
    ///
    /// Call it when the client is told, not when its connection breaks. Does nothing for a session that has ended, and no
    /// more than [`Hub::disconnect`] for one without a user. The number of kept seats is bounded (262,144 for a hub);
    /// past that a user is gone until the return.
    pub fn disconnect_moving<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        id: SessionId,
        grace_ms: u64,
        out: &mut O,
    ) {
        let Some(session) = self.sessions.get(id.0) else { return };
        let wanted = session.subscriptions.as_slice().len() + 1;
        if self.seats.live + wanted <= MOST {
            self.keep_seats(now.saturating_add(grace_ms), id.0.index);
        }
        self.end(now, id.0.index, out);
    }

    /// Keeps the seats of the session's user.
    fn keep_seats(&mut self, until: u64, index: u32) {
        let session = &self.sessions[index];
        for subscription in session.subscriptions.as_slice() {
            let channel = self.channels.key(subscription.channel);
            let presence = self.channels[subscription.channel].presence.as_mut();
            if let Some((user, new)) = presence.and_then(|p| p.keep_seat(subscription.position, until)) {
                self.seats.add(until, Seat::Present { channel, user }, new);
            }
        }
        if let Some(signed_in) = &session.user {
            let app = session.app;
            let user = self.apps[app.0 as usize].users.get_mut(&signed_in.id);
            if let Some(user) = user.filter(|user| user.kept_until.is_none_or(|kept| kept < until)) {
                let new = user.kept_until.replace(until).is_none();
                self.seats.add(until, Seat::Online { app, user: signed_in.id.clone() }, new);
            }
        }
        if self.seats.is_crowded() {
            self.sweep_seats();
        }
    }

    /// Gives up the seats whose time is over, at most `budget` of them.
    pub(super) fn give_up_seats<O: Outbox<Conn = C>>(&mut self, now: u64, budget: usize, out: &mut O) {
        for _ in 0..budget {
            let Some((until, seat)) = self.seats.pop_due(now) else { return };
            if !self.is_kept(until, &seat) {
                continue;
            }
            self.seats.forget();
            match seat {
                Seat::Present { channel, user } => {
                    let presence = self.channels[channel.index].presence.as_mut();
                    if let Some(gone) = presence.and_then(|presence| presence.give_up_seat(user)) {
                        self.member_gone(channel.index, Some(gone), out);
                    }
                }
                Seat::Online { app, user: id } => {
                    let Some(user) = self.apps[app.0 as usize].users.get_mut(&id) else { continue };
                    user.kept_until = None;
                    if !user.is_online() {
                        self.set_offline(app, &id, out);
                    }
                }
            }
        }
    }

    /// Whether the seat is kept until just that time, so that the entry of it is not dead.
    pub(super) fn is_kept(&self, until: u64, seat: &Seat) -> bool {
        match seat {
            Seat::Present { channel, user } => {
                let presence = self.channels.get(*channel).and_then(|channel| channel.presence.as_ref());
                presence.is_some_and(|presence| presence.is_kept_until(*user, until))
            }
            Seat::Online { app, user } => {
                let user = self.apps[app.0 as usize].users.get(user);
                user.is_some_and(|user| user.kept_until == Some(until))
            }
        }
    }

    fn sweep_seats(&mut self) {
        let mut queue = std::mem::take(&mut self.seats.queue);
        queue.retain(|Reverse((until, seat))| self.is_kept(*until, seat));
        queue.shrink_to(2 * queue.len());
        self.seats.queue = queue;
    }
}
