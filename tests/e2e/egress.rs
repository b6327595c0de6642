//! Runners reach the model providers through the gateway's egress, which has the keys.

mod evil;
mod keys;
mod limits;
mod overrides;
mod rotation;
mod runner;
mod tls;
mod tokens;
mod usage;
mod wire;

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    client::{Caller, prompt},
    provider::{Provider, Style},
    settings::{FRONT_END_KEY, Settings},
    stand::Stand,
};

/// The admin's key, which nobody but the provider may see.
const ADMIN_KEY: &str = "sk-canary-of-the-admin-4f1d9c";
/// Where the gateway finds it.
const VARIABLE: &str = "PROVIDER_KEY_FOR_TESTS";
/// How soon what must follow has followed, on a slow machine.
const SOON: Duration = Duration::from_secs(30);

/// The id of the provider that has this style.
fn id_of(style: Style) -> &'static str {
    match style {
        Style::Responses => "openai",
        Style::Messages => "anthropic",
        Style::Chat => "compat",
    }
}

/// The header it wants its key in.
fn header_of(style: Style) -> &'static str {
    match style {
        Style::Responses => "authorization",
        Style::Messages => "x-api-key",
        Style::Chat => "api-key",
    }
}

/// The header a front end sends a user's own key in.
fn key_header(style: Style) -> &'static str {
    match style {
        Style::Responses => "x-openpersona-openai-api-key",
        Style::Messages => "x-openpersona-anthropic-api-key",
        Style::Chat => "x-openpersona-compat-api-key",
    }
}

/// A provider's entry in the config; `more` are further members.
fn entry(style: Style, url: &str, key: &str, more: &str) -> String {
    let auth = if style == Style::Responses { "bearer" } else { header_of(style) };
    let name = if style == Style::Responses { "OpenAI" } else { id_of(style) };
    format!(
        "{{ npm: \"{npm}\", name: {name}, base_url: \"{url}/{id}/v1\", key: \"{key}\", auth: {auth}, \
         models: {{ m1: {{}}, m2: {{}} }}{more} }}",
        npm = style.npm(),
        id = id_of(style),
    )
}

/// A gateway with one provider, and the admin's key for it in its environment.
fn settings(style: Style, provider: &Provider) -> Settings {
    settings_with(style, &entry(style, &provider.url, &format!("env:{VARIABLE}"), ""))
}

fn settings_with(style: Style, entry: &str) -> Settings {
    Settings::strict()
        .with_variable(VARIABLE, ADMIN_KEY)
        .with_provider(id_of(style), entry)
        .with_main(&format!("{}/m1", id_of(style)))
}

/// The trusted front end, on behalf of `user`.
fn front_end(stand: &Stand, user: &str) -> Caller {
    stand.caller().with_key(FRONT_END_KEY).with("x-openwebui-user-id", user)
}

/// A direct call to a provider of `style`, as a runner's SDK makes it.
fn call(style: Style, model: &str, text: &str, stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": text}]);
    match style {
        Style::Responses => json!({"model": model, "stream": stream, "input": messages}),
        Style::Messages => json!({"model": model, "stream": stream, "messages": messages,
            "max_tokens": 64}),
        Style::Chat => json!({"model": model, "stream": stream, "messages": messages,
            "stream_options": {"include_usage": true}}),
    }
}

/// The path of a call of `style` at the egress.
fn path_of(style: Style) -> String {
    format!("/{}/v1/{}", id_of(style), style.endpoint())
}

/// Waits until the gateway's log has `word`.
async fn logs(stand: &Stand, word: &str) {
    let logged = async {
        while !stand.log().contains(word) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(SOON, logged).await.is_ok();
    assert!(done, "the log does not say {word:?} after {SOON:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_with_tools_and_sub_agents_goes_through_in_every_style_and_tells_its_true_usage() {
    for style in Style::ALL {
        let provider = Provider::start().await;
        provider.accept_only(&[ADMIN_KEY]);
        let stand = Stand::start(settings(style, &provider));
        let alice = front_end(&stand, "alice");
        let mut told = 0;
        for (text, says, calls) in [
            ("Hello", "All is well.", 1),
            ("[[run echo from $((40 + 2))]]", "from 42", 2),
            ("[[delegate run echo from $((50 + 4))]]", "from 54", 4),
        ] {
            let before = provider.ledger().total();
            let answer = alice.ask(&prompt(text)).await;
            assert!(answer.text().contains(says), "{style:?}: {answer:?}");
            let after = provider.ledger().total();
            assert_eq!(after.calls - before.calls, calls, "{style:?} {text}");
            let used = after.tokens.total() - before.tokens.total();
            let usage = &answer.body["usage"];
            assert_eq!(usage["total_tokens"].as_u64(), Some(used), "{style:?} {text}: {usage}");
            told += used;
        }
        assert_eq!(provider.ledger().of(ADMIN_KEY, "m1").tokens.total(), told);
        let seen = provider.seen();
        assert!(seen.iter().all(|seen| seen.method == http::Method::POST), "{seen:?}");
    }
}
