//! Which integrations are on for one prompt, where a front end's model settings may say so.
//!
//! opencode keeps what a prompt says of its tools for the whole session, so each prompt says it of
//! every integration.

use std::collections::BTreeMap;

use crate::{config::Config, gateway::origin::PersonaMeta, persona::Choice};

/// Tool patterns and whether they are on, for opencode's prompt. Empty when there is nothing to
/// switch.
///
/// A switch allows outright (observed with opencode 1.18), so it never turns on what the policy
/// restricts, nor anything for an agent that only plans.
pub(super) fn of(config: &Config, choice: &Choice, meta: &PersonaMeta) -> BTreeMap<String, bool> {
    let by_persona = choice.persona.as_ref().map_or(&[][..], |persona| &persona.integrations);
    let mut switches = BTreeMap::new();
    for name in config.integrations.keys() {
        let tools = format!("{name}_");
        let wanted = meta.integrations.get(name).copied();
        let is_on = wanted.unwrap_or_else(|| by_persona.contains(name)) && !choice.plan;
        let restricts = |(tool, action): (&String, &String)| {
            action != "allow" && (tool == "*" || tool.starts_with(&tools))
        };
        if is_on && config.turns.permissions.iter().any(restricts) {
            continue;
        }
        // Sorted, so that the rules of a longer name come after those of its beginning.
        switches.insert(format!("{tools}*"), is_on);
    }
    switches
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn config() -> Config {
        let yaml = "
            identity: { anonymous: true }
            models: { main: p/m }
            providers: { p: { npm: '@ai-sdk/openai', models: { m: {} } } }
            personas: { directory: conf/personas }
            integrations:
              mail: { url: 'http://127.0.0.1:9/mcp' }
              mail_box: { url: 'http://127.0.0.1:9/mcp' }
        ";
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.yaml");
        config::parse(&beside, yaml, &|_| None).unwrap_or_else(|error| panic!("{error}"))
    }

    fn switched(config: &Config, model: &str, on: &[(&str, bool)]) -> Vec<(String, bool)> {
        let choice = config.personas.choose(model).unwrap();
        let integrations = on.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect();
        let meta = PersonaMeta { integrations, ..PersonaMeta::default() };
        of(config, &choice, &meta).into_iter().collect()
    }

    #[test]
    fn every_integration_is_switched_one_way_or_the_other() {
        let both =
            |mail, mail_box| vec![("mail_*".to_owned(), mail), ("mail_box_*".to_owned(), mail_box)];
        let config = config();
        assert_eq!(switched(&config, "open-persona/izzy", &[]), both(false, false));
        assert_eq!(switched(&config, "open-persona/izzy", &[("mail", true)]), both(true, false));
        assert_eq!(
            switched(&config, "open-persona/izzy", &[("unknown", true)]),
            both(false, false)
        );
        assert_eq!(
            switched(&config, "open-persona/izzy__plan", &[("mail", true)]),
            both(false, false)
        );
    }

    #[test]
    fn what_the_policy_restricts_is_not_switched_on() {
        let mut config = config();
        config.turns.permissions.insert("mail_send".to_owned(), "ask".to_owned());
        let switched =
            switched(&config, "open-persona/izzy", &[("mail", true), ("mail_box", true)]);
        assert_eq!(switched, [("mail_box_*".to_owned(), true)]);
    }
}
