//! Runners and the model providers.

use serde_json::json;

use crate::{
    client::prompt,
    provider::{Provider, Style},
    settings::Settings,
    stand::Stand,
};

const KEY: &str = "sk-canary-of-the-admin";

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_with_tools_and_sub_agents_goes_through_in_every_style() {
    for style in Style::ALL {
        let provider = Provider::start().await;
        let written = format!(
            "{{ npm: \"{}\", base_url: \"{}/{style:?}/v1\", key: env:KEY, models: {{ m1: {{}} }} }}",
            style.npm(),
            provider.url
        );
        let settings = Settings::strict()
            .with_development_identities()
            .with_variable("KEY", KEY)
            .with_provider("recorded", &written)
            .with_main("recorded/m1");
        let stand = Stand::start(settings);
        let mut ask = prompt("[[delegate run echo from $((40 + 2))]]");
        ask["user"] = json!("alice");
        let answer = stand.caller().ask(&ask).await;
        assert!(answer.text().contains("from 42"), "{style:?}: {answer:?}");
        let total = provider.ledger().of(KEY, "m1").tokens.total();
        assert_eq!(answer.body["usage"]["total_tokens"].as_u64(), Some(total), "{style:?}");
        assert_eq!(provider.ledger().told, 4, "{style:?}: {:?}", provider.ledger());
        for seen in provider.seen() {
            assert_eq!(seen.method, http::Method::POST);
            assert!(seen.mentions(KEY), "{seen:?}");
        }
    }
}
