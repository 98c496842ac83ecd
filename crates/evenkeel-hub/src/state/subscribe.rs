//! Joining and leaving channels over a WebSocket.

use std::sync::Arc;

use super::Hub;
use super::ids::SocketId;
use super::outbox::{Event, Outbox, Transport, Verifier, Wire};
use super::presence::Identity;
use super::refusal::Refusal;
use crate::proto::channel::{Access, ChannelName, ChannelNameError};
use crate::proto::message::{self, Subscribe};

/// How much of a refused channel name is sent back, in characters.
const ECHOED_NAME: usize = 200;

impl From<ChannelNameError> for Refusal {
    fn from(error: ChannelNameError) -> Refusal {
        match error {
            ChannelNameError::TooLong => Refusal::ChannelNameTooLong,
            ChannelNameError::Empty | ChannelNameError::Character => Refusal::InvalidChannel,
        }
    }
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// `pusher:subscribe`. A refusal is answered with `pusher:subscription_error`.
    pub(super) fn subscribe<V: Verifier, O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        index: u32,
        request: &Subscribe<'_>,
        verifier: &V,
        out: &mut O,
    ) {
        match self.check_subscribe(index, request, verifier) {
            Ok((name, identity)) => self.join(now, index, name, identity, out),
            Err(refusal) => {
                self.count_refusal(Some(self.sessions[index].app), refusal);
                let name: String = request.channel.chars().take(ECHOED_NAME).collect();
                let (kind, status) = (refusal.subscription_error_type(), refusal.http_status());
                self.reply(index, message::subscription_error(&name, kind, refusal.message(), status), out);
            }
        }
    }

    /// `pusher:unsubscribe`. Leaving a channel that one is not in is no error: the wish is fulfilled.
    pub(super) fn unsubscribe<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        index: u32,
        channel: &str,
        out: &mut O,
    ) {
        if let Some(slot) = self.slot_of(index, channel) {
            self.leave(now, index, slot, out);
        }
    }

    /// The slot of the session's subscription to the channel of that name.
    pub(super) fn slot_of(&self, index: u32, channel: &str) -> Option<u32> {
        let session = &self.sessions[index];
        let channel = *self.apps[session.app.0 as usize].channels.get(channel)?;
        session.subscriptions.slot_of(channel)
    }

    fn check_subscribe<'m, V: Verifier>(
        &self,
        index: u32,
        request: &'m Subscribe<'_>,
        verifier: &V,
    ) -> Result<(ChannelName<'m>, Option<Identity>), Refusal> {
        let session = &self.sessions[index];
        let limits = &self.apps[session.app.0 as usize].config.limits;
        let name = ChannelName::parse(&request.channel, limits.max_channel_name as usize)?;
        if self.slot_of(index, name.as_str()).is_some() {
            return Err(Refusal::AlreadySubscribed);
        }
        if session.subscriptions.as_slice().len() >= limits.max_channels_per_connection as usize {
            return Err(Refusal::TooManyChannels);
        }
        let identity = self.authorise(index, name, request, verifier)?;
        if let Some(who) = &identity {
            self.check_room(index, name, who)?;
        }
        Ok((name, identity))
    }

    /// Whether the session may join, and as whom.
    fn authorise<V: Verifier>(
        &self,
        index: u32,
        name: ChannelName<'_>,
        request: &Subscribe<'_>,
        verifier: &V,
    ) -> Result<Option<Identity>, Refusal> {
        let session = &self.sessions[index];
        let access = name.kind().access;
        match access {
            Access::Public => return Ok(None),
            Access::ServerToUser => {
                let own = session.user.as_ref().is_some_and(|user| Some(&*user.id) == name.user());
                return if own { Ok(None) } else { Err(Refusal::NotSignedIn) };
            }
            Access::Private | Access::Encrypted | Access::Presence => {}
        }
        let config = &self.apps[session.app.0 as usize].config;
        let socket_id = SocketId { tag: session.tag, index }.to_string();
        let data = if access == Access::Presence { request.channel_data.as_deref() } else { None };
        let auth = request.auth.as_deref().unwrap_or("");
        if !verifier.channel(config, &socket_id, name.as_str(), data, auth) {
            return Err(Refusal::Unauthorized);
        }
        if access != Access::Presence {
            return Ok(None);
        }
        let Some(data) = data else {
            let user = session.user.as_ref().ok_or(Refusal::NotSignedIn)?;
            let info = user.info.as_deref().unwrap_or("{}").to_owned();
            return Ok(Some(Identity { id: user.id.to_string(), info }));
        };
        let member = message::parse_channel_data(data).map_err(|_| Refusal::InvalidChannelData)?;
        if member.user_id.chars().count() > config.limits.max_user_id as usize {
            return Err(Refusal::UserIdTooLong);
        }
        let info = member.user_info.unwrap_or_else(|| "{}".to_owned());
        if info.len() > config.limits.max_user_info as usize {
            return Err(Refusal::UserInfoTooLarge);
        }
        Ok(Some(Identity { id: member.user_id, info }))
    }

    /// Whether the presence channel has room for the user.
    fn check_room(&self, index: u32, name: ChannelName<'_>, who: &Identity) -> Result<(), Refusal> {
        let app = &self.apps[self.sessions[index].app.0 as usize];
        let most = app.config.limits.max_presence_members as usize;
        let channel = app.channels.get(name.as_str()).map(|&channel| &self.channels[channel]);
        let presence = channel.and_then(|channel| channel.presence.as_ref());
        let (known, users) = presence.map_or((false, 0), |p| (p.contains(&who.id), p.user_count()));
        if known || users < most { Ok(()) } else { Err(Refusal::PresenceFull) }
    }

    /// Joins the channel: the answer, then what the others and the new subscriber are to know.
    fn join<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        index: u32,
        name: ChannelName<'_>,
        identity: Option<Identity>,
        out: &mut O,
    ) {
        let app = self.sessions[index].app;
        let channel = self.channel_or_new(app, name);
        self.attach(index, channel);
        if name.kind().access != Access::Public {
            self.sessions[index].authorized = true;
        }
        let Some(who) = identity else {
            self.reply(index, message::subscription_succeeded(name.as_str(), "{}"), out);
            self.send_cached(index, channel, out);
            self.count_changed(now, channel, out);
            return;
        };
        let Some(presence) = self.channels[channel].presence.as_mut() else { return };
        let joined = presence.join(&who);
        let data = message::presence_data(presence.members());
        self.reply(index, message::subscription_succeeded(name.as_str(), &data), out);
        self.send_cached(index, channel, out);
        if joined.returned {
            self.seats.forget();
        }
        if joined.added {
            let event = Event::new(message::member_added(name.as_str(), &who.id, &who.info), None);
            self.broadcast(channel, &event, Some(index), out);
        }
    }

    /// Sends a new subscriber of a cache channel the last event, or says that there is none.
    pub(super) fn send_cached<O: Outbox<Conn = C>>(&mut self, index: u32, channel: u32, out: &mut O) {
        let channel = &self.channels[channel];
        if !channel.kind.cached {
            return;
        }
        let session = &self.sessions[index];
        let event = match (&channel.past.cached, session.transport) {
            (None, _) => Arc::new(Event::new(message::cache_miss(&channel.name), None)),
            (Some(event), Transport::WebSocket) => event.clone(),
            // Without its id: an event from before the stream is not the stream's position.
            (Some(event), Transport::Sse) => Arc::new(Event::new(event.json().to_owned(), None)),
        };
        out.send(session.conn, event.frame::<W>(session.transport));
        self.apps[session.app.0 as usize].counters.messages_out += 1;
    }
}
