//! The Pusher HTTP API: publishing and asking, as a pure function from a request to a response.
//!
//! ```text
//! POST /apps/ID/events                                 {name, data, channels | channel, socket_id?, info?}
//! POST /apps/ID/batch_events                           {batch: [{name, data, channel, socket_id?, info?}]}
//! GET  /apps/ID/channels                               ?filter_by_prefix=&info=
//! GET  /apps/ID/channels/CHANNEL                       ?info=user_count,subscription_count,cache
//! GET  /apps/ID/channels/CHANNEL/users
//! POST /apps/ID/users/USER/terminate_connections
//! ```
//!
//! Every request is signed (see [`crate::proto::auth::request`]). The order of the checks is the order of their cost, and
//! what an unsigned request can learn is only whether its path and its application exist. Success is JSON; a refusal is one
//! line of text that says what was wrong, and a metric label.
//!
//! [`Api`] holds the applications' keys and limits; what happens to events is the [`Broker`]'s.

pub mod error;
mod names;
pub mod publish;
pub mod route;
#[cfg(test)]
mod tests;
pub mod types;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::AppSettings;
use crate::proto::auth::AppKey;
use crate::proto::auth::replay::ReplayCache;
use crate::proto::auth::request::{Query, Request as Signed, RequestError};
use crate::proto::channel::Access;
use crate::text;

pub use error::ApiError;
use route::Route;
pub use types::Broker;
use types::{Attributes, ChannelState};

/// A request, complete, as it came from the wire.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path: with its prefix, still percent-encoded, without the query.
    pub path: &'a str,
    /// What followed the `?`, or nothing.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// The Unix time in seconds.
    pub now: u64,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
    /// The value of `Retry-After` in seconds, if it is to be sent.
    pub retry_after: Option<u32>,
    /// The value of `Allow`, if it is to be sent.
    pub allow: Option<&'static str>,
    /// What was asked for, for metrics; `unknown` when the path says nothing.
    pub operation: &'static str,
    /// Why it was refused, for metrics.
    pub refusal: Option<&'static str>,
}

/// The limits that concern the HTTP API. The names are those of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppLimits {
    /// The largest `data`, in bytes.
    pub max_event_bytes: usize,
    /// The longest event name, in characters.
    pub max_event_name: usize,
    /// The longest channel name, in characters.
    pub max_channel_name: usize,
    /// The longest user id, in characters.
    pub max_user_id: usize,
}

struct App {
    id: String,
    key: AppKey,
    enabled: bool,
    limits: AppLimits,
    replays: Option<ReplayCache>,
}

/// Whether `path` (without a query) belongs to the API under `prefix`, so that what is elsewhere can be served by others.
pub fn serves(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("/apps/") || rest.starts_with("/users/"))
}

/// The HTTP API of all applications of one server.
pub struct Api {
    apps: Vec<App>,
    prefix: String,
    max_body: usize,
}

impl Api {
    /// The API of `apps`, under `prefix` (empty, or `/PATH` without a slash at the end). A body of more than `max_body`
    /// bytes is refused.
    pub fn new(apps: &[AppSettings], prefix: &str, max_body: usize) -> Self {
        Self { apps: apps.iter().map(App::new).collect(), prefix: prefix.to_owned(), max_body }
    }

    /// Answers a request. Whatever is wrong with it becomes a response; nothing panics.
    pub fn handle(&mut self, broker: &mut dyn Broker, request: &Request<'_>) -> Response {
        match route::route(request.method, request.path, &self.prefix) {
            Err(error) => Response::refused("unknown", &error),
            Ok(routed) => {
                let operation = routed.route.label();
                match self.answer(broker, request, routed.app.as_deref(), &routed.route) {
                    Ok(body) => Response::json(operation, body),
                    Err(error) => Response::refused(operation, &error),
                }
            }
        }
    }

    fn answer(
        &mut self,
        broker: &mut dyn Broker,
        request: &Request<'_>,
        app: Option<&str>,
        route: &Route,
    ) -> Result<String, ApiError> {
        if request.body.len() > self.max_body {
            return Err(ApiError::BodyTooLarge { limit: self.max_body });
        }
        let query = Query::parse(request.query)?;
        let app = self.find(app, &query)?;
        app.authenticate(request, &query)?;
        if !app.enabled {
            return Err(ApiError::Disabled);
        }
        match route {
            Route::Publish => publish_one(broker, app, request.body),
            Route::Batch => publish_batch(broker, app, request.body),
            Route::Channels => list_channels(broker, app, &query),
            Route::Channel(channel) => describe_channel(broker, app, channel, &query),
            Route::Users(channel) => list_users(broker, app, channel),
            Route::Terminate(user) => {
                names::check_user(user, &app.limits)?;
                broker.terminate(&app.id, user);
                Ok("{}".to_owned())
            }
        }
    }

    /// The application by the id in the path or, where the path has none, by the key in the query.
    fn find(&mut self, id: Option<&str>, query: &Query) -> Result<&mut App, ApiError> {
        match id {
            Some(id) => self
                .apps
                .iter_mut()
                .find(|app| app.id == id)
                .ok_or_else(|| ApiError::NoSuchApp { id: text::escaped(id, 64) }),
            None => {
                let key = query.get("auth_key").ok_or(RequestError::Missing("auth_key"))?;
                self.apps
                    .iter_mut()
                    .find(|app| app.key.key() == key)
                    .ok_or_else(|| RequestError::UnknownKey { sent: text::escaped(key, 64) }.into())
            }
        }
    }
}

impl App {
    fn new(settings: &AppSettings) -> Self {
        Self {
            id: settings.id.clone(),
            key: settings.app_key(),
            enabled: settings.enabled,
            limits: AppLimits {
                max_event_bytes: settings.max_event_bytes,
                max_event_name: settings.max_event_name,
                max_channel_name: settings.max_channel_name,
                max_user_id: settings.max_user_id,
            },
            replays: (settings.replay_cache > 0).then(|| ReplayCache::new(settings.replay_cache)),
        }
    }

    fn authenticate(&mut self, request: &Request<'_>, query: &Query) -> Result<(), ApiError> {
        let signed = Signed { method: request.method, path: request.path, query, body: request.body };
        let verified = self.key.verify_request(&signed, request.now)?;
        // Asking twice is harmless, and pages that poll do it within a second.
        if let Some(replays) = self.replays.as_mut().filter(|_| request.method != "GET") {
            replays.admit(&verified, request.now).map_err(|_| RequestError::Replayed)?;
        }
        Ok(())
    }
}

impl Response {
    fn json(operation: &'static str, body: String) -> Self {
        Self {
            status: 200,
            content_type: "application/json",
            body,
            retry_after: None,
            allow: None,
            operation,
            refusal: None,
        }
    }

    /// The response to a request that is refused. Also for those that never reach [`Api::handle`].
    pub fn refused(operation: &'static str, error: &ApiError) -> Self {
        let allow = match error {
            ApiError::Method { allow } => Some(*allow),
            _ => None,
        };
        Self {
            status: error.status(),
            content_type: "text/plain; charset=utf-8",
            body: format!("{error}\n"),
            retry_after: error.retry_after(),
            allow,
            operation,
            refusal: Some(error.label()),
        }
    }
}

fn publish_one(broker: &mut dyn Broker, app: &App, body: &[u8]) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Body<'a> {
        channels: BTreeMap<&'a str, Attributes>,
    }
    let event = publish::parse_event(body, &app.limits)?;
    let published = broker.publish(&app.id, std::slice::from_ref(&event))?;
    if event.info.is_empty() {
        return Ok("{}".to_owned());
    }
    let attributes = published.into_iter().flat_map(|published| published.attributes);
    let channels = event.channels.iter().map(String::as_str).zip(attributes).collect();
    Ok(to_json(&Body { channels }))
}

fn publish_batch(broker: &mut dyn Broker, app: &App, body: &[u8]) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Body {
        batch: Vec<Attributes>,
    }
    let events = publish::parse_batch(body, &app.limits)?;
    let published = broker.publish(&app.id, &events)?;
    if events.iter().all(|event| event.info.is_empty()) {
        return Ok("{}".to_owned());
    }
    // Events of a batch have one channel each; one that asked for nothing gets an empty object.
    let first = |published: types::Published| published.attributes.first().copied().unwrap_or_default();
    Ok(to_json(&Body { batch: published.into_iter().map(first).collect() }))
}

fn list_channels(broker: &dyn Broker, app: &App, query: &Query) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Body {
        channels: BTreeMap<String, Attributes>,
    }
    let prefix = query.get("filter_by_prefix").unwrap_or("");
    let info = publish::parse_info(query.get("info").unwrap_or(""), false)?;
    if info.user_count && !names::is_presence(prefix) {
        return Err(ApiError::UserCountNeedsPresence);
    }
    let channels = broker.channels(&app.id, prefix, info)?.into_iter().collect();
    Ok(to_json(&Body { channels }))
}

fn describe_channel(
    broker: &dyn Broker,
    app: &App,
    channel: &str,
    query: &Query,
) -> Result<String, ApiError> {
    let kind = names::check_channel(channel, &app.limits)?;
    let info = publish::parse_info(query.get("info").unwrap_or(""), true)?;
    if info.user_count && kind.access != Access::Presence {
        return Err(ApiError::UserCountNeedsPresence);
    }
    if info.cache && !kind.cached {
        return Err(ApiError::CacheNeedsCacheChannel);
    }
    let state: ChannelState = broker.channel(&app.id, channel, info)?;
    Ok(to_json(&state))
}

fn list_users(broker: &dyn Broker, app: &App, channel: &str) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct User {
        id: String,
    }
    #[derive(Serialize)]
    struct Body {
        users: Vec<User>,
    }
    if names::check_channel(channel, &app.limits)?.access != Access::Presence {
        return Err(ApiError::UsersNeedPresence);
    }
    let users = broker.users(&app.id, channel)?.into_iter().map(|id| User { id }).collect();
    Ok(to_json(&Body { users }))
}

fn to_json(body: &impl Serialize) -> String {
    match serde_json::to_string(body) {
        Ok(json) => json,
        Err(error) => unreachable!("text and numbers under text keys always serialise: {error}"),
    }
}
