//! The table behind the pool: who has a runner, how far it is, and who uses it. No I/O, no clock.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Hold, Outcome, PoolError, RunnerState, RunnerStatus,
    backoff::{LONG_LIFE, Trouble},
};
use crate::{
    launcher::{Spec, SpecHash},
    runner::Runner,
    workspace::WorkspaceId,
};

/// The slots in use and the workspaces in trouble.
#[derive(Debug, Default)]
pub(super) struct Slots {
    of: HashMap<WorkspaceId, Slot>,
    troubles: HashMap<WorkspaceId, Trouble>,
    last_epoch: u64,
    closed: bool,
}

#[derive(Debug)]
struct Slot {
    epoch: u64,
    hash: SpecHash,
    phase: Phase,
    /// Leases, and those who wait for one.
    leases: usize,
    /// When it was last known to be used. Says something only without leases.
    idle_since: Instant,
    /// How often in a row it did not say whether it is busy.
    unanswered: u32,
    signals: Signals,
    outcome: watch::Receiver<Option<Outcome>>,
}

#[derive(Debug)]
enum Phase {
    /// Waits for a place among the starts, then for a place among the runners.
    Queued,
    Starting,
    Running(Arc<Runner>),
    /// `replaced`: its place among the runners was passed on already.
    Stopping {
        replaced: bool,
    },
}

/// What a slot and its life tell each other.
#[derive(Debug, Clone)]
pub(super) struct Signals {
    pub(super) epoch: u64,
    /// To the life: stop your runner.
    pub(super) retire: CancellationToken,
    /// From the life: nothing of the runner is left, nor is its slot.
    pub(super) gone: CancellationToken,
}

/// What there is for a workspace.
pub(super) enum Found {
    /// A runner; `current` when it is of the wanted spec.
    Running { runner: Arc<Runner>, hold: Hold, current: bool },
    /// A launch under way.
    Starting { hold: Hold, outcome: watch::Receiver<Option<Outcome>> },
    /// A runner that is about to be no more.
    Leaving(CancellationToken),
}

/// A runner nobody has a lease of.
#[derive(Debug, Clone)]
pub(super) struct Idle {
    pub(super) runner: Arc<Runner>,
    since: Instant,
}

/// What there is for a start that needs a place among the runners.
pub(super) enum Room {
    /// A place, which is now taken.
    Free,
    /// None, but this runner has been idle longest.
    Ask(Idle),
    /// None, but a runner is leaving.
    Wait(CancellationToken),
    /// None.
    Full,
}

impl Slots {
    /// The slot of `spec.workspace`, held by one more; `None` when it has none.
    pub(super) fn find(
        &mut self,
        spec: &Spec,
        hold: impl FnOnce(u64) -> Hold,
    ) -> Result<Option<Found>, PoolError> {
        if self.closed {
            return Err(PoolError::Stopping);
        }
        let Some(slot) = self.of.get_mut(&spec.workspace) else { return Ok(None) };
        let found = match &slot.phase {
            Phase::Running(runner) if runner.is_alive() => Found::Running {
                runner: Arc::clone(runner),
                hold: hold(slot.epoch),
                current: slot.hash == spec.hash(),
            },
            Phase::Queued | Phase::Starting => {
                Found::Starting { hold: hold(slot.epoch), outcome: slot.outcome.clone() }
            }
            Phase::Running(_) | Phase::Stopping { .. } => {
                return Ok(Some(Found::Leaving(slot.signals.gone.clone())));
            }
        };
        slot.leases += 1;
        Ok(Some(found))
    }

    /// Refuses a start while the workspace's runners keep failing.
    pub(super) fn may_start(&self, workspace: &WorkspaceId, now: Instant) -> Result<(), PoolError> {
        let Some(trouble) = self.troubles.get(workspace) else { return Ok(()) };
        match trouble.wait(now) {
            Some(wait) => Err(PoolError::BackingOff { crashes: trouble.crashes, wait }),
            None => Ok(()),
        }
    }

    /// Makes the slot of a workspace that has none, held by one.
    pub(super) fn insert(
        &mut self,
        spec: &Spec,
        outcome: watch::Receiver<Option<Outcome>>,
        now: Instant,
    ) -> Signals {
        self.last_epoch += 1;
        let signals = Signals {
            epoch: self.last_epoch,
            retire: CancellationToken::new(),
            gone: CancellationToken::new(),
        };
        let slot = Slot {
            epoch: self.last_epoch,
            hash: spec.hash(),
            phase: Phase::Queued,
            leases: 1,
            idle_since: now,
            unanswered: 0,
            signals: signals.clone(),
            outcome,
        };
        self.of.insert(spec.workspace.clone(), slot);
        signals
    }

    /// Takes a place for the queued start of `workspace`, or says how there could be one. Runners
    /// whose epoch is in `asked` are not proposed again.
    pub(super) fn room(&mut self, workspace: &WorkspaceId, max: usize, asked: &[u64]) -> Room {
        let taken = self.of.values().filter(|slot| slot.takes_place()).count();
        if taken < max {
            if let Some(slot) = self.of.get_mut(workspace) {
                slot.phase = Phase::Starting;
            }
            return Room::Free;
        }
        let idle = self.of.values().filter(|slot| !asked.contains(&slot.epoch));
        if let Some(idle) = idle.filter_map(Slot::idle).min_by_key(|idle| idle.since) {
            return Room::Ask(idle);
        }
        let leaving = |slot: &&Slot| matches!(slot.phase, Phase::Stopping { replaced: false });
        match self.of.values().find(leaving) {
            Some(slot) => Room::Wait(slot.signals.gone.clone()),
            None => Room::Full,
        }
    }

    /// Stops `idle` and passes its place on to the queued start of `heir`, unless it was used
    /// meanwhile. The heir waits for the token before it launches.
    pub(super) fn evict(&mut self, idle: &Idle, heir: &WorkspaceId) -> Option<CancellationToken> {
        let gone = self.retire(idle, true)?;
        if let Some(slot) = self.of.get_mut(heir) {
            slot.phase = Phase::Starting;
        }
        Some(gone)
    }

    /// Stops `idle`, unless it was used meanwhile.
    pub(super) fn reap(&mut self, idle: &Idle) -> bool {
        self.retire(idle, false).is_some()
    }

    fn retire(&mut self, idle: &Idle, replaced: bool) -> Option<CancellationToken> {
        let slot = self.running(&idle.runner)?;
        let untouched = slot.leases == 0 && slot.idle_since == idle.since;
        untouched.then(|| slot.stop(replaced))
    }

    /// Stops the runner that the caller alone holds.
    pub(super) fn retire_own(&mut self, workspace: &WorkspaceId, epoch: u64) -> bool {
        let Some(slot) = self.at(workspace, epoch) else { return true };
        if matches!(slot.phase, Phase::Running(_)) && slot.leases == 1 {
            slot.stop(false);
        }
        matches!(slot.phase, Phase::Stopping { .. })
    }

    /// The runners without a lease since `since` or longer.
    pub(super) fn idle_since(&self, since: Instant) -> Vec<Idle> {
        self.of.values().filter_map(Slot::idle).filter(|idle| idle.since <= since).collect()
    }

    /// Since when the runner that has been idle longest is idle.
    pub(super) fn longest_idle(&self) -> Option<Instant> {
        self.of.values().filter_map(Slot::idle).map(|idle| idle.since).min()
    }

    /// Notes that `idle` is at work: it was in use until now.
    pub(super) fn note_busy(&mut self, idle: &Idle, now: Instant) {
        if let Some(slot) = self.running(&idle.runner) {
            slot.unanswered = 0;
            slot.idle_since = now;
        }
    }

    /// Notes that `idle` did not say whether it is at work; returns how often in a row.
    pub(super) fn note_unanswered(&mut self, idle: &Idle) -> u32 {
        self.running(&idle.runner).map_or(0, |slot| {
            slot.unanswered += 1;
            slot.unanswered
        })
    }

    /// Notes that the launch of `runner` came to an end.
    pub(super) fn note_running(&mut self, runner: &Arc<Runner>, now: Instant) {
        if let Some(slot) = self.at(&runner.workspace, runner.epoch) {
            slot.phase = Phase::Running(Arc::clone(runner));
            slot.idle_since = now;
        }
    }

    /// Marks a runner as leaving: it crashed, or the pool is stopping.
    pub(super) fn note_stopping(&mut self, workspace: &WorkspaceId, epoch: u64) {
        if let Some(slot) = self.at(workspace, epoch)
            && matches!(slot.phase, Phase::Running(_))
        {
            slot.stop(false);
        }
    }

    /// Notes that a start failed.
    pub(super) fn note_failure(&mut self, workspace: &WorkspaceId, now: Instant) {
        let before = self.troubles.get(workspace).copied();
        self.troubles.insert(workspace.clone(), Trouble::after(before, now));
    }

    /// Notes that a runner ended by itself after it `lived` for so long.
    pub(super) fn note_crash(&mut self, workspace: &WorkspaceId, lived: Duration, now: Instant) {
        if lived < LONG_LIFE {
            self.note_failure(workspace, now);
        } else {
            self.troubles.remove(workspace);
        }
    }

    /// Forgets troubles of long ago.
    pub(super) fn forget_old_troubles(&mut self, now: Instant) {
        self.troubles.retain(|_, trouble| !trouble.is_over(now));
    }

    /// Gives one lease back.
    pub(super) fn release(&mut self, workspace: &WorkspaceId, epoch: u64, now: Instant) {
        if let Some(slot) = self.at(workspace, epoch) {
            slot.leases -= 1;
            slot.idle_since = now;
            slot.unanswered = 0;
        }
    }

    /// Removes a slot whose life is over.
    pub(super) fn remove(&mut self, workspace: &WorkspaceId, epoch: u64) {
        if self.at(workspace, epoch).is_some() {
            self.of.remove(workspace);
        }
    }

    /// What tells that a runner is gone; `None` when it is.
    pub(super) fn gone(
        &mut self,
        workspace: &WorkspaceId,
        epoch: u64,
    ) -> Option<CancellationToken> {
        self.at(workspace, epoch).map(|slot| slot.signals.gone.clone())
    }

    /// Lets nobody in any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn statuses(&self, now: Instant) -> Vec<RunnerStatus> {
        self.of.iter().map(|(workspace, slot)| slot.status(workspace, now)).collect()
    }

    fn at(&mut self, workspace: &WorkspaceId, epoch: u64) -> Option<&mut Slot> {
        self.of.get_mut(workspace).filter(|slot| slot.epoch == epoch)
    }

    fn running(&mut self, runner: &Runner) -> Option<&mut Slot> {
        let slot = self.at(&runner.workspace, runner.epoch)?;
        matches!(slot.phase, Phase::Running(_)).then_some(slot)
    }
}

impl Slot {
    fn takes_place(&self) -> bool {
        !matches!(self.phase, Phase::Queued | Phase::Stopping { replaced: true })
    }

    fn idle(&self) -> Option<Idle> {
        match &self.phase {
            Phase::Running(runner) if self.leases == 0 => {
                Some(Idle { runner: Arc::clone(runner), since: self.idle_since })
            }
            _ => None,
        }
    }

    fn stop(&mut self, replaced: bool) -> CancellationToken {
        self.phase = Phase::Stopping { replaced };
        self.signals.retire.cancel();
        self.signals.gone.clone()
    }

    fn status(&self, workspace: &WorkspaceId, now: Instant) -> RunnerStatus {
        RunnerStatus {
            workspace: workspace.clone(),
            epoch: self.epoch,
            state: match self.phase {
                Phase::Queued => RunnerState::Queued,
                Phase::Starting => RunnerState::Starting,
                Phase::Running(_) => RunnerState::Running,
                Phase::Stopping { .. } => RunnerState::Stopping,
            },
            leases: self.leases,
            idle: self.idle().map(|idle| now - idle.since),
        }
    }
}
