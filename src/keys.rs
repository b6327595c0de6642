//! The users' own keys for model providers, as a front end sent them last.
//!
//! They are in memory for whoever asks, and encrypted in the database, so that a turn can go on
//! after a restart of the gateway when its user is not there to send them again. Losing them is
//! no harm: the next message of their user brings them back.

mod file;
mod seal;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::RwLock;
use rusqlite::{Connection, params};

use self::seal::Seal;
use crate::{
    secret::Secret,
    state::{State, StateError},
    workspace::WorkspaceId,
};

/// The stored keys of all users. The only module that reads and writes the table `user_keys`.
pub struct Keys {
    state: State,
    seal: Seal,
    /// What the table holds. Changed under the database's lock only, so that both change in the
    /// same order.
    held: RwLock<Held>,
}

/// By workspace and provider.
type Held = HashMap<WorkspaceId, BTreeMap<String, Key>>;

struct Key {
    value: Secret,
    /// When its user sent it, in Unix seconds, to the day.
    seen: i64,
}

/// Why stored keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The key file could not be read or made.
    #[error("the key file {} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key file can be read by others.
    #[error("the key file {} is open to others than its owner; run `chmod 600` on it", .0.display())]
    Open(PathBuf),
    /// The key file holds something else.
    #[error(
        "the key file {} does not hold the 32 bytes that the gateway wrote; restore it, or \
         remove it to forget all keys that users brought",
        .0.display()
    )]
    Length(PathBuf),
    /// The database said no.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why a text cannot be a key. Never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is nothing in it.
    #[error("the key is empty")]
    Empty,
    /// It is longer than any key.
    #[error("the key is longer than {LONGEST} bytes")]
    Long,
    /// It holds a line break, as it is or as the `%0A` that Open WebUI makes of it.
    #[error("the key has a line break in it; paste it again, without one")]
    LineBreak,
    /// It holds a space, a control character or a letter that is not ASCII.
    #[error("the key has a space or another character in it that keys do not have")]
    Character,
}

/// The key that `value` is, if it can be one: visible ASCII on one line.
pub fn check(value: &[u8]) -> Result<Secret, Fault> {
    let is_encoded_break = |three: &[u8]| matches!(three, [b'%', b'0', b'a' | b'A' | b'd' | b'D']);
    if value.is_empty() {
        return Err(Fault::Empty);
    }
    if value.len() > LONGEST {
        return Err(Fault::Long);
    }
    if value.iter().any(|b| b"\r\n".contains(b)) || value.windows(3).any(is_encoded_break) {
        return Err(Fault::LineBreak);
    }
    match std::str::from_utf8(value) {
        Ok(text) if value.iter().all(u8::is_ascii_graphic) => Ok(Secret::new(text)),
        _ => Err(Fault::Character),
    }
}

impl Keys {
    /// The keys in `state`, encrypted with the key in the file at `key_file`, which is made if
    /// there is none. Stored keys that it does not open are removed.
    pub fn open(state: State, key_file: &Path) -> Result<Self, KeysError> {
        Self::of(state, &file::read_or_make(key_file)?)
    }

    /// Keys that are stored nowhere and end with this.
    pub fn in_memory() -> Result<Self, KeysError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system has random numbers");
        Self::of(State::in_memory()?, &key)
    }

    fn of(state: State, key: &[u8; 32]) -> Result<Self, KeysError> {
        let seal = Seal::of(key);
        let (held, removed) = state.with(|db| read(db, &seal))?;
        if removed > 0 {
            log::warn!(
                "keys removed={removed} cause=\"the key file does not open them: it was lost or \
                 replaced, or they were changed; the next message of their users brings them back\""
            );
        }
        Ok(Self { state, seal, held: RwLock::new(held) })
    }

    /// The key of `workspace` for `provider`, from memory.
    pub fn get(&self, workspace: &WorkspaceId, provider: &str) -> Option<Secret> {
        Some(self.held.read().get(workspace)?.get(provider)?.value.clone())
    }

    /// Keeps `key`, which the user of `workspace` sent now, in the place of any other for
    /// `provider`. Writes only what is new, and once a day that it was sent. Blocks meanwhile.
    ///
    /// After an error the key is in memory, and the next call tries to store it again.
    pub fn remember(
        &self,
        workspace: &WorkspaceId,
        provider: &str,
        key: Secret,
    ) -> Result<(), KeysError> {
        self.remember_at(now(), workspace, provider, key)
    }

    fn remember_at(
        &self,
        now: i64,
        workspace: &WorkspaceId,
        provider: &str,
        key: Secret,
    ) -> Result<(), KeysError> {
        let is_stored = |held: &Key| held.value == key && now.saturating_sub(held.seen) < DAY;
        let held = |held: &Held| held.get(workspace)?.get(provider).map(is_stored);
        if held(&self.held.read()) == Some(true) {
            return Ok(());
        }
        let sealed = self.seal.close(workspace, provider, &key);
        Ok(self.state.with(|db| {
            let written = db
                .prepare_cached(
                    "INSERT OR REPLACE INTO user_keys (workspace, provider, nonce, sealed, seen)
                    VALUES (?1, ?2, ?3, ?4, ?5)",
                )
                .and_then(|mut insert| {
                    let id = workspace.as_str();
                    insert.execute(params![id, provider, sealed.nonce, sealed.text, now])
                });
            let seen = if written.is_ok() { now } else { now - DAY };
            let mut held = self.held.write();
            let keys = held.entry(workspace.clone()).or_default();
            keys.insert(provider.to_owned(), Key { value: key, seen });
            written.map(drop)
        })?)
    }

    /// Forgets the key of `workspace` for `provider`. To forget what is not there is no error.
    pub fn forget(&self, workspace: &WorkspaceId, provider: &str) -> Result<(), KeysError> {
        Ok(self.state.with(|db| {
            let mut held = self.held.write();
            if let Some(keys) = held.get_mut(workspace) {
                keys.remove(provider);
                if keys.is_empty() {
                    held.remove(workspace);
                }
            }
            drop(held);
            remove(db, workspace.as_str(), provider)
        })?)
    }

    /// Forgets every key that its user has not sent for `older_than`, give or take the day to
    /// which that is known. Says how many were stored.
    pub fn expire(&self, older_than: Duration) -> Result<usize, KeysError> {
        let age = i64::try_from(older_than.as_secs()).unwrap_or(i64::MAX);
        let limit = now().saturating_sub(age);
        Ok(self.state.with(|db| {
            self.held.write().retain(|_, keys| {
                keys.retain(|_, key| key.seen >= limit);
                !keys.is_empty()
            });
            db.execute("DELETE FROM user_keys WHERE seen < ?1", [limit])
        })?)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// The stored keys that `seal` opens, and how many it did not open, which are removed.
fn read(db: &mut Connection, seal: &Seal) -> rusqlite::Result<(Held, usize)> {
    type Row = (String, String, Vec<u8>, Vec<u8>, i64);
    let change = db.transaction()?;
    let rows: Vec<Row> = change
        .prepare("SELECT workspace, provider, nonce, sealed, seen FROM user_keys")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?
        .collect::<Result<_, _>>()?;
    let (mut held, mut removed) = (Held::new(), 0);
    for (id, provider, nonce, sealed, seen) in rows {
        let opened = WorkspaceId::parse(&id).and_then(|workspace| {
            let value = seal.open(&workspace, &provider, &nonce, &sealed)?;
            Some((workspace, value))
        });
        if let Some((workspace, value)) = opened {
            held.entry(workspace).or_default().insert(provider, Key { value, seen });
        } else {
            remove(&change, &id, &provider)?;
            removed += 1;
        }
    }
    change.commit()?;
    Ok((held, removed))
}

fn remove(db: &Connection, workspace: &str, provider: &str) -> rusqlite::Result<()> {
    let sql = "DELETE FROM user_keys WHERE workspace = ?1 AND provider = ?2";
    db.execute(sql, params![workspace, provider]).map(drop)
}

/// Unix seconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// In bytes.
const LONGEST: usize = 512;
const DAY: i64 = 24 * 60 * 60;
