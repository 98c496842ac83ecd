//! Authorisation of event-stream (SSE) subscribers.
//!
//! A browser's plain `EventSource` has no socket id and sends no headers or body, so the per-socket signature of the
//! WebSocket protocol cannot serve it. Instead the application's backend hands the page a URL that is good for a list of
//! channels until a time:
//!
//! ```text
//! ?...&expires=UNIX_SECONDS&auth=KEY:HEX
//! HEX = lower-case hexadecimal HMAC-SHA256(secret, "sse:" EXPIRES ":" CHANNEL_1 ":" CHANNEL_2 ... ":" CHANNEL_N)
//! ```
//!
//! - `EXPIRES` is the value of `expires`, byte for byte: decimal digits.
//! - The channels are **all** those of the request, public ones too, sorted by their bytes, each once. They are joined by
//!   colons and not by commas because a comma may stand in a channel's name and a colon may not.
//! - The authorisation is refused once `expires` has passed, and when `expires` is more than
//!   [`MAX_LIFETIME_SECONDS`] ahead. `EventSource` reconnects with the same URL, so `expires` bounds how long a page may go
//!   on reconnecting; a stream that is already open is not cut.
//! - It is a bearer token: whoever has the URL may read those channels until it expires. It authorises no presence
//!   membership, no sign-in and no publishing.
//!
//! In Node: `createHmac('sha256', secret).update(['sse', expires, ...channels.sort()].join(':')).digest('hex')`.
//! (JavaScript sorts by UTF-16 units, which for the characters of a channel's name is the same order.)

use super::{AppKey, AuthError};

/// The longest that an authorisation may be good for, from the moment that it is used.
pub const MAX_LIFETIME_SECONDS: u64 = 86_400;

impl AppKey {
    /// Verifies that `auth` allows a stream of `channels` (in any order, repeats ignored) until `expires`.
    ///
    /// `now` is the Unix time in seconds.
    ///
    /// # Errors
    /// [`AuthError`], which says what to sign, or that the time has passed.
    pub fn verify_stream(
        &self,
        channels: &[&str],
        expires: &str,
        auth: &str,
        now: u64,
    ) -> Result<(), AuthError> {
        if auth.is_empty() {
            return Err(AuthError::Missing);
        }
        if channels.iter().any(|channel| channel.contains(':')) {
            return Err(AuthError::ChannelName);
        }
        let until = parse_unix_seconds(expires).ok_or(AuthError::ExpiryMalformed)?;
        let parts = string_to_sign(channels, expires);
        // The signature first: only a holder of the secret learns anything about times.
        self.verify(&parts, auth)?;
        if until <= now {
            return Err(AuthError::Expired { seconds_ago: now - until });
        }
        if until - now > MAX_LIFETIME_SECONDS {
            return Err(AuthError::ExpiryTooFar { limit_seconds: MAX_LIFETIME_SECONDS });
        }
        Ok(())
    }

    /// The `auth` value for a stream of `channels` until `expires`, a Unix time in seconds.
    pub fn stream_auth(&self, channels: &[&str], expires: u64) -> String {
        let expires = expires.to_string();
        let signature = self.sign(&string_to_sign(channels, &expires));
        format!("{}:{}", self.key, signature.to_hex())
    }
}

fn string_to_sign<'a>(channels: &[&'a str], expires: &'a str) -> Vec<&'a str> {
    let mut sorted = channels.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut parts = vec!["sse:", expires];
    for channel in sorted {
        parts.extend([":", channel]);
    }
    parts
}

/// Decimal digits only: no sign, no spaces, no more than fit into 64 bits.
pub(super) fn parse_unix_seconds(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
