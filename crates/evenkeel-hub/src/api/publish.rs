//! From the body of a publish request to events, with every limit checked before anything is published.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::AppLimits;
use super::error::ApiError;
use super::names;
use super::types::{Event, Info};
use crate::config::{MAX_BATCH, MAX_CHANNELS};
use crate::proto::json::{self, Object};
use crate::state::SocketId;
use crate::text;

/// How many channels an event of a batch may go to.
pub const MAX_BATCH_CHANNELS: usize = 1;

/// How much of a parser's complaint is told. It can quote the body.
const REASON_BYTES: usize = 256;

/// An event as the SDKs send it. Fields that we do not know are ignored: SDKs add experimental ones.
#[derive(Deserialize)]
struct EventBody<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    channel: Option<String>,
    channels: Option<Vec<String>>,
    socket_id: Option<String>,
    info: Option<String>,
}

#[derive(Deserialize)]
struct BatchBody<'a> {
    #[serde(borrow)]
    batch: Vec<Object<EventBody<'a>>>,
}

/// Parses the body of `POST /apps/ID/events`.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_event<'a>(body: &'a [u8], limits: &AppLimits) -> Result<Event<'a>, ApiError> {
    let body: EventBody<'a> = parse(body)?;
    check_event(body, limits, MAX_CHANNELS)
}

/// Parses the body of `POST /apps/ID/batch_events`.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_batch<'a>(body: &'a [u8], limits: &AppLimits) -> Result<Vec<Event<'a>>, ApiError> {
    let BatchBody { batch } = parse(body)?;
    if batch.len() > MAX_BATCH {
        return Err(ApiError::TooManyEvents { given: batch.len() });
    }
    batch.into_iter().map(|Object(event)| check_event(event, limits, MAX_BATCH_CHANNELS)).collect()
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    json::check_shape(body)?;
    serde_json::from_slice(body)
        .map(|Object(read)| read)
        .map_err(|error| ApiError::Json { reason: text::escaped(&error.to_string(), REASON_BYTES) })
}

fn check_event<'a>(
    body: EventBody<'a>,
    limits: &AppLimits,
    max_channels: usize,
) -> Result<Event<'a>, ApiError> {
    let name_length = body.name.chars().count();
    if name_length == 0 {
        return Err(ApiError::EventName);
    }
    if name_length > limits.max_event_name {
        return Err(ApiError::EventNameTooLong { limit: limits.max_event_name });
    }
    // Clients act on these. Whoever may publish an event may not pretend to be the server.
    if body.name.starts_with("pusher:") || body.name.starts_with("pusher_internal:") {
        return Err(ApiError::ReservedEventName);
    }
    let channels = check_channels(body.channel, body.channels, limits, max_channels)?;
    let data = text_of(body.data)?;
    if data.len() > limits.max_event_bytes {
        return Err(ApiError::DataTooLarge { given: data.len(), limit: limits.max_event_bytes });
    }
    if body.socket_id.as_deref().is_some_and(|id| SocketId::parse(id).is_none()) {
        return Err(ApiError::SocketId);
    }
    let info = parse_info(body.info.as_deref().unwrap_or(""), false)?;
    Ok(Event { name: body.name, channels, data, except: body.socket_id, info })
}

fn check_channels(
    one: Option<String>,
    many: Option<Vec<String>>,
    limits: &AppLimits,
    max_channels: usize,
) -> Result<Vec<String>, ApiError> {
    let mut channels = match (one, many) {
        (Some(one), None) => vec![one],
        (None, Some(many)) if !many.is_empty() => many,
        _ => return Err(ApiError::ChannelCount),
    };
    if channels.len() > max_channels {
        return Err(ApiError::TooManyChannels { given: channels.len(), limit: max_channels });
    }
    for channel in &channels {
        names::check_target(channel, limits)?;
    }
    // A channel named twice would deliver the event twice. The list is short, so the search is too.
    let mut index = 0;
    while index < channels.len() {
        if channels[..index].contains(&channels[index]) {
            channels.remove(index);
        } else {
            index += 1;
        }
    }
    Ok(channels)
}

/// The data to deliver: what is in the string. SDKs always send a string; of any other JSON value it is the value's text,
/// as it came.
fn text_of(data: &RawValue) -> Result<Cow<'_, str>, ApiError> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    if !data.get().starts_with('"') {
        return Ok(Cow::Borrowed(data.get()));
    }
    serde_json::from_str::<Text<'_>>(data.get())
        .map(|text| text.0)
        .map_err(|error| ApiError::Json { reason: text::escaped(&error.to_string(), REASON_BYTES) })
}

/// Parses a comma-separated `info`. `cache` is known only where one channel is asked about.
///
/// # Errors
/// [`ApiError::UnknownInfo`].
pub fn parse_info(list: &str, cache_allowed: bool) -> Result<Info, ApiError> {
    let mut info = Info::default();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name {
            "user_count" => info.user_count = true,
            "subscription_count" => info.subscription_count = true,
            "cache" if cache_allowed => info.cache = true,
            _ => return Err(ApiError::UnknownInfo { name: text::escaped(name, 64) }),
        }
    }
    Ok(info)
}
