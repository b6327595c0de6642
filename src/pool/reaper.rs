//! Ends runners that nobody uses.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::{Pool, slots::Idle};
use crate::{opencode::client::ClientError, runner::Runner};

impl Pool {
    /// Stops runners that are idle for too long, until the pool is stopped. Run it once.
    pub async fn run_reaper(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = sleep(self.next_look()) => self.reap().await,
            }
        }
    }

    /// Stops each runner that nobody has a lease of and that says itself that it is not at work,
    /// for longer than `runners.idle_after`.
    pub(super) async fn reap(&self) {
        let now = Instant::now();
        let due = now.checked_sub(self.config.now().runners.idle_after);
        let idle = due.map(|due| self.slots.lock().idle_since(due)).unwrap_or_default();
        join_all(idle.iter().map(|idle| async {
            if self.is_at_rest(idle).await && self.slots.lock().reap(idle) {
                log::info!("reap workspace={} epoch={}", idle.runner.workspace, idle.runner.epoch);
            }
        }))
        .await;
        self.slots.lock().forget_old_troubles(now);
    }

    /// Not long after the next runner is due; soon enough that a reload is noticed.
    fn next_look(&self) -> Duration {
        let idle_after = self.config.now().runners.idle_after;
        let due = self.slots.lock().longest_idle().map(|since| since + idle_after);
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        wait.unwrap_or(SLOWEST).clamp(FASTEST, SLOWEST)
    }

    /// Whether an idle runner may be stopped. Silence is taken for work, but not for ever.
    pub(super) async fn is_at_rest(&self, idle: &Idle) -> bool {
        match self.is_busy(&idle.runner).await {
            Ok(false) => true,
            Ok(true) => {
                self.slots.lock().note_busy(idle, Instant::now());
                false
            }
            Err(error) => {
                let times = self.slots.lock().note_unanswered(idle);
                let workspace = &idle.runner.workspace;
                log::warn!("runner workspace={workspace} silent={times} cause={error}");
                times >= SILENCES
            }
        }
    }

    pub(super) async fn is_busy(&self, runner: &Runner) -> Result<bool, ClientError> {
        let asked = timeout(PATIENCE, self.launcher.is_busy(runner)).await;
        asked.unwrap_or(Err(ClientError::Slow(PATIENCE)))
    }
}

/// How often the reaper looks.
const FASTEST: Duration = Duration::from_secs(2);
const SLOWEST: Duration = Duration::from_secs(30);
/// A runner in good health answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so many questions without an answer a runner is taken for stuck.
const SILENCES: u32 = 3;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::super::scripted::*;
    use super::*;

    const IDLE: Duration = Duration::from_secs(600);

    fn world() -> World {
        let world = World::new(Limits { idle_after: IDLE, ..Limits::default() });
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(Arc::clone(&world.pool).run_reaper());
        world
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_nobody_uses_is_stopped_after_its_time() {
        let world = world();
        world.pool.lease(spec("alice")).await.unwrap();
        sleep(IDLE.saturating_sub(Duration::from_secs(1))).await;
        assert_eq!(world.live(), 1);
        sleep(FASTEST * 2).await;
        assert_eq!(world.live(), 0);
        assert!(world.pool.runners().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_with_a_lease_is_kept() {
        let world = world();
        let lease = world.pool.lease(spec("alice")).await.unwrap();
        sleep(IDLE * 3).await;
        assert!(lease.is_alive());
        drop(lease);
        sleep(IDLE / 2).await;
        assert_eq!(world.live(), 1, "its time starts when the lease ends");
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_at_work_without_a_lease_is_kept() {
        let world = world();
        world.pool.lease(spec("alice")).await.unwrap();
        world.say("alice", Says::Busy);
        sleep(IDLE * 3).await;
        assert_eq!(world.live(), 1);
        world.say("alice", Says::Idle);
        sleep(IDLE + SLOWEST).await;
        assert_eq!(world.live(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_does_not_answer_is_kept_for_a_while_only() {
        let world = world();
        world.pool.lease(spec("alice")).await.unwrap();
        world.say("alice", Says::Silent);
        sleep(IDLE + FASTEST).await;
        assert_eq!(world.live(), 1);
        sleep((FASTEST + PATIENCE) * SILENCES).await;
        assert_eq!(world.live(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_taken_while_the_reaper_asks_keeps_the_runner() {
        let world = world();
        world.pool.lease(spec("alice")).await.unwrap();
        advance(IDLE).await;
        let ((), lease) = tokio::join!(world.pool.reap(), async {
            settle().await;
            world.pool.lease(spec("alice")).await.unwrap()
        });
        assert!(lease.is_alive());
        assert_eq!((lease.epoch, world.launches()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_wanted_while_the_runner_is_stopped_gets_a_new_one() {
        let world = world();
        world.pool.lease(spec("alice")).await.unwrap();
        advance(IDLE).await;
        world.pool.reap().await;
        settle().await;
        assert_eq!(world.live(), 1, "it is being stopped");
        let lease = world.pool.lease(spec("alice")).await.unwrap();
        assert_eq!((lease.epoch, world.live()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_reaper_ends_when_the_pool_stops() {
        let world = World::new(Limits::default());
        let reaper = Arc::clone(&world.pool).run_reaper();
        tokio::join!(reaper, world.pool.stop());
    }
}
