//! The gateway's own memory: one `SQLite` database, outside every workspace, with one writer.
//!
//! It is not for runners: what it says about owners, sessions and processes is trusted.
//! Each table is read and written by one module only, named beside it in `SCHEMA`.

mod read;

use std::{cmp::Ordering, fs, io, path::Path, sync::Arc};

use parking_lot::Mutex;
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};

use self::read::Opened;

/// A handle on the database. Clones share one connection.
#[derive(Clone)]
pub struct State {
    connection: Arc<Mutex<Connection>>,
    /// Held for as long as the gateway runs, so that a second one refuses to start. Dropped after
    /// the connection.
    _lock: Option<Arc<fs::File>>,
}

/// Why the state could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory or its lock file could not be made.
    #[error("the state directory {path} cannot be used")]
    Directory {
        /// The directory.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another gateway holds the state.
    #[error("the state directory {0} is in use by another gateway; stop it or configure another")]
    InUse(String),
    /// The database said no.
    #[error("the state database failed")]
    Database(#[from] rusqlite::Error),
    /// The database was written by a newer version.
    #[error("the state was written by a newer version (schema {0}); run that version instead")]
    Newer(u32),
    /// The database was written by an older version, and is only to be read.
    #[error(
        "the state was written by an older version (schema {0}); run this version's gateway first"
    )]
    Older(u32),
    /// There is no database, and it is only to be read.
    #[error("there is no state in {0} yet; a gateway that uses this directory makes it")]
    Missing(String),
}

impl State {
    /// Opens or makes the state in `directory` and takes its lock.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let failed =
            |source| StateError::Directory { path: directory.display().to_string(), source };
        make_private(directory).map_err(failed)?;
        let lock = fs::File::create(directory.join("lock")).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StateError::InUse(directory.display().to_string()))?;
        let connection = Connection::open(directory.join(DATABASE))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Self::of(connection, Some(Arc::new(lock)))
    }

    /// Opens the state in `directory` as it is at this moment, to be read, whether or not a gateway
    /// runs. Makes and changes nothing. Not for the gateway's own process: its locks would end
    /// with this.
    pub fn read(directory: &Path) -> Result<Self, StateError> {
        let Opened { connection, version, lock } = read::open(directory)?;
        match version.cmp(&STEPS) {
            Ordering::Less => Err(StateError::Older(version)),
            Ordering::Greater => Err(StateError::Newer(version)),
            Ordering::Equal => Ok(Self {
                connection: Arc::new(Mutex::new(connection)),
                _lock: Some(Arc::new(lock)),
            }),
        }
    }

    /// A state that lives in memory and ends with the last clone.
    pub fn in_memory() -> Result<Self, StateError> {
        Self::of(Connection::open_in_memory()?, None)
    }

    fn of(mut connection: Connection, lock: Option<Arc<fs::File>>) -> Result<Self, StateError> {
        migrate(&mut connection)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), _lock: lock })
    }

    /// Runs `work` on the connection, on the calling thread.
    pub fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        Ok(work(&mut self.connection.lock())?)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn migrate(connection: &mut Connection) -> Result<(), StateError> {
    let version = version(connection)?;
    if version > STEPS {
        return Err(StateError::Newer(version));
    }
    for (step, sql) in (1u32..).zip(SCHEMA).skip(version as usize) {
        let change = connection.transaction()?;
        change.execute_batch(sql)?;
        change.pragma_update(None, "user_version", step)?;
        change.commit()?;
    }
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

const DATABASE: &str = "open-persona.db";

/// The schema, step by step; a step that was released is never edited.
const SCHEMA: &[&str] = &[
    "
    -- workspace.rs: who a workspace belongs to
    CREATE TABLE owners (
        workspace  TEXT PRIMARY KEY,
        user_id    TEXT NOT NULL,
        created_at INTEGER NOT NULL  -- Unix milliseconds
    ) STRICT;
    -- launcher/process/ledger.rs: the processes we started, so that a later start can end them
    CREATE TABLE processes (
        workspace  TEXT NOT NULL,
        pid        INTEGER NOT NULL PRIMARY KEY,
        started    INTEGER NOT NULL, -- field 22 of /proc/<pid>/stat, clock ticks since boot
        boot       TEXT NOT NULL     -- which boot: /proc/sys/kernel/random/boot_id
    ) STRICT;
    -- launcher/process/ledger.rs: the name all our processes carry in their environment
    CREATE TABLE instance (
        id         TEXT NOT NULL
    ) STRICT;
    -- chats.rs: the chats that are kept, the longest unused first to go
    CREATE TABLE chats (
        workspace  TEXT NOT NULL,
        chat       TEXT NOT NULL,
        used       INTEGER NOT NULL, -- the seq of its latest turn
        PRIMARY KEY (workspace, chat)
    ) STRICT;
    -- chats.rs: each prompt that was sent to a kept session; seq is their order in it
    CREATE TABLE chat_turns (
        seq        INTEGER PRIMARY KEY AUTOINCREMENT,
        workspace  TEXT NOT NULL,
        chat       TEXT NOT NULL,
        session    TEXT NOT NULL,
        prompt     TEXT NOT NULL,    -- the messageID sent to the runner
        answer     TEXT NOT NULL,    -- the front end's id of the answer
        users      INTEGER NOT NULL, -- user messages in the history it answered
        finished   INTEGER NOT NULL  -- 1 once the whole answer was given
    ) STRICT;
    CREATE INDEX chat_turns_by_chat ON chat_turns (workspace, chat, answer);
    CREATE INDEX chat_turns_by_session ON chat_turns (workspace, session);
",
    "
    -- keys.rs: the users' own keys for model providers, readable with the key file alone
    CREATE TABLE user_keys (
        workspace  TEXT NOT NULL,
        provider   TEXT NOT NULL,
        nonce      BLOB NOT NULL,
        sealed     BLOB NOT NULL,
        seen       INTEGER NOT NULL, -- Unix seconds, to the day: when its user last sent it
        PRIMARY KEY (workspace, provider)
    ) STRICT;
",
    "
    -- usage/table.rs: what a user used of a model on a day
    CREATE TABLE usage (
        user       TEXT NOT NULL,
        day        TEXT NOT NULL,    -- YYYY-MM-DD in UTC
        model      TEXT NOT NULL,    -- provider/model
        calls      INTEGER NOT NULL,
        input      INTEGER NOT NULL, -- tokens
        cached     INTEGER NOT NULL, -- tokens
        cache_write INTEGER NOT NULL, -- tokens
        output     INTEGER NOT NULL, -- tokens
        reasoning  INTEGER NOT NULL, -- tokens
        cost       INTEGER NOT NULL, -- billionths of a US dollar
        estimated  INTEGER NOT NULL, -- calls whose tokens were estimated
        PRIMARY KEY (user, day, model)
    ) STRICT, WITHOUT ROWID;
",
];

#[expect(clippy::cast_possible_truncation, reason = "the schema has few steps")]
const STEPS: u32 = SCHEMA.len() as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gateway_on_the_same_state_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = State::open(directory.path()).unwrap();
        assert!(matches!(State::open(directory.path()), Err(StateError::InUse(_))));
        drop(first);
        State::open(directory.path()).unwrap();
    }

    #[test]
    fn a_newer_schema_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        state.with(|db| db.pragma_update(None, "user_version", 99)).unwrap();
        drop(state);
        assert!(matches!(State::open(directory.path()), Err(StateError::Newer(99))));
    }
}
