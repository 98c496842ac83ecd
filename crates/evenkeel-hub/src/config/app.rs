//! What the hub's state is told of an application: the options, and the limits that are the same for all.

use super::{AppSettings, Config};
use crate::state::{AppConfig, Limits, Rate};

/// Channels that one event may be published to.
pub const MAX_CHANNELS: usize = 100;

/// Events in a batch.
pub const MAX_BATCH: usize = 10;

impl Config {
    /// The configuration of one of the applications, as the hub's state takes it.
    pub fn app_config(&self, app: &AppSettings) -> AppConfig {
        AppConfig {
            id: app.id.clone(),
            key: app.key.clone(),
            name: app.name.clone(),
            enabled: app.enabled,
            limits: self.app_limits(app),
        }
    }

    fn app_limits(&self, app: &AppSettings) -> Limits {
        Limits {
            max_connections: app.max_connections,
            max_channels_per_connection: app.max_channels_per_connection,
            message_rate: Rate { per_second: 100, burst: 1_000 },
            activity_timeout_s: self.server.activity_timeout_seconds,
            authorization_deadline: milliseconds(app.signin_deadline_seconds.unwrap_or(0)),
            client_events: app.client_events,
            client_event_rate: Rate { per_second: app.client_event_rate, burst: app.client_event_burst },
            publish_rate: match app.publish_rate {
                0 => Rate { per_second: u32::MAX, burst: u32::MAX },
                rate => Rate { per_second: rate, burst: rate },
            },
            max_payload: count(app.max_event_bytes),
            max_event_name: count(app.max_event_name),
            max_channel_name: count(app.max_channel_name),
            max_publish_channels: count(MAX_CHANNELS),
            max_batch: count(MAX_BATCH),
            max_presence_members: app.max_presence_members,
            max_user_info: count(app.max_user_info_bytes),
            max_user_id: count(app.max_user_id),
            cache_ttl: milliseconds(app.cache_ttl_seconds),
            cache_bytes: 32 << 20,
            history_count: app.history_messages,
            history_ttl: milliseconds(app.history_seconds),
            history_channel_bytes: app.history_bytes,
            history_bytes: self.sse.max_history_bytes / self.apps.len().max(1),
            subscription_count: app.subscription_counts,
            subscription_count_threshold: 100,
            subscription_count_interval: 5_000,
            sign_in: app.user_signin,
            max_watchlist: 100,
        }
    }
}

fn milliseconds(seconds: u32) -> u64 {
    u64::from(seconds) * 1_000
}

/// The ranges of the options are far below; what is not is as good as no limit.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
