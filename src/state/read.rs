//! Opening the database beside a gateway that may be running, without a trace.

use std::{fs::File, io, os::unix::ffi::OsStrExt, path::Path, thread, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use rustix::fs::{FlockOperation, fcntl_lock};

use super::{DATABASE, StateError};

/// A database that is only read.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// The version of its schema.
    pub(super) version: u32,
    /// To be closed after the connection: with it, this process's locks on the database end.
    pub(super) lock: File,
}

/// Opens the database in `directory` as it is at this moment. Neither it nor anything beside it is
/// made or changed.
pub(super) fn open(directory: &Path) -> Result<Opened, StateError> {
    let mut tries = 0;
    loop {
        match try_open(directory) {
            Err(StateError::Database(error)) if tries < TRIES && passes(&error) => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            opened => return opened,
        }
    }
}

fn try_open(directory: &Path) -> Result<Opened, StateError> {
    let shown = || directory.display().to_string();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => StateError::Missing(shown()),
        _ => StateError::Directory { path: shown(), source },
    };
    let path = directory.join(DATABASE);
    let lock = File::open(&path).map_err(failed)?;
    // SQLite would make the files of a write-ahead log that are not there, even to read, and they
    // would belong to whoever reads: a gateway of another user could not open them. So it must not
    // look for a log that a gateway removes right now. To do that it needs this lock for itself.
    fcntl_lock(&lock, FlockOperation::NonBlockingLockShared)
        .map_err(|_| rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None))?;
    let how = if directory.join(LOG).try_exists().map_err(failed)? {
        // A gateway runs, or was killed. Its log is read, the index of that not written.
        "mode=ro&readonly_shm=1"
    } else {
        // No gateway runs. One that starts now writes to its log first.
        "immutable=1"
    };
    // Escaped as a whole, for what is special in a URI may be in a path.
    let path = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("file:{path}?{how}"), flags)?;
    // A transaction that lasts as long as the connection. From its first look at the database on,
    // nothing a gateway does can get in the way.
    connection.execute_batch("BEGIN")?;
    let version = super::version(&connection)?;
    Ok(Opened { connection, version, lock })
}

/// Whether `error` is what a look at the wrong moment gives: a gateway was about to write, and
/// the log's index does not add up; or it was starting or stopping.
fn passes(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::DatabaseBusy)
    )
}

const LOG: &str = "open-persona.db-wal";
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, env, fs, path::PathBuf, process::Command};

    use super::*;
    use crate::state::State;

    /// Names the directory that another process is to read.
    const READ: &str = "OPEN_PERSONA_TEST_READ";

    /// A directory whose name has what is special in a URI.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a ?b=c&d#e%20f");
        (place, directory)
    }

    fn open_with_bob(directory: &Path) -> State {
        let state = State::open(directory).unwrap();
        let sql = "INSERT OR REPLACE INTO owners VALUES ('w', 'bob', 1)";
        state.with(|db| db.execute(sql, [])).unwrap();
        state
    }

    /// Reads the only owner, and checks that reading leaves no trace.
    fn owner(directory: &Path) -> String {
        let files = || -> BTreeMap<_, _> {
            let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
            entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
        };
        let before = files();
        let state = State::read(directory).unwrap();
        let sql = "SELECT user_id FROM owners";
        let owner = state.with(|db| db.query_row(sql, [], |row| row.get(0))).unwrap();
        let refused = state.with(|db| db.execute("DELETE FROM owners", []));
        assert!(refused.is_err());
        drop(state);
        assert!(before == files(), "reading has changed {:?}", before.keys());
        owner
    }

    #[test]
    fn the_state_can_be_read_when_no_gateway_runs() {
        let (_place, directory) = place();
        drop(open_with_bob(&directory));
        assert!(!directory.join(LOG).exists());
        assert_eq!(owner(&directory), "bob");
        open_with_bob(&directory);
    }

    #[test]
    fn the_state_can_be_read_while_a_gateway_runs() {
        // This test runs itself again: within one process SQLite shares what is open.
        if let Some(directory) = env::var_os(READ) {
            assert_eq!(owner(Path::new(&directory)), "bob");
            return;
        }
        let (_place, directory) = place();
        let gateway = open_with_bob(&directory);
        let name = "state::read::tests::the_state_can_be_read_while_a_gateway_runs";
        let mut reader = Command::new(env::current_exe().unwrap());
        let output = reader.args(["--exact", name]).env(READ, &directory).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        let sql = "UPDATE owners SET user_id = 'alice'";
        gateway.with(|db| db.execute(sql, [])).unwrap();
    }

    #[test]
    fn the_state_of_a_gateway_that_was_killed_can_be_read() {
        let (_place, directory) = place();
        let _gateway = open_with_bob(&directory);
        // What a killed gateway leaves is what is there now. Nobody has the copies open.
        let (_other_place, left) = self::place();
        fs::create_dir_all(&left).unwrap();
        for file in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), left.join(file.file_name())).unwrap();
        }
        assert!(left.join(LOG).metadata().unwrap().len() > 0);
        assert_eq!(owner(&left), "bob");
        open_with_bob(&left);
    }

    #[test]
    fn where_there_is_no_state_none_is_made() {
        let (place, directory) = place();
        assert!(matches!(State::read(&directory), Err(StateError::Missing(_))));
        assert!(matches!(State::read(place.path()), Err(StateError::Missing(_))));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_a_state_of_this_version_is_read() {
        let (_place, directory) = place();
        let versions = [1, 99].map(|version| {
            let gateway = State::open(&directory).unwrap();
            gateway.with(|db| db.pragma_update(None, "user_version", version)).unwrap();
            drop(gateway);
            let read = State::read(&directory);
            // So that the next one can be opened.
            let raw = Connection::open(directory.join(DATABASE)).unwrap();
            raw.pragma_update(None, "user_version", crate::state::STEPS).unwrap();
            read.map(drop)
        });
        assert!(matches!(versions[0], Err(StateError::Older(1))), "{versions:?}");
        assert!(matches!(versions[1], Err(StateError::Newer(99))), "{versions:?}");
    }
}
