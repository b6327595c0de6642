//! The opencode configuration a runner starts with: our policy, and what of a user's wishes it
//! admits.
//!
//! It lies outside the workspace and is found through `OPENCODE_CONFIG`; what an agent writes into
//! its workspace changes none of it. Text only: nothing is written here.

mod agents;
mod text;
mod wishes;

use std::collections::BTreeMap;

use serde::Serialize;

pub use wishes::{Agent, Wishes};

use self::{
    agents::{AgentFile, Rules},
    text::{Reference, References},
};
use crate::{
    config::{Config, Integration, Model, ModelRef, Provider},
    secret::Secret,
};

/// A generated configuration, and the variables it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file's text. Holds no secret.
    pub json: String,
    /// The variables a runner that reads it must have, by name. opencode puts them into the text
    /// before it parses it, so each value is written as the inside of a JSON string.
    pub secrets: Vec<(String, Secret)>,
}

/// Makes the configuration of a runner with `main` and `small` as its models.
pub fn generate(config: &Config, main: &ModelRef, small: &ModelRef, wishes: &Wishes) -> Settings {
    let mut references = References::default();
    let file = File {
        schema: "https://opencode.ai/config.json",
        model: main.to_string(),
        small_model: small.to_string(),
        share: "disabled",
        autoupdate: false,
        formatter: false,
        lsp: false,
        enabled_providers: config.providers.keys().collect(),
        provider: config
            .providers
            .iter()
            .map(|(id, provider)| {
                (id, ProviderFile::of(id, provider, [main, small], &mut references))
            })
            .collect(),
        permission: agents::everybody(config),
        mcp: config
            .integrations
            .iter()
            .map(|(name, integration)| {
                let used = config.personas.0.iter().any(|p| p.integrations.contains(name))
                    // Then a model's settings may turn on any of them.
                    || config.identity.front_ends.iter().any(|it| it.meta_headers);
                (name, McpFile::of(name, integration, used, &mut references))
            })
            .collect(),
        agent: agents::of(config, wishes),
    };
    Settings { json: text::write(&file), secrets: references.into_secrets() }
}

/// The file as opencode 1.18 reads it. Source: <https://opencode.ai/config.json>.
#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    model: String,
    small_model: String,
    share: &'static str,
    autoupdate: bool,
    /// Off: formatters and language servers run programs that the workspace chooses, and download
    /// others, whatever the permissions say.
    formatter: bool,
    lsp: bool,
    /// Exactly ours. Without it opencode falls back to a hosted provider of its own.
    enabled_providers: Vec<&'a String>,
    provider: BTreeMap<&'a String, ProviderFile<'a>>,
    /// Integrations are off here and on for the personas that enable them. All of it is in
    /// `permission`: rules under `tools` would lie before these, and `*` would undo them.
    permission: Rules,
    mcp: BTreeMap<&'a String, McpFile<'a>>,
    agent: BTreeMap<String, AgentFile>,
}

#[derive(Serialize)]
struct ProviderFile<'a> {
    npm: &'a str,
    name: &'a str,
    options: OptionsFile<'a>,
    models: BTreeMap<&'a String, ModelFile<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OptionsFile<'a> {
    #[serde(rename = "baseURL", skip_serializing_if = "Option::is_none")]
    base_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<Reference>,
}

impl<'a> ProviderFile<'a> {
    /// Besides the listed models there are the `chosen` ones: a workspace may have chosen one
    /// that nobody listed.
    fn of(
        id: &str,
        provider: &'a Provider,
        chosen: [&'a ModelRef; 2],
        references: &mut References,
    ) -> Self {
        let key = |key| references.to(&format!("OPEN_PERSONA_KEY_{id}"), key);
        let listed = provider.models.iter().map(|(id, model)| (id, ModelFile::of(model)));
        let mut models: BTreeMap<_, _> = listed.collect();
        for chosen in chosen.into_iter().filter(|chosen| chosen.provider == id) {
            models.entry(&chosen.model).or_insert_with(|| ModelFile::unlisted(&chosen.model));
        }
        Self {
            npm: &provider.npm,
            name: &provider.name,
            options: OptionsFile {
                base_url: provider.base_url.as_deref(),
                api_key: provider.key.as_ref().map(key),
            },
            models,
        }
    }
}

#[derive(Serialize)]
struct ModelFile<'a> {
    name: &'a str,
    tool_call: bool,
    reasoning: bool,
    attachment: bool,
    limit: LimitFile,
    modalities: ModalitiesFile,
}

#[derive(Serialize)]
struct LimitFile {
    context: u64,
    output: u64,
}

#[derive(Serialize)]
struct ModalitiesFile {
    input: &'static [&'static str],
    output: &'static [&'static str],
}

impl<'a> ModelFile<'a> {
    /// A model of which only the id is known, with the limits of a middling one.
    fn unlisted(id: &'a str) -> Self {
        Self {
            name: id,
            tool_call: true,
            reasoning: false,
            attachment: false,
            limit: LimitFile { context: 128_000, output: 16_384 },
            modalities: ModalitiesFile { input: &["text"], output: &["text"] },
        }
    }

    fn of(model: &'a Model) -> Self {
        Self {
            name: &model.name,
            tool_call: model.tools,
            reasoning: model.reasoning,
            attachment: model.images,
            limit: LimitFile { context: model.context, output: model.output },
            modalities: ModalitiesFile {
                input: if model.images { &["text", "image"] } else { &["text"] },
                output: &["text"],
            },
        }
    }
}

#[derive(Serialize)]
struct McpFile<'a> {
    r#type: &'static str,
    url: &'a str,
    /// Off when no persona uses it: a runner's first turn waits for every server that is on.
    enabled: bool,
    headers: BTreeMap<&'a String, Reference>,
    /// Off: there is nobody at the runner to log in.
    oauth: bool,
    /// Milliseconds.
    timeout: u128,
}

impl<'a> McpFile<'a> {
    fn of(
        name: &str,
        integration: &'a Integration,
        enabled: bool,
        references: &mut References,
    ) -> Self {
        let mut header = |(header, value): (&'a String, &Secret)| {
            (header, references.to(&format!("OPEN_PERSONA_MCP_{name}_{header}"), value))
        };
        Self {
            r#type: "remote",
            url: &integration.url,
            enabled,
            headers: integration.headers.iter().map(&mut header).collect(),
            oauth: false,
            timeout: integration.timeout.as_millis(),
        }
    }
}

#[cfg(test)]
mod tests;
