//! The agents of a runner: personas, their plan forms, and what the user added.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Agent, Wishes};
use crate::{
    config::{Config, ModelRef},
    persona::Persona,
};

/// Permission rules: tool → action, or → pattern → action. Of those that fit a call the last one
/// counts, so the order is part of the meaning; `*` sorts before every name.
pub(super) type Rules = BTreeMap<String, Value>;

/// What a persona's plan form is told below its core.
const PLANS_ONLY: &str = "\
# You plan, you do not act

In this form you read, think and write a plan in your answer. You cannot change files, run commands \
or act through other services, and you do not try to. Say what you would do, step by step, with the \
files concerned and what must be decided first. When asked to carry it out, say that this takes the \
form of you that acts.";

/// An agent as opencode reads it.
#[derive(Serialize, Default)]
pub(super) struct AgentFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Rules::is_empty")]
    permission: Rules,
}

/// Every agent to configure, by name. opencode's own stay as they are, except that none thinks up
/// a title for a session nobody sees, and that `plan` changes no files, nor has them changed by an
/// agent that may, whatever the policy allows: opencode lays the rules for everybody over `plan`'s.
pub(super) fn of(config: &Config, wishes: &Wishes) -> BTreeMap<String, AgentFile> {
    let mut agents = BTreeMap::new();
    for (name, agent) in &wishes.agents {
        agents.insert(name.clone(), wished(config, agent));
    }
    // Ours come last and so replace a wish of the same name.
    for persona in &config.personas.0 {
        for plan in [false, true] {
            agents.insert(persona.agent(plan), form(config, persona, plan));
        }
    }
    let untitled = AgentFile { disable: Some(true), ..AgentFile::default() };
    agents.insert("title".to_owned(), untitled);
    let permission = Rules::from([
        ("edit".to_owned(), "deny".into()),
        ("task".to_owned(), json!({"*": "deny", "explore": action(config, "task")})),
    ]);
    agents.insert("plan".to_owned(), AgentFile { permission, ..AgentFile::default() });
    agents
}

/// The rules of every agent: the policy, with integrations off.
pub(super) fn everybody(config: &Config) -> Rules {
    let policy = config.turns.permissions.iter().filter(|(tool, _)| owner(config, tool).is_none());
    let mut rules: Rules =
        policy.map(|(tool, action)| (tool.clone(), action.as_str().into())).collect();
    rules.extend(integrations(config, &[]));
    rules.insert("task".to_owned(), allowance(config, "task"));
    // A question waits for an answer that no one can give.
    rules.insert("question".to_owned(), "deny".into());
    if action(config, "bash") != "allow" {
        rules.insert("edit".to_owned(), edit_without_plugins(config));
    }
    rules
}

/// What editing may do where there is no free shell: not plant code. opencode 1.18 runs the plugins
/// that it finds in a workspace, whatever its settings say (observed).
fn edit_without_plugins(config: &Config) -> Value {
    match action(config, "edit") {
        "deny" => "deny".into(),
        action => json!({"*": action, "*.opencode/*": "deny", "*opencode.json*": "deny"}),
    }
}

/// A persona, or its plan form.
fn form(config: &Config, persona: &Persona, plan: bool) -> AgentFile {
    let mut permission = tools(config, &persona.tools);
    let mut prompt = persona.core.clone();
    if plan {
        prompt = format!("{prompt}\n\n{PLANS_ONLY}");
        // A task is done by another agent, which may do what this one may not; and nothing tells
        // an integration's tools that read from those that write.
        for tool in ["edit", "bash", "task"] {
            permission.insert(tool.to_owned(), "deny".into());
        }
    }
    let on: &[String] = if plan { &[] } else { &persona.integrations };
    permission.extend(integrations(config, on));
    AgentFile {
        mode: Some("primary"),
        description: Some(persona.description.clone()),
        prompt: Some(prompt),
        permission,
        ..AgentFile::default()
    }
}

/// The rules that make `named` the only tools, unless it is empty. An integration's tools are not
/// for naming: it is on as a whole or off.
fn tools(config: &Config, named: &[String]) -> Rules {
    let mut rules = Rules::new();
    if !named.is_empty() {
        rules.insert("*".to_owned(), "deny".into());
    }
    for tool in named.iter().filter(|tool| owner(config, tool).is_none()) {
        // opencode asks for `edit` whichever tool changes files.
        let tool = match tool.as_str() {
            "write" | "patch" | "apply_patch" | "multiedit" => "edit",
            other => other,
        };
        rules.insert(tool.to_owned(), allowance(config, tool));
    }
    let has_shell = named.iter().any(|tool| tool == "bash") && action(config, "bash") == "allow";
    if !has_shell && rules.contains_key("edit") {
        rules.insert("edit".to_owned(), edit_without_plugins(config));
    }
    rules
}

/// What a tool that a persona names may do: no more than the policy for every agent says, because
/// an agent's rules come after that one's.
fn allowance(config: &Config, tool: &str) -> Value {
    let action = action(config, tool);
    match (tool, action) {
        // A task can be given to any agent by name, also to one with other integrations. The
        // agents that users choose from are not for tasks.
        ("task", "allow" | "ask") => {
            let forms = config.personas.0.iter().flat_map(|p| [p.agent(false), p.agent(true)]);
            let chosen = ["build", "plan"].map(str::to_owned).into_iter().chain(forms);
            let mut rules: Rules = chosen.map(|agent| (agent, "deny".into())).collect();
            rules.insert("*".to_owned(), action.into());
            rules.into_iter().collect()
        }
        // opencode's own rules for reading, which a bare `allow` would undo.
        ("read", "allow") if !config.turns.permissions.contains_key("read") => {
            json!({"*": "allow", "*.env": "ask", "*.env.*": "ask", "*.env.example": "allow"})
        }
        _ => action.into(),
    }
}

/// What the policy for every agent says of `tool`.
fn action<'a>(config: &'a Config, tool: &str) -> &'a str {
    let policy = &config.turns.permissions;
    policy.get(tool).or_else(|| policy.get("*")).map_or("allow", String::as_str)
}

/// Rules for the tools of each integration, `<name>_<tool>`: those in `on` as the policy has them,
/// all others denied. Each is named, because one's name may be the start of another's.
fn integrations(config: &Config, on: &[String]) -> Rules {
    let mut rules = Rules::new();
    for name in config.integrations.keys() {
        let every = format!("{name}_*");
        if !on.contains(name) {
            rules.insert(every, "deny".into());
            continue;
        }
        rules.insert(every.clone(), allowance(config, &every));
        for (tool, action) in &config.turns.permissions {
            if owner(config, tool) == Some(name) {
                rules.insert(tool.clone(), action.as_str().into());
            }
        }
    }
    rules
}

/// The integration that `tool` belongs to by its name: the longest that fits.
fn owner<'a>(config: &'a Config, tool: &str) -> Option<&'a String> {
    let fits =
        |name: &&String| tool.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('_'));
    config.integrations.keys().filter(fits).max_by_key(|name| name.len())
}

/// An agent of the user's own: a subagent, because no model id leads to it.
fn wished(config: &Config, agent: &Agent) -> AgentFile {
    let configured = |model: &&ModelRef| {
        let provider = config.providers.get(&model.provider);
        provider.is_some_and(|provider| provider.models.contains_key(&model.model))
    };
    AgentFile {
        mode: Some("subagent"),
        description: agent.description.clone(),
        prompt: agent.prompt.clone(),
        temperature: agent.temperature,
        model: agent.model.as_ref().filter(configured).map(ToString::to_string),
        ..AgentFile::default()
    }
}
