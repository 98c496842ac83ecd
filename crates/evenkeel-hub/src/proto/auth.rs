//! Signatures: who may subscribe, who is signed in, who may publish.
//!
//! Everything that the Pusher protocol authorises is an HMAC-SHA256 with the application's secret over a string that both
//! sides build from the request. None can be mistaken for another, because each begins differently:
//!
//! | what | string to sign | where |
//! |---|---|---|
//! | a private channel | `SOCKET_ID:CHANNEL` | [`AppKey::verify_channel`] |
//! | a presence channel | `SOCKET_ID:CHANNEL:CHANNEL_DATA` | [`AppKey::verify_channel`] |
//! | a user's sign-in | `SOCKET_ID::user::USER_DATA` | [`AppKey::verify_user`] |
//! | an HTTP request | `METHOD\nPATH\nQUERY` | [`request`] |
//! | an event-stream subscription | `sse:EXPIRES:CHANNEL...` | [`stream`] |
//!
//! Signatures are compared in constant time. [`Signature`] has no `==`, so that another comparison cannot slip in:
//!
//! ```compile_fail,E0369
//! use evenkeel_hub::proto::auth::AppKey;
//! let app = AppKey::new("key", "secret");
//! let _ = app.sign(&["a"]) == app.sign(&["a"]);
//! ```
//!
//! A secret can be replaced without a moment at which signatures fail: the one before is accepted for as long as it is
//! configured ([`AppKey::with_previous`]).
//!
//! Errors name what was wrong and quote the string that should have been signed, because a developer cannot find the
//! difference otherwise. They never quote a secret or the right signature.

pub mod replay;
pub mod request;
pub mod stream;
#[cfg(test)]
mod tests;

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::percent::hex_digit;
use crate::text;

/// The metric label of whatever has no valid signature: a subscription on either transport, or a request. The answer says
/// what is wrong with it.
pub const UNAUTHORIZED: &str = "unauthorized";

/// The longest part of a string to sign that an error quotes, in bytes. Presence data may be far longer.
const QUOTED_BYTES: usize = 1024;

/// An application's public key with the secret that belongs to it, ready to sign and to verify.
///
/// The secret is kept only as HMAC state, and `Debug` does not show it.
#[derive(Clone)]
pub struct AppKey {
    key: String,
    /// The present secret, and then those that it replaces.
    secrets: Vec<Hmac<Sha256>>,
}

impl AppKey {
    /// Prepares `secret` for signing. `key` is the public identifier that stands before the colon in `KEY:HEX`.
    pub fn new(key: &str, secret: &str) -> Self {
        Self { key: key.to_owned(), secrets: vec![keyed(secret)] }
    }

    /// Accepts what was signed with `secret`, too. Nothing is signed with it.
    #[must_use]
    pub fn with_previous(mut self, secret: &str) -> Self {
        self.secrets.push(keyed(secret));
        self
    }

    /// The public key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Signs the concatenation of `parts` with the present secret.
    pub fn sign(&self, parts: &[&str]) -> Signature {
        sign_with(&self.secrets[0], parts)
    }

    /// The signature of the concatenation of `parts`, by whichever secret, if that is what `hex` is.
    fn matching(&self, parts: &[&str], hex: &str) -> Option<Signature> {
        self.secrets
            .iter()
            .map(|secret| sign_with(secret, parts))
            .find(|signature| signature.matches_hex(hex))
    }

    /// Verifies the `auth` of a subscription to a private, encrypted or presence channel.
    ///
    /// `channel_data` is the string as the client sent it, byte for byte, and is given exactly when the channel is a
    /// presence channel that came with one.
    ///
    /// # Errors
    /// [`AuthError`], which says what to sign.
    pub fn verify_channel(
        &self,
        socket_id: &str,
        channel: &str,
        channel_data: Option<&str>,
        auth: &str,
    ) -> Result<(), AuthError> {
        // A colon would let one signed string be read as another channel with other data.
        if channel.contains(':') {
            return Err(AuthError::ChannelName);
        }
        match channel_data {
            None => self.verify(&[socket_id, ":", channel], auth),
            Some(data) => self.verify(&[socket_id, ":", channel, ":", data], auth),
        }
    }

    /// Verifies the `auth` of `pusher:signin`. `user_data` is the string as the client sent it.
    ///
    /// # Errors
    /// [`AuthError`], which says what to sign.
    pub fn verify_user(&self, socket_id: &str, user_data: &str, auth: &str) -> Result<(), AuthError> {
        self.verify(&[socket_id, "::user::", user_data], auth)
    }

    /// The `auth` value, `KEY:HEX`, that authorises a subscription. For tests, the console and the demonstration.
    pub fn channel_auth(&self, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
        let signature = match channel_data {
            None => self.sign(&[socket_id, ":", channel]),
            Some(data) => self.sign(&[socket_id, ":", channel, ":", data]),
        };
        format!("{}:{}", self.key, signature.to_hex())
    }

    /// The `auth` value, `KEY:HEX`, that signs a user in.
    pub fn user_auth(&self, socket_id: &str, user_data: &str) -> String {
        format!("{}:{}", self.key, self.sign(&[socket_id, "::user::", user_data]).to_hex())
    }

    /// Verifies `KEY:HEX` over the concatenation of `parts`.
    fn verify(&self, parts: &[&str], auth: &str) -> Result<(), AuthError> {
        if auth.is_empty() {
            return Err(AuthError::Missing);
        }
        let Some((key, hex)) = auth.split_once(':') else {
            return Err(AuthError::Malformed);
        };
        if key != self.key {
            return Err(AuthError::WrongKey { sent: quoted(&[key]) });
        }
        match self.matching(parts, hex) {
            Some(_) => Ok(()),
            None => Err(AuthError::Signature { string_to_sign: quoted(parts) }),
        }
    }
}

fn keyed(secret: &str) -> Hmac<Sha256> {
    match Hmac::new_from_slice(secret.as_bytes()) {
        Ok(keyed) => keyed,
        Err(_) => unreachable!("HMAC takes a key of any length"),
    }
}

fn sign_with(secret: &Hmac<Sha256>, parts: &[&str]) -> Signature {
    let mut mac = secret.clone();
    for part in parts {
        mac.update(part.as_bytes());
    }
    Signature(mac.finalize().into_bytes().into())
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// An HMAC-SHA256. It can be written out and compared in constant time, and nothing else.
#[derive(Clone, Copy)]
pub struct Signature([u8; 32]);

impl Signature {
    /// The signature in lower-case hexadecimal.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Whether `sent` is this signature in hexadecimal of either case. The time taken depends on the length of `sent` and
    /// on whether it is hexadecimal at all, never on how much of it is right.
    pub fn matches_hex(&self, sent: &str) -> bool {
        decode_hex(sent).is_some_and(|bytes| self.matches_bytes(&bytes))
    }

    fn matches_bytes(&self, sent: &[u8; 32]) -> bool {
        bool::from(self.0.ct_eq(sent))
    }
}

/// Decodes exactly 64 hexadecimal digits. What it looks at is the sender's own text, so its timing tells nothing.
fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

/// `bytes` in lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The concatenation of `parts`, escaped so that it stays on one line, and cut once it is longer than [`QUOTED_BYTES`].
fn quoted(parts: &[&str]) -> String {
    let mut text = String::new();
    for part in parts {
        text::escape(&mut text, part, QUOTED_BYTES);
    }
    text
}

/// Why an authorisation of the form `KEY:HEX` was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// No `auth` was sent.
    Missing,
    /// The `auth` is not `KEY:HEX`.
    Malformed,
    /// The part before the colon is not this application's key.
    WrongKey {
        /// What was sent instead.
        sent: String,
    },
    /// The channel's name has a colon in it, which would make the signed string ambiguous.
    ChannelName,
    /// The signature does not belong to this string and this secret.
    Signature {
        /// What should have been signed: escaped, and cut when it is long.
        string_to_sign: String,
    },
    /// `expires` is missing or is not a number of seconds.
    ExpiryMalformed,
    /// The authorisation was good once.
    Expired {
        /// How long ago it ended.
        seconds_ago: u64,
    },
    /// The authorisation would be good for longer than is allowed.
    ExpiryTooFar {
        /// The longest that is allowed, in seconds from now.
        limit_seconds: u64,
    },
}

impl AuthError {
    /// The HTTP status that answers this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::ChannelName => 400,
            _ => 401,
        }
    }

    /// The value of the metric label `reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Missing | Self::Malformed | Self::WrongKey { .. } | Self::Signature { .. } => UNAUTHORIZED,
            Self::ChannelName => "invalid_channel",
            Self::ExpiryMalformed => "auth_expiry_malformed",
            Self::Expired { .. } => "auth_expired",
            Self::ExpiryTooFar { .. } => "auth_expiry_too_far",
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("auth is missing: this subscription needs KEY:SIGNATURE"),
            Self::Malformed => f.write_str("auth must be KEY:SIGNATURE, with the signature in hexadecimal"),
            Self::WrongKey { sent } => {
                write!(f, "auth names the key \"{sent}\", which is not this application's")
            }
            Self::ChannelName => f.write_str("a channel's name has no colon"),
            Self::Signature { string_to_sign } => write!(
                f,
                "auth has the wrong signature: expected the hexadecimal HMAC-SHA256, with this application's secret, \
                 of \"{string_to_sign}\""
            ),
            Self::ExpiryMalformed => f.write_str("expires must be a Unix time in seconds"),
            Self::Expired { seconds_ago } => write!(f, "auth expired {seconds_ago} s ago"),
            Self::ExpiryTooFar { limit_seconds } => {
                write!(f, "expires is too far ahead: at most {limit_seconds} s from now")
            }
        }
    }
}

impl std::error::Error for AuthError {}
