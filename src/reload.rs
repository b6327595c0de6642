//! A changed configuration takes effect while the gateway runs, or changes nothing at all.
//!
//! [`Reload::apply`] reads, checks and only then swaps the [`Live`] configuration; requests in
//! flight keep the one they started with. [`Watch::run`] does so on SIGHUP and when the file, a
//! persona or a secret file changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use crate::config::{self, Config, ConfigError, Live, Sources};

/// How the last attempt to take a configuration over went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which attempt it was; 0 is the configuration the gateway started with.
    pub attempt: u64,
    /// Fields whose change waits for a restart, or why the old configuration stays in force:
    /// `file:line:column: what is wrong; what to do`.
    pub result: Result<Vec<&'static str>, String>,
}

/// The configuration in force, and how another takes its place.
pub struct Reload {
    path: PathBuf,
    live: Live,
    environment: Environment,
    outcome: watch::Sender<Outcome>,
    /// Held while a configuration is taken over: one at a time.
    read: Mutex<Read>,
}

type Environment = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the configuration in force was read from, and the digest of each file then.
struct Read {
    sources: Sources,
    seen: BTreeMap<PathBuf, Option<[u8; 32]>>,
}

impl Reload {
    /// Loads the configuration at `path` and puts it in force. `environment` is what
    /// [`config::load`] takes.
    ///
    /// # Errors
    ///
    /// As [`config::load`].
    pub fn load(
        path: PathBuf,
        environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, ConfigError> {
        let before = snapshot(&path, None);
        let (config, sources) = config::load_with_sources(&path, &environment)?;
        let (outcome, _) = watch::channel(Outcome { attempt: 0, result: Ok(Vec::new()) });
        let seen = before_wins(before, snapshot(&path, Some(&sources)));
        Ok(Arc::new(Self {
            path,
            live: Live::new(config),
            environment: Box::new(environment),
            outcome,
            read: Mutex::new(Read { sources, seen }),
        }))
    }

    /// The configuration in force.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The last outcome, and those to come.
    pub fn outcome(&self) -> watch::Receiver<Outcome> {
        self.outcome.subscribe()
    }

    /// Reads and checks the configuration and puts it in force; with anything wrong in it, nothing
    /// changes. Logs the outcome, shows it to [`outcome`](Self::outcome) and returns it. Reads
    /// files on the calling thread.
    pub fn apply(&self) -> Outcome {
        let mut read = self.read.lock();
        let before = snapshot(&self.path, Some(&read.sources));
        let result = match config::load_with_sources(&self.path, &*self.environment) {
            Ok((new, sources)) => {
                read.sources = sources;
                self.put_in_force(new)
            }
            Err(e) => Err(format!("{e}; {}", e.hint())),
        };
        read.seen = before_wins(before, snapshot(&self.path, Some(&read.sources)));
        let outcome = Outcome { attempt: self.outcome.borrow().attempt + 1, result };
        match &outcome.result {
            Ok(waiting) if waiting.is_empty() => log::info!("reload result=applied"),
            Ok(waiting) => {
                log::warn!("reload result=applied waits_for_restart={}", waiting.join(","));
            }
            Err(cause) => log::error!("reload result=refused cause={cause:?}"),
        }
        self.outcome.send_replace(outcome.clone());
        outcome
    }

    fn put_in_force(&self, mut new: Config) -> Result<Vec<&'static str>, String> {
        let waiting = keep_until_restart(&mut new, &self.live.now());
        // The rules were safe with their own listener; they must be with the one kept, too.
        if new.identity.lets_strangers_in(&new.listen) {
            return Err(format!(
                "{}: the identity rules are not safe while listening on {}; restart to change both",
                self.path.display(),
                new.listen.address,
            ));
        }
        self.live.swap(new);
        Ok(waiting)
    }

    /// Starts to listen for SIGHUP and for changes of the files. From here on none is missed; they
    /// are acted upon in [`Watch::run`]. Needs a Tokio runtime.
    ///
    /// # Errors
    ///
    /// The signal could not be listened for. Files that cannot be watched are logged only: SIGHUP
    /// still works.
    pub fn watch(self: &Arc<Self>) -> std::io::Result<Watch> {
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is an event, too, and we read.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                wake.notify_one();
            }
        });
        let mut watch = Watch {
            reload: Arc::clone(self),
            hangup: signal(SignalKind::hangup())?,
            watcher: watcher.inspect_err(|e| log_unwatched(&self.path, e)).ok(),
            watched: BTreeSet::new(),
            changed,
        };
        watch.follow();
        // What changed between the load and the watch was no event.
        watch.changed.notify_one();
        Ok(watch)
    }

    fn has_changed(&self) -> bool {
        let read = self.read.lock();
        snapshot(&self.path, Some(&read.sources)) != read.seen
    }

    /// The directories to watch. Files are replaced by renaming, and Kubernetes swaps a symlink
    /// beside them: only their directories see that. A symlink's target has one of its own.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let read = self.read.lock();
        let files = std::iter::once(&self.path).chain(&read.sources.secrets);
        let mut directories = BTreeSet::new();
        for path in files.chain(std::iter::once(&read.sources.personas)) {
            directories.extend(real_parent(path));
            directories.extend(fs::canonicalize(path).ok().as_deref().and_then(real_parent));
        }
        directories.extend(fs::canonicalize(&read.sources.personas));
        directories
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What waits for changes. Dropping it ends that; the configuration in force stays.
pub struct Watch {
    reload: Arc<Reload>,
    hangup: Signal,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
}

impl Watch {
    /// Reloads on SIGHUP, and when a file changed and was then left alone for a moment. Runs until
    /// dropped.
    pub async fn run(&mut self) {
        loop {
            tokio::select! {
                Some(()) = self.hangup.recv() => {
                    self.reload.apply();
                }
                () = self.changed.notified() => {
                    self.settle().await;
                    if self.reload.has_changed() {
                        self.reload.apply();
                    }
                }
            }
            self.follow();
        }
    }

    /// Waits until nothing has changed for [`QUIET`], at most [`PATIENCE`]: who saves a file may
    /// write it in pieces, and half a file may well be valid.
    async fn settle(&self) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && timeout(QUIET, self.changed.notified()).await.is_ok() {}
    }

    /// Watches the directories there are now, and no others. One that was replaced by another of
    /// the same name is watched anew.
    fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let directories = self.reload.directories();
        for gone in self.watched.difference(&directories) {
            // An error means that it is gone, and its watch with it.
            watcher.unwatch(gone).ok();
        }
        for directory in &directories {
            if let Err(e) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                log_unwatched(directory, &e);
            }
        }
        self.watched = directories;
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("watched", &self.watched).finish_non_exhaustive()
    }
}

/// A digest of every file a configuration is read from, and of the personas' names.
fn snapshot(path: &Path, sources: Option<&Sources>) -> BTreeMap<PathBuf, Option<[u8; 32]>> {
    let mut files = vec![path.to_owned()];
    let mut snapshot = BTreeMap::new();
    if let Some(sources) = sources {
        let personas = fs::read_dir(&sources.personas).into_iter().flatten().flatten();
        let mut personas: Vec<_> = personas.map(|entry| entry.path()).collect();
        personas.sort();
        let names = personas.iter().fold(Sha256::new(), |digest, path| {
            digest.chain_update(path.as_os_str().as_bytes()).chain_update([0])
        });
        snapshot.insert(sources.personas.clone(), Some(names.finalize().into()));
        files.extend(personas);
        files.extend(sources.secrets.iter().cloned());
    }
    snapshot.extend(files.into_iter().map(|file| (file.clone(), digest(&file))));
    snapshot
}

/// The digest of the file at `path`, as far as one is ever read. A pipe is not: reading takes away.
fn digest(path: &Path) -> Option<[u8; 32]> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut content = Vec::new();
    fs::File::open(path).ok()?.take(LARGEST).read_to_end(&mut content).ok()?;
    Some(Sha256::digest(&content).into())
}

/// The files of `after` as they were `before` they were read, so that a change in between shows.
fn before_wins<T>(
    before: BTreeMap<PathBuf, T>,
    mut after: BTreeMap<PathBuf, T>,
) -> BTreeMap<PathBuf, T> {
    for (path, digest) in before {
        after.entry(path).and_modify(|later| *later = digest);
    }
    after
}

/// The directory that `path` is in, by its one real name.
fn real_parent(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    fs::canonicalize(parent).ok()
}

/// Puts what only a restart can change back to what it was, and names it.
fn keep_until_restart(new: &mut Config, old: &Config) -> Vec<&'static str> {
    fn keep<T: PartialEq + Clone>(
        new: &mut T,
        old: &T,
        name: &'static str,
        kept: &mut Vec<&'static str>,
    ) {
        if new != old {
            new.clone_from(old);
            kept.push(name);
        }
    }
    let mut kept = Vec::new();
    keep(&mut new.listen, &old.listen, "listen", &mut kept);
    let (egress, before) = (&mut new.egress, &old.egress);
    keep(&mut egress.address, &before.address, "egress.address", &mut kept);
    keep(&mut egress.url, &before.url, "egress.url", &mut kept);
    keep(&mut egress.key_file, &before.key_file, "egress.key_file", &mut kept);
    keep(&mut new.state, &old.state, "state", &mut kept);
    keep(&mut new.workspaces.root, &old.workspaces.root, "workspaces.root", &mut kept);
    keep(&mut new.runners.launcher, &old.runners.launcher, "runners.launcher", &mut kept);
    keep(&mut new.runners.dialect, &old.runners.dialect, "runners.dialect", &mut kept);
    kept
}

fn log_unwatched(path: &Path, cause: &notify::Error) {
    let path = path.display().to_string();
    log::warn!("reload cannot_watch={path:?} cause={cause:?} hint=\"send SIGHUP after a change\"");
}

const QUIET: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(2);
/// One byte more than a configuration file may have.
const LARGEST: u64 = (1 << 20) + 1;

#[cfg(test)]
mod tests;
