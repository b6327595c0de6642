//! The configuration as it is written: [`File`] mirrors the YAML, every value is still text.

mod text;

use std::{io::Read, path::Path};

use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

pub(super) use self::text::{Entries, Text};
use super::error::Problem;

/// The whole file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Option<Listen>,
    pub(super) identity: Option<Spanned<Identity>>,
    pub(super) workspaces: Option<Workspaces>,
    pub(super) state: Option<Text>,
    pub(super) egress: Option<Egress>,
    pub(super) roles: Option<Entries<Option<Role>>>,
    pub(super) users: Option<Entries<Option<User>>>,
    pub(super) models: Option<Models>,
    pub(super) providers: Option<Entries<Provider>>,
    #[serde(skip_serializing)]
    pub(super) personas: Option<Personas>,
    pub(super) integrations: Option<Entries<Integration>>,
    pub(super) runners: Option<Runners>,
    pub(super) turns: Option<Turns>,
    pub(super) limits: Option<Limits>,
    pub(super) log: Option<Log>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) address: Option<Text>,
    pub(super) threads: Option<Text>,
    pub(super) drain: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) front_ends: Option<Vec<FrontEnd>>,
    pub(super) api_keys: Option<Vec<ApiKey>>,
    pub(super) body_user: Option<Text>,
    pub(super) anonymous: Option<Text>,
    pub(super) allow_insecure: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FrontEnd {
    pub(super) name: Text,
    pub(super) key: Text,
    pub(super) networks: Option<Vec<Text>>,
    pub(super) user: Text,
    pub(super) jwt: Option<Spanned<Jwt>>,
    pub(super) tools: Option<Text>,
    pub(super) meta_headers: Option<Text>,
    pub(super) key_headers: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    pub(super) secrets: Vec<Text>,
    pub(super) issuer: Option<Text>,
    pub(super) leeway: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKey {
    pub(super) user: Text,
    pub(super) key: Text,
    pub(super) role: Option<Text>,
    pub(super) tools: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workspaces {
    pub(super) root: Option<Text>,
    pub(super) template: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Models {
    pub(super) main: Option<Text>,
    pub(super) small: Option<Text>,
    pub(super) unknown: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) npm: Text,
    pub(super) name: Option<Text>,
    pub(super) base_url: Option<Text>,
    pub(super) key: Option<Text>,
    pub(super) auth: Option<Text>,
    pub(super) paths: Option<Vec<Text>>,
    pub(super) connect_timeout: Option<Text>,
    pub(super) idle_timeout: Option<Text>,
    pub(super) tls: Option<Tls>,
    pub(super) models: Option<Entries<Option<Model>>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) verify: Option<Text>,
    pub(super) ca: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) name: Option<Text>,
    pub(super) context: Option<Text>,
    pub(super) output: Option<Text>,
    pub(super) tools: Option<Text>,
    pub(super) reasoning: Option<Text>,
    pub(super) images: Option<Text>,
    pub(super) prices: Option<Prices>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prices {
    pub(super) input: Option<Text>,
    pub(super) cached: Option<Text>,
    pub(super) cache_write: Option<Text>,
    pub(super) output: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Egress {
    pub(super) address: Option<Text>,
    pub(super) url: Option<Text>,
    pub(super) body: Option<Text>,
    pub(super) linger: Option<Text>,
    pub(super) key_file: Option<Text>,
    pub(super) keep_keys: Option<Text>,
    pub(super) key_help: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Role {
    pub(super) models: Option<Vec<Text>>,
    pub(super) budget: Option<Budget>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) role: Option<Text>,
    pub(super) models: Option<Vec<Text>>,
    pub(super) budget: Option<Budget>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
    pub(super) day: Option<Allowance>,
    pub(super) month: Option<Allowance>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allowance {
    pub(super) tokens: Option<Text>,
    pub(super) money: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Personas {
    pub(super) directory: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Integration {
    pub(super) url: Text,
    pub(super) headers: Option<Entries<Text>>,
    pub(super) timeout: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Runners {
    pub(super) launcher: Option<Text>,
    pub(super) dialect: Option<Text>,
    pub(super) process: Option<Process>,
    #[serde(rename = "static")]
    pub(super) fixed: Option<Static>,
    pub(super) max_running: Option<Text>,
    pub(super) max_starting: Option<Text>,
    pub(super) start_timeout: Option<Text>,
    pub(super) queue_timeout: Option<Text>,
    pub(super) idle_after: Option<Text>,
    pub(super) stop_timeout: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Process {
    pub(super) command: Option<Vec<Text>>,
    pub(super) data: Option<Text>,
    pub(super) environment: Option<Entries<Text>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Static {
    pub(super) url: Option<Text>,
    pub(super) password: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Turns {
    pub(super) permission: Option<Text>,
    pub(super) permissions: Option<Entries<Text>>,
    pub(super) tools: Option<Text>,
    pub(super) keep_alive: Option<Text>,
    pub(super) memory: Option<Text>,
    pub(super) max_chats: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) body: Option<Text>,
    pub(super) json_depth: Option<Text>,
    pub(super) headers: Option<Text>,
    pub(super) header_deadline: Option<Text>,
    pub(super) body_deadline: Option<Text>,
    pub(super) turn: Option<Text>,
    pub(super) idle: Option<Text>,
    pub(super) first_byte: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) workspace_routing: Option<Text>,
}

impl File {
    /// Reads YAML that may come from anywhere, within the budgets below.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        if let Some(nul) = text.find('\0') {
            let before = &text[..nul];
            let line = before.matches('\n').count() as u64 + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
            return Err(Problem::new("a NUL byte", "save the file as plain UTF-8 text")
                .in_place((line, column)));
        }
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_events: 100_000,
                max_nodes: 50_000,
                max_depth: 32,
                flow_nesting_limit: 32,
                max_documents: 2,
                max_anchors: 100,
                max_aliases: 100,
                max_recorded_anchor_bytes: MAX_SIZE,
                max_total_scalar_bytes: 4 * MAX_SIZE,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: 10_000,
                max_replay_stack_depth: 8,
            },
            reject_unsupported_tags: true,
            // A snippet would show the lines around, and with them secrets in the wrong place.
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|e| Problem::of_yaml(&e))
    }
}

/// Reads the text of the file at `path`, which may be no larger than [`MAX_SIZE`].
pub(super) fn read(path: &Path) -> Result<String, Problem> {
    let failed = |hint: &str, e: std::io::Error| {
        Problem::new(format!("the file cannot be read: {e}"), hint.to_owned())
    };
    let file = std::fs::File::open(path)
        .map_err(|e| failed("name the configuration file with --config", e))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Problem::new("this is a directory", "name the file in it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| failed("check the file and its permissions", e))?;
    if bytes.len() > MAX_SIZE {
        return Err(Problem::new(
            "the file is larger than 1 MiB",
            "is this the configuration? conf/gateway.yaml is one",
        ));
    }
    String::from_utf8(bytes).map_err(|e| {
        let before = String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
        let line = before.matches('\n').count() as u64 + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
        Problem::new("a byte that is not UTF-8", "save the file as plain UTF-8 text")
            .in_place((line, column))
    })
}

/// The largest file that is read.
pub(super) const MAX_SIZE: usize = 1 << 20;
