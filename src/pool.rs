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
    launcher::{LaunchError, Launcher, Spec},
    runner::Runner,
    workspace::WorkspaceId,
};

/// The runners starting or live, at most one for each workspace.
pub struct Pool {
    launcher: Arc<dyn Launcher>,
    config: Live,
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
    /// A pool that asks `launcher` for its runners. Limits are read from `config` whenever they
    /// matter, so a reload takes effect at once. The lives of runners are tasks of the runtime
    /// that [`lease`](Self::lease) is called on: it must live until [`stop`](Self::stop) returns.
    pub fn new(launcher: Arc<dyn Launcher>, config: Live) -> Arc<Self> {
        Arc::new(Self {
            launcher,
            config,
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use futures_util::future::join_all;
    use tokio::time::{advance, timeout};

    use super::{scripted::*, *};

    #[tokio::test(start_paused = true)]
    async fn a_hundred_first_requests_make_one_launch() {
        let world = World::new(Limits::default());
        let leases = join_all((0..100).map(|_| world.pool.lease(spec("alice")))).await;
        let epochs: HashSet<u64> = leases.iter().map(|l| l.as_ref().unwrap().epoch).collect();
        assert_eq!((epochs.len(), world.launches()), (1, 1));
        let [status] = &world.pool.runners()[..] else { panic!("one runner") };
        assert_eq!((status.leases, status.idle), (100, None));
        drop(leases);
        let [status] = &world.pool.runners()[..] else { panic!("one runner") };
        assert_eq!((status.leases, status.idle), (0, Some(Duration::ZERO)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_launch_outlives_the_caller_who_began_it() {
        let world = World::new(Limits::default());
        let first = timeout(LAUNCH / 2, world.pool.lease(spec("alice"))).await;
        assert!(first.is_err(), "the first caller left");
        let lease = world.pool.lease(spec("alice")).await.unwrap();
        assert_eq!((lease.epoch, world.launches(), world.broken_off()), (1, 1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_hear_the_same_error_and_the_next_request_tries_again() {
        let world = World::new(Limits::default());
        world.fail_next(1);
        let failed = join_all((0..10).map(|_| world.pool.lease(spec("alice")))).await;
        for lease in failed {
            let Err(PoolError::Launch(LaunchError::Died { last_line, .. })) = lease else {
                panic!("{lease:?}")
            };
            assert_eq!(last_line, "failure 1");
        }
        assert!(world.pool.runners().is_empty());
        world.pool.lease(spec("alice")).await.unwrap();
        assert_eq!(world.launches(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_launcher_that_panics_leaves_nobody_waiting() {
        let world = World::new(Limits::default());
        world.panic_next();
        let broken = world.pool.lease(spec("alice")).await;
        assert!(matches!(broken, Err(PoolError::Launch(LaunchError::Spawn(_)))), "{broken:?}");
        world.pool.lease(spec("alice")).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_loop_makes_that_workspace_wait_and_no_other() {
        let world = World::new(Limits::default());
        world.fail_next(2);
        for _ in 0..2 {
            assert!(matches!(world.pool.lease(spec("alice")).await, Err(PoolError::Launch(_))));
        }
        let lease = world.pool.lease(spec("alice")).await.unwrap();
        world.crash("alice");
        drop(lease);
        settle().await;
        let Err(PoolError::BackingOff { crashes, wait }) = world.pool.lease(spec("alice")).await
        else {
            panic!("it may not start yet")
        };
        assert_eq!((crashes, wait), (3, Duration::from_secs(1)));
        world.pool.lease(spec("bob")).await.unwrap();
        advance(wait).await;
        world.pool.lease(spec("alice")).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_lived_ends_the_count_of_crashes() {
        let world = World::new(Limits::default());
        world.fail_next(2);
        for _ in 0..2 {
            assert!(world.pool.lease(spec("alice")).await.is_err());
        }
        let lease = world.pool.lease(spec("alice")).await.unwrap();
        advance(backoff::LONG_LIFE).await;
        world.crash("alice");
        drop(lease);
        settle().await;
        world.fail_next(1);
        assert!(matches!(world.pool.lease(spec("alice")).await, Err(PoolError::Launch(_))));
        world.pool.lease(spec("alice")).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_crashed_runner_is_never_handed_out() {
        let world = World::new(Limits::default());
        let old = world.pool.lease(spec("alice")).await.unwrap();
        world.crash("alice");
        // Neither at once, before the pool could notice, nor later.
        let new = world.pool.lease(spec("alice")).await.unwrap();
        assert!(new.is_alive() && !old.is_alive() && new.epoch > old.epoch);
        // A lease of the old one given back is not one of the new one.
        drop(old);
        assert_eq!(world.pool.runners()[0].leases, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_spec_replaces_a_runner_once_it_is_idle() {
        let world = World::new(Limits::default());
        let old = world.pool.lease(spec("alice")).await.unwrap();
        let shared = world.pool.lease(changed_spec("alice")).await.unwrap();
        assert_eq!(shared.epoch, old.epoch, "in use: it stays");
        drop((old, shared));
        world.say("alice", Says::Busy);
        let busy = world.pool.lease(changed_spec("alice")).await.unwrap();
        assert_eq!((busy.epoch, world.launches()), (1, 1), "at work: it stays");
        drop(busy);
        world.say("alice", Says::Idle);
        let new = world.pool.lease(changed_spec("alice")).await.unwrap();
        assert_eq!((new.epoch, world.launches()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn after_stop_nothing_is_left_and_nobody_gets_in() {
        let world = World::new(Limits { max_starting: 2, ..Limits::default() });
        let _alice = world.pool.lease(spec("alice")).await.unwrap();
        let others = ["bob", "carol", "dave"].map(|user| world.pool.lease(spec(user)));
        let (others, ()) = tokio::join!(join_all(others), async {
            advance(LAUNCH / 2).await;
            let began = Instant::now();
            world.pool.stop().await;
            assert_eq!(began.elapsed(), STOP, "all at the same time");
        });
        for other in others {
            assert!(matches!(other, Err(PoolError::Stopping)), "{other:?}");
        }
        assert_eq!((world.live(), world.broken_off()), (0, 2));
        assert!(world.pool.runners().is_empty());
        let late = world.pool.lease(spec("alice")).await;
        assert!(matches!(late, Err(PoolError::Stopping)), "{late:?}");
        world.pool.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_happens_no_limit_is_passed_and_no_dead_runner_is_handed_out() {
        let limits = Limits { max_running: 4, max_starting: 2, ..Limits::default() };
        let world = World::new(limits);
        let users: Vec<String> = (0..9).map(|n| format!("user{n}")).collect();
        let mut dice = Dice(7);
        let mut served = 0;
        for _ in 0..300 {
            let guests: Vec<_> = (0..dice.roll(12))
                .map(|_| {
                    let user = &users[dice.roll(users.len())];
                    let wanted = if dice.roll(5) == 0 { changed_spec(user) } else { spec(user) };
                    let (patience, stay) = (dice.millis(400), dice.millis(300));
                    let pool = Arc::clone(&world.pool);
                    async move {
                        let Ok(Ok(lease)) = timeout(patience, pool.lease(wanted)).await else {
                            return 0;
                        };
                        assert!(lease.is_alive());
                        tokio::time::sleep(stay).await;
                        1
                    }
                })
                .collect();
            if dice.roll(6) == 0 {
                world.crash(&users[dice.roll(users.len())]);
            }
            let says = [Says::Idle, Says::Busy, Says::Idle, Says::Silent][dice.roll(4)];
            world.say(&users[dice.roll(users.len())], says);
            served += join_all(guests).await.into_iter().sum::<i32>();
            world.pool.reap().await;
        }
        assert!(served > 300, "{served}");
        world.pool.stop().await;
        assert_eq!(world.live(), 0);
        assert_eq!(world.violations(), 0);
    }
}
