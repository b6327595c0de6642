use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::persona::{Persona, Personas};

fn persona(name: &str, integrations: &[&str], tools: &[&str]) -> Arc<Persona> {
    Arc::new(Persona {
        name: name.to_owned(),
        description: format!("{name} helps"),
        core: format!("You are {name}. {{env:HOME}}"),
        user_heading: "## From the user".to_owned(),
        integrations: integrations.iter().map(ToString::to_string).collect(),
        memory: None,
        tools: tools.iter().map(ToString::to_string).collect(),
    })
}

/// One provider, two integrations, a persona with the first and one that may only read and write.
fn config() -> Config {
    let text = "
identity: {anonymous: true}
models: {main: mock/m1}
providers:
  mock:
    npm: '@ai-sdk/openai-compatible'
    name: Mock
    base_url: http://127.0.0.1:9941/v1
    key: env:KEY
    models:
      m1: {name: M, output: 8192}
      see: {name: M, output: 8192, images: true}
integrations:
  mail: &mail {url: 'https://mail.example/mcp', headers: {Authorization: env:KEY}, timeout: 5s}
  mail_box: *mail
turns: {permissions: {webfetch: ask, mail_send: ask}}
";
    let environment = |name: &str| (name == "KEY").then(|| "canary-key".to_owned());
    let mut config = crate::config::parse("x.yaml".as_ref(), text, &environment).unwrap();
    config.personas = Personas(vec![
        persona("grant-draft", &[], &["read", "write", "webfetch"]),
        persona("izzy", &["mail"], &[]),
    ]);
    config
}

fn generated(config: &Config, wishes: &Wishes) -> (Settings, Value) {
    let model = |text| ModelRef::parse(text).unwrap();
    let settings = generate(config, &model("mock/m1"), &model("mock/see"), wishes);
    let json = serde_json::from_str(&settings.json).unwrap();
    (settings, json)
}

#[test]
fn the_models_and_providers_are_ours_and_no_others() {
    let (_, json) = generated(&config(), &Wishes::default());
    assert_eq!(json["model"], "mock/m1");
    assert_eq!(json["small_model"], "mock/see");
    assert_eq!(json["enabled_providers"], json!(["mock"]));
    assert_eq!(json["share"], "disabled");
    assert_eq!(json["autoupdate"], false);
    assert_eq!(
        json["provider"]["mock"]["options"],
        json!({
            "baseURL": "http://127.0.0.1:8002/mock/v1",
            "apiKey": "{env:OPEN_PERSONA_EGRESS_TOKEN}",
        })
    );
    assert_eq!(
        json["provider"]["mock"]["models"]["see"],
        json!({
            "name": "M", "tool_call": true, "reasoning": false, "attachment": true,
            "limit": {"context": 128_000, "output": 8192},
            "modalities": {"input": ["text", "image"], "output": ["text"]},
        })
    );
}

#[test]
fn the_way_to_a_provider_is_the_egress_and_is_said_twice() {
    let (settings, json) = generated(&config(), &Wishes::default());
    let overrides: Value = serde_json::from_str(&settings.overrides).unwrap();
    assert_eq!(overrides["enabled_providers"], json["enabled_providers"]);
    let (of_file, again) = (&json["provider"]["mock"], &overrides["provider"]["mock"]);
    assert_eq!((&again["npm"], &again["options"]), (&of_file["npm"], &of_file["options"]));
    assert_eq!(again.as_object().unwrap().len(), 2);
}

#[test]
fn the_text_refers_to_the_token_and_holds_no_secret() {
    let (Settings { json: text, overrides }, json) = generated(&config(), &Wishes::default());
    for text in [&text, &overrides] {
        assert!(!text.contains("canary-key") && !text.contains("mail.example"), "{text}");
    }
    assert_eq!(text.matches("{env:").count(), 3, "not those in prompts");
    let mail = &json["mcp"]["mail"];
    assert_eq!(mail["url"], "http://127.0.0.1:8002/mcp/mail");
    assert_eq!(mail["headers"], json!({"x-api-key": "{env:OPEN_PERSONA_EGRESS_TOKEN}"}));
}

#[test]
fn an_integration_is_off_but_for_the_personas_that_turn_it_on() {
    let (_, json) = generated(&config(), &Wishes::default());
    assert_eq!(
        json["permission"],
        json!({
            "mail_*": "deny", "mail_box_*": "deny",
            "question": "deny", "webfetch": "ask",
            "task": {
                "*": "allow", "build": "deny", "plan": "deny", "izzy": "deny", "izzy__plan": "deny",
                "grant-draft": "deny", "grant-draft__plan": "deny",
            },
        })
    );
    assert_eq!(
        json["agent"]["izzy"]["permission"],
        json!({"mail_*": "allow", "mail_box_*": "deny", "mail_send": "ask"})
    );
    assert_eq!(json["mcp"]["mail"]["enabled"], true);
    assert_eq!(json["mcp"]["mail"]["timeout"], 5000);
    assert_eq!(json["mcp"]["mail_box"]["enabled"], false, "no persona uses it");
}

#[test]
fn a_personas_tools_are_its_only_ones_and_within_the_policy() {
    let (_, json) = generated(&config(), &Wishes::default());
    let permission = &json["agent"]["grant-draft"]["permission"];
    assert_eq!(permission["*"], "deny");
    assert_eq!(permission["edit"]["*"], "allow", "`write` needs it");
    assert_eq!(permission["webfetch"], "ask", "as for everybody");
    assert_eq!(permission["read"]["*.env"], "ask", "as opencode has it");

    let mut strict = config();
    strict.turns.permissions = [("*".to_owned(), "deny".to_owned())].into();
    let (_, json) = generated(&strict, &Wishes::default());
    assert_eq!(json["agent"]["grant-draft"]["permission"]["edit"], "deny");
    assert_eq!(json["agent"]["izzy"]["permission"]["mail_*"], "deny");
}

#[test]
fn a_plan_form_reads_and_says_so() {
    let (_, json) = generated(&config(), &Wishes::default());
    let agent = &json["agent"]["izzy__plan"];
    assert_eq!(
        agent["permission"],
        json!({
            "bash": "deny", "edit": "deny", "task": "deny",
            "mail_*": "deny", "mail_box_*": "deny",
        })
    );
    let prompt = agent["prompt"].as_str().unwrap();
    let core = "You are izzy. {env:HOME}\n\n# You plan, you do not act\n\n";
    assert!(prompt.starts_with(core), "{prompt}");
    assert_eq!(json["agent"]["izzy"]["prompt"], "You are izzy. {env:HOME}");
    assert_eq!(json["agent"]["grant-draft__plan"]["permission"]["edit"], "deny");
}

#[test]
fn a_users_agent_is_a_subagent_and_never_replaces_one_of_ours() {
    let wishes = Wishes::of(&json!({"agent": {
        "critic": {"prompt": "{file:/etc/passwd}", "model": "mock/see", "temperature": 0.5},
        "stray": {"model": "elsewhere/m"},
        "izzy": {"prompt": "Obey."},
    }}));
    let (settings, json) = generated(&config(), &wishes);
    assert_eq!(
        json["agent"]["critic"],
        json!({
            "mode": "subagent", "prompt": "{file:/etc/passwd}",
            "model": "mock/see", "temperature": 0.5,
        })
    );
    assert!(!settings.json.contains("{file:"));
    assert_eq!(json["agent"]["stray"], json!({"mode": "subagent"}), "no such model here");
    assert_eq!(json["agent"]["izzy"]["mode"], "primary");
    assert_eq!(json["agent"]["title"], json!({"disable": true}));
    assert_eq!(json["agent"].get("build"), None, "left as opencode has it");
}

#[test]
fn plan_changes_no_files_and_has_none_changed() {
    let mut config = config();
    config.turns.permissions = [("*".to_owned(), "allow".to_owned())].into();
    let (_, json) = generated(&config, &Wishes::default());
    assert_eq!(
        json["agent"]["plan"],
        json!({"permission": {"edit": "deny", "task": {"*": "deny", "explore": "allow"}}})
    );

    config.turns.permissions = [("task".to_owned(), "deny".to_owned())].into();
    let (_, json) = generated(&config, &Wishes::default());
    assert_eq!(json["permission"]["task"], "deny");
    assert_eq!(json["agent"]["plan"]["permission"]["task"]["explore"], "deny");
}

#[test]
fn a_chosen_model_that_nobody_listed_is_described() {
    let mut config = config();
    config.providers.values_mut().for_each(|provider| provider.models.clear());
    let provider = config.providers.keys().next().unwrap().clone();
    let chosen = ModelRef { provider: provider.clone(), model: "new".to_owned() };
    let settings = generate(&config, &chosen, &chosen, &Wishes::default());
    let json: serde_json::Value = serde_json::from_str(&settings.json).unwrap();
    assert_eq!(json["provider"][&provider]["models"]["new"]["limit"]["context"], 128_000);
}

#[test]
fn without_a_free_shell_no_plugin_can_be_planted() {
    let guarded = json!({"*": "allow", "*.opencode/*": "deny", "*opencode.json*": "deny"});
    let mut config = config();
    config.personas.0 = vec![persona("scribe", &[], &["read", "write"])];
    config.turns.permissions.clear();
    let (_, json) = generated(&config, &Wishes::default());
    assert_eq!(json["permission"]["edit"], Value::Null, "a shell could plant one anyway");
    assert_eq!(json["agent"]["scribe"]["permission"]["edit"], guarded);
    config.turns.permissions.insert("bash".to_owned(), "ask".to_owned());
    let (_, json) = generated(&config, &Wishes::default());
    assert_eq!(json["permission"]["edit"], guarded);
}
