//! Channel names and what they mean.
//!
//! In the Pusher Channels protocol the name of a channel decides who may join it and what the server keeps for it. This
//! module is the only place that reads a name, so that no two parts of the hub can disagree about a channel's kind.
//!
//! ```
//! use evenkeel_hub::proto::channel::{Access, ChannelName};
//!
//! let name = ChannelName::parse("private-cache-orders.7", 200).unwrap();
//! assert_eq!(name.kind().access, Access::Private);
//! assert!(name.kind().cached);
//! assert!(ChannelName::parse("no spaces", 200).is_err());
//! ```

use std::fmt;

/// The prefix of the channel that carries events to one signed-in user.
pub const SERVER_TO_USER: &str = "#server-to-user-";

/// Who may subscribe to a channel, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody who knows the name.
    Public,
    /// Connections with a signature from the application.
    Private,
    /// As `Private`; what is published is encrypted between the clients and the publisher, and passed on as it is.
    Encrypted,
    /// As `Private`, and the subscribers see each other.
    Presence,
    /// Connections that are signed in as the user named by the channel.
    ServerToUser,
}

/// What the name of a channel says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelKind {
    /// Who may subscribe.
    pub access: Access,
    /// Whether a new subscriber is sent the last published event.
    pub cached: bool,
}

impl ChannelKind {
    /// Whether subscribers may send client events. The publisher's key of an encrypted channel is not for them.
    pub fn takes_client_events(self) -> bool {
        matches!(self.access, Access::Private | Access::Presence)
    }

    /// Whether an SSE stream may carry the channel: it has no identity, so it can be neither a member nor a user.
    pub fn is_streamable(self) -> bool {
        matches!(self.access, Access::Public | Access::Private | Access::Encrypted)
    }
}

/// A valid channel name, borrowed from the message that it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelName<'a> {
    name: &'a str,
    kind: ChannelKind,
}

/// Why a name is not a channel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelNameError {
    /// The name is empty.
    Empty,
    /// The name is longer than the limit.
    TooLong,
    /// The name has a character that is neither alphanumeric ASCII nor one of `_-=@,.;`.
    Character,
}

impl fmt::Display for ChannelNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChannelNameError::Empty => "the channel name is empty",
            ChannelNameError::TooLong => "the channel name is too long",
            ChannelNameError::Character => "the channel name has a character that is not allowed",
        })
    }
}

impl std::error::Error for ChannelNameError {}

impl<'a> ChannelName<'a> {
    /// Checks `name` and reads its kind. `longest` is the greatest length in characters; the part of a
    /// `#server-to-user-` name after the prefix is a user's id, which may hold any character but control characters.
    pub fn parse(name: &'a str, longest: usize) -> Result<ChannelName<'a>, ChannelNameError> {
        if name.is_empty() {
            return Err(ChannelNameError::Empty);
        }
        // A name has at least as many bytes as characters, and at most four times as many.
        if name.len() > longest && (name.len() > 4 * longest || name.chars().count() > longest) {
            return Err(ChannelNameError::TooLong);
        }
        if let Some(user) = name.strip_prefix(SERVER_TO_USER) {
            if user.is_empty() || user.chars().any(char::is_control) {
                return Err(ChannelNameError::Character);
            }
            return Ok(ChannelName {
                name,
                kind: ChannelKind { access: Access::ServerToUser, cached: false },
            });
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=@,.;".contains(&b)) {
            return Err(ChannelNameError::Character);
        }
        Ok(ChannelName { name, kind: kind_of(name) })
    }

    /// The name itself.
    pub fn as_str(self) -> &'a str {
        self.name
    }

    /// What the name says about the channel.
    pub fn kind(self) -> ChannelKind {
        self.kind
    }

    /// The user whom a `#server-to-user-` channel is for.
    pub fn user(self) -> Option<&'a str> {
        self.name.strip_prefix(SERVER_TO_USER)
    }
}

/// The kind of an ordinary name, by its prefixes.
fn kind_of(name: &str) -> ChannelKind {
    let prefixes = [
        ("private-encrypted-", Access::Encrypted),
        ("private-", Access::Private),
        ("presence-", Access::Presence),
        ("", Access::Public),
    ];
    for (prefix, access) in prefixes {
        if let Some(rest) = name.strip_prefix(prefix) {
            return ChannelKind { access, cached: rest.starts_with("cache-") };
        }
    }
    ChannelKind { access: Access::Public, cached: false }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_prefix_has_its_kind() {
        let table = [
            ("news", Access::Public, false),
            ("cache-news", Access::Public, true),
            ("private-x", Access::Private, false),
            ("private-cache-x", Access::Private, true),
            ("private-encrypted-x", Access::Encrypted, false),
            ("private-encrypted-cache-x", Access::Encrypted, true),
            ("presence-x", Access::Presence, false),
            ("presence-cache-x", Access::Presence, true),
            ("#server-to-user-7", Access::ServerToUser, false),
            ("privatex", Access::Public, false),
            ("presence", Access::Public, false),
            ("cache", Access::Public, false),
        ];
        for (name, access, cached) in table {
            assert_eq!(
                ChannelName::parse(name, 200).unwrap().kind(),
                ChannelKind { access, cached },
                "{name}"
            );
        }
    }

    #[test]
    fn i50_bad_names_are_refused_with_the_reason() {
        assert_eq!(ChannelName::parse("", 200), Err(ChannelNameError::Empty));
        assert!(ChannelName::parse(&"a".repeat(200), 200).is_ok());
        assert_eq!(ChannelName::parse(&"a".repeat(201), 200), Err(ChannelNameError::TooLong));
        for name in
            ["a b", "a#b", "#x", "#server-to-user-", "#server-to-user-a\n", "é", "a/b", "a\u{0}", "a\"b"]
        {
            assert_eq!(ChannelName::parse(name, 200), Err(ChannelNameError::Character), "{name:?}");
        }
    }

    #[test]
    fn a_users_channel_counts_characters_and_names_its_user() {
        let id = "é".repeat(184);
        let name = format!("{SERVER_TO_USER}{id}");
        assert_eq!(ChannelName::parse(&name, 200).unwrap().user(), Some(id.as_str()));
        assert_eq!(ChannelName::parse(&format!("{name}é"), 200), Err(ChannelNameError::TooLong));
        assert_eq!(ChannelName::parse("news", 200).unwrap().user(), None);
    }
}
