//! Reading and replacing our files in a directory that its runner can rewrite at any moment.
//!
//! Every name is looked up in an open directory and never through a symlink, only plain files with
//! one name are read, and a write is a new file renamed over the old name: it cannot reach through
//! a link that a runner planted.

use std::{
    ffi::OsStr,
    io::{self, Read, Write},
    path::Path,
};

use cap_std::{
    ambient_authority,
    fs::{Dir, File, Metadata, MetadataExt},
};
use cap_tempfile::TempFile;
use rustix::{
    fs::{Mode, OFlags, fchmod, mkdirat, openat},
    io::Errno,
};

/// The most that is read of a file, in bytes.
pub(super) const LARGEST: u64 = 1024 * 1024;

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory(Dir);

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    links: u64,
    size: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What is at a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A plain file of text.
    Text(String, Stamp),
    /// Something that must not be read, or cannot be.
    Unusable(&'static str, Stamp),
}

impl Found {
    /// The state it was found in; `None` when there was nothing.
    pub(super) fn stamp(&self) -> Option<&Stamp> {
        match self {
            Self::Nothing => None,
            Self::Text(_, stamp) | Self::Unusable(_, stamp) => Some(stamp),
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            links: metadata.nlink(),
            size: metadata.size(),
            mode: metadata.mode(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Directory {
    /// Opens `path`, which the operator named: symlinks on the way are the operator's.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Dir::open_ambient_dir(path, ambient_authority()).map(Self)
    }

    /// Opens the directory `name` in this one, which must be a real one. `None` when there is none.
    pub(super) fn child(&self, name: &str) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self(Dir::from_std_file(fd.into())))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Like [`Directory::child`], making it with mode 0700 when there is none.
    pub(super) fn make_child(&self, name: &str) -> io::Result<Self> {
        if let Some(child) = self.child(name)? {
            return Ok(child);
        }
        match mkdirat(&self.0, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.child(name)?.ok_or_else(|| Errno::NOENT.into())
    }

    /// The state of `name`; `None` when there is nothing or it cannot be told.
    pub(super) fn stamp(&self, name: &str) -> Option<Stamp> {
        self.0.symlink_metadata(name).ok().map(|metadata| Stamp::of(&metadata))
    }

    /// Reads `name` when it is a plain file of UTF-8 text, at most [`LARGEST`] bytes. Never blocks
    /// on a FIFO and opens no device.
    pub(super) fn look(&self, name: &str) -> Found {
        let Ok(metadata) = self.0.symlink_metadata(name) else { return Found::Nothing };
        // Looked at again once it is open: in between it may have become something else.
        let reason = match fault(&metadata) {
            Some(reason) => reason,
            None => match self.read(name) {
                Ok((text, stamp)) => return Found::Text(text, stamp),
                Err(reason) => reason,
            },
        };
        Found::Unusable(reason, Stamp::of(&metadata))
    }

    fn read(&self, name: &str) -> Result<(String, Stamp), &'static str> {
        const UNREADABLE: &str = "it cannot be read";
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = openat(&self.0, name, flags, Mode::empty()).map_err(|_| UNREADABLE)?;
        let file = File::from_std(fd.into());
        let metadata = file.metadata().map_err(|_| UNREADABLE)?;
        if let Some(reason) = fault(&metadata) {
            return Err(reason);
        }
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|_| UNREADABLE)?;
        if bytes.len() as u64 > LARGEST {
            return Err(TOO_LARGE);
        }
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
        Ok((text, Stamp::of(&metadata)))
    }

    /// Puts `text` at `name` in one step, unless what is there is no longer in the state `seen`;
    /// then the file is somebody's newer one and stays. A replaced plain file passes its
    /// permissions on, a new file is 0600.
    pub(super) fn replace(&self, name: &str, seen: Option<&Stamp>, text: &str) -> io::Result<()> {
        let mode = match self.0.symlink_metadata(name) {
            Ok(old) if old.is_file() && old.nlink() == 1 => Mode::from_raw_mode(old.mode() & 0o777),
            _ => Mode::RUSR | Mode::WUSR,
        };
        let mut file = TempFile::new(&self.0)?;
        fchmod(file.as_file(), mode)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        if self.stamp(name).as_ref() != seen {
            return Err(io::Error::other("it changed while it was being rewritten"));
        }
        file.replace(OsStr::new(name))
    }
}

const TOO_LARGE: &str = "it is larger than 1 MiB";

/// Why a file with this metadata is not read. A second hard link is refused because the other name
/// may be a file of somebody else's.
fn fault(metadata: &Metadata) -> Option<&'static str> {
    if metadata.is_symlink() {
        Some("it is a symbolic link")
    } else if metadata.is_dir() {
        Some("it is a directory")
    } else if !metadata.is_file() {
        Some("it is not a plain file")
    } else if metadata.nlink() != 1 {
        Some("it has another name elsewhere")
    } else if metadata.size() > LARGEST {
        Some(TOO_LARGE)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    fn world() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        (place, directory)
    }

    fn reason(directory: &Directory) -> &'static str {
        match directory.look("f") {
            Found::Unusable(reason, _) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn replace(directory: &Directory) -> io::Result<()> {
        directory.replace("f", directory.stamp("f").as_ref(), "ours")
    }

    #[test]
    fn a_symlink_is_neither_read_nor_written_through() {
        let (place, directory) = world();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), "theirs").unwrap();
        std::os::unix::fs::symlink(outside.path(), place.path().join("f")).unwrap();
        assert_eq!(reason(&directory), "it is a symbolic link");
        replace(&directory).unwrap();
        assert_eq!(fs::read_to_string(outside.path()).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(place.path().join("f")).unwrap(), "ours");
        assert!(!place.path().join("f").is_symlink());
    }

    #[test]
    fn a_hard_link_is_neither_read_nor_written_through() {
        let (place, directory) = world();
        fs::write(place.path().join("other"), "theirs").unwrap();
        fs::hard_link(place.path().join("other"), place.path().join("f")).unwrap();
        assert_eq!(reason(&directory), "it has another name elsewhere");
        replace(&directory).unwrap();
        assert_eq!(fs::read_to_string(place.path().join("other")).unwrap(), "theirs");
    }

    #[test]
    fn a_fifo_does_not_block_and_is_replaced() {
        let (place, directory) = world();
        mknodat(CWD, place.path().join("f"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(reason(&directory), "it is not a plain file");
        replace(&directory).unwrap();
        assert!(matches!(directory.look("f"), Found::Text(text, _) if text == "ours"));
    }

    #[test]
    fn a_directory_in_the_way_is_an_error_and_leaves_no_temporary_file() {
        let (place, directory) = world();
        fs::create_dir(place.path().join("f")).unwrap();
        assert_eq!(reason(&directory), "it is a directory");
        replace(&directory).unwrap_err();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_huge_file_is_not_read_and_an_empty_one_is() {
        let (place, directory) = world();
        let file = fs::File::create(place.path().join("f")).unwrap();
        assert!(matches!(directory.look("f"), Found::Text(text, _) if text.is_empty()));
        file.set_len(1 << 30).unwrap();
        assert_eq!(reason(&directory), "it is larger than 1 MiB");
        replace(&directory).unwrap();
        assert!(matches!(directory.look("f"), Found::Text(text, _) if text == "ours"));
    }

    #[test]
    fn a_file_that_changed_since_it_was_read_is_left_alone() {
        let (place, directory) = world();
        let seen = directory.stamp("f");
        fs::write(place.path().join("f"), "newer").unwrap();
        directory.replace("f", seen.as_ref(), "ours").unwrap_err();
        assert_eq!(fs::read_to_string(place.path().join("f")).unwrap(), "newer");
    }

    #[test]
    fn a_new_file_is_private_and_a_replaced_one_keeps_its_permissions() {
        let (place, directory) = world();
        let mode = || fs::metadata(place.path().join("f")).unwrap().permissions().mode() & 0o777;
        replace(&directory).unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(place.path().join("f"), fs::Permissions::from_mode(0o640)).unwrap();
        replace(&directory).unwrap();
        assert_eq!(mode(), 0o640);
    }

    #[test]
    fn a_child_is_a_real_directory_or_nothing() {
        let (place, directory) = world();
        assert!(directory.child("d").unwrap().is_none());
        directory.make_child("d").unwrap();
        let mode = fs::metadata(place.path().join("d")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        std::os::unix::fs::symlink(place.path().join("d"), place.path().join("l")).unwrap();
        directory.make_child("l").unwrap_err();
        fs::write(place.path().join("p"), "").unwrap();
        directory.make_child("p").unwrap_err();
    }
}
