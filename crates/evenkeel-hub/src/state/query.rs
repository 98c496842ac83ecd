//! Questions about the state: from the HTTP API, the console and the metrics.

use std::sync::Arc;

use serde::Deserialize;

use super::Hub;
use super::app::{AppId, Counters};
use super::channel::Channel;
use super::outbox::Wire;
use super::refusal::Refusal;
use crate::proto::channel::{Access, ChannelName};

/// The attributes of a channel that are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// How many users a presence channel has.
    pub user_count: bool,
    /// How many subscriptions a channel has.
    pub subscription_count: bool,
    /// What a cache channel holds.
    pub cache: bool,
}

/// A channel as it is now. Attributes that were not asked for, or that the channel does not have, are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelState {
    /// The channel's name.
    pub name: Arc<str>,
    /// Whether anybody is subscribed, or has a seat that is kept.
    pub occupied: bool,
    /// Distinct users, for presence channels; kept seats count.
    pub user_count: Option<u32>,
    /// Subscriptions; kept seats are none.
    pub subscription_count: Option<u32>,
    /// The cached event.
    pub cache: Option<Cached>,
}

/// What a cache channel holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The data of the event.
    pub data: String,
    /// How much longer it is kept, in seconds, rounded up.
    pub ttl_s: u64,
}

/// The hub at one moment, for the console and the metrics.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whether new connections are refused because the hub is draining.
    pub draining: bool,
    /// Refusals that no application can be blamed for, with their counts.
    pub refusals: Vec<(Refusal, u64)>,
    /// Every application.
    pub apps: Vec<AppSnapshot>,
}

/// One application at one moment.
#[derive(Clone, Debug)]
pub struct AppSnapshot {
    /// Its place in the hub.
    pub app: AppId,
    /// Its id and name in the configuration.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Whether it is served.
    pub enabled: bool,
    /// Open connections, streams included.
    pub connections: u32,
    /// Open SSE streams.
    pub streams: u32,
    /// Occupied channels: with a subscriber, or with a seat that is kept for one.
    pub channels: u32,
    /// Users who are online: signed in, or with a seat that is kept.
    pub users: u32,
    /// What the histories cost, in bytes.
    pub history_bytes: usize,
    /// What the cached events cost, in bytes.
    pub cache_bytes: usize,
    /// What it has done.
    pub counters: Counters,
    /// What was refused, with the counts.
    pub refusals: Vec<(Refusal, u64)>,
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// The occupied channels whose names start with `prefix`, in no particular order. The channels of signed-in users are
    /// not the application's own and are left out.
    ///
    /// # Errors
    /// [`Refusal::UserCountUnavailable`] when `info` asks for `user_count` and the prefix lets in other channels than
    /// presence channels.
    pub fn channels(
        &self,
        now: u64,
        app: AppId,
        prefix: &str,
        info: Info,
    ) -> Result<Vec<ChannelState>, Refusal> {
        if info.user_count && !prefix.starts_with("presence-") {
            return Err(Refusal::UserCountUnavailable);
        }
        let all = self.apps[app.0 as usize].channels.iter();
        let wanted = all.filter(|(name, index)| {
            let channel = &self.channels[**index];
            name.starts_with(prefix) && channel.is_occupied() && channel.kind.access != Access::ServerToUser
        });
        Ok(wanted.map(|(name, _)| self.state_of(now, app, name, info)).collect())
    }

    /// One channel, which need not be occupied or known.
    ///
    /// # Errors
    /// When the name is not valid, or `info` asks for the `user_count` of a channel that is not a presence channel.
    pub fn channel(&self, now: u64, app: AppId, name: &str, info: Info) -> Result<ChannelState, Refusal> {
        let kind = self.kind_of(app, name)?;
        if info.user_count && kind != Access::Presence {
            return Err(Refusal::UserCountUnavailable);
        }
        Ok(self.state_of(now, app, name, info))
    }

    /// The ids of the users in a presence channel, those with kept seats included.
    ///
    /// # Errors
    /// When the name is not valid or not a presence channel's.
    pub fn presence_users(&self, app: AppId, name: &str) -> Result<Vec<String>, Refusal> {
        if self.kind_of(app, name)? != Access::Presence {
            return Err(Refusal::NotPresence);
        }
        let index = self.apps[app.0 as usize].channels.get(name);
        let presence = index.and_then(|&index| self.channels[index].presence.as_ref());
        Ok(presence.map_or_else(Vec::new, |p| p.members().map(|(id, _)| id.to_owned()).collect()))
    }

    /// Everything that can be counted.
    pub fn snapshot(&self) -> Snapshot {
        let apps = self.apps().map(|app| {
            let state = &self.apps[app.0 as usize];
            AppSnapshot {
                app,
                id: state.config.id.clone(),
                name: state.config.name.clone(),
                enabled: state.config.enabled,
                connections: state.connections,
                streams: state.streams,
                channels: state.occupied,
                users: state.online,
                history_bytes: state.history.bytes,
                cache_bytes: state.caches.bytes,
                counters: state.counters,
                refusals: state.refusals.iter().collect(),
            }
        });
        Snapshot { draining: self.draining, refusals: self.refusals.iter().collect(), apps: apps.collect() }
    }

    fn kind_of(&self, app: AppId, name: &str) -> Result<Access, Refusal> {
        let longest = self.apps[app.0 as usize].config.limits.max_channel_name as usize;
        Ok(ChannelName::parse(name, longest)?.kind().access)
    }

    /// The channel of that name, known or not, with the attributes asked for that it has.
    pub(super) fn state_of(&self, now: u64, app: AppId, name: &str, info: Info) -> ChannelState {
        let index = self.apps[app.0 as usize].channels.get(name).copied();
        let channel = index.map(|index| &self.channels[index]);
        let members = channel.map_or(0, |channel| channel.members.len() as u32);
        let presence = self.kind_of(app, name) == Ok(Access::Presence);
        let users = || channel.and_then(|c| c.presence.as_ref()).map_or(0, |p| p.user_count() as u32);
        ChannelState {
            name: channel.map_or_else(|| name.into(), |channel| channel.name.clone()),
            occupied: channel.is_some_and(Channel::is_occupied),
            user_count: (info.user_count && presence).then(users),
            subscription_count: info.subscription_count.then_some(members),
            cache: if info.cache { index.and_then(|index| self.cached(now, index)) } else { None },
        }
    }

    fn cached(&self, now: u64, index: u32) -> Option<Cached> {
        #[derive(Deserialize)]
        struct Envelope {
            data: String,
        }
        let until = self.cached_until(index)?;
        let event = self.channels[index].past.cached.as_ref()?;
        let Envelope { data } = serde_json::from_str(event.json()).ok()?;
        Some(Cached { data, ttl_s: until.saturating_sub(now).div_ceil(1_000) })
    }
}
