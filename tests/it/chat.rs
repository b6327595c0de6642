//! A chat through the gateway, Pingora included, to a scripted opencode.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use std::sync::atomic::Ordering;

use open_persona::launcher::LaunchError;
use serde_json::{Value, json};

use crate::{
    opencode::Script,
    world::{FRONT_END, World, front_end},
};

fn ask(text: &str) -> Value {
    json!({"model": "open-persona/build", "stream": true, "user": "alice",
           "messages": [{"role": "user", "content": text}]})
}

#[tokio::test]
async fn a_streamed_chat_is_openais_stream() {
    let world = World::new().await;
    let answer = world.chat(&ask("hello")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.text(), "Hello the quick brown fox.");
    assert_eq!(answer.events().last(), Some(&"[DONE]"));
}

#[tokio::test]
async fn a_chat_that_is_not_streamed_is_one_document() {
    let world = World::new().await;
    let mut request = ask("hello");
    request["stream"] = json!(false);
    let answer = world.chat(&request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello the quick brown fox.");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(answer["usage"]["total_tokens"].as_u64() > Some(0), "{answer}");
    assert_eq!(answer["model_details"]["model"], "mock/m1");
}

#[tokio::test]
async fn the_prompt_has_our_own_id_agent_and_model() {
    let world = World::new().await;
    world.chat(&ask("hello")).await;
    let (path, prompt) = world.opencode.calls_to("prompt_async").remove(0);
    assert_eq!(path, "/session/ses_stub1/prompt_async");
    assert!(prompt["messageID"].as_str().unwrap().starts_with("msg"), "{prompt}");
    assert_eq!(prompt["agent"], "build");
    assert_eq!(prompt["model"], json!({"providerID": "mock", "modelID": "m1"}));
    assert_eq!(prompt["parts"], json!([{"type": "text", "text": "hello"}]));
}

#[tokio::test]
async fn a_chat_without_memory_leaves_no_session_behind() {
    let world = World::new().await;
    world.chat(&ask("hello")).await;
    world.opencode.wait_for_call("/session/ses_stub1").await;
    let deleted =
        world.opencode.calls().into_iter().any(|(method, path, _)| {
            method == http::Method::DELETE && path == "/session/ses_stub1"
        });
    assert!(deleted, "{:?}", world.opencode.calls());
}

#[tokio::test]
async fn two_requests_of_one_user_share_one_runner() {
    let world = World::new().await;
    let request = ask("hello");
    let (first, second) = tokio::join!(world.chat(&request), world.chat(&request));
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(world.launcher.launches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_leaves_aborts_the_turn() {
    let world = World::new().await;
    world.opencode.script(Script::Until("text", "message.part.delta"));
    let mut connection = world.post(&ask("hello")).await;
    connection.read_until("\"content\":\"").await;
    drop(connection.pipe);
    world.opencode.wait_for_call("/abort").await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_aborts_the_turn() {
    let world = World::new().await;
    world.opencode.script(Script::Silence);
    let connection = world.post(&ask("hello")).await;
    world.opencode.wait_for_call("/prompt_async").await;
    drop(connection.pipe);
    world.opencode.wait_for_call("/abort").await;
}

#[tokio::test]
async fn a_prompt_that_arrives_after_its_client_left_is_aborted_too() {
    let world = World::new().await;
    world.opencode.script(Script::Late);
    let connection = world.post(&ask("hello")).await;
    world.opencode.wait_for_call("/prompt_async").await;
    drop(connection.pipe);
    world.opencode.wait_for_calls("/abort", 2).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_whole_answer_aborts_the_turn() {
    let world = World::new().await;
    world.opencode.script(Script::Silence);
    let mut request = ask("hello");
    request["stream"] = json!(false);
    let connection = world.post(&request).await;
    world.opencode.wait_for_call("/prompt_async").await;
    drop(connection.pipe);
    world.opencode.wait_for_call("/abort").await;
}

#[tokio::test]
async fn a_runner_that_dies_at_start_is_a_503_that_says_so() {
    let world = World::new().await;
    *world.launcher.next_failure.lock() =
        Some(LaunchError::Died { status: "exit 1".to_owned(), last_line: "no disk".to_owned() });
    let answer = world.chat(&ask("hello")).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.json()["error"]["code"], "runner_died");
    assert_eq!(world.chat(&ask("hello")).await.status, 200);
}

#[tokio::test]
async fn a_runner_that_dies_in_a_turn_is_an_error_and_no_end() {
    let world = World::new().await;
    world.opencode.script(Script::Until("text", "message.part.delta"));
    let mut connection = world.post(&ask("hello")).await;
    connection.read_until("\"content\":\"").await;
    world.launcher.runners.lock()[0].ended.cancel();
    world.opencode.hang_up();
    let answer = connection.answer().await;
    let last: Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "runner_ended", "{}", answer.body);
    assert!(!answer.body.contains("[DONE]"), "{}", answer.body);
    assert_eq!(world.chat(&ask("hello")).await.status, 200, "the next request works");
}

#[tokio::test]
async fn a_broken_event_stream_is_an_error_and_the_next_turn_listens_again() {
    let world = World::new().await;
    world.opencode.script(Script::Until("text", "message.part.delta"));
    let mut connection = world.post(&ask("hello")).await;
    connection.read_until("\"content\":\"").await;
    world.opencode.hang_up();
    let answer = connection.answer().await;
    assert!(answer.events().last().unwrap().contains("\"error\""), "{}", answer.body);
    assert_eq!(world.chat(&ask("hello")).await.text(), "Hello the quick brown fox.");
}

#[tokio::test]
async fn a_provider_error_before_the_first_token_is_an_http_error() {
    let world = World::new().await;
    world.opencode.script(Script::Recording("error_401"));
    let answer = world.chat(&ask("hello")).await;
    assert_eq!(answer.status, 502, "{}", answer.body);
    assert_eq!(answer.json()["error"]["type"], "server_error");
    assert!(!answer.body.contains("[DONE]"));
}

#[tokio::test]
async fn a_permission_is_refused_by_policy_and_the_turn_goes_on() {
    let world = World::new().await;
    world.opencode.script(Script::Recording("permission_reject_message"));
    let answer = world.chat(&ask("hello")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let replies = world.opencode.calls_to("/reply");
    assert_eq!(replies[0].1["reply"], "reject", "{replies:?}");
    assert!(!answer.text().is_empty());
}

#[tokio::test]
async fn a_chat_with_memory_sends_only_what_is_new() {
    let world = World::with(FRONT_END, |_| {}).await;
    let first = [
        ("X-OpenWebUI-Chat-Id", "chat-1"),
        ("X-OpenPersona-User-Message-Id", "q1"),
        ("X-OpenPersona-Message-Id", "a1"),
    ];
    world.chat_with(&front_end(&first), &ask("one")).await;
    let second = [
        ("X-OpenWebUI-Chat-Id", "chat-1"),
        ("X-OpenPersona-User-Message-Id", "q2"),
        ("X-OpenPersona-Parent-Message-Id", "a1"),
        ("X-OpenPersona-Message-Id", "a2"),
    ];
    let mut request = ask("two");
    request["messages"] = json!([
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "two"},
    ]);
    world.chat_with(&front_end(&second), &request).await;
    let prompts = world.opencode.calls_to("prompt_async");
    assert_eq!(prompts[0].0, prompts[1].0, "the same session");
    assert_eq!(prompts[1].1["parts"], json!([{"type": "text", "text": "two"}]));
}

#[tokio::test]
async fn a_lost_session_is_rebuilt_once_with_the_transcript() {
    let world = World::with(FRONT_END, |_| {}).await;
    let first = [
        ("X-OpenWebUI-Chat-Id", "chat-1"),
        ("X-OpenPersona-User-Message-Id", "q1"),
        ("X-OpenPersona-Message-Id", "a1"),
    ];
    world.chat_with(&front_end(&first), &ask("one")).await;
    world.opencode.script(Script::SessionLost);
    let second = [
        ("X-OpenWebUI-Chat-Id", "chat-1"),
        ("X-OpenPersona-User-Message-Id", "q2"),
        ("X-OpenPersona-Parent-Message-Id", "a1"),
        ("X-OpenPersona-Message-Id", "a2"),
    ];
    let mut request = ask("two");
    request["messages"] = json!([
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "the answer was 42"},
        {"role": "user", "content": "two"},
    ]);
    let answer = world.chat_with(&front_end(&second), &request).await;
    assert_eq!(answer.text(), "Hello the quick brown fox.");
    let (path, prompt) = world.opencode.calls_to("prompt_async").remove(2);
    assert_eq!(path, "/session/ses_stub2/prompt_async");
    assert!(prompt["parts"].to_string().contains("the answer was 42"), "{prompt}");
}

#[tokio::test]
async fn a_picked_models_meta_chooses_the_persona_and_its_integrations() {
    let yaml = FRONT_END.replace("user: headers", "user: headers, meta_headers: true")
        + "\nintegrations: { mail: { url: 'http://127.0.0.1:9/mcp' } }";
    let world = World::with(&yaml, |_| {}).await;
    let meta = json!({"open_persona": {
        "persona": {"template": "izzy"},
        "integrations": {"mail": {"enabled": true}},
        "memory": {"enabled": false, "self_reference_level": 0.1},
    }});
    let meta = BASE64.encode(meta.to_string());
    world.chat_with(&front_end(&[("X-OpenPersona-Meta-B64", &meta)]), &ask("hello")).await;
    let (_, prompt) = world.opencode.calls_to("prompt_async").remove(0);
    assert_eq!(prompt["agent"], "izzy");
    assert_eq!(prompt["tools"], json!({"mail_*": true}));
    let system = prompt["system"].as_str().unwrap();
    assert!(system.starts_with("Do not speak of yourself"), "{system}");
}

#[tokio::test]
async fn meta_of_a_front_end_that_is_not_believed_changes_nothing() {
    let world = World::with(FRONT_END, |_| {}).await;
    let meta = BASE64.encode(r#"{"persona":{"template":"izzy"}}"#);
    let headers = [("X-OpenPersona-Meta-B64", meta.as_str())];
    world.chat_with(&front_end(&headers), &ask("hello")).await;
    let (_, prompt) = world.opencode.calls_to("prompt_async").remove(0);
    assert_eq!(prompt["agent"], "build");
    assert_eq!((&prompt["tools"], &prompt["system"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn the_model_a_user_picked_counts_where_its_front_end_is_believed() {
    let yaml = FRONT_END.replace("user: headers", "user: headers, meta_headers: true");
    let world = World::with(&yaml, |_| {}).await;
    let headers = [("X-OpenPersona-Original-Model-Id", "open-persona/grant-draft")];
    world.chat_with(&front_end(&headers), &ask("hello")).await;
    assert_eq!(world.opencode.calls_to("prompt_async")[0].1["agent"], "grant-draft");
}
