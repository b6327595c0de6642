//! One user's chat.

use std::time::Duration;

use serde_json::json;

use crate::{
    client::prompt,
    settings::{Settings, workspace_id},
    stand::Stand,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_chat_arrives_token_by_token_and_leaves_the_workspaces_files() {
    let stand = Stand::start(Settings::shipped().with_demo_delay_ms(80));
    let mut ask = prompt("echo one two three four five six seven eight");
    ask["user"] = json!("alice");
    let answer = stand.caller().stream(&ask).await;

    assert!(answer.whole().contains("one two three four five six seven eight"), "{answer:?}");
    let (first, last) = (answer.arrivals[0], answer.arrivals[answer.arrivals.len() - 1]);
    assert!(answer.arrivals.len() >= 5, "only {} pieces: {answer:?}", answer.arrivals.len());
    // Eight words with 80 ms between them: anything that collects them first has no spread.
    let spread = last - first;
    assert!(spread > Duration::from_millis(200), "all pieces came within {spread:?}");
    let head = &answer.chunks[0];
    assert_eq!(head["object"], "chat.completion.chunk");
    assert_eq!(head["model"], "open-persona/build");
    let ends: Vec<_> = answer.chunks.iter().filter_map(finish_reason).collect();
    assert_eq!(ends, ["stop"]);

    let workspace = stand.path("workspaces").join(workspace_id("alice"));
    let about = std::fs::read_to_string(workspace.join("openwebui.config")).unwrap();
    assert!(about.ends_with("}\n"));
    let about: serde_json::Value = serde_json::from_str(&about).unwrap();
    assert_eq!(about["openwebui_user"]["id"], "alice");
    assert_eq!(about["workspace"]["hash"], workspace_id("alice"));
    assert!(workspace.join("opencode.jsonc").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_comes_in_a_last_chunk_when_it_is_asked_for() {
    let stand = Stand::start(Settings::shipped());
    let mut ask = prompt("echo counted");
    ask["stream_options"] = json!({"include_usage": true});
    let answer = stand.caller().stream(&ask).await;

    assert!(answer.whole().contains("counted"));
    let last = answer.chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["prompt_tokens"].as_u64().unwrap() > 0, "{last}");
    assert!(last["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_without_streaming_gets_one_whole_answer() {
    let stand = Stand::start(Settings::shipped());
    let answer = stand.caller().ask(&prompt("echo in one piece")).await;

    assert!(answer.text().contains("in one piece"), "{}", answer.body);
    assert_eq!(answer.body["object"], "chat.completion");
    assert_eq!(answer.body["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer.body["choices"][0]["message"]["role"], "assistant");
    assert!(answer.body["usage"]["total_tokens"].as_u64().unwrap() > 0, "{}", answer.body);
    assert_eq!(answer.body["model_details"]["model"], "demo/demo", "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_conversation_reaches_the_model() {
    let stand = Stand::start(Settings::shipped());
    let ask = json!({
        "model": "open-persona/build",
        "user": "alice",
        "messages": [
            {"role": "user", "content": "My cat is called Schnurrbart."},
            {"role": "assistant", "content": "Noted."},
            {"role": "user", "content": "echo again"},
        ],
    });
    assert!(stand.caller().ask(&ask).await.text().contains("again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_runner_starts_none_and_makes_no_workspace() {
    let stand = Stand::start(Settings::shipped());
    let caller = stand.caller();
    let models = caller.get("/v1/models").await;
    assert_eq!(models.status, 200, "{}", models.body);
    let ids: Vec<_> = models.body["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert!(ids.contains(&&json!("open-persona/build")), "{ids:?}");
    assert!(ids.contains(&&json!("open-persona/plan")), "{ids:?}");
    assert_eq!(caller.get("/v1/models/open-persona/build").await.status, 200);
    assert_eq!(caller.get("/healthz").await.status, 200);

    let mut ask = prompt("hello");
    ask["model"] = json!("gpt-9");
    let unknown = caller.ask(&ask).await;
    assert_eq!(unknown.status, 404, "{}", unknown.body);
    assert_eq!(unknown.body["error"]["code"], "model_not_found", "{}", unknown.body);

    assert_eq!(stand.runners(), []);
    let workspaces = std::fs::read_dir(stand.path("workspaces")).map_or(0, Iterator::count);
    assert_eq!(workspaces, 0);
}

fn finish_reason(chunk: &serde_json::Value) -> Option<&str> {
    chunk["choices"][0]["finish_reason"].as_str()
}
