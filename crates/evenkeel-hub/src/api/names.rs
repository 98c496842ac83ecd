//! The names that requests may use.

use super::AppLimits;
use super::error::ApiError;
use crate::proto::channel::{Access, ChannelKind, ChannelName, ChannelNameError};
use crate::text;

/// Checks the name of a channel that a request asks about, and reads its kind.
///
/// # Errors
/// [`ApiError::ChannelName`].
pub(super) fn check_channel(name: &str, limits: &AppLimits) -> Result<ChannelKind, ApiError> {
    let kind = parse(name, limits)?.kind();
    // A user is no channel: nobody else can be asked about.
    if kind.access == Access::ServerToUser {
        return Err(refused(name, limits, ChannelNameError::Character));
    }
    Ok(kind)
}

/// Checks where an event may be published: a channel, or a user by `#server-to-user-ID`.
///
/// # Errors
/// [`ApiError::ChannelName`], [`ApiError::UserId`], [`ApiError::UserIdTooLong`].
pub(super) fn check_target(name: &str, limits: &AppLimits) -> Result<(), ApiError> {
    match parse(name, limits)?.user() {
        Some(user) => check_user(user, limits),
        None => Ok(()),
    }
}

/// Checks a user's id.
///
/// # Errors
/// [`ApiError::UserId`], [`ApiError::UserIdTooLong`].
pub(super) fn check_user(id: &str, limits: &AppLimits) -> Result<(), ApiError> {
    if id.is_empty() || id.contains(text::is_unsafe) {
        return Err(ApiError::UserId);
    }
    if id.chars().count() > limits.max_user_id {
        return Err(ApiError::UserIdTooLong { limit: limits.max_user_id });
    }
    Ok(())
}

/// Whether only presence channels can begin with `prefix`, and so have users to count.
pub(super) fn is_presence(prefix: &str) -> bool {
    prefix.starts_with("presence-")
}

fn parse<'a>(name: &'a str, limits: &AppLimits) -> Result<ChannelName<'a>, ApiError> {
    ChannelName::parse(name, limits.max_channel_name).map_err(|why| refused(name, limits, why))
}

fn refused(name: &str, limits: &AppLimits, why: ChannelNameError) -> ApiError {
    ApiError::ChannelName { name: text::escaped(name, 100), limit: limits.max_channel_name, why }
}
