//! Workspace → runner: one launch, leases, queue, idle.

use std::{ops::Deref, sync::Arc, time::Duration};

use crate::{
    config::Live,
    launcher::{LaunchError, Launcher, Spec},
    runner::Runner,
};

/// The runners starting or live, at most one for each workspace.
#[derive(Debug)]
pub struct Pool {}

/// The right to use a runner, given back on drop. A runner with a lease is never reaped.
#[derive(Debug)]
pub struct Lease {}

/// Why there is no runner.
#[derive(Debug, thiserror::Error, Clone)]
pub enum PoolError {
    /// It did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Every runner is busy and there may be no more.
    #[error("all {0} runners are busy")]
    Full(usize),
    /// The workspace's runner ended too often lately.
    #[error("the runner ended {crashes} times in a row; the next start is in {wait:?}")]
    BackingOff {
        /// How often it ended.
        crashes: u32,
        /// When the next start is allowed.
        wait: Duration,
    },
    /// The queue of starts did not move in time.
    #[error("no start was free within {0:?}")]
    Queue(Duration),
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

impl Pool {
    /// A pool that asks `launcher` for its runners.
    pub fn new(launcher: Arc<dyn Launcher>, config: Live) -> Arc<Self> {
        let _ = (launcher, config);
        unimplemented!()
    }

    /// The runner of `spec.workspace`, launched if it does not run yet. All who wait share one
    /// launch, which goes on when a waiter leaves.
    pub async fn lease(self: &Arc<Self>, spec: Spec) -> Result<Lease, PoolError> {
        let _ = spec;
        unimplemented!()
    }
    /// Stops every runner; later leases are refused. Returns once all are gone.
    pub async fn stop(&self) {}
}

impl Deref for Lease {
    type Target = Arc<Runner>;
    fn deref(&self) -> &Arc<Runner> {
        unimplemented!()
    }
}
