//! Every reason for which the HTTP API refuses a request: its status, its text and its metric label.

use std::fmt;

use super::types::Refusal;
use crate::config::MAX_BATCH;
use crate::proto::auth::request::RequestError;
use crate::proto::channel::ChannelNameError;
use crate::proto::guard::GuardError;
use crate::proto::json::ShapeError;
use crate::state;

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
    Shape(ShapeError),
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
        /// What is wrong with it.
        why: ChannelNameError,
    },
    /// An event's name is empty.
    EventName,
    /// An event's name is too long.
    EventNameTooLong {
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
    /// A user's id is empty, or has a character that must not be shown.
    UserId,
    /// A user's id is too long.
    UserIdTooLong {
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
            Self::BodyTooLarge { .. } | Self::DataTooLarge { .. } | Self::UserIdTooLong { .. } => 413,
            Self::Refused(Refusal::RateLimited { .. }) => 429,
            Self::Refused(Refusal::Overloaded { .. }) => 503,
            Self::Refused(Refusal::Invalid { .. }) => 400,
            Self::PathEncoding
            | Self::Json { .. }
            | Self::Shape(_)
            | Self::ChannelCount
            | Self::TooManyChannels { .. }
            | Self::TooManyEvents { .. }
            | Self::ChannelName { .. }
            | Self::EventName
            | Self::EventNameTooLong { .. }
            | Self::ReservedEventName
            | Self::SocketId
            | Self::UserId
            | Self::UnknownInfo { .. }
            | Self::UserCountNeedsPresence
            | Self::UsersNeedPresence
            | Self::CacheNeedsCacheChannel => 400,
        }
    }

    /// The value of the metric label `reason`. What the hub's state or the authorisation of a subscription refuses, too,
    /// has the label that it has there.
    pub fn label(&self) -> &'static str {
        use state::Refusal as Shared;
        let shared = match self {
            Self::NoSuchPath => return "no_such_path",
            Self::Method { .. } => return "method",
            Self::PathEncoding => return "path_encoding",
            Self::Auth(error) => return error.label(),
            Self::BodyTooLarge { .. } => return GuardError::BODY_TOO_LARGE,
            Self::ChannelCount => return "channel_count",
            Self::UserId => return "invalid_user_id",
            Self::UnknownInfo { .. } => return "unknown_info",
            Self::CacheNeedsCacheChannel => return "cache_unavailable",
            Self::Refused(Refusal::Overloaded { .. }) => return "overloaded",
            Self::Refused(Refusal::Invalid { label, .. }) => return label,
            Self::NoSuchApp { .. } => Shared::UnknownApp,
            Self::Disabled => Shared::AppDisabled,
            Self::Json { .. } => Shared::Malformed,
            Self::Shape(ShapeError::TooDeep) => Shared::TooDeep,
            Self::Shape(ShapeError::TooManyNodes) => Shared::TooManyNodes,
            Self::TooManyChannels { .. } => Shared::TooManyPublishChannels,
            Self::TooManyEvents { .. } => Shared::BatchTooLarge,
            Self::ChannelName { why, .. } => (*why).into(),
            Self::EventName | Self::ReservedEventName => Shared::EventName,
            Self::EventNameTooLong { .. } => Shared::EventNameTooLong,
            Self::DataTooLarge { .. } => Shared::PayloadTooLarge,
            Self::SocketId => Shared::InvalidSocketId,
            Self::UserIdTooLong { .. } => Shared::UserIdTooLong,
            Self::UserCountNeedsPresence => Shared::UserCountUnavailable,
            Self::UsersNeedPresence => Shared::NotPresence,
            Self::Refused(Refusal::RateLimited { .. }) => Shared::PublishRate,
        };
        shared.name()
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
            Self::Shape(error) => write!(f, "The body is {error}"),
            Self::ChannelCount => f.write_str("An event needs either a channel or a list of channels"),
            Self::TooManyChannels { given, limit: 1 } => {
                write!(f, "An event of a batch goes to one channel, not {given}")
            }
            Self::TooManyChannels { given, limit } => {
                write!(f, "An event goes to at most {limit} channels, not {given}")
            }
            Self::TooManyEvents { given } => {
                write!(f, "A batch has at most {MAX_BATCH} events, not {given}")
            }
            Self::ChannelName { name, limit, .. } => write!(
                f,
                "\"{name}\" is not a channel's name: 1 to {limit} of the characters A-Z a-z 0-9 _ - = @ , . ;"
            ),
            Self::EventName => f.write_str("An event needs a name"),
            Self::EventNameTooLong { limit } => write!(f, "An event's name has at most {limit} characters"),
            Self::ReservedEventName => {
                f.write_str("Names that begin with pusher: or pusher_internal: are the protocol's own")
            }
            Self::DataTooLarge { given, limit } => {
                write!(f, "The event's data are {given} bytes; at most {limit} are allowed")
            }
            Self::SocketId => f.write_str("socket_id must be two numbers with a dot between, like 123.456"),
            Self::UserId => f.write_str("A user's id is not empty and has no control characters"),
            Self::UserIdTooLong { limit } => write!(f, "A user's id has at most {limit} characters"),
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

impl From<ShapeError> for ApiError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
