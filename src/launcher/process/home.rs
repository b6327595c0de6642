//! The directory a runner may call its own: `<data>/<workspace id>/`.
//!
//! What is in it was in the hands of an agent before. So everything that could configure the next
//! runner is made anew at each start, and nothing is written through a symlink out of it.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use cap_std::{
    ambient_authority,
    fs::{Dir, DirBuilder, DirBuilderExt, Permissions, PermissionsExt},
};
use cap_tempfile::TempFile;

use crate::{config::Dialect, launcher::Spec};

/// A prepared directory.
#[derive(Debug)]
pub(super) struct Home {
    root: PathBuf,
    /// What was in the way, below `root`.
    trash: Vec<PathBuf>,
}

impl Home {
    /// Makes or cleans the directory below `data` for a runner of `spec`. Blocks.
    pub(super) fn prepare(data: &Path, spec: &Spec) -> io::Result<Self> {
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
            .create(data)?;
        let name = spec.workspace.as_str();
        let dir = enter(&Dir::open_ambient_dir(data, ambient_authority())?, name)?;
        for kept in ["home", "data", "state", "cache"] {
            enter(&dir, kept)?;
        }
        for fresh in ["config", "tmp", SOCKET] {
            put_away(&dir, fresh)?;
        }
        enter(&dir, "config")?;
        enter(&dir, "tmp")?;
        if spec.dialect == Dialect::Opencode {
            prepare_opencode(&dir, &spec.opencode_config)?;
        }
        let root = data.join(name);
        let trash = trash_in(&dir)?.into_iter().map(|name| root.join(name)).collect();
        Ok(Self { root, trash })
    }

    /// Removes what was put away, by a program that neither depth nor missing rights stop. The
    /// runner does not wait for it, and what it leaves is tried again at the next start.
    pub(super) fn take_out_trash(&self, path: &OsStr) {
        for trash in &self.trash {
            let mut rm = tokio::process::Command::new("/bin/sh");
            rm.args(["-c", "chmod -R u+rwX \"$0\"; rm -rf \"$0\""]).arg(trash);
            rm.env_clear().env("PATH", path).stdin(Stdio::null());
            rm.stdout(Stdio::null()).stderr(Stdio::null());
            // Tokio reaps a child whose handle is dropped.
            if let Err(error) = rm.spawn() {
                log::warn!("not removed: {} cause={error}", trash.display());
            }
        }
    }

    /// The variables that keep a program within this directory, and opencode's own.
    pub(super) fn environment(&self, dialect: Dialect) -> Vec<(&'static str, OsString)> {
        let mut environment: Vec<(&str, OsString)> = DIRECTORIES
            .iter()
            .map(|(variable, name)| (*variable, self.root.join(name).into_os_string()))
            .collect();
        environment.push(("LANG", "C.UTF-8".into()));
        if dialect == Dialect::Opencode {
            environment.push(("OPENCODE_CONFIG", self.root.join(CONFIG).into_os_string()));
            environment.push(("OPENCODE_MODELS_PATH", self.root.join(MODELS).into_os_string()));
            environment.extend(OPENCODE.iter().map(|(name, value)| (*name, value.into())));
        }
        environment
    }

    /// Where the Unix socket of an `openai` runner goes.
    pub(super) fn socket(&self) -> PathBuf {
        self.root.join(SOCKET)
    }
}

fn prepare_opencode(dir: &Dir, config: &str) -> io::Result<()> {
    // Read as configuration whatever `OPENCODE_DISABLE_PROJECT_CONFIG` says.
    let home = enter(dir, "home")?;
    if home.symlink_metadata(PLUGINS).is_ok() {
        home.rename(PLUGINS, dir, trash_name()?)?;
    }
    let global = enter(&enter(dir, "config")?, "opencode")?;
    // opencode takes these for an installation of its plugin package and fetches none.
    enter(&global, "node_modules")?;
    write(&global, "package-lock.json", LOCKFILE)?;
    write(dir, CONFIG, config)?;
    // An empty catalogue: the configuration describes every model there is, opencode knows of no
    // other provider, and takes 150 MB less memory.
    write(dir, MODELS, "{}")
}

/// Opens the directory `name`, which is made if it is not there and is a real one afterwards.
fn enter(dir: &Dir, name: &str) -> io::Result<Dir> {
    if dir.symlink_metadata(name).is_ok_and(|there| !there.is_dir()) {
        dir.remove_file(name)?;
    }
    match dir.create_dir_with(name, DirBuilder::new().mode(0o700)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        // An agent may have taken the rights away from itself, and so from us.
        _ => dir.set_permissions(name, Permissions::from_mode(0o700))?,
    }
    dir.open_dir(name)
}

/// Moves whatever `name` is out of the way. Only a rename: to remove a tree that an agent made can
/// fail, and take for ever.
fn put_away(dir: &Dir, name: &str) -> io::Result<()> {
    match dir.rename(name, dir, trash_name()?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn trash_name() -> io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!("{TRASH}{}", hex::encode(bytes)))
}

fn trash_in(dir: &Dir) -> io::Result<Vec<OsString>> {
    let names = dir.entries()?.map(|entry| entry.map(|entry| entry.file_name()));
    let is_trash = |name: &OsString| name.as_encoded_bytes().starts_with(TRASH.as_bytes());
    names.filter(|name| name.as_ref().map_or(true, is_trash)).collect()
}

/// Replaces the file `name` in one step, readable by its owner alone.
fn write(dir: &Dir, name: &str, text: &str) -> io::Result<()> {
    if dir.symlink_metadata(name).is_ok_and(|there| there.is_dir()) {
        put_away(dir, name)?;
    }
    let mut file = TempFile::new(dir)?;
    file.as_file().set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.replace(name)
}

/// What opencode runs from `HOME`.
const PLUGINS: &str = ".opencode";
/// Begins the names of what was put away.
const TRASH: &str = "trash-";
const CONFIG: &str = "opencode.json";
const MODELS: &str = "models.json";
/// Short: a socket's path has to fit into 107 bytes.
const SOCKET: &str = "s";
/// What stops opencode's background `npm install` (observed with 1.18.33).
const LOCKFILE: &str = r#"{"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}"#;
const DIRECTORIES: &[(&str, &str)] = &[
    ("HOME", "home"),
    ("XDG_DATA_HOME", "data"),
    ("XDG_STATE_HOME", "state"),
    ("XDG_CACHE_HOME", "cache"),
    ("XDG_CONFIG_HOME", "config"),
    ("TMPDIR", "tmp"),
];
const OPENCODE: &[(&str, &str)] = &[
    ("OPENCODE_DISABLE_PROJECT_CONFIG", "1"),
    // No plugins: with the above, those in a workspace's `.opencode` still ran.
    ("OPENCODE_PURE", "1"),
    ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
    ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
    ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1"),
    // Leaves a 5.6 MB library behind in the temporary directory at each start.
    ("OPENCODE_DISABLE_FFF", "1"),
    // Used instead of `auth.json`, which an agent can write.
    ("OPENCODE_AUTH_CONTENT", "{}"),
    // Any name but `cli` takes the tool away that asks people questions: nobody could answer.
    ("OPENCODE_CLIENT", "gateway"),
];

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

    use super::*;
    use crate::workspace::WorkspaceId;

    fn spec(config: &str) -> Spec {
        Spec {
            workspace: WorkspaceId::of("alice"),
            directory: "/w".into(),
            dialect: Dialect::Opencode,
            opencode_config: config.to_owned(),
            opencode_overrides: String::new(),
            egress_url: String::new(),
            start_timeout: Duration::ZERO,
            stop_timeout: Duration::ZERO,
        }
    }

    #[test]
    fn what_an_agent_left_behind_does_not_configure_the_next_runner() {
        let data = tempfile::tempdir().unwrap();
        let Home { root, .. } = Home::prepare(data.path(), &spec("{}")).unwrap();
        fs::create_dir_all(root.join("home/.opencode/plugin")).unwrap();
        fs::write(root.join("config/opencode/opencode.jsonc"), "{}").unwrap();
        fs::write(root.join("opencode.json"), "forged").unwrap();
        fs::write(root.join("data/kept"), "sessions").unwrap();
        Home::prepare(data.path(), &spec(r#"{"model":"a/b"}"#)).unwrap();
        assert!(!root.join("home/.opencode").exists());
        assert!(!root.join("config/opencode/opencode.jsonc").exists());
        assert_eq!(fs::read_to_string(root.join("opencode.json")).unwrap(), r#"{"model":"a/b"}"#);
        assert!(root.join("data/kept").exists());
    }

    #[test]
    fn nothing_is_written_through_a_symlink() {
        let (data, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let Home { root, .. } = Home::prepare(data.path(), &spec("{}")).unwrap();
        fs::write(outside.path().join("theirs"), "theirs").unwrap();
        for name in ["config", "home", "tmp"] {
            fs::remove_dir_all(root.join(name)).unwrap();
            std::os::unix::fs::symlink(outside.path(), root.join(name)).unwrap();
        }
        fs::remove_file(root.join("opencode.json")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("theirs"), root.join("opencode.json"))
            .unwrap();
        Home::prepare(data.path(), &spec("ours")).unwrap();
        assert_eq!(fs::read_to_string(outside.path().join("theirs")).unwrap(), "theirs");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(root.join("opencode.json")).unwrap(), "ours");
    }

    #[test]
    fn only_the_owner_may_look_in() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path().join("data");
        let Home { root, .. } = Home::prepare(&data, &spec("{}")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for directory in [&data, &root, &root.join("tmp"), &root.join("config/opencode")] {
            assert_eq!(mode(directory), 0o700, "{}", directory.display());
        }
        assert_eq!(mode(&root.join("opencode.json")), 0o600);
    }
}
