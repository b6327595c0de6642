//! Processes as the system sees them: who runs, for which stand, and how to end one by its id.

use std::{fs, path::Path, process::Child, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// The ids of the processes whose environment mentions `directory`: everything a gateway with its
/// files there has started, and whatever those have started.
pub(crate) fn living_in(directory: &Path) -> Vec<i32> {
    let mark = directory.as_os_str().as_encoded_bytes();
    let of_this_stand = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environ| environ.windows(mark.len()).any(|part| part == mark))
    };
    let mut pids: Vec<i32> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(of_this_stand)
        .filter(|pid| is_alive(*pid))
        .collect();
    pids.sort_unstable();
    pids
}

/// Whether this is an opencode server rather than something one has started.
pub(crate) fn is_runner(pid: i32) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|argument| argument == b"serve")
}

/// The directory a process works in.
pub(crate) fn directory_of(pid: i32) -> String {
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    directory.to_string_lossy().into_owned()
}

/// Whether a process exists and is not a zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    // The state is the first word after the name, which is in parentheses and may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Sends a signal; a process that is gone already is no matter.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        kill_process(pid, signal).ok();
    }
}

/// A child's id in the type the system uses.
pub(crate) fn id_of(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("ids are positive")
}

/// Waits for a child to end; `None` when it has not after `patience`.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Option<std::process::ExitStatus> {
    until(patience, || child.try_wait().expect("a child of ours"))
}

/// Asks again and again, for `patience` at most.
pub(crate) fn until<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if began.elapsed() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
