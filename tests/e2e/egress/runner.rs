//! What the system knows of a runner, and where a secret has got to.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use super::{SOON, call, path_of, wire::Wire};
use crate::{processes, provider::Style, stand::Stand};

/// The variable a runner has its token in.
const TOKEN: &str = "OPEN_PERSONA_EGRESS_TOKEN";
/// How large a page of memory is, and how much is looked at in one piece.
const PAGE: usize = 4096;
const PIECE: usize = 1024 * PAGE;

/// The only runner there is.
pub(super) fn only(stand: &Stand) -> i32 {
    let runners = stand.runners();
    assert_eq!(runners.len(), 1, "{runners:?}");
    runners[0].0
}

/// A process's environment.
pub(super) fn environment(pid: i32) -> BTreeMap<String, String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).expect("a process of ours");
    String::from_utf8_lossy(&environ)
        .split('\0')
        .filter_map(|variable| variable.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A runner's token.
pub(super) fn token(pid: i32) -> String {
    environment(pid).remove(TOKEN).expect("a token in the runner's environment")
}

/// Kills the only runner, and returns its token when the gateway has seen that it is dead.
pub(super) async fn kill(stand: &Stand, style: Style) -> String {
    let pid = only(stand);
    let token = token(pid);
    processes::signal(pid, Signal::KILL);
    let call = call(style, "m1", "Hello", true);
    let wire = Wire::post(stand.egress, &path_of(style), &token, &call);
    let refused = async {
        while wire.send(stand.egress).await.refusal() != "token_unknown" {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, refused).await.expect("the token dies with its runner");
    token
}

/// Everywhere `needle` can be found: in what the gateway has started, and in all files of the
/// stand. A needle that is there must be found, or else nothing is proven: the tests look for
/// tokens too.
pub(super) fn places_of(stand: &Stand, needle: &str) -> Vec<String> {
    let needle = needle.as_bytes();
    let mut places = Vec::new();
    for pid in stand.started() {
        let process = PathBuf::from(format!("/proc/{pid}"));
        for name in ["environ", "cmdline"] {
            if within(&fs::read(process.join(name)).unwrap_or_default(), needle) {
                places.push(format!("{name} of {pid}"));
            }
        }
        for open in entries(&process.join("fd")) {
            let target = fs::read_link(&open).unwrap_or_default();
            // Pipes, sockets and devices would block.
            if target.is_file() && within(&fs::read(&target).unwrap_or_default(), needle) {
                places.push(format!("{} of {pid}", target.display()));
            }
        }
        if remembers(&process, needle) {
            places.push(format!("memory of {pid}"));
        }
    }
    let mut directories = vec![stand.directory().to_owned()];
    while let Some(directory) = directories.pop() {
        for path in entries(&directory) {
            let kind = fs::symlink_metadata(&path).map(|it| it.file_type());
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                directories.push(path);
            } else if kind.is_ok_and(|kind| kind.is_file())
                && within(&fs::read(&path).unwrap_or_default(), needle)
            {
                places.push(path.display().to_string());
            }
        }
    }
    places
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Whether `needle` is in what a process may write to in its memory.
fn remembers(process: &Path, needle: &[u8]) -> bool {
    let (Ok(memory), Ok(pages)) =
        (File::open(process.join("mem")), File::open(process.join("pagemap")))
    else {
        return false;
    };
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    let areas = maps.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (from, to) = words.next()?.split_once('-')?;
        let is_data = words.next()?.starts_with("rw");
        let address = |text| u64::from_str_radix(text, 16).ok();
        is_data.then_some(address(from)?..address(to)?)
    });
    // A needle may lie across two pieces.
    let overlap = needle.len() - 1;
    let mut piece = vec![0; overlap + PIECE];
    areas.into_iter().any(|area| {
        let (mut kept, end) = (0, area.end);
        area.step_by(PIECE).any(|at| {
            let size = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
            if !is_there(&pages, at, size) {
                kept = 0;
                return false;
            }
            let read = memory.read_at(&mut piece[kept..kept + size], at).unwrap_or_default();
            let end = kept + read;
            let found = within(&piece[..end], needle);
            kept = end.min(overlap);
            piece.copy_within(end - kept..end, 0);
            found
        })
    })
}

/// Whether any page of a piece is in memory or swapped out. Most of what is reserved never was.
fn is_there(pages: &File, at: u64, size: usize) -> bool {
    let mut entries = vec![0; size / PAGE * 8];
    let first = at / u64::try_from(PAGE).unwrap_or(u64::MAX) * 8;
    let read = pages.read_exact_at(&mut entries, first);
    // The two highest bits of eight bytes, the last of which is the highest.
    read.is_ok() && entries.chunks(8).any(|entry| entry[7] >> 6 != 0)
}

fn within(text: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(text, needle).is_some()
}
