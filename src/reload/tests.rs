use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A directory with a configuration file in it, loaded and watched.
struct World {
    directory: TempDir,
    reload: Arc<Reload>,
    outcome: watch::Receiver<Outcome>,
    watch: Option<Watch>,
}

impl World {
    fn of(file: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("gateway.yaml"), file).unwrap();
        Self::at(directory)
    }

    fn at(directory: TempDir) -> Self {
        let reload = Reload::load(directory.path().join("gateway.yaml"), |_| None).unwrap();
        let watch = Some(reload.watch().unwrap());
        Self { outcome: reload.outcome(), directory, reload, watch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, text: &str) {
        fs::write(self.path("gateway.yaml"), text).unwrap();
    }

    /// Watches until `done` is true of an outcome. The deadline only turns a hang into a failure.
    async fn until(&mut self, done: impl FnMut(&Outcome) -> bool) -> Outcome {
        let watch = self.watch.get_or_insert_with(|| self.reload.watch().unwrap());
        let found = async {
            tokio::select! {
                found = self.outcome.wait_for(done) => found.unwrap().clone(),
                () = watch.run() => unreachable!("it runs until dropped"),
            }
        };
        timeout(Duration::from_mins(1), found).await.expect("the change was seen")
    }

    /// Watches until the chats remembered are `chats`.
    async fn until_chats(&mut self, chats: usize) -> Outcome {
        let live = self.reload.live().clone();
        self.until(|_| live.now().turns.max_chats == chats).await
    }
}

fn file(chats: usize) -> String {
    format!("{BASE}turns: {{max_chats: {chats}}}\n")
}

const BASE: &str = "identity: {anonymous: true}\nproviders: {openai: {npm: '@ai-sdk/openai'}}\n";

#[tokio::test]
async fn a_saved_change_takes_effect_and_who_holds_the_old_one_keeps_it() {
    let mut world = World::of(&file(1));
    let held = world.reload.live().now();
    world.write(&file(2));
    let outcome = world.until_chats(2).await;
    assert_eq!(outcome.result, Ok(vec![]));
    assert_eq!(held.turns.max_chats, 1);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told_until_a_good_one_comes() {
    let mut world = World::of(&file(1));
    let before = world.reload.live().now();
    world.write(&format!("{BASE}turns: {{max_chats: many}}\n"));
    let told = world.until(|outcome| outcome.result.is_err()).await.result.unwrap_err();
    assert!(told.contains("gateway.yaml:3:20: `many` is not what belongs here; write"), "{told}");
    assert!(Arc::ptr_eq(&before, &world.reload.live().now()));
    world.write(&file(3));
    assert_eq!(world.until_chats(3).await.result, Ok(vec![]));
}

#[tokio::test]
async fn a_file_renamed_over_the_old_one_is_seen_again_and_again() {
    let mut world = World::of(&file(1));
    for chats in 2..5 {
        fs::write(world.path(".gateway.yaml.swp"), file(chats)).unwrap();
        fs::rename(world.path(".gateway.yaml.swp"), world.path("gateway.yaml")).unwrap();
        world.until_chats(chats).await;
    }
}

#[tokio::test]
async fn a_file_that_is_gone_changes_nothing_until_it_is_back() {
    let mut world = World::of(&file(1));
    fs::remove_file(world.path("gateway.yaml")).unwrap();
    world.until(|outcome| outcome.result.is_err()).await;
    assert_eq!(world.reload.live().now().turns.max_chats, 1);
    world.write(&file(2));
    world.until_chats(2).await;
}

/// How Kubernetes mounts a `ConfigMap`: the file points through `..data`, which is swapped.
#[tokio::test]
async fn a_swapped_symlink_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (version, chats) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("gateway.yaml"), file(chats)).unwrap();
    }
    symlink("..1", path("..data")).unwrap();
    symlink("..data/gateway.yaml", path("gateway.yaml")).unwrap();
    let mut world = World::at(directory);
    symlink("..2", world.path("..tmp")).unwrap();
    fs::rename(world.path("..tmp"), world.path("..data")).unwrap();
    world.until_chats(2).await;
    // The target in the directory it points to now is watched, too.
    fs::write(world.path("..2/gateway.yaml"), file(3)).unwrap();
    world.until_chats(3).await;
}

/// Half a file may be valid, and would be in force for a moment.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_still_being_written_is_waited_for_within_reason() {
    let world = World::of(&file(1));
    let watch = world.watch.as_ref().unwrap();
    let settled_after = async |pieces: u32, pause: Duration| {
        let begun = Instant::now();
        let write = async {
            for _ in 0..pieces {
                watch.changed.notify_one();
                tokio::time::sleep(pause).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = watch.settle() => begun.elapsed(),
            () = write => unreachable!("it is pending"),
        }
    };
    let pause = QUIET / 2;
    assert!(settled_after(1, pause).await >= QUIET);
    assert!(settled_after(4, pause).await >= 3 * pause + QUIET);
    assert!(settled_after(10_000, pause).await <= PATIENCE + QUIET);
}

#[tokio::test]
async fn a_change_between_load_and_watch_is_not_missed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.yaml");
    fs::write(&path, file(1)).unwrap();
    let reload = Reload::load(path, |_| None).unwrap();
    let outcome = reload.outcome();
    let mut world = World { directory, reload, outcome, watch: None };
    world.write(&file(2));
    world.until_chats(2).await;
}

#[tokio::test]
async fn a_rotated_secret_file_takes_effect() {
    let secrets = tempfile::tempdir().unwrap();
    let secret = secrets.path().join("key");
    fs::write(&secret, "canary-one-0123456789\n").unwrap();
    let text = format!(
        "identity: {{api_keys: [{{user: a, key: 'file:{}'}}]}}\nproviders: {{openai: {{npm: '@ai-sdk/openai'}}}}",
        secret.display()
    );
    let mut world = World::of(&text);
    let live = world.reload.live().clone();
    let key = || live.now().identity.api_keys[0].key.clone();
    let before = key();
    fs::write(&secret, "canary-two-0123456789\n").unwrap();
    world.until(|_| key() != before).await;
    fs::write(&secret, "canary-three\ncanary\n").unwrap();
    let told = world.until(|outcome| outcome.result.is_err()).await.result.unwrap_err();
    assert!(!told.contains("canary"), "{told}");
}

/// Every world in this process hears it, so no other test counts attempts.
#[tokio::test]
async fn sighup_reloads_even_an_unchanged_file() {
    let mut world = World::of(&file(1));
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
    let outcome = world.until(|outcome| outcome.attempt > 0).await;
    assert_eq!(outcome.result, Ok(vec![]));
}

#[test]
fn what_needs_a_restart_is_named_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.yaml");
    fs::write(&path, file(1)).unwrap();
    let reload = Reload::load(path.clone(), |_| None).unwrap();
    let more = "listen: {address: 127.0.0.1:9}\nstate: ./elsewhere\nworkspaces: {root: ./other}\n\
                runners: {launcher: static, dialect: openai}\n";
    fs::write(path, file(2) + more).unwrap();
    let waiting = reload.apply().result.unwrap();
    assert_eq!(
        waiting,
        ["listen", "state", "workspaces.root", "runners.launcher", "runners.dialect"]
    );
    let now = reload.live().now();
    assert_eq!(now.turns.max_chats, 2);
    assert_eq!(now.listen.address.port(), 8000);
    assert_eq!(now.state, Path::new("./state"));
}

#[test]
fn rules_that_are_safe_only_with_the_new_listener_wait_for_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.yaml");
    let digest = "0".repeat(64);
    let strict = format!(
        "identity: {{api_keys: [{{user: a, key: 'sha256:{digest}'}}]}}\n\
         providers: {{openai: {{npm: '@ai-sdk/openai'}}}}\nlisten: {{address: 0.0.0.0:8000}}\n"
    );
    fs::write(&path, strict).unwrap();
    let reload = Reload::load(path.clone(), |_| None).unwrap();
    let before = reload.live().now();
    fs::write(path, format!("{BASE}listen: {{address: 127.0.0.1:8000}}\n")).unwrap();
    assert!(
        reload.apply().result.unwrap_err().contains("not safe while listening on 0.0.0.0:8000")
    );
    assert!(Arc::ptr_eq(&before, &reload.live().now()));
}
