//! The names that requests may use.

use super::AppLimits;
use super::error::ApiError;
use crate::text;

/// What carries events to one signed-in user, whatever connection the user is on.
const SERVER_TO_USER: &str = "#server-to-user-";

/// Checks a channel's name.
///
/// # Errors
/// [`ApiError::ChannelName`].
pub(super) fn check_channel(name: &str, limits: &AppLimits) -> Result<(), ApiError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte);
    if !name.is_empty() && name.len() <= limits.max_channel_name && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(ApiError::ChannelName { name: text::escaped(name, 100), limit: limits.max_channel_name })
}

/// Checks where an event may be published: a channel, or a user by `#server-to-user-ID`.
///
/// # Errors
/// [`ApiError::ChannelName`], [`ApiError::UserId`].
pub(super) fn check_target(name: &str, limits: &AppLimits) -> Result<(), ApiError> {
    match name.strip_prefix(SERVER_TO_USER) {
        Some(user) => check_user(user, limits),
        None => check_channel(name, limits),
    }
}

/// Checks a user's id.
///
/// # Errors
/// [`ApiError::UserId`].
pub(super) fn check_user(id: &str, limits: &AppLimits) -> Result<(), ApiError> {
    if id.is_empty() || id.chars().count() > limits.max_user_id || id.contains(text::is_unsafe) {
        return Err(ApiError::UserId { limit: limits.max_user_id });
    }
    Ok(())
}

/// Whether `id` is of the form that every SDK demands: two numbers with a dot between.
pub(super) fn is_socket_id(id: &str) -> bool {
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    id.split_once('.').is_some_and(|(first, second)| digits(first) && digits(second))
}

/// Whether only presence channels can begin with `prefix`, and so have users to count.
pub(super) fn is_presence(prefix: &str) -> bool {
    prefix.starts_with("presence-")
}

/// Whether the channel keeps its last event.
pub(super) fn is_cache(channel: &str) -> bool {
    ["cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-"]
        .iter()
        .any(|prefix| channel.starts_with(prefix))
}
