//! Which processes are ours, and their end. Linux: `/proc` and pidfds.

use std::{fs, path::PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its process group, field 5.
    pub(super) group: i32,
    /// When it started, in clock ticks since boot, field 22. With the pid and the boot it names a
    /// process for ever.
    pub(super) started: i64,
    /// Whether it has ended and only waits to be reaped.
    pub(super) zombie: bool,
}

/// Reads the state of `pid`; `None` when there is no such process.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(path(pid, "stat")).ok()?;
    parse(&String::from_utf8_lossy(&text))
}

/// Reads one line of the form `pid (name) state ppid pgrp …`, where the name may hold anything,
/// parentheses and line ends included.
fn parse(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The first of these is field 3.
    Some(Stat {
        group: fields.get(5 - 3)?.parse().ok()?,
        started: fields.get(22 - 3)?.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

/// Whether `pid` was started with `mark` in its environment, or with a `mark/…` below it. Nobody
/// but us gives that mark to a process, and children inherit it.
pub(super) fn is_marked(pid: i32, mark: &str) -> bool {
    // Unreadable is another user's, and not ours then.
    let Ok(environment) = fs::read(path(pid, "environ")) else { return false };
    environment.split(|byte| *byte == 0).any(|variable| {
        variable
            .strip_prefix(mark.as_bytes())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

/// Kills every process that `is_ours`, except this one, and returns how many there were.
pub(super) fn kill_all(is_ours: impl Fn(i32) -> bool) -> usize {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| kill(*pid, &is_ours)).count()
}

/// Kills `pid` if it `is_ours`. The descriptor is opened before the question is asked: should the
/// pid pass to another process meanwhile, the signal goes nowhere.
fn kill(pid: i32, is_ours: impl Fn(i32) -> bool) -> bool {
    let Some(id) = Pid::from_raw(pid).filter(|id| *id != getpid()) else { return false };
    let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else { return false };
    is_ours(pid)
        && stat(pid).is_some_and(|stat| !stat.zombie)
        && pidfd_send_signal(&process, Signal::KILL).is_ok()
}

fn path(pid: i32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) Z 1 (b)\n) S 1 77 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 9876 1 1";
        assert_eq!(parse(line), Some(Stat { group: 77, started: 9876, zombie: false }));
        assert_eq!(parse("42 (sh"), None);
        assert_eq!(parse("42 (sh) S 1"), None);
    }

    #[test]
    fn this_process_is_seen_and_spared() {
        let own = getpid().as_raw_nonzero().get();
        assert!(stat(own).is_some_and(|stat| stat.started > 0));
        assert!(!kill(own, |_| true));
    }

    #[test]
    fn a_mark_is_the_whole_value_or_a_path_below_it() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env("MARK", "one/alice/12")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // The program replaces this one first, and its environment is there only then.
        while !is_marked(pid, "MARK=one") {
            std::thread::yield_now();
        }
        for (mark, ours) in [
            ("MARK=one", true),
            ("MARK=one/alice/12", true),
            ("MARK=one/alice/1", false),
            ("MARK=on", false),
            ("ARK=one", false),
        ] {
            assert_eq!(is_marked(pid, mark), ours, "{mark}");
        }
        assert_eq!(kill_all(|candidate| candidate == pid && is_marked(pid, "MARK=one")), 1);
        child.wait().unwrap();
    }
}
