//! What we put into the `opencode.jsonc` of a workspace whose runner is shared and reads nothing
//! else.

use serde_json::{Map, Value, json};

use super::Effective;
use crate::{
    config::{Config, Integration, LauncherKind},
    persona::Persona,
};

/// One member: where it is and what it holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The object at the top that holds it; `None` for the top itself.
    pub(super) section: Option<&'static str>,
    /// Its name.
    pub(super) name: String,
    /// What it holds.
    pub(super) value: Value,
}

/// Our entries, in the order they are added; none when runners get a configuration of their own.
pub(super) fn of(config: &Config, effective: &Effective) -> Vec<Entry> {
    if !matches!(config.runners.launcher, LauncherKind::Static { .. }) {
        return Vec::new();
    }
    let entry = |section, name: &str, value| Entry { section, name: name.to_owned(), value };
    let mut entries = vec![
        entry(None, "model", effective.model.to_string().into()),
        entry(None, "small_model", effective.small_model.to_string().into()),
    ];
    for persona in &config.personas.0 {
        let agent = agent(persona);
        let mut plan = agent.clone();
        plan["permission"] = json!({"edit": "deny", "bash": "deny"});
        entries.push(entry(Some("agent"), &persona.name, agent));
        entries.push(entry(Some("agent"), &format!("{}__plan", persona.name), plan));
    }
    for (name, integration) in &config.integrations {
        entries.push(entry(Some("mcp"), name, server(name, integration)));
        entries.push(entry(Some("tools"), &format!("{name}*"), false.into()));
    }
    entries
}

fn agent(persona: &Persona) -> Value {
    let mut tools = Map::new();
    if !persona.tools.is_empty() {
        tools.insert("*".to_owned(), false.into());
    }
    tools.extend(persona.tools.iter().map(|tool| (tool.clone(), true.into())));
    tools.extend(persona.integrations.iter().map(|name| (format!("{name}*"), true.into())));
    let mut agent = json!({
        "description": persona.description,
        "mode": "primary",
        "prompt": persona.core,
    });
    if !tools.is_empty() {
        agent["tools"] = tools.into();
    }
    agent
}

/// Header values are secrets and a workspace is no place for them: the shared server finds them in
/// its environment, as `OPEN_PERSONA_MCP_<integration>_<header>` in capitals.
fn server(name: &str, integration: &Integration) -> Value {
    let mut server = json!({
        "type": "remote",
        "url": integration.url.to_string(),
        "enabled": true,
        "timeout": u64::try_from(integration.timeout.as_millis()).unwrap_or(u64::MAX),
    });
    let headers: Map<String, Value> = integration
        .headers
        .keys()
        .map(|header| (header.clone(), format!("{{env:{}}}", variable(name, header)).into()))
        .collect();
    if !headers.is_empty() {
        server["headers"] = headers.into();
    }
    server
}

fn variable(integration: &str, header: &str) -> String {
    format!("OPEN_PERSONA_MCP_{integration}_{header}")
        .to_ascii_uppercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}
