//! Secrets that cannot be shown by accident.

use std::fmt;

/// A secret from the configuration. `Debug` and `Display` write `[redacted]`, so it cannot reach a log or an error.
///
/// ```
/// let secret = evenkeel_hub::config::Secret::new("hunter2");
/// assert_eq!(format!("{secret} {secret:?}"), "[redacted] [redacted]");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: &str) -> Self {
        Self(secret.to_owned())
    }

    /// The secret itself, to sign or to compare with. Never to be written anywhere.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `sent` is this secret. The time taken depends on the lengths alone.
    pub fn matches(&self, sent: &str) -> bool {
        bool::from(subtle::ConstantTimeEq::ct_eq(self.0.as_bytes(), sent.as_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
