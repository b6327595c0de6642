//! What users may use, and how much of it.

use std::fs;

use super::{
    ADMIN_KEY, call, entry, front_end, path_of, runner, settings, settings_with, wire::Wire,
};
use crate::{
    client::prompt,
    provider::{Provider, Style},
    settings::workspace_id,
    stand::Stand,
};

#[tokio::test(flavor = "multi_thread")]
async fn over_budget_a_chat_says_so_and_when_to_come_back() {
    for style in Style::ALL {
        let provider = Provider::start().await;
        let roles = "roles:\n  default: { budget: { day: { tokens: 1 } } }";
        let stand = Stand::start(settings(style, &provider).with_section(roles));
        let alice = front_end(&stand, "alice");
        // Nothing is spent yet, so one call is let in.
        alice.ask(&prompt("Hello")).await.text();
        let whole = alice.ask(&prompt("Hello")).await;
        let streamed = format!("{:?}", alice.stream(&prompt("Hello")).await);
        for told in [whole.body.to_string(), streamed] {
            assert!(told.to_lowercase().contains("budget"), "{style:?}: {told}");
        }

        let token = runner::token(runner::only(&stand));
        let ask = call(style, "m1", "Hello", true);
        let back = Wire::post(stand.egress, &path_of(style), &token, &ask).send(stand.egress).await;
        assert_eq!((back.status, back.refusal()), (402, "budget_exceeded"), "{back:?}");
        let wait: u64 = back.header("retry-after").parse().expect("seconds");
        assert!((1..=24 * 60 * 60).contains(&wait), "{wait}");
        assert_eq!(provider.ledger().told, 1, "{style:?}");
        front_end(&stand, "bob").ask(&prompt("Hello")).await.text();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_counted_by_the_models_price_and_a_users_own_budget_comes_first() {
    let (style, provider) = (Style::Responses, Provider::start().await);
    let price = "models: { m1: { prices: { input: 1000, cached: 1000, output: 1000 } } }";
    let entry =
        entry(style, &provider.url, ADMIN_KEY, "").replace("models: { m1: {}, m2: {} }", price);
    let entry = entry.replace(ADMIN_KEY, &format!("env:{}", super::VARIABLE));
    let policies = "roles:\n  default: { budget: { month: { money: 0.000001 } } }\n\
                    users:\n  alice: { budget: { day: { money: 100000 } } }";
    let stand = Stand::start(settings_with(style, &entry).with_section(policies));
    for _ in 0..3 {
        front_end(&stand, "alice").ask(&prompt("Hello")).await.text();
    }
    front_end(&stand, "bob").ask(&prompt("Hello")).await.text();
    let told = front_end(&stand, "bob").ask(&prompt("Hello")).await.body.to_string();
    assert!(told.to_lowercase().contains("budget"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_outside_the_roles_list_is_refused_whatever_the_workspace_says() {
    for style in Style::ALL {
        let provider = Provider::start().await;
        let id = super::id_of(style);
        let roles = format!("roles:\n  default: {{ models: [\"{id}/m1\"] }}");
        let stand = Stand::start(settings(style, &provider).with_section(&roles));
        let alice = front_end(&stand, "alice");
        alice.ask(&prompt("Hello")).await.text();
        let workspace = stand.path("workspaces").join(workspace_id("alice"));
        let wish = format!("{{ \"model\": \"{id}/m2\" }}");
        fs::write(workspace.join("opencode.jsonc"), &wish).unwrap();
        let pid = runner::only(&stand);
        let told = alice.ask(&prompt("Hello")).await.body.to_string();
        assert!(told.contains("m2") || told.contains("All is well."), "{style:?}: {told}");
        assert!(provider.seen().iter().all(|seen| seen.json()["model"] == "m1"), "{style:?}");

        let ask = call(style, "m2", "Hello", true);
        let runner = stand.runners().first().map_or(pid, |runner| runner.0);
        let wire = Wire::post(stand.egress, &path_of(style), &runner::token(runner), &ask);
        let back = wire.send(stand.egress).await;
        assert_eq!((back.status, back.refusal()), (403, "model_not_allowed"), "{back:?}");
        assert!(back.text.contains("m2"), "{back:?}");
    }
}
