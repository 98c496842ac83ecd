//! What must hold once a world has come to rest: everybody is told of the same members, who are those that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::{sim, time};
use serde_json::Value;

use super::check;
use super::history::{Connection, Subscription};
use super::publisher::{signed, text};
use super::setup::{APPS, Phase, Shared};
use super::wire::Wire;

/// Looks at everything when the world is still, and at what is left when everybody has gone.
pub async fn judge(shared: Rc<Shared>, hub: SocketAddr) -> io::Result<()> {
    wait_for(&shared, Phase::Still).await;
    // The last answers to the last pings.
    time::sleep(Duration::from_secs(10)).await;
    if let Err(why) = check::deliveries(&shared, sim::elapsed()) {
        sim::fail(why);
    }
    for app in 0..APPS {
        if let Err(why) = presence(&shared, hub, app).await? {
            sim::fail(format!("application {app}: {why} (I46)"));
        }
    }
    time::sleep(Duration::from_secs(1)).await;
    shared.phase.set(Phase::Leave);
    nothing_is_left(&shared).await;
    Ok(())
}

async fn wait_for(shared: &Shared, phase: Phase) {
    while shared.phase.get() < phase {
        time::sleep(Duration::from_millis(500)).await;
    }
}

/// I36, I47: when all clients have gone, the hub has no connection and no byte for any.
async fn nothing_is_left(shared: &Shared) {
    let backlog = || shared.backlog.take().map(|backlog| backlog.queued_bytes);
    backlog();
    for _ in 0..300 {
        time::sleep(Duration::from_millis(200)).await;
        if shared.service().is_some_and(|hub| hub.connections() == 0) && backlog() == Some(0) {
            return;
        }
    }
    if let Some(hub) = shared.service() {
        let (connections, bytes) = (hub.connections(), shared.backlog.get());
        sim::fail(format!("nobody is there, and the hub has {connections} connections, {bytes:?} (I36)"));
    }
}

type Present<'a> = Vec<(&'a Connection, &'a Subscription)>;

/// Compares what clients were told, what the API tells, and who is there.
async fn presence(shared: &Shared, hub: SocketAddr, app: usize) -> io::Result<Result<(), String>> {
    let mut wire = Wire::connect(hub).await?;
    let listed = match ask(&mut wire, app, "/channels", &[("info", "subscription_count")]).await? {
        Ok(listed) => listed,
        Err(why) => return Ok(Err(why)),
    };
    // Who has left closes its own connection first.
    let users_of: Vec<String> = {
        let history = shared.history.borrow();
        let there = there(&history.connections, app);
        if let Err(why) = agree(&there, &history.followings, app, &listed) {
            return Ok(Err(why));
        }
        there.keys().filter(|name| name.starts_with("presence-")).cloned().collect()
    };
    for channel in users_of {
        let answer = ask(&mut wire, app, &format!("/channels/{channel}/users"), &[]).await?;
        let users = match answer {
            Ok(users) => users,
            Err(why) => return Ok(Err(why)),
        };
        let told: BTreeSet<String> = users["users"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|u| u["id"].as_str().unwrap_or("").into())
            .collect();
        let history = shared.history.borrow();
        let real: BTreeSet<String> =
            there(&history.connections, app)[&channel].iter().map(|(conn, _)| conn.user.clone()).collect();
        if told != real {
            return Ok(Err(format!("the API says that {told:?} are on {channel}, where {real:?} are")));
        }
    }
    Ok(Ok(()))
}

async fn ask(
    wire: &mut Wire,
    app: usize,
    path: &str,
    query: &[(&str, &str)],
) -> io::Result<Result<Value, String>> {
    wire.send(signed(app, "GET", path, query, "").as_bytes()).await?;
    let answer = wire.answer().await?;
    if answer.status != 200 {
        return Ok(Err(format!("{path} was answered {}: {}", answer.status, text(&answer))));
    }
    Ok(serde_json::from_slice(&answer.body).map_err(|e| e.to_string()))
}

/// Open subscriptions, by channel.
fn there(connections: &[Connection], app: usize) -> BTreeMap<String, Present<'_>> {
    let mut there: BTreeMap<String, Present<'_>> = BTreeMap::new();
    for conn in connections.iter().filter(|conn| conn.app == app && conn.ended.is_none()) {
        for subscription in conn.subscriptions.iter().filter(|s| s.confirmed.is_some() && s.left.is_none()) {
            there.entry(subscription.channel.clone()).or_default().push((conn, subscription));
        }
    }
    there
}

/// What clients were told agrees with who is there, and so does the API's list of channels.
fn agree(
    there: &BTreeMap<String, Present<'_>>,
    followings: &[super::history::Following],
    app: usize,
    listed: &Value,
) -> Result<(), String> {
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for (channel, present) in there {
        *expected.entry(channel.clone()).or_default() += present.len() as u64;
        if !channel.starts_with("presence-") {
            continue;
        }
        let real: BTreeSet<&str> = present.iter().map(|(conn, _)| conn.user.as_str()).collect();
        for (conn, subscription) in present {
            let told: BTreeSet<&str> = subscription.members.iter().map(String::as_str).collect();
            if told != real {
                return Err(format!(
                    "{} was told that {told:?} are on {channel}, where {real:?} are",
                    conn.user
                ));
            }
        }
    }
    for following in followings.iter().filter(|f| f.app == app) {
        if following.visits.last().is_some_and(|visit| visit.ended.is_none()) {
            for channel in &following.channels {
                *expected.entry(channel.clone()).or_default() += 1;
            }
        }
    }
    let mut counts = BTreeMap::new();
    for (name, of) in listed["channels"].as_object().into_iter().flatten() {
        counts.insert(name.clone(), of["subscription_count"].as_u64().unwrap_or(0));
    }
    // Presence channels have no count of subscriptions, only of users.
    expected.iter_mut().filter(|(name, _)| name.starts_with("presence-")).for_each(|(name, count)| {
        *count = counts.get(name).copied().unwrap_or(u64::MAX);
    });
    if counts != expected {
        return Err(format!("the API lists {counts:?}, where there are {expected:?}"));
    }
    for (channel, present) in there {
        for (conn, subscription) in present {
            if let Some(count) = subscription.count.filter(|count| *count != expected[channel]) {
                let real = expected[channel];
                return Err(format!("{} was told of {count} on {channel}, where {real} are", conn.user));
            }
        }
    }
    Ok(())
}
