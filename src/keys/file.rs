//! The file with the key that all stored keys are encrypted with.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::KeysError;

/// The key in the file at `path`, which is made, with a new key in it, if there is none.
pub(super) fn read_or_make(path: &Path) -> Result<[u8; LENGTH], KeysError> {
    let failed = |source| KeysError::File { path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => read(file, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

fn read(file: File, path: &Path) -> Result<[u8; LENGTH], KeysError> {
    let failed = |source| KeysError::File { path: path.to_owned(), source };
    // Of what was opened, so that nothing else can be put in its place.
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(KeysError::Open(path.to_owned()));
    }
    let mut key = Vec::with_capacity(LENGTH + 1);
    file.take(LENGTH as u64 + 1).read_to_end(&mut key).map_err(failed)?;
    key.try_into().map_err(|_| KeysError::Length(path.to_owned()))
}

fn make(path: &Path) -> io::Result<[u8; LENGTH]> {
    let mut key = [0; LENGTH];
    getrandom::fill(&mut key).expect("the system has random numbers");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(&key).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key would be refused at the next start. What failed is what is reported.
        std::fs::remove_file(path).ok();
    }
    written?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(key)
}

const LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn the_file_is_made_once_and_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let key = read_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_or_make(&path).unwrap(), key);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(read_or_make(&link).unwrap(), key);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_and_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        read_or_make(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = read_or_make(&path).unwrap_err();
            assert!(matches!(refused, KeysError::Open(_)), "{mode:o}: {refused}");
            assert!(refused.to_string().contains("chmod 600"), "{refused}");
        }
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        read_or_make(&path).unwrap();
        for length in [0, 31, 33, 5000] {
            fs::write(&path, vec![7; length]).unwrap();
            assert!(matches!(read_or_make(&path), Err(KeysError::Length(_))), "{length}");
            assert_eq!(fs::read(&path).unwrap().len(), length);
        }
        assert!(matches!(
            read_or_make(directory.path()),
            Err(KeysError::Open(_) | KeysError::File { .. })
        ));
        let nowhere = directory.path().join("no/key");
        assert!(matches!(read_or_make(&nowhere), Err(KeysError::File { .. })));
    }
}
