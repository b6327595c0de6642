//! One runner's life: queue, place, launch, use, end. Each is a task of its own, so it goes on
//! when whoever asked for the runner leaves.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    Outcome, Pool, PoolError,
    slots::{Room, Signals},
};
use crate::{
    egress::grant::Start,
    launcher::{LaunchError, Spec},
    runner::Runner,
    workspace::WorkspaceId,
};

/// The one who launches, watches and stops a runner. Dropping it takes the slot away and tells
/// those who still wait, so that neither an error nor a panic leaves anybody waiting.
pub(super) struct Life {
    pool: Arc<Pool>,
    workspace: WorkspaceId,
    signals: Signals,
    outcome: watch::Sender<Option<Outcome>>,
    failure: PoolError,
}

impl Life {
    pub(super) fn of(
        pool: Arc<Pool>,
        workspace: WorkspaceId,
        signals: Signals,
        outcome: watch::Sender<Option<Outcome>>,
    ) -> Self {
        let failure = LaunchError::Spawn("the launch was broken off".to_owned()).into();
        Self { pool, workspace, signals, outcome, failure }
    }

    /// Ends with the runner, or once the pool is stopping and the runner is stopped.
    pub(super) async fn run(mut self, spec: Spec) {
        let stopping = self.pool.stopping.clone();
        let started = tokio::select! {
            biased;
            () = stopping.cancelled() => Err(PoolError::Stopping),
            started = self.start(&spec) => started,
        };
        match started {
            // The runner's token is good for as long as `_start` is.
            Ok((runner, _start)) => self.serve(&runner).await,
            Err(error) => {
                log::warn!("start workspace={} cause={error}", self.workspace);
                if matches!(error, PoolError::Launch(_)) {
                    self.pool.slots.lock().note_failure(&self.workspace, Instant::now());
                }
                self.failure = error;
            }
        }
    }

    async fn start(&self, spec: &Spec) -> Result<(Arc<Runner>, Start), PoolError> {
        let limits = self.pool.config.now();
        let patience = limits.runners.queue_timeout;
        let deadline = Instant::now() + patience;
        let turn = self.pool.admission.enter(limits.runners.max_starting);
        let _place = timeout_at(deadline, turn).await.map_err(|_| PoolError::Queue(patience))?;
        self.make_room(deadline, patience).await?;
        let asked = Instant::now();
        let start = self.pool.grants.start(&self.workspace, self.signals.epoch);
        let runner = self.pool.launcher.launch(spec, &start).await?;
        let (workspace, epoch, took) = (&self.workspace, self.signals.epoch, asked.elapsed());
        log::info!("start workspace={workspace} epoch={epoch} took={took:?}");
        Ok((runner, start))
    }

    /// Takes a place among the runners, somebody idle's if need be.
    async fn make_room(&self, deadline: Instant, patience: Duration) -> Result<(), PoolError> {
        let mut asked = Vec::new();
        loop {
            if Instant::now() >= deadline {
                return Err(PoolError::Queue(patience));
            }
            let max = self.pool.config.now().runners.max_running;
            let room = self.pool.slots.lock().room(&self.workspace, max, &asked);
            match room {
                Room::Free => return Ok(()),
                Room::Full => return Err(PoolError::Full(max)),
                Room::Wait(gone) => gone.cancelled().await,
                Room::Ask(idle) => {
                    asked.push(idle.runner.epoch);
                    if !self.pool.is_at_rest(&idle).await {
                        continue;
                    }
                    let gone = self.pool.slots.lock().evict(&idle, &self.workspace);
                    if let Some(gone) = gone {
                        log::info!("evict workspace={}", idle.runner.workspace);
                        gone.cancelled().await;
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn serve(&self, runner: &Arc<Runner>) {
        let born = Instant::now();
        self.pool.slots.lock().note_running(runner, born);
        self.outcome.send_replace(Some(Ok(Arc::clone(runner))));
        let (workspace, epoch) = (&self.workspace, self.signals.epoch);
        tokio::select! {
            biased;
            () = self.signals.retire.cancelled() => log::info!("stop workspace={workspace} epoch={epoch}"),
            () = self.pool.stopping.cancelled() => {}
            () = runner.ended.cancelled() => {
                log::warn!("crash workspace={workspace} epoch={epoch} lived={:?}", born.elapsed());
                self.pool.slots.lock().note_crash(workspace, born.elapsed(), Instant::now());
            }
        }
        self.pool.slots.lock().note_stopping(workspace, epoch);
        self.pool.launcher.stop(runner).await;
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // In this order: who is told of a failure finds no trace of it when asking again.
        self.pool.slots.lock().remove(&self.workspace, self.signals.epoch);
        self.signals.gone.cancel();
        if self.outcome.borrow().is_none() {
            self.outcome.send_replace(Some(Err(self.failure.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{future::join_all, poll};
    use tokio::time::advance;

    use super::super::scripted::*;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn starts_at_the_same_time_are_bounded_and_in_turn() {
        let world = World::new(Limits { max_starting: 2, ..Limits::default() });
        let users = ["a", "b", "c", "d", "e", "f"];
        let leases = join_all(users.map(|user| world.pool.lease(spec(user)))).await;
        let epochs: Vec<u64> = leases.iter().map(|lease| lease.as_ref().unwrap().epoch).collect();
        assert_eq!(epochs, [1, 2, 3, 4, 5, 6]);
        assert_eq!(world.order(), users);
        assert_eq!(world.most_starting(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_does_not_move_is_left() {
        let limits = Limits { max_starting: 1, queue_timeout: LAUNCH / 2, ..Limits::default() };
        let world = World::new(limits);
        let (alice, bob) =
            tokio::join!(world.pool.lease(spec("alice")), world.pool.lease(spec("bob")));
        assert!(alice.is_ok());
        assert!(matches!(bob, Err(PoolError::Queue(_))), "{bob:?}");
        world.pool.lease(spec("bob")).await.expect("the next request tries again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_raises_the_number_of_starts() {
        let world = World::new(Limits { max_starting: 1, ..Limits::default() });
        let mut alice = pin!(world.pool.lease(spec("alice")));
        assert!(poll!(&mut alice).is_pending());
        settle().await;
        world.reload(Limits { max_starting: 2, ..Limits::default() });
        world.pool.lease(spec("bob")).await.unwrap();
        assert_eq!(world.most_starting(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn when_full_the_runner_idle_for_longest_makes_room() {
        let world = World::new(Limits { max_running: 2, ..Limits::default() });
        for user in ["alice", "bob"] {
            world.pool.lease(spec(user)).await.unwrap();
            advance(Duration::from_secs(1)).await;
        }
        // Alice's is older, but was used last.
        world.pool.lease(spec("alice")).await.unwrap();
        world.pool.lease(spec("carol")).await.unwrap();
        assert_eq!(world.running(), ["alice", "carol"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_is_used_at_work_or_silent_is_not_evicted() {
        let world = World::new(Limits { max_running: 3, ..Limits::default() });
        let _lease = world.pool.lease(spec("alice")).await.unwrap();
        for (user, says) in [("bob", Says::Busy), ("carol", Says::Silent)] {
            world.pool.lease(spec(user)).await.unwrap();
            world.say(user, says);
        }
        let full = world.pool.lease(spec("dave")).await;
        assert!(matches!(full, Err(PoolError::Full(3))), "{full:?}");
        world.say("bob", Says::Idle);
        world.pool.lease(spec("dave")).await.unwrap();
        assert_eq!(world.running(), ["alice", "carol", "dave"]);
    }

    #[tokio::test(start_paused = true)]
    async fn runners_that_start_count_as_running() {
        let world = World::new(Limits { max_running: 2, max_starting: 9, ..Limits::default() });
        let users = ["alice", "bob", "carol"];
        let leases = join_all(users.map(|user| world.pool.lease(spec(user)))).await;
        assert!(leases[0].is_ok() && leases[1].is_ok());
        assert!(matches!(leases[2], Err(PoolError::Full(2))), "{:?}", leases[2]);
    }

    #[tokio::test(start_paused = true)]
    async fn two_who_need_room_evict_two() {
        let world = World::new(Limits { max_running: 2, max_starting: 2, ..Limits::default() });
        for user in ["alice", "bob"] {
            world.pool.lease(spec(user)).await.unwrap();
        }
        let users = ["carol", "dave", "eve"];
        let mut leases = join_all(users.map(|user| world.pool.lease(spec(user)))).await;
        let eve = leases.pop().unwrap();
        assert!(matches!(eve, Err(PoolError::Full(2))), "{eve:?}");
        assert!(leases.iter().all(Result::is_ok), "{leases:?}");
        assert_eq!(world.running(), ["carol", "dave"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_a_runner_that_is_leaving_anyway() {
        let world = World::new(Limits { max_running: 1, ..Limits::default() });
        world.pool.lease(spec("alice")).await.unwrap();
        advance(Limits::default().idle_after).await;
        world.pool.reap().await;
        world.pool.lease(spec("bob")).await.unwrap();
        assert_eq!(world.running(), ["bob"]);
    }
}
