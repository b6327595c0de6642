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
    text::Reference,
};
use crate::config::{Config, Integration, Model, ModelRef, Provider};

/// A generated configuration. Holds no secret: it refers to the runner's [`TOKEN`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The file's text.
    pub json: String,
    /// What leads to the providers, once more: for `OPENCODE_CONFIG_CONTENT`, which opencode reads
    /// after every file.
    pub overrides: String,
}

/// The variable a runner must have its token in. opencode puts it into the text before it parses
/// that, so a token is made of letters, digits and hyphens.
pub const TOKEN: &str = "OPEN_PERSONA_EGRESS_TOKEN";

/// Makes the configuration of a runner with `main` and `small` as its models.
pub fn generate(config: &Config, main: &ModelRef, small: &ModelRef, wishes: &Wishes) -> Settings {
    let egress = &config.egress.url;
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
            .map(|(id, provider)| (id, ProviderFile::of(egress, id, provider, [main, small])))
            .collect(),
        permission: agents::everybody(config),
        mcp: config
            .integrations
            .iter()
            .map(|(name, integration)| {
                let used = config.personas.0.iter().any(|p| p.integrations.contains(name))
                    // Then a model's settings may turn on any of them.
                    || config.identity.front_ends.iter().any(|it| it.meta_headers);
                (name, McpFile::of(egress, name, integration, used))
            })
            .collect(),
        agent: agents::of(config, wishes),
    };
    let overrides = OverridesFile {
        enabled_providers: &file.enabled_providers,
        provider: file.provider.iter().map(|(id, it)| (*id, OnlyOptions::of(it))).collect(),
    };
    Settings { overrides: text::write(&overrides), json: text::write(&file) }
}

/// The part of a [`File`] that leads to the providers.
#[derive(Serialize)]
struct OverridesFile<'a> {
    enabled_providers: &'a [&'a String],
    provider: BTreeMap<&'a String, OnlyOptions<'a>>,
}

#[derive(Serialize)]
struct OnlyOptions<'a> {
    npm: &'a str,
    options: &'a OptionsFile,
}

impl<'a> OnlyOptions<'a> {
    fn of(provider: &'a ProviderFile<'a>) -> Self {
        Self { npm: provider.npm, options: &provider.options }
    }
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
    mcp: BTreeMap<&'a String, McpFile>,
    agent: BTreeMap<String, AgentFile>,
}

#[derive(Serialize)]
struct ProviderFile<'a> {
    npm: &'a str,
    name: &'a str,
    options: OptionsFile,
    models: BTreeMap<&'a String, ModelFile<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OptionsFile {
    /// The egress.
    #[serde(rename = "baseURL")]
    base_url: String,
    /// The runner's token: the egress puts the provider's key in its place.
    api_key: Reference,
}

impl<'a> ProviderFile<'a> {
    /// Besides the listed models there are the `chosen` ones: a workspace may have chosen one
    /// that nobody listed.
    fn of(egress: &str, id: &str, provider: &'a Provider, chosen: [&'a ModelRef; 2]) -> Self {
        let listed = provider.models.iter().map(|(id, model)| (id, ModelFile::of(model)));
        let mut models: BTreeMap<_, _> = listed.collect();
        for chosen in chosen.into_iter().filter(|chosen| chosen.provider == id) {
            models.entry(&chosen.model).or_insert_with(|| ModelFile::unlisted(&chosen.model));
        }
        Self {
            npm: &provider.npm,
            name: &provider.name,
            options: OptionsFile {
                base_url: format!("{egress}/{id}/v1"),
                api_key: text::reference(TOKEN),
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
struct McpFile {
    r#type: &'static str,
    /// The egress, which knows where the server is and what it wants in its headers.
    url: String,
    /// Off when no persona uses it: a runner's first turn waits for every server that is on.
    enabled: bool,
    headers: BTreeMap<&'static str, Reference>,
    /// Off: there is nobody at the runner to log in.
    oauth: bool,
    /// Milliseconds.
    timeout: u128,
}

impl McpFile {
    fn of(egress: &str, name: &str, integration: &Integration, enabled: bool) -> Self {
        Self {
            r#type: "remote",
            url: format!("{egress}/mcp/{name}"),
            enabled,
            headers: BTreeMap::from([("x-api-key", text::reference(TOKEN))]),
            oauth: false,
            timeout: integration.timeout.as_millis(),
        }
    }
}

#[cfg(test)]
mod tests;
