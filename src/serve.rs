//! Runs the gateway.

use std::{error::Error, path::Path};

/// Runs the gateway configured at `path` until it is told to stop.
pub fn run(path: &Path) -> Result<(), Box<dyn Error>> {
    crate::config::load(path, &crate::config::environment)?;
    Err("not there yet".into())
}
