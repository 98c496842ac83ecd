//! Everything that the hub refuses, and what the peer is told.
//!
//! Wrong input is never silent: each refusal has a name for metrics and logs, a counter for each application, and a
//! defined answer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::proto::auth::UNAUTHORIZED;

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs, reason = "each has its sentence in `message`")]
pub enum Refusal {
    // Connections.
    UnknownApp,
    AppDisabled,
    OverCapacity,
    UnsupportedProtocol,
    Draining,
    MessageRate,
    AuthorizationTimeout,
    ConnectionsTerminated,
    // Messages.
    Malformed,
    TooDeep,
    TooManyNodes,
    UnknownEvent,
    // Subscriptions.
    InvalidChannel,
    ChannelNameTooLong,
    TooManyChannels,
    AlreadySubscribed,
    Unauthorized,
    NotSignedIn,
    InvalidChannelData,
    UserIdTooLong,
    UserInfoTooLarge,
    PresenceFull,
    NotStreamable,
    NoChannels,
    // Client events and publishing.
    ClientEventsDisabled,
    ClientEventChannel,
    NotSubscribed,
    ClientEventRate,
    EventName,
    EventNameTooLong,
    PayloadTooLarge,
    PublishRate,
    TooManyPublishChannels,
    BatchTooLarge,
    Overloaded,
    InvalidSocketId,
    // Users.
    SignInDisabled,
    UserUnauthorized,
    InvalidUserData,
    AlreadySignedIn,
    WatchlistTooLong,
    // Queries.
    UserCountUnavailable,
    NotPresence,
}

/// A refusal, its name, its code in the protocol, its HTTP status, and what the peer is told.
type Row = (Refusal, &'static str, u16, u16, &'static str);

/// A row for each refusal, in the order of the enum.
#[rustfmt::skip]
const TABLE: [Row; Refusal::COUNT] = [
    (Refusal::UnknownApp, "unknown_app", 4001, 404, "there is no application with this key"),
    (Refusal::AppDisabled, "app_disabled", 4003, 403, "the application is disabled"),
    (Refusal::OverCapacity, "over_capacity", 4100, 503, "the application has as many connections as it may"),
    (Refusal::UnsupportedProtocol, "unsupported_protocol", 4007, 400, "the protocol version is not supported"),
    (Refusal::Draining, "draining", 4200, 503, "the server is going away"),
    (Refusal::MessageRate, "message_rate", 4301, 429, "the connection sends too many messages"),
    (Refusal::AuthorizationTimeout, "authorization_timeout", 4009, 401, "the connection was not authorized in time"),
    (Refusal::ConnectionsTerminated, "connections_terminated", 4009, 401, "the user's connections were terminated"),
    (Refusal::Malformed, "malformed", 4300, 400, "the message is not a valid event"),
    (Refusal::TooDeep, "too_deep", 4300, 400, "the message nests too deep"),
    (Refusal::TooManyNodes, "too_many_nodes", 4300, 400, "the message has too many values"),
    (Refusal::UnknownEvent, "unknown_event", 4300, 400, "the event is not one that clients send"),
    (Refusal::InvalidChannel, "invalid_channel", 4300, 400, "the channel name is not valid"),
    (Refusal::ChannelNameTooLong, "channel_name_too_long", 4300, 400, "the channel name is too long"),
    (Refusal::TooManyChannels, "too_many_channels", 4300, 429, "the connection has as many channels as it may"),
    (Refusal::AlreadySubscribed, "already_subscribed", 4300, 400, "the connection has this subscription already"),
    (Refusal::Unauthorized, UNAUTHORIZED, 4009, 401, "the signature is not valid"),
    (Refusal::NotSignedIn, "not_signed_in", 4009, 401, "the channel needs a signed-in user"),
    (Refusal::InvalidChannelData, "invalid_channel_data", 4300, 400, "the channel data is not valid"),
    (Refusal::UserIdTooLong, "user_id_too_long", 4300, 413, "the user id is too long"),
    (Refusal::UserInfoTooLarge, "user_info_too_large", 4300, 413, "the user info is too large"),
    (Refusal::PresenceFull, "presence_full", 4300, 429, "the channel has as many members as it may"),
    (Refusal::NotStreamable, "not_streamable", 4300, 400, "a stream cannot carry this kind of channel"),
    (Refusal::NoChannels, "no_channels", 4300, 400, "no channel was named"),
    (Refusal::ClientEventsDisabled, "client_events_disabled", 4300, 403, "client events are disabled for the application"),
    (Refusal::ClientEventChannel, "client_event_channel", 4300, 400, "client events need a private or presence channel"),
    (Refusal::NotSubscribed, "not_subscribed", 4300, 400, "the connection is not subscribed to the channel"),
    (Refusal::ClientEventRate, "client_event_rate", 4301, 429, "the connection sends too many client events"),
    (Refusal::EventName, "event_name", 4300, 400, "the event name is empty or reserved"),
    (Refusal::EventNameTooLong, "event_name_too_long", 4300, 400, "the event name is too long"),
    (Refusal::PayloadTooLarge, "payload_too_large", 4300, 413, "the event's data is too large"),
    (Refusal::PublishRate, "publish_rate", 4300, 429, "the application publishes too many events"),
    (Refusal::TooManyPublishChannels, "too_many_publish_channels", 4300, 400, "the event is for too many channels"),
    (Refusal::BatchTooLarge, "batch_too_large", 4300, 400, "the batch has too many events"),
    (Refusal::Overloaded, "overloaded", 4301, 503, "the server cannot take the event now: try again in a second"),
    (Refusal::InvalidSocketId, "invalid_socket_id", 4300, 400, "the socket id is not valid"),
    (Refusal::SignInDisabled, "sign_in_disabled", 4300, 403, "signing in is disabled for the application"),
    (Refusal::UserUnauthorized, "user_unauthorized", 4009, 401, "the user's signature is not valid"),
    (Refusal::InvalidUserData, "invalid_user_data", 4300, 400, "the user data is not valid"),
    (Refusal::AlreadySignedIn, "already_signed_in", 4300, 400, "the connection is signed in as another user"),
    (Refusal::WatchlistTooLong, "watchlist_too_long", 4302, 400, "the watchlist is too long and was cut"),
    (Refusal::UserCountUnavailable, "user_count_unavailable", 4300, 400, "user_count is known for presence channels only"),
    (Refusal::NotPresence, "not_presence", 4300, 400, "users are known for presence channels only"),
];

impl Refusal {
    /// How many refusals there are.
    pub const COUNT: usize = Refusal::NotPresence as usize + 1;

    /// Every refusal, in the order of the counters.
    pub fn all() -> impl Iterator<Item = Refusal> {
        TABLE.iter().map(|row| row.0)
    }

    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The code of the protocol: in a `pusher:error` event, and the close code when the connection is closed.
    ///
    /// Clients give up for good after a close with 4001 to 4099 or from 4300, wait a second after 4100 to 4199, and come
    /// back at once after 4200 to 4299. In an error event a code is only shown.
    pub fn code(self) -> u16 {
        self.row().2
    }

    /// The status of an HTTP answer, and the `status` of a `pusher:subscription_error`.
    pub fn http_status(self) -> u16 {
        self.row().3
    }

    /// What the peer is told.
    pub fn message(self) -> &'static str {
        self.row().4
    }

    /// Whether the connection is closed, with [`Refusal::code`] as its close code.
    pub fn closes(self) -> bool {
        use Refusal as R;
        matches!(
            self,
            R::UnknownApp
                | R::AppDisabled
                | R::OverCapacity
                | R::UnsupportedProtocol
                | R::Draining
                | R::MessageRate
                | R::AuthorizationTimeout
                | R::ConnectionsTerminated
        )
    }

    /// The `type` of a `pusher:subscription_error`.
    pub(super) fn subscription_error_type(self) -> &'static str {
        match self.http_status() {
            401 => "AuthError",
            413 | 429 => "LimitReached",
            _ => "InvalidRequest",
        }
    }

    fn row(self) -> Row {
        TABLE[self as usize]
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Refusal {}

/// How often each refusal happened.
#[derive(Clone, Debug)]
pub(super) struct Refusals([u64; Refusal::COUNT]);

impl Refusals {
    pub(super) fn new() -> Refusals {
        Refusals([0; Refusal::COUNT])
    }

    pub(super) fn add(&mut self, refusal: Refusal) {
        self.0[refusal as usize] += 1;
    }

    pub(super) fn set(&mut self, refusal: Refusal, count: u64) {
        self.0[refusal as usize] = count;
    }

    /// The refusals that happened, with their counts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::all().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_its_names_are_unique() {
        let mut names = std::collections::HashSet::new();
        for (place, refusal) in Refusal::all().enumerate() {
            assert_eq!(refusal as usize, place);
            assert!(names.insert(refusal.name()), "{}", refusal.name());
            assert!(refusal.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!((4001..=4399).contains(&refusal.code()) && refusal.code() != 4004);
            assert!((400..=503).contains(&refusal.http_status()));
        }
    }
}
