//! Workspace → runner: one launch, leases, queue, idle.
//!
//! Each runner's life, from the queue to its end, is one task (`pool/life.rs`). Everything else reads
//! and marks the table of slots, under one lock that is never held across an await.

mod admission;
mod backoff;
mod life;
mod reaper;
mod slots;

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    admission::Admission,
    life::Life,
    slots::{Found, Slots},
};
use crate::{
    config::Live,
    egress::grant::Grants,
    launcher::{LaunchError, Launcher, Spec},
    runner::Runner,
    workspace::WorkspaceId,
};

/// The runners starting or live, at most one for each workspace.
pub struct Pool {
    launcher: Arc<dyn Launcher>,
    config: Live,
    grants: Arc<Grants>,
    slots: Mutex<Slots>,
    admission: Admission,
    /// The lives of all runners; they end with their runners, or by `stopping`.
    lives: TaskTracker,
    stopping: CancellationToken,
}

/// The right to use a runner, given back on drop. A runner with a lease is never reaped, evicted
/// or replaced; it can still crash, which [`Runner::ended`] tells.
#[derive(Debug)]
pub struct Lease {
    runner: Arc<Runner>,
    hold: Hold,
}

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

/// What the pool says of one runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerStatus {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Which of the workspace's runners.
    pub epoch: u64,
    /// How far it is.
    pub state: RunnerState,
    /// Who uses it or waits for it.
    pub leases: usize,
    /// For how long nobody has; `None` while it starts and while it is used.
    pub idle: Option<Duration>,
}

/// How far a runner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerState {
    /// It waits for its turn to start.
    Queued,
    /// It is being started.
    Starting,
    /// It serves.
    Running,
    /// It is being stopped.
    Stopping,
}

impl Pool {
    /// A pool that asks `launcher` for its runners, each with a token of its own among `grants`. Limits are read from `config` whenever they
    /// matter, so a reload takes effect at once. The lives of runners are tasks of the runtime
    /// that [`lease`](Self::lease) is called on: it must live until [`stop`](Self::stop) returns.
    pub fn new(launcher: Arc<dyn Launcher>, config: Live, grants: Arc<Grants>) -> Arc<Self> {
        Arc::new(Self {
            launcher,
            config,
            grants,
            slots: Mutex::default(),
            admission: Admission::default(),
            lives: TaskTracker::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// The runner of `spec.workspace`, launched if it does not run yet. All who wait share one
    /// launch and its error; it goes on when a waiter leaves. An error is not kept: the next
    /// call tries again, unless the workspace's runners failed three times in a row.
    ///
    /// A runner of another spec is replaced when nobody uses it and it is not at work; otherwise
    /// it is used as it is.
    pub async fn lease(self: &Arc<Self>, spec: Spec) -> Result<Lease, PoolError> {
        loop {
            let (lease, current) = match self.find(&spec)? {
                Found::Running { runner, hold, current } => (Lease { runner, hold }, current),
                Found::Starting { hold, outcome } => {
                    let runner = outcome_of(outcome).await?;
                    // Whatever it was launched with: to replace it now would be a second wait.
                    (Lease { runner, hold }, true)
                }
                Found::Leaving(gone) => {
                    gone.cancelled().await;
                    continue;
                }
            };
            if self.stopping.is_cancelled() {
                return Err(PoolError::Stopping);
            }
            // It may have ended before we were woken.
            let alive = lease.runner.is_alive();
            if alive && (current || !self.replace(&lease).await) {
                return Ok(lease);
            }
            self.wait_for_end(lease).await;
        }
    }

    /// Stops every runner and every start under way; later leases are refused. Returns once
    /// nothing is left.
    pub async fn stop(&self) {
        self.slots.lock().close();
        self.stopping.cancel();
        self.lives.close();
        self.lives.wait().await;
        self.launcher.close().await;
    }

    /// Whether runners can be had at all, as far as a quick look tells.
    pub async fn check(&self) -> Result<(), LaunchError> {
        self.launcher.check().await
    }

    /// The runners of this moment, in no order.
    pub fn runners(&self) -> Vec<RunnerStatus> {
        self.slots.lock().statuses(Instant::now())
    }

    /// Looks up the workspace's slot, and makes one with a launch under way when there is none.
    fn find(self: &Arc<Self>, spec: &Spec) -> Result<Found, PoolError> {
        let mut slots = self.slots.lock();
        if let Some(found) = slots.find(spec, |epoch| self.hold(spec, epoch))? {
            return Ok(found);
        }
        slots.may_start(&spec.workspace, Instant::now())?;
        let (outcome, waiting) = watch::channel(None);
        let slot = slots.insert(spec, waiting.clone(), Instant::now());
        let hold = self.hold(spec, slot.epoch);
        let life = Life::of(Arc::clone(self), spec.workspace.clone(), slot, outcome);
        self.lives.spawn(life.run(spec.clone()));
        Ok(Found::Starting { hold, outcome: waiting })
    }

    fn hold(self: &Arc<Self>, spec: &Spec, epoch: u64) -> Hold {
        Hold { pool: Arc::clone(self), workspace: spec.workspace.clone(), epoch }
    }

    /// Whether the leased runner, whose spec is outdated, is being stopped: nobody else uses it
    /// and it is not at work.
    async fn replace(&self, lease: &Lease) -> bool {
        let idle = matches!(self.is_busy(&lease.runner).await, Ok(false));
        idle && self.slots.lock().retire_own(&lease.hold.workspace, lease.hold.epoch)
    }

    async fn wait_for_end(&self, lease: Lease) {
        let gone = self.slots.lock().gone(&lease.hold.workspace, lease.hold.epoch);
        drop(lease);
        if let Some(gone) = gone {
            gone.cancelled().await;
        }
    }
}

/// What a launch came to, for everyone who waits for it.
async fn outcome_of(
    mut outcome: watch::Receiver<Option<Outcome>>,
) -> Result<Arc<Runner>, PoolError> {
    let known = outcome.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
    // A life says how it ended even when it panics; only its runtime's end leaves no word.
    known.unwrap_or(Err(PoolError::Stopping))
}

type Outcome = Result<Arc<Runner>, PoolError>;

/// One of a slot's `leases`, given back on drop.
struct Hold {
    pool: Arc<Pool>,
    workspace: WorkspaceId,
    epoch: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.pool.slots.lock().release(&self.workspace, self.epoch, Instant::now());
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({} epoch {})", self.workspace, self.epoch)
    }
}

impl Deref for Lease {
    type Target = Arc<Runner>;
    fn deref(&self) -> &Arc<Runner> {
        &self.runner
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("runners", &self.runners()).finish_non_exhaustive()
    }
}
