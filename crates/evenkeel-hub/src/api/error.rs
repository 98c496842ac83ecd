//! Every reason for which the HTTP API refuses a request: its status, its text and its metric label.

use std::fmt;

use super::types::Refusal;
use crate::proto::auth::request::RequestError;

/// Why a request was refused. `Display` is the body of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// There is no such path.
    NoSuchPath,
    /// The path exists, with another method.
    Method {
        /// The one that it has.
        allow: &'static str,
    },
    /// A path segment has a broken percent-escape.
    PathEncoding,
    /// No application has the id in the path.
    NoSuchApp {
        /// The id, escaped.
        id: String,
    },
    /// The query or the signature is wrong.
    Auth(RequestError),
    /// The application is disabled.
    Disabled,
    /// The body is larger than any request may be.
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body is not the JSON that this path takes.
    Json {
        /// What is wrong and where.
        reason: String,
    },
    /// The body is nested too deeply, or has too many values.
    JsonTooComplex,
    /// Neither or both of `channel` and `channels`, or an empty list.
    ChannelCount,
    /// More channels than one event may go to.
    TooManyChannels {
        /// How many were given.
        given: usize,
        /// How many it may have: fewer in a batch.
        limit: usize,
    },
    /// More events than a batch may have.
    TooManyEvents {
        /// How many were given.
        given: usize,
    },
    /// A channel's name is empty, too long or has a character that names do not have.
    ChannelName {
        /// The name, escaped and cut.
        name: String,
        /// The longest that a name may be.
        limit: usize,
    },
    /// An event's name is empty or too long.
    EventName {
        /// The longest that a name may be.
        limit: usize,
    },
    /// The event's name is one of the protocol's own.
    ReservedEventName,
    /// An event's data are too large.
    DataTooLarge {
        /// How many bytes it has.
        given: usize,
        /// How many it may have.
        limit: usize,
    },
    /// `socket_id` is not two numbers with a dot between.
    SocketId,
    /// A user's id is empty or too long.
    UserId {
        /// The longest that an id may be.
        limit: usize,
    },
    /// An attribute in `info` that this request does not have.
    UnknownInfo {
        /// The attribute, escaped and cut.
        name: String,
    },
    /// `user_count` was asked for channels that have no users.
    UserCountNeedsPresence,
    /// The users of a channel that has none were asked for.
    UsersNeedPresence,
    /// `cache` was asked for a channel that has none.
    CacheNeedsCacheChannel,
    /// The broker refused.
    Refused(Refusal),
}

impl ApiError {
    /// The status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoSuchPath | Self::NoSuchApp { .. } => 404,
            Self::Method { .. } => 405,
            Self::Auth(RequestError::Query(_)) => 400,
            Self::Auth(_) => 401,
            Self::Disabled => 403,
            Self::BodyTooLarge { .. } | Self::DataTooLarge { .. } => 413,
            Self::Refused(Refusal::RateLimited { .. }) => 429,
            Self::Refused(Refusal::Overloaded { .. }) => 503,
            Self::Refused(Refusal::Invalid { .. }) => 400,
            Self::PathEncoding
            | Self::Json { .. }
            | Self::JsonTooComplex
            | Self::ChannelCount
            | Self::TooManyChannels { .. }
            | Self::TooManyEvents { .. }
            | Self::ChannelName { .. }
            | Self::EventName { .. }
            | Self::ReservedEventName
            | Self::SocketId
            | Self::UserId { .. }
            | Self::UnknownInfo { .. }
            | Self::UserCountNeedsPresence
            | Self::UsersNeedPresence
            | Self::CacheNeedsCacheChannel => 400,
        }
    }

    /// The value of the metric label `reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoSuchPath => "no_such_path",
            Self::Method { .. } => "method",
            Self::PathEncoding => "path_encoding",
            Self::NoSuchApp { .. } => "no_such_app",
            Self::Auth(error) => error.label(),
            Self::Disabled => "app_disabled",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::Json { .. } => "json_malformed",
            Self::JsonTooComplex => "json_too_complex",
            Self::ChannelCount => "channel_count",
            Self::TooManyChannels { .. } => "too_many_channels",
            Self::TooManyEvents { .. } => "too_many_events",
            Self::ChannelName { .. } => "channel_name",
            Self::EventName { .. } => "event_name",
            Self::ReservedEventName => "event_name_reserved",
            Self::DataTooLarge { .. } => "data_too_large",
            Self::SocketId => "socket_id",
            Self::UserId { .. } => "user_id",
            Self::UnknownInfo { .. } => "unknown_info",
            Self::UserCountNeedsPresence => "user_count_needs_presence",
            Self::UsersNeedPresence => "users_need_presence",
            Self::CacheNeedsCacheChannel => "cache_needs_cache_channel",
            Self::Refused(Refusal::RateLimited { .. }) => "publish_rate",
            Self::Refused(Refusal::Overloaded { .. }) => "overloaded",
            Self::Refused(Refusal::Invalid { label, .. }) => label,
        }
    }

    /// The value of `Retry-After`, in seconds, when there is one.
    pub fn retry_after(&self) -> Option<u32> {
        match *self {
            Self::Refused(Refusal::RateLimited { retry_after } | Refusal::Overloaded { retry_after }) => {
                Some(retry_after)
            }
            _ => None,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchPath => f.write_str("There is nothing at this path"),
            Self::Method { allow } => write!(f, "This path takes {allow} only"),
            Self::PathEncoding => f.write_str("The path has a broken percent-escape, or is not UTF-8"),
            Self::NoSuchApp { id } => write!(f, "No application has the id \"{id}\""),
            Self::Auth(error) => error.fmt(f),
            Self::Disabled => f.write_str("This application is disabled"),
            Self::BodyTooLarge { limit } => write!(f, "The body is larger than {limit} bytes"),
            Self::Json { reason } => write!(f, "The body is not what this path takes: {reason}"),
            Self::JsonTooComplex => write!(
                f,
                "The body is nested deeper than {} levels or has more than {} values",
                super::json::MAX_DEPTH,
                super::json::MAX_NODES
            ),
            Self::ChannelCount => f.write_str("An event needs either a channel or a list of channels"),
            Self::TooManyChannels { given, limit: 1 } => {
                write!(f, "An event of a batch goes to one channel, not {given}")
            }
            Self::TooManyChannels { given, limit } => {
                write!(f, "An event goes to at most {limit} channels, not {given}")
            }
            Self::TooManyEvents { given } => {
                write!(f, "A batch has at most {} events, not {given}", super::publish::MAX_BATCH)
            }
            Self::ChannelName { name, limit } => write!(
                f,
                "\"{name}\" is not a channel's name: 1 to {limit} of the characters A-Z a-z 0-9 _ - = @ , . ;"
            ),
            Self::EventName { limit } => write!(f, "An event's name has 1 to {limit} characters"),
            Self::ReservedEventName => {
                f.write_str("Names that begin with pusher: or pusher_internal: are the protocol's own")
            }
            Self::DataTooLarge { given, limit } => {
                write!(f, "The event's data are {given} bytes; at most {limit} are allowed")
            }
            Self::SocketId => f.write_str("socket_id must be two numbers with a dot between, like 123.456"),
            Self::UserId { limit } => write!(f, "A user's id has 1 to {limit} characters"),
            Self::UnknownInfo { name } => write!(f, "info has no attribute \"{name}\" here"),
            Self::UserCountNeedsPresence => {
                f.write_str("user_count is for presence channels only: their names begin with presence-")
            }
            Self::UsersNeedPresence => {
                f.write_str("Only presence channels have users: their names begin with presence-")
            }
            Self::CacheNeedsCacheChannel => f.write_str(
                "Only cache channels have a cached event: cache- begins their names or follows the kind",
            ),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for ApiError {}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        Self::Auth(error)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
