//! What the fuzz targets reach that is no part of the API. Built with `--cfg fuzzing` only.

pub use crate::inherit::fuzzing::{Received, passed, receive, send};
