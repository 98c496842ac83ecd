//! What the fuzz targets reach that is no part of the API. Built with `--cfg fuzzing` only.

pub use crate::server::fuzzing::{Said, read, write_back};

use crate::state::{AppConfig, Wire, judge};

/// Takes over `bytes` as a fresh hub with these applications. True if they are a state.
///
/// # Panics
/// When a refusal has changed the hub, or a hub has accepted what it cannot live with.
pub fn take_over(bytes: &[u8], configs: &[AppConfig], seed: u64) -> bool {
    judge::try_take_over::<Plain>(bytes, configs, &mut fastrand::Rng::with_seed(seed))
}

/// Messages as they are.
struct Plain;

impl Wire for Plain {
    fn websocket(json: &str) -> Vec<u8> {
        json.into()
    }

    fn sse(id: Option<&str>, json: &str) -> Vec<u8> {
        format!("{}|{json}", id.unwrap_or("")).into()
    }
}
