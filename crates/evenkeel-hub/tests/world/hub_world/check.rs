//! What must hold of a whole history.

use super::history::{Connection, Following, History, Label, Message, Outcome, Subscription, Time, Visit};
use super::setup::Shared;

/// The first thing that is wrong with a history whose world has come to rest at `now`, if anything is.
pub fn deliveries(shared: &Shared, now: Time) -> Result<(), String> {
    let history = &*shared.history.borrow();
    for (at, conn) in history.connections.iter().enumerate() {
        for subscription in &conn.subscriptions {
            each_was_delivered(history, at, conn, subscription)?;
        }
    }
    for (at, following) in history.followings.iter().enumerate() {
        gaps_have_reasons(shared, at, following)?;
        each_was_streamed(history, at, following, now)?;
    }
    Ok(())
}

/// When the hub has had a message for certain.
fn accepted(message: &Message) -> Option<Time> {
    match message.outcome {
        Outcome::Accepted(at) => Some(at),
        _ => None,
    }
}

/// I44: what was published while a connection was subscribed, it has got.
fn each_was_delivered(
    history: &History,
    at: usize,
    conn: &Connection,
    subscription: &Subscription,
) -> Result<(), String> {
    let Some(confirmed) = subscription.confirmed else { return Ok(()) };
    let until = subscription.left.unwrap_or(Time::MAX).min(conn.covered);
    let mut got = subscription.got.clone();
    got.sort_unstable();
    for (label, message) in published(history, conn.app, &subscription.channel) {
        let Some(accepted) = accepted(message) else { continue };
        let due = message.sent > confirmed && accepted <= until && message.except != Some(at);
        if due && got.binary_search(&label).is_err() {
            return Err(format!(
                "connection {at} (socket {}) was on {} from {confirmed:?} and has everything until {until:?}, but not \
                 {label:?}, sent {:?}, accepted {accepted:?} (I44)",
                conn.socket_id, subscription.channel, message.sent
            ));
        }
    }
    Ok(())
}

fn published<'a>(
    history: &'a History,
    app: usize,
    channel: &str,
) -> impl Iterator<Item = (Label, &'a Message)> {
    let labels = history.by_channel.get(&(app, channel.to_owned())).into_iter().flatten();
    labels.filter_map(|label| Some((*label, history.messages.get(label)?)))
}

/// How long a network without faults takes at most to bring what has been sent.
const ON_ITS_WAY: Time = Time::from_secs(5);

/// I44: what was published between two moments at which a stream was complete, it has got, on whichever connection.
fn each_was_streamed(history: &History, at: usize, following: &Following, now: Time) -> Result<(), String> {
    for channel in &following.channels {
        // From when on everything is due, until a gap.
        let mut from: Option<Time> = None;
        for (visit, next) in following
            .visits
            .iter()
            .zip(following.visits.iter().skip(1).map(Some).chain(std::iter::once(None)))
        {
            let Some(live) = visit.live else { continue };
            if visit.gaps.contains(channel) || visit.last_id.is_none() {
                from = Some(live);
            }
            let Some(from) = from else { continue };
            // Later visits that catch up say more about the time after this one.
            let until = match (next, visit.ended) {
                (None, None) => now.saturating_sub(ON_ITS_WAY),
                _ => visit.asked,
            };
            for (label, message) in published(history, following.app, channel) {
                let Some(accepted) = accepted(message) else { continue };
                let due = message.sent > from && accepted <= until;
                if due && !following.got.contains_key(&(channel.clone(), label)) {
                    return Err(format!(
                        "stream {at} on {channel} is complete from {from:?} to {until:?}, without {label:?}, sent {:?}, \
                         accepted {accepted:?} (I44)",
                        message.sent
                    ));
                }
            }
        }
    }
    Ok(())
}

/// I44: histories are long enough, so only the end of a hub, or hours without it, are a reason for a gap.
fn gaps_have_reasons(shared: &Shared, at: usize, following: &Following) -> Result<(), String> {
    let mut before: Option<&Visit> = None;
    for visit in following.visits.iter().filter(|visit| visit.live.is_some()) {
        let same = before.is_some_and(|before| before.epoch == visit.epoch);
        if same && !visit.gaps.is_empty() && !shared.sleeps {
            return Err(format!("stream {at} has a gap without a reason: {visit:?} (I44)"));
        }
        if visit.last_id.is_none() && !visit.gaps.is_empty() {
            return Err(format!("stream {at} is new and was told of a gap: {visit:?} (I44)"));
        }
        before = Some(visit);
    }
    Ok(())
}
