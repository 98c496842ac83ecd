//! From a method and a path to an operation.

use super::error::ApiError;
use crate::proto::percent::{self, Plus};

/// What a request wants, with the variable parts of its path decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /apps/ID/events`
    Publish,
    /// `POST /apps/ID/batch_events`
    Batch,
    /// `GET /apps/ID/channels`
    Channels,
    /// `GET /apps/ID/channels/CHANNEL`
    Channel(String),
    /// `GET /apps/ID/channels/CHANNEL/users`
    Users(String),
    /// `POST /apps/ID/users/USER/terminate_connections`
    Terminate(String),
}

impl Route {
    /// The value of the metric label `operation`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Batch => "batch",
            Self::Channels => "channels",
            Self::Channel(_) => "channel",
            Self::Users(_) => "users",
            Self::Terminate(_) => "terminate",
        }
    }

    fn method(&self) -> &'static str {
        match self {
            Self::Publish | Self::Batch | Self::Terminate(_) => "POST",
            Self::Channels | Self::Channel(_) | Self::Users(_) => "GET",
        }
    }
}

/// A routed request: what it wants and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The application's id. `None` where the path names none and the key tells: the Python SDK sends
    /// `POST /users/USER/terminate_connections`.
    pub app: Option<String>,
    /// What it wants.
    pub route: Route,
}

/// Finds the operation. `path` is as sent, with `prefix` in front.
///
/// # Errors
/// [`ApiError::NoSuchPath`], [`ApiError::Method`], [`ApiError::PathEncoding`].
pub fn route(method: &str, path: &str, prefix: &str) -> Result<Routed, ApiError> {
    let rest = path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
    let segments: Vec<&str> = rest.ok_or(ApiError::NoSuchPath)?.split('/').collect();
    if segments.contains(&"") {
        return Err(ApiError::NoSuchPath);
    }
    let decode = |segment: &str| match percent::decode(segment, Plus::Literal) {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(ApiError::PathEncoding),
    };
    let (app, route) = match segments.as_slice() {
        ["apps", app, "events"] => (Some(*app), Route::Publish),
        ["apps", app, "batch_events"] => (Some(*app), Route::Batch),
        ["apps", app, "channels"] => (Some(*app), Route::Channels),
        ["apps", app, "channels", channel] => (Some(*app), Route::Channel(decode(channel)?)),
        ["apps", app, "channels", channel, "users"] => (Some(*app), Route::Users(decode(channel)?)),
        ["apps", app, "users", user, "terminate_connections"] => {
            (Some(*app), Route::Terminate(decode(user)?))
        }
        ["users", user, "terminate_connections"] => (None, Route::Terminate(decode(user)?)),
        _ => return Err(ApiError::NoSuchPath),
    };
    if method != route.method() {
        return Err(ApiError::Method { allow: route.method() });
    }
    Ok(Routed { app: app.map(decode).transpose()?, route })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(method: &str, path: &str) -> (Option<String>, Route) {
        let routed = route(method, path, "").unwrap();
        (routed.app, routed.route)
    }

    #[test]
    fn every_operation_has_its_path() {
        let app = || Some("1".to_owned());
        assert_eq!(found("POST", "/apps/1/events"), (app(), Route::Publish));
        assert_eq!(found("POST", "/apps/1/batch_events"), (app(), Route::Batch));
        assert_eq!(found("GET", "/apps/1/channels"), (app(), Route::Channels));
        assert_eq!(found("GET", "/apps/1/channels/a"), (app(), Route::Channel("a".into())));
        assert_eq!(
            found("GET", "/apps/1/channels/presence-%40/users"),
            (app(), Route::Users("presence-@".into()))
        );
        let terminate = Route::Terminate("a/b é".into());
        assert_eq!(
            found("POST", "/apps/1/users/a%2Fb%20%C3%A9/terminate_connections"),
            (app(), terminate.clone())
        );
        assert_eq!(found("POST", "/users/a%2Fb%20%C3%A9/terminate_connections"), (None, terminate));
    }

    #[test]
    fn i50_other_paths_and_methods_are_refused_by_name() {
        for path in [
            "",
            "/",
            "/apps",
            "/apps/1",
            "/apps/1/",
            "/apps//events",
            "/apps/1/events/",
            "//apps/1/events",
            "/apps/1/channels/",
            "/apps/1/channels/a/b",
            "/apps/1/users/u",
            "/APPS/1/events",
            "/apps/1/../1/events",
            "apps/1/events",
            "/apps/1%2Fevents",
            "*",
        ] {
            assert_eq!(route("POST", path, ""), Err(ApiError::NoSuchPath), "{path}");
        }
        assert_eq!(route("GET", "/apps/1/events", ""), Err(ApiError::Method { allow: "POST" }));
        assert_eq!(route("HEAD", "/apps/1/channels", ""), Err(ApiError::Method { allow: "GET" }));
        assert_eq!(route("get", "/apps/1/channels", ""), Err(ApiError::Method { allow: "GET" }));
        for path in ["/apps/%/events", "/apps/%ff/channels/a/users", "/apps/1/channels/%zz"] {
            let method = if path.ends_with("events") { "POST" } else { "GET" };
            assert_eq!(route(method, path, ""), Err(ApiError::PathEncoding), "{path}");
        }
    }

    #[test]
    fn a_prefix_is_required_when_there_is_one() {
        assert!(route("POST", "/hub/apps/1/events", "/hub").is_ok());
        for path in ["/apps/1/events", "/hubapps/1/events", "/hub/hub/apps/1/events", "/Hub/apps/1/events"] {
            assert_eq!(route("POST", path, "/hub"), Err(ApiError::NoSuchPath), "{path}");
        }
    }
}
