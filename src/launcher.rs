//! Start, watch and stop runners.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{config::Dialect, runner::Runner, secret::Secret, workspace::WorkspaceId};

/// Everything that shapes a runner. Two equal specs make interchangeable runners.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The workspace on this machine, absolute.
    pub directory: PathBuf,
    /// What it is to speak.
    pub dialect: Dialect,
    /// opencode's generated configuration, JSON, without a secret in it. Empty for `openai`.
    pub opencode_config: String,
    /// Secrets the configuration names as `{env:NAME}`.
    pub secrets: Vec<(String, Secret)>,
    /// How long a start may take.
    pub start_timeout: Duration,
    /// How long a runner has between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
}

/// Why a runner did not start.
#[derive(Debug, thiserror::Error, Clone)]
pub enum LaunchError {
    /// It could not even be started.
    #[error("the runner could not be started: {0}")]
    Spawn(String),
    /// It ended before it answered.
    #[error("the runner ended with {status} before it was ready: {last_line}")]
    Died {
        /// Exit code or signal.
        status: String,
        /// The last line it wrote, scrubbed.
        last_line: String,
    },
    /// It did not answer in time.
    #[error("the runner was not ready after {0:?}")]
    Timeout(Duration),
}

/// How runners come to be.
#[async_trait]
pub trait Launcher: Send + Sync + std::fmt::Debug {
    /// Starts a runner and returns once it answers an authenticated probe. Dropping the future
    /// leaves nothing behind. Called at most once at a time for one workspace.
    async fn launch(&self, spec: &Spec, epoch: u64) -> Result<Arc<Runner>, LaunchError>;

    /// Stops `runner` and returns once it is gone. Stopping one that is gone is not an error.
    async fn stop(&self, runner: &Runner);

    /// Ends what an earlier gateway of this state left running, and nothing else. Called once,
    /// before the first launch.
    async fn sweep(&self);
}
