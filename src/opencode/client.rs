//! opencode's HTTP API, as far as a turn needs it.

use std::path::PathBuf;

use crate::{config::Address, secret::Secret};

/// Talks to one `opencode serve` about one directory.
#[derive(Debug)]
pub struct Client {}

/// Why opencode did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed.
    #[error("opencode could not be reached: {0}")]
    Unreachable(String),
    /// It answered with an error status.
    #[error("opencode answered {status}: {name}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The error's name, never its body.
        name: String,
    },
}

impl Client {
    /// A client of the server at `address`, for its instance of `directory`. Connects on demand.
    pub fn new(address: Address, password: Option<Secret>, directory: PathBuf) -> Self {
        let _ = (address, password, directory);
        Self {}
    }
    /// Asks `GET /global/health`: `Ok` with opencode's version once it serves.
    pub async fn health(&self) -> Result<String, ClientError> {
        unimplemented!()
    }
    /// Whether any session of the directory is at work.
    pub async fn is_busy(&self) -> Result<bool, ClientError> {
        unimplemented!()
    }
}
