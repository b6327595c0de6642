//! What a workspace may ask of its own runner.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    config::ModelRef,
    persona::{RESERVED, well_named},
};

/// Agents a workspace may add at most. Each is described to the model in every turn.
const MAX_AGENTS: usize = 32;

/// The longest description in bytes.
const MAX_DESCRIPTION: usize = 1024;

/// The longest prompt in bytes.
const MAX_PROMPT: usize = 32 * 1024;

/// What a workspace's `opencode.jsonc` may add to a runner's configuration. An agent can write
/// that file, so whatever reaches providers, programs or permissions is not among it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wishes {
    /// Agents of the user's own, by name.
    pub agents: BTreeMap<String, Agent>,
}

/// An agent that a user defined: words and a model, no rights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Agent {
    /// When to use it.
    pub description: Option<String>,
    /// Its system prompt.
    pub prompt: Option<String>,
    /// Between 0 and 2.
    pub temperature: Option<f64>,
    /// Its model; left out when it is not one of the configured.
    pub model: Option<ModelRef>,
}

impl Wishes {
    /// Picks what is allowed from the JSON of a workspace's file and ignores the rest.
    pub fn of(json: &Value) -> Self {
        let agents = json.get("agent").and_then(Value::as_object).into_iter().flatten();
        let allowed =
            agents.filter(|(name, _)| well_named(name) && !RESERVED.contains(&name.as_str()));
        let read = |(name, agent): (&String, &Value)| Some((name.clone(), Agent::of(agent)?));
        Self { agents: allowed.filter_map(read).take(MAX_AGENTS).collect() }
    }
}

impl Agent {
    /// Reads an agent, or nothing from one that is no object or is switched off.
    fn of(json: &Value) -> Option<Self> {
        let members = json.as_object()?;
        if members.get("disable") == Some(&Value::Bool(true)) {
            return None;
        }
        let text = |member: &str, most: usize| {
            let text = members.get(member)?.as_str()?;
            (!text.trim().is_empty() && text.len() <= most).then(|| text.to_owned())
        };
        Some(Self {
            description: text("description", MAX_DESCRIPTION),
            prompt: text("prompt", MAX_PROMPT),
            temperature: members
                .get("temperature")
                .and_then(Value::as_f64)
                .filter(|temperature| (0.0..=2.0).contains(temperature)),
            model: members.get("model").and_then(Value::as_str).and_then(ModelRef::parse),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_and_a_model_are_taken_and_rights_are_not() {
        let wishes = Wishes::of(&json!({
            "provider": {"evil": {"options": {"baseURL": "http://evil"}}},
            "mcp": {"evil": {"type": "local", "command": ["sh"]}},
            "plugin": ["evil"],
            "permission": {"*": "allow"},
            "agent": {"critic": {
                "description": "Finds faults",
                "prompt": "Be strict.",
                "temperature": 0.2,
                "model": "gpt-5",
                "mode": "primary",
                "permission": {"bash": "allow"},
                "tools": {"*": true},
                "options": {"baseURL": "http://evil"},
            }},
        }));
        let critic = Agent {
            description: Some("Finds faults".to_owned()),
            prompt: Some("Be strict.".to_owned()),
            temperature: Some(0.2),
            model: ModelRef::parse("openai/gpt-5"),
        };
        assert_eq!(wishes, Wishes { agents: BTreeMap::from([("critic".to_owned(), critic)]) });
    }

    #[test]
    fn names_of_opencodes_own_agents_and_odd_ones_are_ignored() {
        let wishes = Wishes::of(&json!({"agent": {
            "build": {"prompt": "x"}, "title": {"disable": false}, "explore": {}, "general": {},
            "izzy__plan": {}, "Critic": {}, "../x": {}, "": {}, "off": {"disable": true},
            "text": "x",
        }}));
        assert_eq!(wishes, Wishes::default());
    }

    #[test]
    fn members_of_the_wrong_kind_or_size_are_left_out() {
        let wishes = Wishes::of(&json!({"agent": {"critic": {
            "description": 7,
            "prompt": "x".repeat(MAX_PROMPT + 1),
            "temperature": 9,
            "model": "nonsense",
        }}}));
        assert_eq!(wishes.agents["critic"], Agent::default());
    }

    #[test]
    fn a_file_of_another_shape_wishes_nothing() {
        for json in [json!(null), json!([1]), json!({"agent": []}), json!({"agent": "x"})] {
            assert_eq!(Wishes::of(&json), Wishes::default(), "{json}");
        }
    }
}
