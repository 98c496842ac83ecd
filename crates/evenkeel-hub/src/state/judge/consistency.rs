//! What holds in a hub between any two operations, checked from the ground up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::proto::channel::ChannelName;
use crate::state::Hub;
use crate::state::outbox::{Transport, Wire};
use crate::state::slab::Key;

/// # Panics
/// When two parts of the hub disagree.
pub(in crate::state) fn check<C: Copy, W: Wire>(hub: &Hub<C, W>) {
    check_sessions(hub);
    check_channels(hub);
    check_apps(hub);
    check_queues(hub);
}

fn check_sessions<C: Copy, W: Wire>(hub: &Hub<C, W>) {
    let mut subscriptions = 0;
    for (key, session) in hub.sessions.iter() {
        assert!((session.app.0 as usize) < hub.apps.len());
        let mut channels = BTreeSet::new();
        for (slot, subscription) in session.subscriptions.as_slice().iter().enumerate() {
            let channel = &hub.channels[subscription.channel];
            let member = channel.members[subscription.position as usize];
            assert_eq!((member.session, member.slot as usize), (key.index, slot));
            assert_eq!(channel.app, session.app);
            assert!(channels.insert(subscription.channel), "subscribed twice");
            subscriptions += 1;
        }
        if let Some(signed_in) = &session.user {
            let users = &hub.apps[session.app.0 as usize].users;
            assert!(users[&*signed_in.id].sessions.contains(&key.index));
            assert!(signed_in.watchlist.iter().all(|id| users[id].watchers.contains(&key.index)));
        }
    }
    let members: usize = hub.channels.iter().map(|(_, channel)| channel.members.len()).sum();
    assert_eq!(subscriptions, members);
    assert_eq!(hub.sessions.len(), hub.sessions.iter().count());
}

fn check_channels<C: Copy, W: Wire>(hub: &Hub<C, W>) {
    for (key, channel) in hub.channels.iter() {
        let app = &hub.apps[channel.app.0 as usize];
        assert_eq!(app.channels[&channel.name], key.index);
        let name = ChannelName::parse(&channel.name, usize::MAX / 4).unwrap();
        assert_eq!(name.kind(), channel.kind);
        assert_eq!(
            channel.presence.is_some(),
            channel.kind.access == crate::proto::channel::Access::Presence
        );
        if let Some(presence) = &channel.presence {
            presence.check(channel.members.len());
        }
        let past = &channel.past;
        assert!(channel.is_occupied() || !past.events.is_empty() || past.cached.is_some(), "unused");
        let sequences: Vec<u64> = past.events.iter().map(|event| event.id.unwrap().sequence).collect();
        assert!(sequences.iter().all(|sequence| *sequence > past.gone));
        assert!(sequences.is_sorted_by(|a, b| a < b));
        assert!(sequences.iter().chain([&past.gone]).all(|sequence| *sequence <= app.position.sequence));
        assert_eq!(past.bytes, past.events.iter().map(|event| event.cost()).sum::<usize>());
    }
    assert_eq!(hub.channels.len(), hub.apps.iter().map(|app| app.channels.len()).sum::<usize>());
}

fn check_apps<C: Copy, W: Wire>(hub: &Hub<C, W>) {
    for id in hub.apps() {
        let app = &hub.apps[id.0 as usize];
        let sessions = || hub.sessions.iter().filter(|(_, session)| session.app == id);
        let streams = sessions().filter(|(_, session)| session.transport == Transport::Sse);
        assert_eq!((app.connections as usize, app.streams as usize), (sessions().count(), streams.count()));
        let channels = || hub.channels.iter().filter(|(_, channel)| channel.app == id);
        assert_eq!(app.occupied as usize, channels().filter(|(_, channel)| channel.is_occupied()).count());
        assert_eq!(app.online as usize, app.users.values().filter(|user| user.is_online()).count());
        let mut of_sessions: BTreeMap<&str, (BTreeSet<u32>, BTreeSet<u32>)> = BTreeMap::new();
        for (key, session) in sessions() {
            let Some(signed_in) = &session.user else { continue };
            of_sessions.entry(&signed_in.id).or_default().0.insert(key.index);
            for id in &signed_in.watchlist {
                of_sessions.entry(id).or_default().1.insert(key.index);
            }
        }
        for (id, user) in &app.users {
            assert!(user.is_online() || !user.watchers.is_empty(), "{id} is kept for nothing");
            let (online, watching) = of_sessions.remove(&**id).unwrap_or_default();
            assert_eq!((&user.sessions, &user.watchers), (&online, &watching));
        }
        assert!(of_sessions.is_empty());
        assert!(app.deadlines.iter().is_sorted_by_key(|(due, _)| *due));
        let events = || channels().flat_map(|(key, c)| c.past.events.iter().map(move |event| (key, event)));
        app.history.check(events().map(|(key, event)| (key, &**event)));
        let cached = channels().filter_map(|(key, c)| Some((key, &**c.past.cached.as_ref()?)));
        app.caches.check(cached);
    }
}

fn check_queues<C: Copy, W: Wire>(hub: &Hub<C, W>) {
    let queued = |key: Key| hub.counts.iter().filter(|Reverse((_, queued))| *queued == key).count();
    for (key, channel) in hub.channels.iter() {
        assert_eq!(queued(key), usize::from(channel.count_pending));
    }
    let of_channels = hub.channels.iter().filter_map(|(_, channel)| channel.presence.as_ref());
    let present: usize = of_channels.map(|presence| presence.kept().count()).sum();
    let users = hub.apps.iter().flat_map(|app| app.users.values());
    let kept = present + users.filter(|user| user.kept_until.is_some()).count();
    assert_eq!(hub.seats.live(), kept);
    let live = hub.seats.queued().filter(|(until, seat)| hub.is_kept(*until, seat)).count();
    assert_eq!(live, kept, "each seat has one entry that gives it up");
}
