//! The messages of the Pusher Channels protocol, version 7: what clients send, read strictly, and what the server sends.
//!
//! A peer's text is checked for depth and size before it is parsed, so that a small message cannot cost much. What the
//! hub only passes on (a client event's `data`, a member's `user_info`) is kept as it came and never rebuilt.
//!
//! ```
//! use evenkeel_hub::proto::message::{self, ClientMessage};
//!
//! let text = r#"{"event":"pusher:subscribe","data":{"channel":"news","auth":""}}"#;
//! let ClientMessage::Subscribe(subscribe) = message::parse(text).unwrap() else { panic!("not a subscribe") };
//! assert_eq!(subscribe.channel, "news");
//! ```

mod encode;
mod parse;

pub use encode::{
    cache_miss, channel_event, client_event, connection_established, error, member_added, member_removed,
    pong, presence_data, signin_success, stream_caught_up, stream_gap, subscription_count,
    subscription_error, subscription_succeeded, watchlist_events,
};
pub use parse::{
    ClientMessage, MemberData, MessageError, SignIn, Subscribe, UserData, parse, parse_channel_data,
    parse_user_data,
};
