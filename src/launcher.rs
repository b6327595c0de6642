//! Start, watch and stop runners.

pub mod probe;
pub mod process;
pub mod shared;
pub mod spec;

use std::{ffi::OsString, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    config::LauncherKind,
    egress::grant::Start,
    opencode::client::ClientError,
    runner::Runner,
    state::{State, StateError},
};

pub use process::ProcessLauncher;
pub use shared::SharedLauncher;
pub use spec::{Spec, SpecHash};

/// How runners come to be.
#[async_trait]
pub trait Launcher: Send + Sync + std::fmt::Debug {
    /// Starts a runner and returns once it answers an authenticated probe. It gets `start`'s token,
    /// which the launcher binds to the address that the runner calls from. An error means that
    /// nothing of it is left; so does dropping the future, by the time [`close`](Self::close)
    /// returns. Called at most once at a time for one workspace.
    async fn launch(&self, spec: &Spec, start: &Start) -> Result<Arc<Runner>, LaunchError>;

    /// Stops `runner` and returns once it is gone. Stopping one that is gone is not an error.
    async fn stop(&self, runner: &Runner);

    /// Ends what an earlier gateway of this state left running, and nothing else. Called once,
    /// before the first launch.
    async fn sweep(&self);

    /// Ends whatever is left of what it started, launches that were dropped included, and returns
    /// once nothing is. Called once, last.
    async fn close(&self);

    /// Whether runners can be had at all, as far as a quick look tells. The error says why not.
    async fn check(&self) -> Result<(), LaunchError>;

    /// Whether `runner` is at work although nobody may hold a lease.
    async fn is_busy(&self, runner: &Runner) -> Result<bool, ClientError> {
        runner.is_busy().await
    }
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
        /// The last line it wrote: scrubbed of every secret, one line of 300 characters at most.
        last_line: String,
    },
    /// It did not answer in time.
    #[error("the runner was not ready after {0:?}")]
    Timeout(Duration),
}

/// The launcher `kind` asks for. Runners look for programs in `path`, the gateway's own `PATH`;
/// what must be remembered of them is kept in `state`.
pub fn of(
    kind: &LauncherKind,
    path: OsString,
    state: State,
) -> Result<Arc<dyn Launcher>, StateError> {
    Ok(match kind {
        LauncherKind::Process { command, data, environment } => {
            Arc::new(ProcessLauncher::new(command.clone(), data, environment.clone(), path, state)?)
        }
        LauncherKind::Static { address, password } => {
            Arc::new(SharedLauncher::new(address.clone(), password.clone()))
        }
    })
}
