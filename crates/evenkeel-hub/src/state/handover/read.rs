//! From records to a hub: a new one is put together, and every part is checked against the others on the way.
//!
//! What can be derived is derived and not read, so that it cannot be wrong: member lists and their back pointers come
//! from the subscriptions, users from their sessions, the books of what is kept from the events, all totals from what
//! they count.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::IgnoredAny;

use super::record::{
    AppRecord, ChannelRecord, EventRecord, HubRecord, PresentRecord, SessionRecord, UserRecord,
};
use super::{HandoverError, RefusedSession, TakenOver};
use crate::proto::channel::{Access, ChannelName, SERVER_TO_USER};
use crate::state::Hub;
use crate::state::app::{AppConfig, AppId};
use crate::state::channel::{Channel, Member};
use crate::state::history::{Retained, Retention, sequence};
use crate::state::ids::{EventId, Keyed};
use crate::state::limits::{Bucket, Rate};
use crate::state::outbox::{Event, Frame, Outbox, Transport, Wire};
use crate::state::presence::{Place, Presence};
use crate::state::refusal::Refusal;
use crate::state::seats::Seat;
use crate::state::session::{Session, Subscription, Subscriptions};
use crate::state::slab::{Key, Slab};
use crate::state::users::SignedIn;

type Sessions<C> = Vec<Option<SessionRecord<'static, C>>>;
type Channels = Vec<Option<ChannelRecord<'static>>>;
/// A hub as it was read.
pub(super) type Read<C> = HubRecord<Vec<AppRecord<'static>>, Sessions<C>, Channels>;

/// The most that anything was counted up to: adding one more and more to it never overflows.
const MOST_COUNTED: u64 = i64::MAX as u64;
/// A place in a member list, or of a user, that is not known yet. No slab has it.
const NOBODY: u32 = u32::MAX;

fn ensure(holds: bool, what: &'static str) -> Result<(), HandoverError> {
    if holds { Ok(()) } else { Err(HandoverError::Inconsistent(what)) }
}

fn ensure_json(text: &str, what: &'static str) -> Result<(), HandoverError> {
    ensure(serde_json::from_str::<IgnoredAny>(text).is_ok(), what)
}

/// An application as it was, and its place in the new hub if it is still configured.
struct OldApp {
    id: Option<AppId>,
    message_rate: Option<Rate>,
    client_event_rate: Option<Rate>,
}

/// The member lists of the channels while they are put together.
#[derive(Default)]
struct Roster {
    members: Vec<Member>,
    /// The users of presence channels, in the same order.
    of: Vec<u32>,
    /// The last session that was entered, to find one that is there twice.
    last: Option<u32>,
}

/// An outbox for a hub whose connections are closed by others.
struct Silent<C>(PhantomData<C>);

impl<C: Copy> Outbox for Silent<C> {
    type Conn = C;

    fn send(&mut self, _to: C, _frame: &Frame) {}

    fn close(&mut self, _to: C, _code: u16, _reason: &'static str) {}
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// Puts a hub together from the record of another.
    pub(super) fn restore(
        now: u64,
        configs: Vec<AppConfig>,
        record: Read<C>,
    ) -> Result<(Hub<C, W>, TakenOver<C>), HandoverError> {
        let mut hub: Hub<C, W> = Hub::with_keys(Keyed::from_keys(record.keys));
        let counted = [record.socket_ids, record.epochs];
        let counted = counted.iter().chain(record.refusals.0.values());
        ensure(counted.max() <= Some(&MOST_COUNTED), "a counter of the hub is too large")?;
        hub.socket_ids = record.socket_ids;
        hub.epochs = record.epochs;
        hub.refusals = record.refusals.refusals();
        for (config, id) in configs.into_iter().zip(0_u16..) {
            // Its epoch is the one that it had, or a new one: `restore_apps` sees to it.
            hub.push_app(AppId(id), config, 0);
        }
        let mut taken = TakenOver { sessions: 0, channels: 0, dropped_apps: Vec::new(), refused: Vec::new() };
        let apps = hub.restore_apps(now, &record.apps, &mut taken)?;
        hub.restore_channels(now, &apps, record.channels, record.channel_generation)?;
        hub.restore_sessions(now, &apps, record.sessions, record.session_generation, &mut taken)?;
        hub.restore_deadlines(now, &apps, &record.apps)?;
        hub.restore_seats(now, &apps, &record.apps)?;
        hub.restore_totals();
        hub.fit_to_limits();
        hub.end_disabled(now, &mut taken);
        (taken.sessions, taken.channels) = (hub.sessions.len(), hub.channels.len());
        Ok((hub, taken))
    }

    fn restore_apps(
        &mut self,
        now: u64,
        records: &[AppRecord<'_>],
        taken: &mut TakenOver<C>,
    ) -> Result<Vec<OldApp>, HandoverError> {
        let mut restored = vec![false; self.apps.len()];
        let mut apps = Vec::with_capacity(records.len());
        for record in records {
            let id = self.app_by_id(&record.id);
            let old =
                OldApp { id, message_rate: record.message_rate, client_event_rate: record.client_event_rate };
            apps.push(old);
            let Some(AppId(place)) = id else {
                taken.dropped_apps.push(record.id.to_string());
                continue;
            };
            ensure(!std::mem::replace(&mut restored[place as usize], true), "an application is there twice")?;
            ensure(record.forgotten <= record.sequence, "an event is later than the latest")?;
            let counters = &record.counters;
            let counted = [
                record.sequence,
                counters.connections,
                counters.messages_in,
                counters.messages_out,
                counters.published,
                counters.client_events,
                counters.replayed,
                counters.gaps,
            ];
            let counted = counted.iter().chain(record.refusals.0.values());
            ensure(counted.max() <= Some(&MOST_COUNTED), "a counter of an application is too large")?;
            let app = &mut self.apps[place as usize];
            app.position = EventId { epoch: record.epoch, sequence: record.sequence };
            app.forgotten = record.forgotten;
            app.counters = *counters;
            app.refusals = record.refusals.refusals();
            app.publishes =
                bucket(now, record.publishes, record.publish_rate, app.config.limits.publish_rate);
        }
        for (place, _) in restored.into_iter().enumerate().filter(|(_, restored)| !restored) {
            self.apps[place].position.epoch = self.new_epoch();
        }
        Ok(apps)
    }

    fn restore_channels(
        &mut self,
        now: u64,
        apps: &[OldApp],
        records: Channels,
        generation: u32,
    ) -> Result<(), HandoverError> {
        let mut places = Vec::with_capacity(records.len());
        let mut kept: Vec<(Vec<_>, Vec<_>)> = self.apps.iter().map(|_| (Vec::new(), Vec::new())).collect();
        for (record, index) in records.into_iter().zip(0_u32..) {
            let Some(record) = record else {
                places.push(None);
                continue;
            };
            let old = apps.get(record.app as usize);
            let old = old.ok_or(HandoverError::Inconsistent("a channel is of no application"))?;
            let Some(id) = old.id else {
                places.push(None);
                continue;
            };
            let key = Key { index, generation: record.generation };
            let (history, caches) = &mut kept[id.0 as usize];
            let channel = self.restore_channel(now, id, key, record, history, caches)?;
            places.push(Some((key.generation, channel)));
        }
        self.channels = Slab::from_places(places, generation);
        for (app, (history, caches)) in self.apps.iter_mut().zip(kept) {
            app.history = books(history)?;
            app.caches = books(caches)?;
        }
        Ok(())
    }

    fn restore_channel(
        &mut self,
        now: u64,
        id: AppId,
        key: Key,
        mut record: ChannelRecord<'_>,
        history: &mut Vec<(Retained, usize)>,
        caches: &mut Vec<(Retained, usize)>,
    ) -> Result<Channel, HandoverError> {
        let app = &mut self.apps[id.0 as usize];
        let name = ChannelName::parse(&record.name, record.name.len());
        let name = name.map_err(|_| HandoverError::Inconsistent("the name of a channel is not valid"))?;
        let presence = restore_presence(now, name, &self.keyed, std::mem::take(&mut record.users))?;
        let mut channel = Channel::with_presence(id, name, record.gone, presence);
        let twice = app.channels.insert(channel.name.clone(), key.index).is_some();
        ensure(!twice, "a channel is there twice")?;
        ensure(record.gone <= app.position.sequence, "an event is later than the latest")?;
        let limits = &app.config.limits;
        let streamable = channel.kind.is_streamable();
        ensure(streamable || record.events.is_empty(), "a channel keeps events that it cannot keep")?;
        let mut last = record.gone;
        for event in record.events {
            ensure(event.sequence > last, "the events of a channel are not in order")?;
            last = event.sequence;
            let entry = retained(now, &event, key, limits.history_ttl);
            let event = Arc::new(restore_event(event, app.position)?);
            channel.past.bytes += event.cost();
            history.push((entry, event.cost()));
            channel.past.events.push_back(event);
        }
        if let Some(record) = record.cached {
            ensure(channel.kind.cached, "a channel caches what it cannot cache")?;
            let entry = retained(now, &record, key, limits.cache_ttl);
            let event = restore_cached(record, &channel.past.events, app.position)?;
            caches.push((entry, event.cost()));
            channel.past.cached = Some(event);
        }
        let interval = limits.subscription_count_interval;
        let latest = now.saturating_add(interval);
        channel.count_due = record.count_due.from(now).min(latest);
        if let Some(queued) = record.count_queued {
            channel.count_pending = true;
            self.counts.push(std::cmp::Reverse((queued.from(now).min(latest), key)));
        }
        Ok(channel)
    }

    fn restore_sessions(
        &mut self,
        now: u64,
        apps: &[OldApp],
        records: Sessions<C>,
        generation: u32,
        taken: &mut TakenOver<C>,
    ) -> Result<(), HandoverError> {
        let mut rosters = self.empty_rosters(apps, &records)?;
        let mut places = Vec::with_capacity(records.len());
        for (record, index) in records.into_iter().zip(0_u32..) {
            let Some(record) = record else {
                places.push(None);
                continue;
            };
            let transport = if record.stream { Transport::Sse } else { Transport::WebSocket };
            // `empty_rosters` has seen that there is such an application.
            let Some(id) = apps[record.app as usize].id else {
                let refusal = self.count_refusal(None, Refusal::UnknownApp);
                taken.refused.push(RefusedSession { conn: record.conn, transport, refusal });
                places.push(None);
                continue;
            };
            self.enter(index, &record, &mut rosters)?;
            let limits = &self.apps[id.0 as usize].config.limits;
            let (old, rate, event_rate) =
                (&apps[record.app as usize], limits.message_rate, limits.client_event_rate);
            let subscription = |s: &super::record::SubscriptionRecord| Subscription {
                channel: s.channel,
                position: s.position,
            };
            let subscriptions: Vec<Subscription> = record.subscriptions.iter().map(subscription).collect();
            let user = record.user.map(|user| self.restore_user(id, index, user)).transpose()?;
            let session = Session {
                conn: record.conn,
                subscriptions: Subscriptions::from(subscriptions),
                user,
                messages: bucket(now, record.messages, old.message_rate, rate),
                client_events: bucket(now, record.client_events, old.client_event_rate, event_rate),
                tag: record.tag,
                app: id,
                transport,
                authorized: record.authorized,
            };
            places.push(Some((record.generation, session)));
        }
        self.sessions = Slab::from_places(places, generation);
        self.close_rosters(rosters)
    }

    /// A roster for each channel, with room for as many members as there are subscriptions to it.
    fn empty_rosters(&self, apps: &[OldApp], records: &Sessions<C>) -> Result<Vec<Roster>, HandoverError> {
        let places = self.channels.places().count();
        let mut sizes = vec![0_usize; places];
        for record in records.iter().flatten() {
            let old = apps.get(record.app as usize);
            let old = old.ok_or(HandoverError::Inconsistent("a session is of no application"))?;
            let Some(id) = old.id else { continue };
            for subscription in &record.subscriptions {
                let channel = self.channels.at(subscription.channel);
                ensure(channel.is_some_and(|channel| channel.app == id), "a subscription is to no channel")?;
                sizes[subscription.channel as usize] += 1;
            }
        }
        let vacant = Member { session: NOBODY, slot: 0 };
        let roster = |size| Roster { members: vec![vacant; size], of: vec![NOBODY; size], last: None };
        Ok(sizes.into_iter().map(roster).collect())
    }

    /// Enters the session into the rosters of its channels.
    fn enter(
        &self,
        index: u32,
        record: &SessionRecord<'_, C>,
        rosters: &mut [Roster],
    ) -> Result<(), HandoverError> {
        for (subscription, slot) in record.subscriptions.iter().zip(0_u32..) {
            let channel = &self.channels[subscription.channel];
            let kind = channel.kind;
            let own = || {
                let user = record.user.as_ref().map(|user| &*user.id);
                user.is_some() && user == channel.name.strip_prefix(SERVER_TO_USER)
            };
            let allowed = kind.access != Access::ServerToUser || own();
            ensure(allowed, "a session is in a channel that it cannot be in")?;
            let is_presence = channel.presence.is_some();
            ensure(subscription.user.is_some() == is_presence, "a member is of no user, or of one too many")?;
            let roster = &mut rosters[subscription.channel as usize];
            ensure(roster.last.replace(index) != Some(index), "a session is in a channel twice")?;
            let position = subscription.position as usize;
            let place = roster.members.get_mut(position).filter(|member| member.session == NOBODY);
            let place =
                place.ok_or(HandoverError::Inconsistent("the members of a channel are not a list"))?;
            *place = Member { session: index, slot };
            roster.of[position] = subscription.user.unwrap_or(NOBODY);
        }
        Ok(())
    }

    /// Gives the channels their members.
    fn close_rosters(&mut self, rosters: Vec<Roster>) -> Result<(), HandoverError> {
        for (roster, index) in rosters.into_iter().zip(0_u32..) {
            if self.channels.at(index).is_none() {
                continue;
            }
            let channel = &mut self.channels[index];
            channel.members = roster.members;
            if let Some(presence) = &mut channel.presence {
                ensure(presence.connect(roster.of), "the users of a channel are not those of its members")?;
            }
        }
        Ok(())
    }

    fn restore_user(
        &mut self,
        app: AppId,
        index: u32,
        record: UserRecord<'_>,
    ) -> Result<Box<SignedIn>, HandoverError> {
        if let Some(info) = &record.info {
            ensure_json(info, "what is known of a user is not JSON")?;
        }
        let id = self.user_id(app, &record.id);
        self.apps[app.0 as usize].users.entry(id.clone()).or_default().sessions.insert(index);
        let mut watchlist = Vec::with_capacity(record.watchlist.len());
        for watched in &record.watchlist {
            let watched = self.user_id(app, watched);
            let user = self.apps[app.0 as usize].users.entry(watched.clone()).or_default();
            ensure(user.watchers.insert(index), "a user is watched twice")?;
            watchlist.push(watched);
        }
        let info = record.info.map(|info| info.into_owned().into_boxed_str());
        Ok(Box::new(SignedIn { id, info, watchlist: watchlist.into_boxed_slice() }))
    }

    /// The id, shared with all who have it.
    fn user_id(&self, app: AppId, id: &str) -> Arc<str> {
        let known = self.apps[app.0 as usize].users.get_key_value(id);
        known.map_or_else(|| id.into(), |(known, _)| known.clone())
    }

    fn restore_deadlines(
        &mut self,
        now: u64,
        apps: &[OldApp],
        records: &[AppRecord<'_>],
    ) -> Result<(), HandoverError> {
        for (old, record) in apps.iter().zip(records) {
            let Some(id) = old.id else { continue };
            let allowed = self.apps[id.0 as usize].config.limits.authorization_deadline;
            let mut deadlines = VecDeque::new();
            let mut last = 0;
            for &(due, index) in &record.deadlines {
                let session = self.sessions.at(index);
                ensure(session.is_some_and(|session| session.app == id), "a deadline is for no session")?;
                let due = due.from(now).min(now.saturating_add(allowed));
                ensure(due >= last, "the deadlines are not in order")?;
                last = due;
                deadlines.push_back((due, self.sessions.key(index)));
            }
            // 0 is no deadline, and then none for those who had one.
            if allowed > 0 {
                self.apps[id.0 as usize].deadlines = deadlines;
            }
        }
        Ok(())
    }

    fn restore_seats(
        &mut self,
        now: u64,
        apps: &[OldApp],
        records: &[AppRecord<'_>],
    ) -> Result<(), HandoverError> {
        for (channel, present) in self.channels.iter() {
            for (user, until) in present.presence.iter().flat_map(|presence| presence.kept()) {
                self.seats.add(until, Seat::Present { channel, user }, true);
            }
        }
        for (old, record) in apps.iter().zip(records) {
            let Some(app) = old.id else { continue };
            for (id, until) in &record.kept_online {
                let (user, until) = (self.user_id(app, id), until.from(now));
                let known = self.apps[app.0 as usize].users.entry(user.clone()).or_default();
                ensure(known.kept_until.replace(until).is_none(), "a seat is kept twice")?;
                self.seats.add(until, Seat::Online { app, user }, true);
            }
        }
        Ok(())
    }

    fn restore_totals(&mut self) {
        for (_, session) in self.sessions.iter() {
            let app = &mut self.apps[session.app.0 as usize];
            app.connections += 1;
            app.streams += u32::from(session.transport == Transport::Sse);
        }
        for (_, channel) in self.channels.iter() {
            self.apps[channel.app.0 as usize].occupied += u32::from(channel.is_occupied());
        }
        for app in &mut self.apps {
            app.online = app.users.values().filter(|user| user.is_online()).count() as u32;
        }
    }

    /// Drops what is more than the limits of now allow to keep.
    fn fit_to_limits(&mut self) {
        let channels: Vec<Key> = self.channels.iter().map(|(key, _)| key).collect();
        for key in channels {
            self.trim_channel(key.index);
            self.free_if_unused(key.index);
        }
        for app in self.apps() {
            self.trim_app(app);
        }
    }

    /// Ends the sessions of applications that are not enabled any more.
    fn end_disabled(&mut self, now: u64, taken: &mut TakenOver<C>) {
        let disabled = |session: &Session<C>| !self.apps[session.app.0 as usize].config.enabled;
        let sessions = self.sessions.iter().filter(|(_, session)| disabled(session));
        let ended: Vec<_> = sessions.map(|(key, s)| (key.index, s.app, s.conn, s.transport)).collect();
        for (index, app, conn, transport) in ended {
            let refusal = self.count_refusal(Some(app), Refusal::AppDisabled);
            taken.refused.push(RefusedSession { conn, transport, refusal });
            self.end(now, index, &mut Silent(PhantomData));
        }
    }
}

/// A bucket as it was, or a full one when the rate is not what it was.
fn bucket(now: u64, full_in: u64, before: Option<Rate>, rate: Rate) -> Bucket {
    Bucket::full_after(now, if before == Some(rate) { full_in } else { 0 })
}

fn retained(now: u64, record: &EventRecord<'_>, channel: Key, ttl: u64) -> Retained {
    let expires = record.expires.from(now).min(now.saturating_add(ttl));
    Retained { expires, sequence: record.sequence, channel }
}

/// The books of what an application keeps.
fn books(mut kept: Vec<(Retained, usize)>) -> Result<Retention, HandoverError> {
    kept.sort_unstable_by_key(|(entry, _)| entry.sequence);
    let books = Retention::from_kept(kept.into_iter());
    books.ok_or(HandoverError::Inconsistent("the events of an application are not in order"))
}

fn restore_event(record: EventRecord<'_>, position: EventId) -> Result<Event, HandoverError> {
    ensure(record.sequence <= position.sequence, "an event is later than the latest")?;
    let json = record.json.ok_or(HandoverError::Inconsistent("an event has no text"))?;
    ensure_json(&json, "an event is not JSON")?;
    Ok(Event::new(json.into_owned(), Some(EventId { sequence: record.sequence, ..position })))
}

/// The cached event of a channel, which may be one of its history.
fn restore_cached(
    record: EventRecord<'_>,
    events: &VecDeque<Arc<Event>>,
    position: EventId,
) -> Result<Arc<Event>, HandoverError> {
    if record.json.is_some() {
        return restore_event(record, position).map(Arc::new);
    }
    let place = events.binary_search_by_key(&record.sequence, |event| sequence(event));
    let event = place.ok().and_then(|place| events.get(place));
    event.cloned().ok_or(HandoverError::Inconsistent("a cached event has no text"))
}

fn restore_presence(
    now: u64,
    name: ChannelName<'_>,
    keyed: &Keyed,
    users: Vec<Option<PresentRecord<'_>>>,
) -> Result<Option<Box<Presence>>, HandoverError> {
    if name.kind().access != Access::Presence {
        ensure(users.is_empty(), "a channel has users that it cannot have")?;
        return Ok(None);
    }
    for user in users.iter().flatten() {
        ensure_json(&user.info, "what is known of a member is not JSON")?;
    }
    let place = |user: PresentRecord<'_>| Place {
        id: user.id.as_ref().into(),
        info: user.info.into_owned().into_boxed_str(),
        kept_until: user.kept.map(|until| until.from(now)),
    };
    let places = users.into_iter().map(|user| user.map(place)).collect();
    let presence = Presence::from_places(keyed, places);
    presence.map(|p| Some(Box::new(p))).ok_or(HandoverError::Inconsistent("a user is in a channel twice"))
}
