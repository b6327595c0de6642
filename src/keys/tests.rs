use std::fs;

use base64::{Engine, prelude::BASE64_STANDARD};
use tempfile::TempDir;

use super::*;

/// A state and a key file on disk.
struct World(TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn key_file(&self) -> PathBuf {
        self.0.path().join("key")
    }

    fn open(&self) -> Keys {
        Keys::open(State::open(self.0.path()).unwrap(), &self.key_file()).unwrap()
    }
}

fn alice() -> WorkspaceId {
    WorkspaceId::of("alice")
}

fn bob() -> WorkspaceId {
    WorkspaceId::of("bob")
}

fn key(value: &str) -> Secret {
    check(value.as_bytes()).unwrap()
}

fn found(keys: &Keys, workspace: &WorkspaceId, provider: &str) -> Option<String> {
    keys.get(workspace, provider).map(|key| key.expose().to_owned())
}

fn rows(keys: &Keys) -> i64 {
    keys.state
        .with(|db| db.query_row("SELECT count(*) FROM user_keys", [], |row| row.get(0)))
        .unwrap()
}

/// Runs `sql` on the table and reads it again.
fn after(keys: Keys, world: &World, sql: &str) -> Keys {
    keys.state.with(|db| db.execute_batch(sql)).unwrap();
    drop(keys);
    world.open()
}

#[test]
fn keys_are_kept_by_workspace_and_provider_across_restarts() {
    let world = World::new();
    let keys = world.open();
    keys.remember(&alice(), "openai", key("sk-canary-1")).unwrap();
    keys.remember(&alice(), "anthropic", key("sk-canary-2")).unwrap();
    keys.remember(&bob(), "openai", key("sk-canary-3")).unwrap();
    keys.remember(&bob(), "openai", key("sk-canary-4")).unwrap();
    drop(keys);
    let keys = world.open();
    assert_eq!(found(&keys, &alice(), "openai").as_deref(), Some("sk-canary-1"));
    assert_eq!(found(&keys, &alice(), "anthropic").as_deref(), Some("sk-canary-2"));
    assert_eq!(found(&keys, &bob(), "openai").as_deref(), Some("sk-canary-4"));
    assert_eq!(found(&keys, &bob(), "anthropic"), None);
    keys.forget(&alice(), "openai").unwrap();
    keys.forget(&alice(), "openai").unwrap();
    assert_eq!(found(&keys, &alice(), "openai"), None);
    drop(keys);
    let keys = world.open();
    assert_eq!((found(&keys, &alice(), "openai"), rows(&keys)), (None, 2));
}

#[test]
fn a_row_copied_to_another_workspace_or_provider_does_not_open() {
    for copy in [format!("'{}', 'openai'", bob()), format!("'{}', 'anthropic'", alice())] {
        let world = World::new();
        let keys = world.open();
        keys.remember(&alice(), "openai", key("sk-canary-copied")).unwrap();
        let sql =
            format!("INSERT INTO user_keys SELECT {copy}, nonce, sealed, seen FROM user_keys");
        let keys = after(keys, &world, &sql);
        assert_eq!(found(&keys, &bob(), "openai"), None);
        assert_eq!(found(&keys, &alice(), "anthropic"), None);
        assert!(found(&keys, &alice(), "openai").is_some());
        assert_eq!(rows(&keys), 1, "what does not open is removed");
    }
}

#[test]
fn a_row_that_was_changed_is_removed() {
    for change in [
        "sealed = CAST(x'00' || substr(sealed, 2) AS BLOB)",
        "sealed = CAST(substr(sealed, 1, length(sealed) - 1) AS BLOB)",
        "sealed = x''",
        "nonce = CAST(substr(nonce, 2) || x'00' AS BLOB)",
        "nonce = x''",
        "workspace = 'nobody'",
    ] {
        let world = World::new();
        let keys = world.open();
        keys.remember(&alice(), "openai", key("sk-canary-changed")).unwrap();
        let keys = after(keys, &world, &format!("UPDATE user_keys SET {change}"));
        assert_eq!((found(&keys, &alice(), "openai"), rows(&keys)), (None, 0), "{change}");
    }
}

#[test]
fn no_flipped_bit_opens() {
    let seal = Seal::of(&[7; 32]);
    let sealed = seal.close(&alice(), "openai", &key("sk-canary-flipped"));
    let open = |nonce: &[u8], text: &[u8]| seal.open(&alice(), "openai", nonce, text);
    assert!(open(&sealed.nonce, &sealed.text).is_some());
    for bit in 0..sealed.text.len() * 8 {
        let mut text = sealed.text.clone();
        text[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&sealed.nonce, &text).is_none(), "{bit}");
    }
    for bit in 0..sealed.nonce.len() * 8 {
        let mut nonce = sealed.nonce;
        nonce[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&nonce, &sealed.text).is_none(), "{bit}");
    }
    let again = seal.close(&alice(), "openai", &key("sk-canary-flipped"));
    assert!(again.nonce != sealed.nonce && again.text != sealed.text);
}

#[test]
fn no_file_ever_holds_a_key() {
    let world = World::new();
    let keys = world.open();
    let canary = "sk-canary-on-disk-51d2";
    keys.remember(&alice(), "openai", key(canary)).unwrap();
    let assert_absent = || {
        let forms = [canary.to_owned(), BASE64_STANDARD.encode(canary), hex::encode(canary)];
        let mut bytes = 0;
        for entry in fs::read_dir(world.0.path()).unwrap() {
            let path = entry.unwrap().path();
            let content = fs::read(&path).unwrap();
            bytes += content.len();
            for form in &forms {
                let hit = content.windows(form.len()).any(|window| window == form.as_bytes());
                assert!(!hit, "{form} is in {}", path.display());
            }
        }
        assert!(bytes > 10_000, "the write-ahead log and the database were searched");
    };
    assert_absent();
    keys.state.with(|db| db.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))).unwrap();
    assert_absent();
    drop(keys);
    assert_absent();
}

#[test]
fn a_lost_key_file_costs_the_stored_keys_and_nothing_else() {
    let world = World::new();
    let keys = world.open();
    keys.remember(&alice(), "openai", key("sk-canary-lost")).unwrap();
    drop(keys);
    fs::remove_file(world.key_file()).unwrap();
    let keys = world.open();
    assert_eq!((found(&keys, &alice(), "openai"), rows(&keys)), (None, 0));
    keys.remember(&alice(), "openai", key("sk-canary-again")).unwrap();
    drop(keys);
    assert_eq!(found(&world.open(), &alice(), "openai").as_deref(), Some("sk-canary-again"));
}

#[test]
fn only_a_new_key_or_a_new_day_is_written() {
    let keys = Keys::in_memory().unwrap();
    let written = |now, value| {
        keys.state.with(|db| db.execute("DELETE FROM user_keys", [])).unwrap();
        keys.remember_at(now, &alice(), "openai", key(value)).unwrap();
        rows(&keys) == 1
    };
    assert!(written(1000, "sk-canary-1"));
    assert!(!written(1000 + DAY - 1, "sk-canary-1"));
    assert!(!written(0, "sk-canary-1"), "a clock that was set back");
    assert!(written(1000 + DAY, "sk-canary-1"));
    assert!(written(1000 + DAY, "sk-canary-2"));
    assert_eq!(found(&keys, &alice(), "openai").as_deref(), Some("sk-canary-2"));
}

#[test]
fn a_key_that_could_not_be_stored_is_used_and_stored_the_next_time() {
    let keys = Keys::in_memory().unwrap();
    keys.state.with(|db| db.execute_batch("ALTER TABLE user_keys RENAME TO away")).unwrap();
    assert!(keys.remember(&alice(), "openai", key("sk-canary-1")).is_err());
    assert_eq!(found(&keys, &alice(), "openai").as_deref(), Some("sk-canary-1"));
    keys.state.with(|db| db.execute_batch("ALTER TABLE away RENAME TO user_keys")).unwrap();
    keys.remember(&alice(), "openai", key("sk-canary-1")).unwrap();
    assert_eq!(rows(&keys), 1);
}

#[test]
fn a_key_that_was_not_sent_for_long_expires() {
    let keys = Keys::in_memory().unwrap();
    let sent = |days: i64, of: &WorkspaceId, provider, value| {
        keys.remember_at(now() - days * DAY, of, provider, key(value)).unwrap();
    };
    sent(40, &alice(), "openai", "sk-canary-1");
    sent(20, &alice(), "anthropic", "sk-canary-2");
    sent(40, &bob(), "openai", "sk-canary-3");
    assert_eq!(keys.expire(Duration::from_secs(30 * DAY.unsigned_abs())).unwrap(), 2);
    assert_eq!((found(&keys, &alice(), "openai"), found(&keys, &bob(), "openai")), (None, None));
    assert!(found(&keys, &alice(), "anthropic").is_some());
    assert_eq!((rows(&keys), keys.held.read().len()), (1, 1));
    assert_eq!(keys.expire(Duration::MAX).unwrap(), 0);
}

#[test]
fn a_key_is_visible_ascii_on_one_line() {
    let longest = "k".repeat(512);
    for good in ["k", "sk-proj-_0aZ~!\"%41%0", "%0B", &longest] {
        assert_eq!(check(good.as_bytes()).unwrap().expose(), good);
    }
    let long = "k".repeat(513);
    for (bad, fault) in [
        (&b""[..], Fault::Empty),
        (long.as_bytes(), Fault::Long),
        (b"sk-canary\n", Fault::LineBreak),
        (b"sk-\rcanary", Fault::LineBreak),
        (b"sk-canary%0D%0A", Fault::LineBreak),
        (b"sk-canary%0a", Fault::LineBreak),
        (b"%0dsk-canary", Fault::LineBreak),
        (b" sk-canary", Fault::Character),
        (b"sk-canary\0", Fault::Character),
        (b"sk-canary\x7f", Fault::Character),
        (b"sk-c\xc3\xa4nary", Fault::Character),
        (b"sk-canary\xff", Fault::Character),
    ] {
        assert_eq!(check(bad).unwrap_err(), fault, "{bad:?}");
        assert!(!fault.to_string().contains("canary"));
    }
}

#[test]
fn keys_do_not_print() {
    let keys = Keys::in_memory().unwrap();
    keys.remember(&alice(), "openai", key("sk-canary-printed")).unwrap();
    assert!(!format!("{keys:?}").contains("canary"));
}
