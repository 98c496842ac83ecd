//! The state of a hub in JSON, as its successor reads it: refused without a trace, or taken over by a hub that is sound and
//! hands over the same.

use std::sync::OnceLock;

use evenkeel_hub::config::{AppSettings, Config};
use evenkeel_hub::fuzzing::take_over;
use evenkeel_hub::state::AppConfig;

/// Takes over a state.
pub fn run(bytes: &[u8]) {
    static CONFIGS: OnceLock<Vec<AppConfig>> = OnceLock::new();
    take_over(bytes, CONFIGS.get_or_init(configs), bytes.len() as u64);
}

/// The applications that the states of the corpus have: three, with limits of which little is needed to pass them.
fn configs() -> Vec<AppConfig> {
    let config = |(id, key): (&str, &str)| {
        let app = AppSettings { id: id.into(), key: key.into(), ..AppSettings::demonstration() };
        let mut config = Config::default().app_config(&app);
        let limits = &mut config.limits;
        limits.subscription_count = true;
        (limits.subscription_count_threshold, limits.subscription_count_interval) = (3, 700);
        (limits.history_count, limits.history_ttl) = (6, 4_000);
        (limits.cache_ttl, limits.cache_bytes) = (3_000, 2_000);
        limits.max_presence_members = 4;
        limits.max_connections = 25;
        config
    };
    [("1", "key"), ("2", "key2"), ("3", "key3")].map(config).into()
}
