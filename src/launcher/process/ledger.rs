//! The processes we started, written down so that a later gateway can end what this one left.
//!
//! Two proofs that a process is ours: its pid, start time and boot are in the state; or its
//! environment carries our instance id, which only this state knows and which children inherit.

use std::{fs, thread, time::Duration};

use rusqlite::{OptionalExtension, params};

use super::procfs::{self, Stat};
use crate::{
    state::{State, StateError},
    workspace::WorkspaceId,
};

/// Knows what is ours. Its calls block for a moment each.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    state: State,
    instance: String,
    boot: String,
}

impl Ledger {
    /// Reads this state's instance id, or makes one.
    pub(super) fn of(state: State) -> Result<Self, StateError> {
        let fresh = super::random_hex();
        let instance = state.with(|db| {
            let change = db.transaction()?;
            let known = change
                .query_row("SELECT id FROM instance", [], |row| row.get::<_, String>(0))
                .optional()?;
            if known.is_none() {
                change.execute("INSERT INTO instance (id) VALUES (?1)", [&fresh])?;
            }
            change.commit()?;
            Ok(known.unwrap_or(fresh))
        })?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self { state, instance, boot: boot.trim().to_owned() })
    }

    /// What every process of ours has in its environment.
    pub(super) fn mark(&self) -> String {
        format!("{INSTANCE}={}", self.instance)
    }

    /// What every process of this one runner has in its environment: name and value.
    pub(super) fn mark_of(&self, workspace: &WorkspaceId, epoch: u64) -> (&'static str, String) {
        (INSTANCE, format!("{}/{workspace}/{epoch}", self.instance))
    }

    /// Writes down a process that was just started and not reaped yet.
    pub(super) fn record(&self, workspace: &WorkspaceId, pid: i32) {
        let Some(Stat { started, .. }) = procfs::stat(pid) else { return };
        self.write(
            "INSERT OR REPLACE INTO processes (workspace, pid, started, boot)
             VALUES (?1, ?2, ?3, ?4)",
            params![workspace.as_str(), pid, started, self.boot],
        );
    }

    /// Forgets a process that has ended.
    pub(super) fn forget(&self, pid: i32) {
        self.write("DELETE FROM processes WHERE pid = ?1", params![pid]);
    }

    /// Kills every process of this state, and returns once none is left. For the start of a
    /// gateway, when all of them are another gateway's orphans.
    pub(super) fn sweep(&self) {
        for (pid, started) in self.recorded() {
            let leads = |group: i32| {
                group == pid && procfs::stat(pid).is_some_and(|leader| leader.started == started)
            };
            // The leader last: while it is there, its group cannot be anybody else's.
            let mut swept = procfs::kill_all(|member| {
                member != pid && procfs::stat(member).is_some_and(|stat| leads(stat.group))
            });
            swept += procfs::kill_all(leads);
            if swept > 0 {
                log::warn!("sweep pid={pid} processes={swept}");
            }
        }
        kill_marked(&self.mark());
        self.write("DELETE FROM processes", params![]);
    }

    /// Leaders of an earlier gateway and of this boot.
    fn recorded(&self) -> Vec<(i32, i64)> {
        let rows = self.state.with(|db| {
            db.prepare("SELECT pid, started FROM processes WHERE boot = ?1")?
                .query_map([&self.boot], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        });
        rows.unwrap_or_else(|error| {
            log::error!("sweep cause={error}");
            Vec::new()
        })
    }

    /// A failure is only logged: without its row, a process is still known by its mark.
    fn write(&self, sql: &str, values: impl rusqlite::Params) {
        if let Err(error) = self.state.with(|db| db.execute(sql, values)) {
            log::error!("process ledger cause={error}");
        }
    }
}

/// Kills every process with `mark` in its environment, those included that such a process starts
/// meanwhile. Blocks until none is left, for a second at most.
pub(super) fn kill_marked(mark: &str) {
    // Twice none: a process has no environment for a moment while it turns into another program.
    let mut none = 0;
    for _ in 0..ROUNDS {
        match procfs::kill_all(|pid| procfs::is_marked(pid, mark)) {
            0 if none == 1 => return,
            0 => none += 1,
            killed => {
                none = 0;
                log::info!("stray processes={killed}");
            }
        }
        thread::sleep(PAUSE);
    }
    log::error!("stray processes do not end");
}

/// The variable that marks our processes.
const INSTANCE: &str = "OPEN_PERSONA_INSTANCE";
const ROUNDS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::{CommandExt, ExitStatusExt},
        process::{Child, Command},
    };

    use super::*;

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("60").process_group(0);
        command
    }

    fn pid(child: &Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    fn was_killed(child: &mut Child) -> bool {
        child.wait().unwrap().signal() == Some(9)
    }

    #[test]
    fn the_instance_id_is_the_states_own() {
        let state = State::in_memory().unwrap();
        let first = Ledger::of(state.clone()).unwrap();
        assert_eq!(Ledger::of(state).unwrap().mark(), first.mark());
        assert_ne!(Ledger::of(State::in_memory().unwrap()).unwrap().mark(), first.mark());
    }

    #[test]
    fn a_sweep_ends_what_is_recorded_or_marked_and_nothing_else() {
        let ledger = Ledger::of(State::in_memory().unwrap()).unwrap();
        let alice = WorkspaceId::of("alice");
        let mut recorded = sleeper().spawn().unwrap();
        ledger.record(&alice, pid(&recorded));
        let mut member = sleeper().process_group(pid(&recorded)).spawn().unwrap();
        let (name, value) = ledger.mark_of(&alice, 3);
        let mut marked = sleeper().env(name, value).spawn().unwrap();
        let mut foreign = sleeper().spawn().unwrap();
        let mut others = sleeper().env(name, "another/instance").spawn().unwrap();
        // A pid of ours that passed to another process: it started at another time.
        ledger.record(&alice, pid(&foreign));
        ledger.write("UPDATE processes SET started = started - 1 WHERE pid = ?1", [pid(&foreign)]);

        ledger.sweep();

        assert!(was_killed(&mut recorded) && was_killed(&mut member) && was_killed(&mut marked));
        for left in [&mut foreign, &mut others] {
            assert!(left.try_wait().unwrap().is_none());
            left.kill().unwrap();
            left.wait().unwrap();
        }
        assert!(ledger.recorded().is_empty());
    }

    #[test]
    fn a_process_of_another_boot_is_not_ours() {
        let ledger = Ledger::of(State::in_memory().unwrap()).unwrap();
        let mut child = sleeper().spawn().unwrap();
        ledger.record(&WorkspaceId::of("alice"), pid(&child));
        let rebooted = Ledger { boot: "another".to_owned(), ..ledger };
        rebooted.sweep();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
