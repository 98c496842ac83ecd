//! From a hub to the records of it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::VERSION;
use super::record::{
    AppRecord, ChannelRecord, Delay, EventRecord, HubRecord, Lazy, PresentRecord, SessionRecord,
    SubscriptionRecord, Tally, UserRecord,
};
use crate::state::Hub;
use crate::state::app::{App, AppId};
use crate::state::channel::Channel;
use crate::state::history::{Retention, sequence};
use crate::state::ids::Keyed;
use crate::state::outbox::{Event, Transport, Wire};
use crate::state::session::{Session, Subscription};
use crate::state::slab::Key;

impl<C: Copy + Serialize, W: Wire> Hub<C, W> {
    /// When the channels whose number of subscribers waits are told it.
    pub(super) fn queued_counts(&self) -> HashMap<u32, u64, Keyed> {
        let mut queued = HashMap::with_hasher(self.keyed.clone());
        let live = self.counts.iter().filter(|Reverse((_, key))| self.channels.get(*key).is_some());
        queued.extend(live.map(|Reverse((due, key))| (key.index, *due)));
        queued
    }

    /// The whole state, in a form whose entries are made while they are written.
    pub(super) fn record(&self, now: u64, queued: &HashMap<u32, u64, Keyed>) -> impl Serialize {
        HubRecord {
            version: VERSION,
            keys: self.keyed.keys(),
            socket_ids: self.socket_ids,
            epochs: self.epochs,
            refusals: Tally::of(&self.refusals),
            apps: Lazy(move || self.apps().map(move |id| self.app_record(now, id))),
            session_generation: self.sessions.generation(),
            sessions: Lazy(move || {
                let places = self.sessions.places();
                places.map(move |place| Some(self.session_record(now, place?)))
            }),
            channel_generation: self.channels.generation(),
            channels: Lazy(move || {
                let places = self.channels.places().zip(0_u32..);
                places.map(move |(place, index)| {
                    let count_queued = queued.get(&index).map(|due| Delay::until(*due, now));
                    Some(ChannelRecord { count_queued, ..self.channel_record(now, place?) })
                })
            }),
        }
    }

    fn app_record(&self, now: u64, id: AppId) -> AppRecord<'_> {
        let app: &App = &self.apps[id.0 as usize];
        let limits = &app.config.limits;
        let waits = |key: Key| self.sessions.get(key).is_some_and(|session| !session.authorized);
        let deadlines = app.deadlines.iter().filter(|(_, key)| waits(*key));
        let mut kept_online: Vec<(Cow<'_, str>, Delay)> = app
            .users
            .iter()
            .filter_map(|(id, user)| Some((id.as_ref().into(), Delay::until(user.kept_until?, now))))
            .collect();
        // A map has no order that the other hub's would share.
        kept_online.sort_by(|a, b| a.0.cmp(&b.0));
        AppRecord {
            id: app.config.id.as_str().into(),
            epoch: app.position.epoch,
            sequence: app.position.sequence,
            forgotten: app.forgotten,
            counters: app.counters,
            refusals: Tally::of(&app.refusals),
            message_rate: Some(limits.message_rate),
            client_event_rate: Some(limits.client_event_rate),
            publish_rate: Some(limits.publish_rate),
            publishes: app.publishes.full_in(now),
            deadlines: deadlines.map(|(due, key)| (Delay::until(*due, now), key.index)).collect(),
            kept_online,
        }
    }

    fn session_record<'a>(&'a self, now: u64, place: (u32, &'a Session<C>)) -> SessionRecord<'a, C> {
        let (generation, session) = place;
        let user = session.user.as_ref().map(|user| UserRecord {
            id: user.id.as_ref().into(),
            info: user.info.as_deref().map(Cow::from),
            watchlist: user.watchlist.iter().map(|id| id.as_ref().into()).collect(),
        });
        let record = |&Subscription { channel, position }: &Subscription| {
            let presence = self.channels[channel].presence.as_ref();
            let user = presence.map(|presence| presence.place_at(position));
            SubscriptionRecord { channel, position, user }
        };
        SessionRecord {
            generation,
            conn: session.conn,
            tag: session.tag,
            app: u32::from(session.app.0),
            stream: session.transport == Transport::Sse,
            authorized: session.authorized,
            messages: session.messages.full_in(now),
            client_events: session.client_events.full_in(now),
            user,
            subscriptions: session.subscriptions.as_slice().iter().map(record).collect(),
        }
    }

    fn channel_record<'a>(&'a self, now: u64, place: (u32, &'a Channel)) -> ChannelRecord<'a> {
        let (generation, channel) = place;
        let app = &self.apps[channel.app.0 as usize];
        let record = |books: &Retention, event: &'a Event, with_json: bool| EventRecord {
            sequence: sequence(event),
            expires: Delay::until(books.expiry(sequence(event)).unwrap_or(now), now),
            json: with_json.then(|| event.json().into()),
        };
        let past = &channel.past;
        let in_history =
            |event: &Event| past.events.binary_search_by_key(&sequence(event), |e| sequence(e)).is_ok();
        let present = channel.presence.iter().flat_map(|presence| presence.places());
        ChannelRecord {
            generation,
            app: u32::from(channel.app.0),
            name: channel.name.as_ref().into(),
            gone: past.gone,
            count_due: Delay::until(channel.count_due.max(now), now),
            count_queued: None,
            events: past.events.iter().map(|event| record(&app.history, event, true)).collect(),
            cached: past.cached.as_ref().map(|event| record(&app.caches, event, !in_history(event))),
            users: present.map(|place| place.map(|user| present_record(now, user))).collect(),
        }
    }
}

fn present_record<'a>(now: u64, user: (&'a str, &'a str, Option<u64>)) -> PresentRecord<'a> {
    let (id, info, kept_until) = user;
    PresentRecord { id: id.into(), info: info.into(), kept: kept_until.map(|until| Delay::until(until, now)) }
}
