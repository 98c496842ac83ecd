//! Events on their way to the subscribers: from the HTTP API and from clients.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::Hub;
use super::app::AppId;
use super::ids::SocketId;
use super::outbox::{Event, Outbox, Transport, Wire};
use super::query::{ChannelState, Info};
use super::refusal::Refusal;
use crate::proto::channel::ChannelName;
use crate::proto::message;

/// An event to publish. The application's signature has been checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Publication<'a> {
    /// The event's name. Names of the protocol itself (`pusher:`, `pusher_internal:`) are refused.
    pub name: &'a str,
    /// The channels; one named twice gets the event once.
    pub channels: &'a [&'a str],
    /// What the event carries: a string for the protocol, usually JSON.
    pub data: &'a str,
    /// The connection that is not to get the event, usually because it caused it.
    pub socket_id: Option<&'a str>,
    /// What the publisher wants to know of the channels.
    pub info: Info,
}

/// What is passed on, before it is encoded.
enum Body<'a> {
    Published { data: &'a str },
    Client { data: Option<&'a RawValue>, user_id: Option<&'a str> },
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// Publishes one event.
    ///
    /// Returns the state of each channel, in the order given, if `info` asks for anything; else nothing. Attributes that
    /// a channel does not have are left out.
    ///
    /// # Errors
    /// Refusals of publishing. Nothing has then been sent.
    pub fn publish<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        app: AppId,
        publication: &Publication<'_>,
        out: &mut O,
    ) -> Result<Vec<ChannelState>, Refusal> {
        self.publish_all(now, app, std::slice::from_ref(publication), out)
    }

    /// Publishes a batch of events, all of them or none. The states are those of [`Hub::publish`], one after another.
    ///
    /// # Errors
    /// As [`Hub::publish`], and when the batch is too large.
    pub fn publish_batch<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        app: AppId,
        batch: &[Publication<'_>],
        out: &mut O,
    ) -> Result<Vec<ChannelState>, Refusal> {
        if batch.len() > self.apps[app.0 as usize].config.limits.max_batch as usize {
            return Err(self.count_refusal(Some(app), Refusal::BatchTooLarge));
        }
        self.publish_all(now, app, batch, out)
    }

    fn publish_all<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        app: AppId,
        batch: &[Publication<'_>],
        out: &mut O,
    ) -> Result<Vec<ChannelState>, Refusal> {
        let checked = batch.iter().try_for_each(|publication| self.check_publication(app, publication));
        let state = &mut self.apps[app.0 as usize];
        let admitted = checked.and_then(|()| {
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            let fits = state.publishes.take(now, state.config.limits.publish_rate, count);
            if fits { Ok(()) } else { Err(Refusal::PublishRate) }
        });
        admitted.map_err(|refusal| self.count_refusal(Some(app), refusal))?;
        let mut states = Vec::new();
        for publication in batch {
            self.publish_checked(now, app, publication, &mut states, out);
        }
        Ok(states)
    }

    fn check_publication(&self, app: AppId, publication: &Publication<'_>) -> Result<(), Refusal> {
        let config = &self.apps[app.0 as usize].config;
        let limits = &config.limits;
        let name = publication.name;
        if !config.enabled {
            return Err(Refusal::AppDisabled);
        }
        if self.overloaded {
            return Err(Refusal::Overloaded);
        }
        if name.is_empty() || name.starts_with("pusher:") || name.starts_with("pusher_internal:") {
            return Err(Refusal::EventName);
        }
        if name.chars().count() > limits.max_event_name as usize {
            return Err(Refusal::EventNameTooLong);
        }
        if publication.data.len() > limits.max_payload as usize {
            return Err(Refusal::PayloadTooLarge);
        }
        if publication.channels.is_empty() {
            return Err(Refusal::NoChannels);
        }
        if publication.channels.len() > limits.max_publish_channels as usize {
            return Err(Refusal::TooManyPublishChannels);
        }
        if publication.socket_id.is_some_and(|id| SocketId::parse(id).is_none()) {
            return Err(Refusal::InvalidSocketId);
        }
        for channel in publication.channels {
            ChannelName::parse(channel, limits.max_channel_name as usize)?;
        }
        Ok(())
    }

    fn publish_checked<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        app: AppId,
        publication: &Publication<'_>,
        states: &mut Vec<ChannelState>,
        out: &mut O,
    ) {
        let except = publication.socket_id.and_then(SocketId::parse).and_then(|id| self.find(app, id));
        let longest = self.apps[app.0 as usize].config.limits.max_channel_name as usize;
        for (i, channel) in publication.channels.iter().enumerate() {
            let Ok(name) = ChannelName::parse(channel, longest) else { continue };
            if !publication.channels[..i].contains(channel) {
                self.deliver(
                    now,
                    app,
                    name,
                    publication.name,
                    &Body::Published { data: publication.data },
                    except,
                    out,
                );
                self.apps[app.0 as usize].counters.published += 1;
            }
            if publication.info != Info::default() {
                states.push(self.state_of(now, app, channel, publication.info));
            }
        }
    }

    /// The session of that socket id, if it is of this application.
    fn find(&self, app: AppId, id: SocketId) -> Option<u32> {
        let session = self.sessions.at(id.index)?;
        (session.tag == id.tag && session.app == app).then_some(id.index)
    }

    /// An event from a client to the others on its channel.
    pub(super) fn client_event<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        index: u32,
        event: &str,
        channel: &str,
        data: Option<&RawValue>,
        out: &mut O,
    ) -> Result<(), Refusal> {
        let session = &self.sessions[index];
        let (app, transport) = (session.app, session.transport);
        let limits = &self.apps[app.0 as usize].config.limits;
        if !limits.client_events {
            return Err(Refusal::ClientEventsDisabled);
        }
        let name = ChannelName::parse(channel, limits.max_channel_name as usize)?;
        if !name.kind().takes_client_events() || transport == Transport::Sse {
            return Err(Refusal::ClientEventChannel);
        }
        let slot = self.slot_of(index, channel).ok_or(Refusal::NotSubscribed)?;
        if event.chars().count() > limits.max_event_name as usize {
            return Err(Refusal::EventNameTooLong);
        }
        if data.is_some_and(|data| data.get().len() > limits.max_payload as usize) {
            return Err(Refusal::PayloadTooLarge);
        }
        if self.overloaded {
            return Err(Refusal::Overloaded);
        }
        let rate = limits.client_event_rate;
        let session = &mut self.sessions[index];
        if !session.client_events.take(now, rate, 1) {
            return Err(Refusal::ClientEventRate);
        }
        let subscription = session.subscriptions.as_slice()[slot as usize];
        let presence = self.channels[subscription.channel].presence.as_ref();
        let user_id = presence.map(|presence| presence.user_at(subscription.position));
        let body = Body::Client { data, user_id: user_id.as_deref() };
        self.deliver(now, app, name, event, &body, Some(index), out);
        self.apps[app.0 as usize].counters.client_events += 1;
        Ok(())
    }

    /// Sends an event to a channel's subscribers and keeps it as far as the channel keeps events. An event that nobody
    /// gets and nothing keeps is not even encoded, but it is numbered, so that streams know that they missed it.
    #[allow(clippy::too_many_arguments, reason = "all are facts of the one event")]
    fn deliver<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        app: AppId,
        channel: ChannelName<'_>,
        event: &str,
        body: &Body<'_>,
        except: Option<u32>,
        out: &mut O,
    ) {
        let state = &mut self.apps[app.0 as usize];
        let id = state.next_event_id();
        let kind = channel.kind();
        let history = kind.is_streamable() && state.config.limits.history_count > 0;
        let cache = kind.cached && matches!(body, Body::Published { .. });
        let index = match state.channels.get(channel.as_str()) {
            Some(&index) => index,
            None if history || cache => self.channel_or_new(app, channel),
            None => {
                if kind.is_streamable() {
                    state.forgotten = id.sequence;
                }
                return;
            }
        };
        let json = match body {
            Body::Published { data } => message::channel_event(event, channel.as_str(), data),
            Body::Client { data, user_id } => message::client_event(event, channel.as_str(), *data, *user_id),
        };
        let event = Arc::new(Event::new(json, Some(id)));
        self.broadcast(index, &event, except, out);
        if kind.is_streamable() && !history {
            self.channels[index].past.gone = id.sequence;
        }
        if history || cache {
            self.keep(now, index, event, cache, history);
        }
    }
}
