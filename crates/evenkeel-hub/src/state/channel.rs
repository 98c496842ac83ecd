//! A channel: its members, and what it keeps of its past.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Hub;
use super::app::AppId;
use super::ids::Keyed;
use super::outbox::{Event, Outbox, Wire};
use super::presence::Presence;
use super::session::Subscription;
use crate::proto::channel::{Access, ChannelKind, ChannelName};
use crate::proto::message;

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) app: AppId,
    pub(super) kind: ChannelKind,
    pub(super) name: Arc<str>,
    pub(super) members: Vec<Member>,
    /// Of presence channels only.
    pub(super) presence: Option<Box<Presence>>,
    pub(super) past: Past,
    /// The earliest time at which the subscribers may be told their number again, if they are many.
    pub(super) count_due: u64,
    /// Whether the hub's queue has the channel, to send the number then.
    pub(super) count_pending: bool,
}

/// One connection in a channel: the counterpart of [`Subscription`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) session: u32,
    /// The place among the session's subscriptions.
    pub(super) slot: u32,
}

/// What a channel keeps of its past; `history` keeps the books.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The latest events, oldest first.
    pub(super) events: VecDeque<Arc<Event>>,
    /// What `events` cost.
    pub(super) bytes: usize,
    /// The latest event that was published here, or may have been, and is not in `events`.
    pub(super) gone: u64,
    /// The last event, for new subscribers of a cache channel.
    pub(super) cached: Option<Arc<Event>>,
}

impl Channel {
    pub(super) fn new(app: AppId, name: ChannelName<'_>, gone: u64, keyed: &Keyed) -> Channel {
        let presence = (name.kind().access == Access::Presence).then(|| Box::new(Presence::new(keyed)));
        Channel::with_presence(app, name, gone, presence)
    }

    pub(super) fn with_presence(
        app: AppId,
        name: ChannelName<'_>,
        gone: u64,
        presence: Option<Box<Presence>>,
    ) -> Channel {
        let kind = name.kind();
        Channel {
            app,
            kind,
            name: name.as_str().into(),
            members: Vec::new(),
            presence,
            past: Past { gone, ..Past::default() },
            count_due: 0,
            count_pending: false,
        }
    }

    /// Whether it has a subscriber, or a seat that is kept for one.
    pub(super) fn is_occupied(&self) -> bool {
        !self.members.is_empty() || self.presence.as_ref().is_some_and(|presence| presence.user_count() > 0)
    }

    fn is_unused(&self) -> bool {
        !self.is_occupied() && self.past.events.is_empty() && self.past.cached.is_none()
    }
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// The channel of that name, made if there is none.
    pub(super) fn channel_or_new(&mut self, app: AppId, name: ChannelName<'_>) -> u32 {
        let state = &mut self.apps[app.0 as usize];
        if let Some(&index) = state.channels.get(name.as_str()) {
            return index;
        }
        let channel = Channel::new(app, name, state.forgotten, &self.keyed);
        let name = channel.name.clone();
        let index = self.channels.insert(channel).index;
        state.channels.insert(name, index);
        index
    }

    /// Frees the channel if nobody is in it and nothing is kept for it.
    pub(super) fn free_if_unused(&mut self, index: u32) {
        if !self.channels[index].is_unused() {
            return;
        }
        if let Some(channel) = self.channels.remove(index) {
            let app = &mut self.apps[channel.app.0 as usize];
            app.forgotten = app.forgotten.max(channel.past.gone);
            app.channels.remove(&channel.name);
            if app.channels.capacity() > 64 && app.channels.len() * 4 < app.channels.capacity() {
                app.channels.shrink_to(app.channels.len() * 2);
            }
        }
    }

    /// Makes the session a member of the channel, on both sides. The caller keeps presence in step.
    pub(super) fn attach(&mut self, session: u32, channel: u32) {
        let into = &mut self.channels[channel];
        if !into.is_occupied() {
            self.apps[into.app.0 as usize].occupied += 1;
        }
        let position = into.members.len() as u32;
        let slot = self.sessions[session].subscriptions.push(Subscription { channel, position });
        into.members.push(Member { session, slot });
    }

    /// Ends the subscription in `slot` of the session, tells the others, and frees the channel if it was the last.
    pub(super) fn leave<O: Outbox<Conn = C>>(&mut self, now: u64, session: u32, slot: u32, out: &mut O) {
        let subscriptions = &mut self.sessions[session].subscriptions;
        let Subscription { channel: index, position } = subscriptions.swap_remove(slot);
        // The session's last subscription may have moved into the slot: its channel must know.
        if let Some(moved) = subscriptions.as_slice().get(slot as usize) {
            self.channels[moved.channel].members[moved.position as usize].slot = slot;
        }
        let channel = &mut self.channels[index];
        channel.members.swap_remove(position as usize);
        super::slab::shrink(&mut channel.members);
        // And the channel's last member into the position: its session must know.
        if let Some(moved) = channel.members.get(position as usize) {
            self.sessions[moved.session].subscriptions.as_mut_slice()[moved.slot as usize].position =
                position;
        }
        let gone = channel.presence.as_mut().and_then(|presence| presence.leave(position));
        self.member_gone(index, gone, out);
        if self.channels.at(index).is_some_and(|channel| !channel.members.is_empty()) {
            self.count_changed(now, index, out);
        }
    }

    /// Tells the others of the user whose presence has ended, if one's has. The channel is freed if that was the last.
    pub(super) fn member_gone<O: Outbox<Conn = C>>(
        &mut self,
        index: u32,
        gone: Option<Arc<str>>,
        out: &mut O,
    ) {
        let channel = &self.channels[index];
        if !channel.is_occupied() {
            self.apps[channel.app.0 as usize].occupied -= 1;
            self.free_if_unused(index);
        } else if let Some(user) = gone {
            let event = Event::new(message::member_removed(&channel.name, &user), None);
            self.broadcast(index, &event, None, out);
        }
    }

    /// Sends `event` to all members of the channel but `except` (a session's place).
    pub(super) fn broadcast<O: Outbox<Conn = C>>(
        &mut self,
        index: u32,
        event: &Event,
        except: Option<u32>,
        out: &mut O,
    ) {
        let channel = &self.channels[index];
        let mut sent = 0;
        for member in &channel.members {
            if Some(member.session) != except {
                let session = &self.sessions[member.session];
                out.send(session.conn, event.frame::<W>(session.transport));
                sent += 1;
            }
        }
        self.apps[channel.app.0 as usize].counters.messages_out += sent;
    }

    /// Tells the subscribers how many they are: at once while they are few, at intervals when they are many.
    pub(super) fn count_changed<O: Outbox<Conn = C>>(&mut self, now: u64, index: u32, out: &mut O) {
        let channel = &mut self.channels[index];
        let limits = &self.apps[channel.app.0 as usize].config.limits;
        let counted = !matches!(channel.kind.access, Access::Presence | Access::ServerToUser);
        if !limits.subscription_count || !counted {
            return;
        }
        let many = channel.members.len() > limits.subscription_count_threshold as usize;
        if many && now < channel.count_due {
            if !channel.count_pending {
                channel.count_pending = true;
                let due = channel.count_due;
                self.counts.push(std::cmp::Reverse((due, self.channels.key(index))));
            }
            return;
        }
        channel.count_due = now.saturating_add(limits.subscription_count_interval);
        let event = Event::new(message::subscription_count(&channel.name, channel.members.len()), None);
        self.broadcast(index, &event, None, out);
    }

    /// Sends the subscription counts that waited and are due, at most `budget` of them.
    pub(super) fn flush_counts<O: Outbox<Conn = C>>(&mut self, now: u64, budget: usize, out: &mut O) {
        for _ in 0..budget {
            match self.counts.peek() {
                Some(std::cmp::Reverse((due, _))) if *due <= now => {}
                _ => return,
            }
            let Some(std::cmp::Reverse((_, key))) = self.counts.pop() else { return };
            if self.channels.get(key).is_some() {
                self.channels[key.index].count_pending = false;
                if !self.channels[key.index].members.is_empty() {
                    self.count_changed(now, key.index, out);
                }
            }
        }
    }
}
