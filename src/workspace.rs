//! A user's private directory: identity → [`WorkspaceId`] → one directory, written only beneath
//! itself.
//!
//! Whose a workspace is, the gateway's own state says. What is written in the directory is for
//! people and for the runner; the runner can rewrite it, so it decides nothing but the user's own
//! wishes.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rusqlite::OptionalExtension;
use serde_json::Value;

pub use effective::Effective;
pub use id::WorkspaceId;

use self::{
    entries::Entry,
    files::{Directory, Found, Stamp},
};
use crate::{
    config::Config,
    gateway::identity::Identity,
    state::{State, StateError},
};

mod effective;
mod entries;
mod files;
mod id;
mod record;
mod wishes;

/// All workspaces, in one directory.
#[derive(Debug)]
pub struct Workspaces {
    path: PathBuf,
    root: Directory,
    state: State,
    /// [`WorkspaceId::of`]; another one in tests, where two users must collide.
    hash: fn(&str) -> WorkspaceId,
    /// What was seen of each workspace in this process. The outer lock covers the map only, so a
    /// slow disk delays one workspace's callers and no others.
    slots: Mutex<HashMap<WorkspaceId, Arc<Mutex<Slot>>>>,
}

/// One owner's workspace, ready for a runner.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Its name.
    pub id: WorkspaceId,
    /// Where it is, absolute.
    pub directory: PathBuf,
    /// The models it gets.
    pub models: Effective,
    /// The user's own members of its `opencode.jsonc` as plain JSON; null when there is none that
    /// can be read. Nothing in it is to be trusted: a runner can write it.
    pub wishes: Value,
}

/// Why a workspace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The directory of all workspaces could not be made or opened.
    #[error("the workspaces directory {path} cannot be used")]
    Root {
        /// The directory.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The workspace is another user's, whose id has the same hash. Nothing was touched.
    #[error("workspace {0} belongs to another user with the same hash")]
    Collision(WorkspaceId),
    /// The workspace's own directory could not be made, or is not a directory.
    #[error("the directory of workspace {workspace} cannot be used")]
    Directory {
        /// The workspace.
        workspace: WorkspaceId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The state that says whose it is failed.
    #[error("the owner of a workspace could not be looked up")]
    State(#[from] StateError),
}

/// Workspaces remembered at most. To forget one costs its next bind a few reads.
const MOST_REMEMBERED: usize = 4096;
/// Warnings about one workspace at most; a runner that keeps rewriting its file gets no more.
const MOST_TOLD: usize = 16;

/// What was seen of one workspace, so that a bind that finds nothing changed only looks.
#[derive(Debug, Default)]
struct Slot {
    owner: Option<Owner>,
    recorded: Option<(Identity, Option<Stamp>)>,
    wishes: Option<Seen>,
    template: Option<(WorkspaceId, Seen)>,
    told: HashSet<String>,
}

#[derive(Debug, Clone)]
struct Owner {
    user: String,
    /// Unix milliseconds.
    since: i64,
}

/// An `opencode.jsonc` as it was when it was read.
#[derive(Debug, Clone)]
struct Seen {
    stamp: Option<Stamp>,
    wishes: Value,
    /// Our entries that are in it.
    entries: Vec<Entry>,
}

impl Slot {
    /// Warns once of each thing.
    fn tell(&mut self, id: &WorkspaceId, what: String) {
        if self.told.len() < MOST_TOLD && !self.told.contains(&what) {
            log::warn!("workspace={id} cause={what:?}");
            self.told.insert(what);
        }
    }
}

impl Workspaces {
    /// Opens the directory of all workspaces, making it with mode 0700 when there is none.
    pub fn open(root: &Path, state: State) -> Result<Self, WorkspaceError> {
        let failed = |source| WorkspaceError::Root { path: root.display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        let path = root.canonicalize().map_err(failed)?;
        let root = Directory::open(&path).map_err(failed)?;
        Ok(Self { path, root, state, hash: WorkspaceId::of, slots: Mutex::default() })
    }

    /// Gets `identity`'s workspace ready: its owner is checked, its directory and our files are
    /// there, its models are chosen. Writes nothing when nothing changed. Blocks on the disk.
    ///
    /// A file of ours that cannot be read or written is logged and does not fail the bind.
    pub fn bind(&self, identity: &Identity, config: &Config) -> Result<Workspace, WorkspaceError> {
        let id = (self.hash)(&identity.user);
        let slot = self.slot(&id);
        let mut slot = slot.lock();
        let since = self.check_owner(&id, &identity.user, &mut slot)?;
        let directory = self
            .root
            .make_child(id.as_str())
            .map_err(|source| WorkspaceError::Directory { workspace: id.clone(), source })?;
        let template = self.template(&id, config, &mut slot);
        let (wishes, models) = agree(&id, &directory, &template, config, &mut slot);
        record_owner(&id, &directory, identity, since, &mut slot);
        Ok(Workspace { directory: self.path.join(id.as_str()), id, models, wishes })
    }

    fn slot(&self, id: &WorkspaceId) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock();
        if slots.len() >= MOST_REMEMBERED && !slots.contains_key(id) {
            slots.clear();
        }
        Arc::clone(slots.entry(id.clone()).or_default())
    }

    /// Makes sure that the workspace is `user`'s, who becomes its owner when it has none. Returns
    /// since when, in Unix milliseconds.
    fn check_owner(
        &self,
        id: &WorkspaceId,
        user: &str,
        slot: &mut Slot,
    ) -> Result<i64, WorkspaceError> {
        let owner = match &slot.owner {
            Some(owner) => owner.clone(),
            None => match self.owner(id)? {
                Some(owner) => owner,
                None if self.was_anothers(id, user) => {
                    return Err(WorkspaceError::Collision(id.clone()));
                }
                None => self.claim(id, user)?,
            },
        };
        slot.owner = Some(owner.clone());
        if owner.user == user {
            Ok(owner.since)
        } else {
            Err(WorkspaceError::Collision(id.clone()))
        }
    }

    fn owner(&self, id: &WorkspaceId) -> Result<Option<Owner>, StateError> {
        const FIND: &str = "SELECT user_id, created_at FROM owners WHERE workspace = ?1";
        self.state.with(|db| {
            let mut find = db.prepare_cached(FIND)?;
            find.query_row([id.as_str()], |row| Ok(Owner { user: row.get(0)?, since: row.get(1)? }))
                .optional()
        })
    }

    fn claim(&self, id: &WorkspaceId, user: &str) -> Result<Owner, StateError> {
        const CLAIM: &str =
            "INSERT INTO owners (workspace, user_id, created_at) VALUES (?1, ?2, ?3)";
        let since = now();
        self.state.with(|db| db.execute(CLAIM, (id.as_str(), user, since)))?;
        Ok(Owner { user: user.to_owned(), since })
    }

    /// Whether a directory that is older than our state names another user of the same hash. The
    /// hash is the proof: without a true collision no file can keep an owner out.
    fn was_anothers(&self, id: &WorkspaceId, user: &str) -> bool {
        let Ok(Some(directory)) = self.root.child(id.as_str()) else { return false };
        let Found::Text(text, _) = directory.look(record::NAME) else { return false };
        record::named(&text).is_some_and(|named| named != user && (self.hash)(&named) == *id)
    }

    /// The wishes of the template workspace, which is only ever read.
    fn template(&self, id: &WorkspaceId, config: &Config, slot: &mut Slot) -> Value {
        let Some(name) = &config.workspaces.template else { return Value::Null };
        let directory = self.root.child(name.as_str()).ok().flatten();
        let stamp = directory.as_ref().and_then(|directory| directory.stamp(wishes::NAME));
        if let Some((known, seen)) = &slot.template
            && known == name
            && seen.stamp == stamp
        {
            return seen.wishes.clone();
        }
        let found = directory.map_or(Found::Nothing, |it| it.look(wishes::NAME));
        let wishes = understand(id, "the template's", &found, slot);
        let seen =
            Seen { stamp: found.stamp().cloned(), wishes: wishes.clone(), entries: Vec::new() };
        slot.template = Some((name.clone(), seen));
        wishes
    }
}

/// Reads the workspace's `opencode.jsonc`, chooses its models and brings the file up to date.
fn agree(
    id: &WorkspaceId,
    directory: &Directory,
    template: &Value,
    config: &Config,
    slot: &mut Slot,
) -> (Value, Effective) {
    if let Some(seen) = slot.wishes.take()
        && seen.stamp == directory.stamp(wishes::NAME)
    {
        let models = Effective::of(&seen.wishes, template, config, |it| slot.tell(id, it));
        if seen.entries == entries::of(config, &models) {
            let wishes = seen.wishes.clone();
            slot.wishes = Some(seen);
            return (wishes, models);
        }
    }
    // What is remembered must be of the file that is there, so a file that was written is read
    // again. The second round finds nothing to do unless somebody else writes, too.
    let mut may_write = true;
    loop {
        let found = directory.look(wishes::NAME);
        let wishes = understand(id, "its", &found, slot);
        let models = Effective::of(&wishes, template, config, |it| slot.tell(id, it));
        let entries = entries::of(config, &models);
        let Some(text) = update(&found, &entries) else {
            let stamp = found.stamp().cloned();
            slot.wishes = Some(Seen { stamp, wishes: wishes.clone(), entries });
            return (wishes, models);
        };
        if !std::mem::take(&mut may_write) {
            return (wishes, models);
        }
        if let Err(error) = directory.replace(wishes::NAME, found.stamp(), &text) {
            slot.tell(id, format!("{} was not written: {error}", wishes::NAME));
            return (wishes, models);
        }
    }
}

/// The wishes in what was found; null and a warning when they cannot be read.
fn understand(id: &WorkspaceId, whose: &str, found: &Found, slot: &mut Slot) -> Value {
    let read = match found {
        Found::Nothing => return Value::Null,
        Found::Text(text, _) if text.trim().is_empty() => return Value::Null,
        Found::Text(text, _) => wishes::read(text),
        Found::Unusable(reason, _) => Err((*reason).to_owned()),
    };
    read.unwrap_or_else(|reason| {
        slot.tell(id, format!("{whose} {} is not used: {reason}", wishes::NAME));
        Value::Null
    })
}

/// The text that `opencode.jsonc` should have instead; `None` when it is to stay as it is.
fn update(found: &Found, entries: &[Entry]) -> Option<String> {
    let blank = match found {
        Found::Nothing => true,
        Found::Text(text, _) => text.trim().is_empty(),
        Found::Unusable(..) => return None,
    };
    match found {
        Found::Text(text, _) if !blank => wishes::edit(text, entries),
        _ => {
            let fresh = wishes::FRESH;
            Some(wishes::edit(fresh, entries).unwrap_or_else(|| fresh.to_owned()))
        }
    }
}

/// Brings `openwebui.config` up to date.
fn record_owner(
    id: &WorkspaceId,
    directory: &Directory,
    identity: &Identity,
    since: i64,
    slot: &mut Slot,
) {
    let stamp = directory.stamp(record::NAME);
    if slot.recorded.as_ref().is_some_and(|(known, at)| known == identity && *at == stamp) {
        return;
    }
    let found = directory.look(record::NAME);
    let old = match &found {
        Found::Text(text, _) => Some(text.as_str()),
        Found::Nothing | Found::Unusable(..) => None,
    };
    if let Some(text) = record::next(old, identity, id, since, now())
        && let Err(error) = directory.replace(record::NAME, found.stamp(), &text)
    {
        slot.tell(id, format!("{} was not written: {error}", record::NAME));
        return;
    }
    slot.recorded = Some((identity.clone(), directory.stamp(record::NAME)));
}

/// Unix milliseconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
