//! One child process and all that comes of it, from its start to the end of the last of them.

use std::{
    io,
    process::Stdio,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    ledger::{self, Ledger},
    output::Output,
};
use crate::{launcher::LaunchError, workspace::WorkspaceId};

/// A handle on a child. The child itself belongs to its keeper, a task that ends with it.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) output: Arc<Output>,
    /// Cancelled when nothing of it is left.
    pub(super) ended: CancellationToken,
    stop: CancellationToken,
    kill: CancellationToken,
    status: Arc<OnceLock<String>>,
}

/// Whose child it is, and what its keeper has to know.
pub(super) struct Nursery<'a> {
    pub(super) workspace: &'a WorkspaceId,
    /// `NAME=value`, in the environment of the child and of all that comes of it.
    pub(super) mark: String,
    pub(super) stop_timeout: Duration,
    pub(super) ledger: &'a Ledger,
    pub(super) keepers: &'a TaskTracker,
    /// Makes it end when cancelled.
    pub(super) kill: CancellationToken,
}

impl Child {
    /// Starts `command` in a process group of its own.
    pub(super) fn spawn(
        mut command: Command,
        output: Output,
        nursery: Nursery<'_>,
    ) -> io::Result<Self> {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn()?;
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let group = Group(Some(id.ok_or_else(|| io::Error::other("a child without a pid"))?));
        let exit = Exit::of(group.id())?;
        let output = Arc::new(output);
        let keeper = Keeper {
            group,
            child,
            exit,
            output: Arc::clone(&output),
            stop_timeout: nursery.stop_timeout,
            stop: CancellationToken::new(),
            kill: nursery.kill,
            status: Arc::default(),
            ended: CancellationToken::new(),
        };
        let handle = Self {
            output,
            ended: keeper.ended.clone(),
            stop: keeper.stop.clone(),
            kill: keeper.kill.clone(),
            status: Arc::clone(&keeper.status),
        };
        nursery.keepers.spawn(keeper.keep(
            nursery.workspace.clone(),
            nursery.mark,
            nursery.ledger.clone(),
        ));
        Ok(handle)
    }

    /// Asks it to end, and makes it end when it does not in time. Returns once it is gone.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }

    /// Makes it end. Returns once it is gone.
    pub(super) async fn kill(&self) {
        self.kill.cancel();
        self.ended.cancelled().await;
    }

    /// Makes it end when the guard is dropped.
    pub(super) fn kill_on_drop(&self) -> DropGuard {
        self.kill.clone().drop_guard()
    }

    /// How it ended.
    pub(super) fn died(&self) -> LaunchError {
        LaunchError::Died {
            status: self.status.get().cloned().unwrap_or_else(|| "an unknown status".to_owned()),
            last_line: self.output.last_line(),
        }
    }
}

/// The only one who signals and reaps a child, so that no signal ever goes to a pid that is
/// somebody else's by now.
struct Keeper {
    /// Before `child`: dropping a keeper kills the group while its leader still keeps the id.
    group: Group,
    child: tokio::process::Child,
    exit: Exit,
    output: Arc<Output>,
    stop_timeout: Duration,
    stop: CancellationToken,
    kill: CancellationToken,
    status: Arc<OnceLock<String>>,
    ended: CancellationToken,
}

impl Keeper {
    async fn keep(mut self, workspace: WorkspaceId, mark: String, ledger: Ledger) {
        // On drop too: who waits for the end waits for the keeper.
        let ended = self.ended.clone().drop_guard();
        let pid = self.group.id().as_raw_nonzero().get();
        let (book, owner) = (ledger.clone(), workspace.clone());
        blocking(move || book.record(&owner, pid)).await;

        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let output = Arc::clone(&self.output);
        let drained = async {
            tokio::join!(async { drain(&output, stdout, "stdout").await }, async {
                drain(&output, stderr, "stderr").await;
            });
        };
        tokio::pin!(drained);
        let mut open = true;
        {
            let exit = self.until_exit();
            tokio::pin!(exit);
            while tokio::select! {
                () = &mut exit => false,
                () = &mut drained, if open => { open = false; true }
            } {}
        }
        // The leader is dead but not reaped: its id still means this group and no other.
        self.group.signal(Signal::KILL);
        if open && timeout(LAST_WORDS, &mut drained).await.is_err() {
            log::debug!("runner workspace={workspace} left its output open");
        }
        let status = self.child.wait().await;
        self.group.0 = None;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        // Only this keeper sets it.
        self.status.get_or_init(|| status);
        blocking(move || {
            ledger::kill_marked(&mark);
            ledger.forget(pid);
        })
        .await;
        drop(ended);
    }

    /// Returns once the child has ended, by itself or because it was told to.
    async fn until_exit(&mut self) {
        tokio::select! {
            () = self.exit.seen() => return,
            () = self.kill.cancelled() => {}
            () = self.stop.cancelled() => {
                // Twice: opencode swallows the first one while it installs something.
                for _ in 0..2 {
                    self.group.signal(Signal::TERM);
                    tokio::select! {
                        () = self.exit.seen() => return,
                        () = self.kill.cancelled() => break,
                        () = sleep(self.stop_timeout / 2) => {}
                    }
                }
            }
        }
        self.group.signal(Signal::KILL);
        self.exit.seen().await;
    }
}

async fn drain(output: &Output, stream: Option<impl tokio::io::AsyncRead + Unpin>, name: &str) {
    if let Some(stream) = stream {
        output.drain(stream, name).await;
    }
}

async fn blocking(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        log::error!("runner cause={error}");
    }
}

/// Sees the end of a child without reaping it.
struct Exit {
    id: Pid,
    changes: tokio::signal::unix::Signal,
}

impl Exit {
    fn of(id: Pid) -> io::Result<Self> {
        Ok(Self { id, changes: signal(SignalKind::child())? })
    }

    /// Returns once the child has ended.
    async fn seen(&mut self) {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error would mean that there is no such child, no longer or never.
        while let Ok(None) = waitid(WaitId::Pid(self.id), look) {
            if self.changes.recv().await.is_none() {
                return;
            }
        }
    }
}

/// A process group whose leader was not reaped yet; killed on drop.
struct Group(Option<Pid>);

impl Group {
    fn id(&self) -> Pid {
        self.0.expect("only the end of `Keeper::keep` takes it")
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.0
            && let Err(error) = kill_process_group(id, signal)
        {
            log::debug!("signal group={} cause={error}", id.as_raw_nonzero());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// How long the rest of a dead child's output may take to be read.
const LAST_WORDS: Duration = Duration::from_millis(500);
