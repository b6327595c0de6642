//! Binding, on a real disk.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::*;
use crate::{gateway::identity::Source, persona::Persona};

/// A configuration with the provider `openai` and nothing chosen.
pub(super) fn config() -> Config {
    let text = "identity: {anonymous: true}\nproviders: {openai: {npm: '@ai-sdk/openai'}}\n";
    crate::config::parse("x.yaml".as_ref(), text, &|_| None).unwrap()
}

/// A configuration for one shared runner, with a persona and an integration.
fn shared() -> Config {
    let text = "
identity: {anonymous: true}
providers: {openai: {npm: '@ai-sdk/openai'}}
integrations:
  grants: {url: 'https://grants.example/mcp', headers: {X-Key: env:KEY}, timeout: 5s}
runners: {launcher: static, static: {url: 'http://127.0.0.1:1'}}
";
    let environment = |name: &str| (name == "KEY").then(|| "hunter2".to_owned());
    let mut config = crate::config::parse("x.yaml".as_ref(), text, &environment).unwrap();
    config.personas.0.push(Arc::new(Persona {
        name: "izzy".into(),
        description: "Helps".into(),
        core: "Be \"kind\".".into(),
        user_heading: String::new(),
        integrations: vec!["grants".into()],
        memory: None,
        tools: Vec::new(),
    }));
    config
}

fn user(name: &str) -> Identity {
    Identity { user: name.into(), source: Source::Body, name: None, email: None, role: None }
}

struct World {
    place: tempfile::TempDir,
    all: Workspaces,
}

impl World {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let all = Workspaces::open(&place.path().join("w"), State::in_memory().unwrap()).unwrap();
        Self { place, all }
    }

    /// As after a restart: nothing remembered but the state.
    fn again(self) -> Self {
        let all = Workspaces::open(&self.all.path, self.all.state.clone()).unwrap();
        Self { all, ..self }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.path().join("w").join(WorkspaceId::of("ann").as_str()).join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    /// Writes a file of ann's, before her first bind if need be.
    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.file("")).unwrap();
        fs::write(self.file(name), text).unwrap();
    }

    fn bind(&self, config: &Config) -> Workspace {
        self.all.bind(&user("ann"), config).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.file("")).unwrap();
        let mut names: Vec<_> =
            names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Everything about our files that a write would change.
    fn marks(&self) -> Vec<(u64, i64, i64)> {
        let metadata = self.names().into_iter().map(|name| fs::metadata(self.file(&name)).unwrap());
        metadata.map(|it| (it.ino(), it.mtime_nsec(), it.ctime_nsec())).collect()
    }
}

#[test]
fn a_first_bind_makes_a_private_directory_with_both_files() {
    let world = World::new();
    let it = world.bind(&config());
    assert_eq!(it.directory, world.file("").canonicalize().unwrap());
    assert_eq!(fs::metadata(&it.directory).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(it.directory.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(world.names(), ["opencode.jsonc", "openwebui.config"]);
    assert_eq!(world.text("opencode.jsonc"), wishes::FRESH);
    assert_eq!(it.wishes, json!({"$schema": "https://opencode.ai/config.json"}));
    assert_eq!(it.models.resolved_from, "default");
    let record: Value = serde_json::from_str(&world.text("openwebui.config")).unwrap();
    assert_eq!(record["openwebui_user"]["id"], "ann");
    assert_eq!(record["workspace"]["hash"], it.id.as_str());
}

#[test]
fn a_second_bind_writes_nothing_in_this_process_or_the_next() {
    for config in [config(), shared()] {
        let world = World::new();
        world.bind(&config);
        let before = world.marks();
        world.bind(&config);
        assert_eq!(world.marks(), before);
        let world = world.again();
        world.bind(&config);
        assert_eq!(world.marks(), before);
    }
}

#[test]
fn a_file_that_was_removed_is_made_again() {
    let world = World::new();
    world.bind(&config());
    fs::remove_dir_all(world.file("")).unwrap();
    world.bind(&config());
    assert_eq!(world.names(), ["opencode.jsonc", "openwebui.config"]);
}

#[test]
fn two_users_of_one_hash_do_not_meet() {
    let mut world = World::new();
    world.all.hash = |_| WorkspaceId::of("ann");
    world.bind(&config());
    let before = world.marks();
    let collides = |world: &World| {
        let answer = world.all.bind(&user("bob"), &config());
        assert!(matches!(answer, Err(WorkspaceError::Collision(_))), "{answer:?}");
    };
    collides(&world);
    let mut world = world.again();
    world.all.hash = |_| WorkspaceId::of("ann");
    collides(&world);
    assert_eq!(world.marks(), before);
    world.bind(&config());
}

#[test]
fn an_older_directory_of_another_user_with_the_same_hash_is_not_taken_over() {
    let mut world = World::new();
    world.write("openwebui.config", r#"{"openwebui_user":"bob"}"#);
    world.all.hash = |_| WorkspaceId::of("ann");
    let answer = world.all.bind(&user("ann"), &config());
    assert!(matches!(answer, Err(WorkspaceError::Collision(_))), "{answer:?}");
    assert_eq!(world.names(), ["openwebui.config"]);
    // With the true hash bob could not have been its owner: what the file says counts for nothing.
    world.all.hash = WorkspaceId::of;
    world.bind(&config());
    assert!(world.text("openwebui.config").contains("\"ann\""));
}

#[test]
fn odd_user_ids_get_directories_of_their_own_beneath_the_root() {
    let world = World::new();
    let odd = ["../x", "/etc", "a\0b", " ", "é", "e\u{301}", "a/b", "anonymous", &"x".repeat(512)];
    let mut seen: Vec<_> =
        odd.iter().map(|it| world.all.bind(&user(it), &config()).unwrap().directory).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), odd.len());
    let made: Vec<_> = fs::read_dir(world.place.path().join("w")).unwrap().collect();
    assert_eq!(made.len(), odd.len());
    for entry in made {
        assert!(WorkspaceId::parse(entry.unwrap().file_name().to_str().unwrap()).is_some());
    }
}

#[test]
fn a_workspace_that_is_a_symlink_is_refused_and_nothing_is_written_behind_it() {
    let world = World::new();
    let outside = tempfile::tempdir().unwrap();
    let name = world.place.path().join("w").join(WorkspaceId::of("ann").as_str());
    std::os::unix::fs::symlink(outside.path(), name).unwrap();
    let answer = world.all.bind(&user("ann"), &config());
    assert!(matches!(answer, Err(WorkspaceError::Directory { .. })), "{answer:?}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn planted_files_stop_no_chat_and_lead_nowhere() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    type Plant = fn(&Path, &Path);
    let plants: [Plant; 6] = [
        |at, outside| std::os::unix::fs::symlink(outside, at).unwrap(),
        |at, outside| fs::hard_link(outside, at).unwrap(),
        |at, _| mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap(),
        |at, _| fs::create_dir(at).unwrap(),
        |at, _| fs::File::create(at).unwrap().set_len(1 << 30).unwrap(),
        |at, _| fs::write(at, b"\xff\xfe").unwrap(),
    ];
    for plant in plants {
        let world = World::new();
        let outside = world.place.path().join("outside");
        fs::write(&outside, r#"{"model": "openai/theirs"}"#).unwrap();
        world.bind(&config());
        for name in ["opencode.jsonc", "openwebui.config"] {
            fs::remove_file(world.file(name)).unwrap();
            plant(&world.file(name), &outside);
        }
        for _ in 0..2 {
            let it = world.bind(&config());
            assert_eq!((it.wishes, it.models.resolved_from), (Value::Null, "default"));
        }
        assert_eq!(fs::read_to_string(&outside).unwrap(), r#"{"model": "openai/theirs"}"#);
        assert_eq!(world.names(), ["opencode.jsonc", "openwebui.config"], "no temporary file");
        let record = world.file("openwebui.config");
        assert!(record.is_dir() || world.text("openwebui.config").contains("\"ann\""));
    }
}

#[test]
fn an_empty_file_is_as_good_as_none() {
    let world = World::new();
    world.write("opencode.jsonc", "");
    world.bind(&config());
    assert_eq!(world.text("opencode.jsonc"), wishes::FRESH);
}

#[test]
fn a_file_that_does_not_parse_is_left_as_it_is() {
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    for text in ["{\"model\": ", "[]", "7", "{'model': 'openai/x'}", &deep] {
        let world = World::new();
        world.write("opencode.jsonc", text);
        for config in [config(), shared()] {
            let it = world.bind(&config);
            assert_eq!((it.wishes, it.models.resolved_from), (Value::Null, "default"));
            assert!(world.text("opencode.jsonc") == text);
        }
    }
}

#[test]
fn a_change_of_the_file_or_of_the_configuration_takes_effect_at_the_next_bind() {
    let world = World::new();
    let mut config = config();
    let model = |config: &Config| world.bind(config).models.model.to_string();
    assert_eq!(model(&config), "openai/gpt-5");
    config.models.main = crate::config::ModelRef::parse("openai/b");
    assert_eq!(model(&config), "openai/b");
    world.write("opencode.jsonc", r#"{"model": "gpt-c"}"#);
    assert_eq!(model(&config), "openai/gpt-c");
}

#[test]
fn the_template_names_models_and_is_only_read() {
    let world = World::new();
    let name = WorkspaceId::of("template");
    let directory = world.place.path().join("w").join(name.as_str());
    let mut config = config();
    config.workspaces.template = Some(name);
    assert_eq!(world.bind(&config).models.resolved_from, "default");
    assert!(!directory.exists());
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("opencode.jsonc"), r#"{"model": "openai/t"}"#).unwrap();
    let it = world.bind(&config);
    assert_eq!((it.models.model.model.as_str(), it.models.resolved_from), ("t", "template"));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    let outside = world.place.path().join("outside");
    fs::rename(directory.join("opencode.jsonc"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, directory.join("opencode.jsonc")).unwrap();
    assert_eq!(world.bind(&config).models.resolved_from, "default");
}

#[test]
fn a_shared_runners_entries_follow_the_configuration_and_are_no_wishes() {
    let world = World::new();
    let mut config = shared();
    let it = world.bind(&config);
    assert_eq!(it.wishes["agent"], json!({}));
    assert_eq!((it.wishes.get("model"), it.models.resolved_from), (None, "default"));
    assert!(!world.text("opencode.jsonc").contains("hunter2"));
    config.models.main = crate::config::ModelRef::parse("openai/later");
    config.integrations.clear();
    assert_eq!(world.bind(&config).models.resolved_from, "environment");
    let text = world.text("opencode.jsonc");
    assert!(text.contains(r#"/* open-persona */ "model": "openai/later","#), "{text}");
    assert!(!text.contains("grants.example"), "{text}");
}
