//! One event stream for all turns of a runner: each hears its own, and none waits for another.

use std::{collections::BTreeMap, time::Duration};

use open_persona::config::PermissionPolicy;
use serde_json::{Value, json};

use crate::{
    opencode::Script,
    world::{Connection, DEVELOPMENT, World},
};

fn ask(user: &str) -> Value {
    json!({"model": "open-persona/build", "stream": true, "user": user,
           "messages": [{"role": "user", "content": "hello"}]})
}

/// A turn of alice's, in `ses_stub1`, that is in the middle of its answer and is not read on.
async fn stalled(world: &World) -> Connection {
    world.opencode.script(Script::Until("text", "message.part.delta"));
    let mut connection = world.connect_through(4096);
    connection.post(&[], ask("alice").to_string().as_bytes()).await;
    connection.read_until("\"content\":\"").await;
    connection
}

/// Says far more to alice's session than anything may hold.
fn flood(world: &World) {
    let piece = "x".repeat(100_000);
    for _ in 0..FLOOD / piece.len() {
        world.opencode.say_delta("ses_stub1", &piece);
    }
}

const FLOOD: usize = 40 << 20;
/// The bound of one listener's queue, and what pipes and buffers on the way may hold.
const HELD: usize = (8 << 20) + (4 << 20);

#[tokio::test]
async fn a_reader_that_stops_holds_nobody_up_and_is_cut_off() {
    let world = World::new().await;
    let mut slow = stalled(&world).await;
    flood(&world);
    for user in ["alice", "bob", "alice"] {
        let answer = world.chat(&ask(user)).await;
        assert_eq!(answer.text(), "Hello the quick brown fox.", "{user}");
    }
    let answer = slow.answer().await;
    let last: Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "reader_too_slow", "{last}");
    assert!(!answer.body.contains("[DONE]"));
    assert!(answer.body.len() < HELD, "{} bytes were kept", answer.body.len());
    world.opencode.wait_for_call("/session/ses_stub1/abort").await;
}

#[tokio::test]
async fn a_reader_that_never_reads_again_is_given_up() {
    let short = Duration::from_millis(50);
    let world = World::with(DEVELOPMENT, |config| config.limits.body_deadline = short).await;
    let slow = stalled(&world).await;
    flood(&world);
    world.opencode.wait_for_call("/session/ses_stub1/abort").await;
    drop(slow);
}

#[tokio::test]
async fn turns_at_the_same_time_hear_only_their_own() {
    let world = World::new().await;
    for round in 0..24 {
        world.opencode.script(Script::Recording(["text", "unicode", "multi_step"][round % 3]));
    }
    let chats = (0..24).map(|round| {
        let world = &world;
        async move { world.chat(&ask(["alice", "bob"][round % 2])).await }
    });
    let mut heard: BTreeMap<String, usize> = BTreeMap::new();
    for answer in futures_util::future::join_all(chats).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.events().last(), Some(&"[DONE]"), "{}", answer.body);
        *heard.entry(answer.text()).or_default() += 1;
    }
    assert_eq!(heard.values().collect::<Vec<_>>(), [&8, &8, &8], "{heard:?}");
    assert_eq!(heard["Hello the quick brown fox."], 8);
}

#[tokio::test]
async fn events_of_sessions_nobody_listens_to_are_nobodys() {
    let world = World::new().await;
    let mut connection = stalled(&world).await;
    world.opencode.say_delta("ses_other", "not mine");
    world.opencode.say(&json!({"type": "session.idle", "properties": {"sessionID": "ses_other"}}));
    world.opencode.say(&json!({"type": "session.created", "properties": {
        "sessionID": "ses_child", "info": {"id": "ses_child", "parentID": "ses_other"}}}));
    world.opencode.say(&json!({"type": "permission.asked", "properties": {
        "id": "per_x", "sessionID": "ses_child", "permission": "bash", "patterns": []}}));
    world.opencode.finish("text", "ses_stub1");
    let answer = connection.answer().await;
    assert_eq!(answer.text(), "Hello the quick brown fox.");
    assert!(world.opencode.calls_to("/reply").is_empty());
}

#[tokio::test]
async fn what_a_subagent_asks_is_answered_in_its_parents_turn() {
    for (recording, policy, reply) in [
        ("subagent_permission_reject", PermissionPolicy::Reject, "reject"),
        ("subagent_permission", PermissionPolicy::Allow, "once"),
    ] {
        let world = World::with(DEVELOPMENT, |config| config.turns.permission = policy).await;
        world.opencode.script(Script::Recording(recording));
        let answer = world.chat(&ask("alice")).await;
        assert_eq!(answer.status, 200, "{recording}: {}", answer.body);
        assert_eq!(answer.events().last(), Some(&"[DONE]"), "{recording}: {}", answer.body);
        let replies = world.opencode.calls_to("/reply");
        assert_eq!(replies.len(), 1, "{recording}: {replies:?}");
        assert!(replies[0].0.starts_with("/permission/per_"), "{replies:?}");
        assert_eq!(replies[0].1["reply"], reply, "{recording}");
    }
}

#[tokio::test]
async fn nothing_that_opencode_asks_is_left_open() {
    for (recording, asked) in [
        ("permission_reject", "/reply"),
        ("permission_reject_message", "/reply"),
        ("permission_once", "/reply"),
        ("permission_always", "/reply"),
        ("permission_parallel_reject", "/reply"),
        ("permission_external_directory", "/reply"),
        ("permission_doom_loop", "/reply"),
        ("question", "/reject"),
        ("question_reject", "/reject"),
    ] {
        let world = World::new().await;
        world.opencode.script(Script::Recording(recording));
        let answer = world.chat(&ask("alice")).await;
        assert_eq!(answer.status, 200, "{recording}: {}", answer.body);
        assert_eq!(answer.events().last(), Some(&"[DONE]"), "{recording}: {}", answer.body);
        assert!(!world.opencode.calls_to(asked).is_empty(), "{recording}");
    }
}
