//! The configuration as it is used: nothing optional that is not a choice, nothing textual,
//! nothing unchecked.
//!
//! [`load`] makes it from a file in three steps, and nothing else does: the YAML becomes text with
//! positions (`file`), the text becomes values (`substitute`, `value`, `secret`), and the values
//! are checked together (`build`). The environment is read here only, and only where the file says so.

mod build;
mod default;
mod error;
mod file;
mod identity;
mod policy;
mod provider;
mod secret;
mod show;
mod substitute;
mod value;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;

pub(crate) use self::{build::Sources, value::is_plain_name};
pub use self::{
    error::ConfigError,
    identity::{ApiKey, FrontEnd, IdentityRules, KeyCheck, ToolStyle, UserClaim},
    policy::{ModelPattern, Policies, Policy},
    provider::{AuthStyle, BaseUrl, Model, Provider, Tls},
};
use crate::{persona::Personas, secret::Secret, workspace::WorkspaceId};

/// Reads and checks the configuration file at `path`.
///
/// `environment` answers what the file asks of the environment; [`environment()`] is the real one.
/// Relative paths in the file are relative to the working directory, except `personas.directory`,
/// which is relative to the file.
///
/// # Errors
///
/// The first thing that is wrong, with its line and column and what to do about it.
pub fn load(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    load_with_sources(path, environment).map(|(config, _)| config)
}

/// As [`load`], with what else was read.
pub(crate) fn load_with_sources(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(Config, Sources), ConfigError> {
    let text = file::read(path).map_err(|problem| ConfigError::new(path, problem))?;
    parse_with_sources(path, &text, environment)
}

/// Reads and checks a configuration from `text`, as if it stood in the file at `path`.
///
/// # Errors
///
/// As [`load`].
pub fn parse(
    path: &Path,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    parse_with_sources(path, text, environment).map(|(config, _)| config)
}

fn parse_with_sources(
    path: &Path,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(Config, Sources), ConfigError> {
    let beside = path.parent().unwrap_or(Path::new(""));
    file::File::parse(text)
        .and_then(|file| build::build(&file, &value::Reader::new(environment), beside))
        .map_err(|problem| ConfigError::new(path, problem))
}

/// The process's own environment. A variable that is not UTF-8 is as if it were not set.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Everything the gateway was told. Immutable: a reload makes another one.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where callers connect. A change needs a restart.
    pub listen: Listen,
    /// Who may call, and who they are.
    pub identity: IdentityRules,
    /// Where users' directories are.
    pub workspaces: Workspaces,
    /// The gateway's own state directory. A change needs a restart.
    pub state: PathBuf,
    /// The runners' only way to the providers.
    pub egress: Egress,
    /// Which models people may use, and how much.
    pub policies: Policies,
    /// Which models runners use, and what an unknown model id means.
    pub models: Models,
    /// The model providers runners may reach, by opencode provider id.
    pub providers: BTreeMap<String, Provider>,
    /// The personas found in the personas directory.
    pub personas: Personas,
    /// MCP servers offered to personas, by name; off unless a persona turns one on.
    pub integrations: BTreeMap<String, Integration>,
    /// How runners come to be and how many there may be.
    pub runners: Runners,
    /// What a turn may do and show.
    pub turns: Turns,
    /// Sizes and deadlines.
    pub limits: Limits,
    /// What is logged.
    pub log: Log,
}

impl Config {
    /// The effective configuration as YAML of the file's shape, every secret as `***`.
    pub fn to_yaml(&self) -> String {
        show::yaml(self)
    }
}

/// The listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// Worker threads; never zero.
    pub threads: usize,
    /// How long requests in flight may go on after SIGTERM.
    pub drain: Duration,
}

/// The listener that runners reach the providers through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Address and port. A change needs a restart.
    pub address: SocketAddr,
    /// Its URL as runners know it, `http://host:port`. A change needs a restart.
    pub url: String,
    /// The largest request body.
    pub body: usize,
    /// For how long a provider's reply is read on when the runner has left it, to learn what it
    /// cost. Zero cuts it, and the cost is estimated.
    pub linger: Duration,
    /// The file with the key that users' own keys are encrypted with. A change needs a restart.
    pub key_file: PathBuf,
    /// For how long a user's own key is kept after a front end has last sent it.
    pub keep_keys: Duration,
    /// What users are told to do when there is no key for a provider.
    pub key_help: String,
}

/// Where users' directories are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspaces {
    /// The directory that holds `<workspace id>/`. A change needs a restart.
    pub root: PathBuf,
    /// The workspace whose `opencode.jsonc` names models for those that name none.
    pub template: Option<WorkspaceId>,
}

/// Which models runners use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Models {
    /// The main model when no workspace says otherwise (`DEFAULT_MAIN_MODEL`).
    pub main: Option<ModelRef>,
    /// The small model when no workspace says otherwise (`DEFAULT_SUBAGENT_MODEL`).
    pub small: Option<ModelRef>,
    /// What to do with a model id that is not ours: `None` refuses it, `Some` uses this one.
    pub unknown: Option<String>,
}

impl Models {
    /// The main model when nothing else names one.
    pub fn built_in() -> ModelRef {
        let (provider, model) = default::MAIN_MODEL;
        ModelRef { provider: provider.to_owned(), model: model.to_owned() }
    }
}

/// A provider's model, written `provider/model`; `gpt-*` alone means `openai/gpt-*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelRef {
    /// opencode's provider id. Without `/`.
    pub provider: String,
    /// The model id within that provider, which may hold `/`.
    pub model: String,
}

impl ModelRef {
    /// Reads `provider/model`, or a bare `gpt-*`.
    pub fn parse(text: &str) -> Option<Self> {
        let of = |provider: &str, model: &str| Self {
            provider: provider.to_owned(),
            model: model.to_owned(),
        };
        match text.trim().split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                Some(of(provider, model))
            }
            None if text.trim().starts_with("gpt-") => Some(of("openai", text.trim())),
            _ => None,
        }
    }
}

impl std::fmt::Display for ModelRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

/// An MCP server offered to personas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integration {
    /// Its URL.
    pub url: BaseUrl,
    /// Headers sent to it.
    pub headers: BTreeMap<String, Secret>,
    /// How long opencode waits for it.
    pub timeout: Duration,
}

/// How runners come to be and how many there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runners {
    /// Who starts them. A change needs a restart.
    pub launcher: LauncherKind,
    /// What they speak. A change needs a restart.
    pub dialect: Dialect,
    /// Runners alive at most.
    pub max_running: usize,
    /// Runners starting at the same time at most.
    pub max_starting: usize,
    /// How long a start may take.
    pub start_timeout: Duration,
    /// How long a request may wait for its turn to start a runner.
    pub queue_timeout: Duration,
    /// How long a runner may be idle before it is stopped.
    pub idle_after: Duration,
    /// How long a runner has between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
}

impl Runners {
    /// Whether they reach the providers through the egress. A shared server has its own way.
    pub fn need_egress(&self) -> bool {
        matches!(self.launcher, LauncherKind::Process { .. })
    }
}

/// Who starts runners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LauncherKind {
    /// A child process for each workspace.
    Process {
        /// Program and arguments; for opencode, the arguments before `serve`. In an `openai`
        /// command `{port}` and `{workspace}` stand for the port and the directory.
        command: Vec<String>,
        /// The directory for each runner's own `HOME`, caches and data.
        data: PathBuf,
        /// Variables added to the otherwise clean environment.
        environment: BTreeMap<String, Secret>,
    },
    /// One server that is there already and is shared by all.
    Static {
        /// Where it listens.
        address: Address,
        /// Its password, when it asks for one.
        password: Option<Secret>,
    },
}

/// Where a runner listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// What a runner speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// opencode's own HTTP API.
    Opencode,
    /// OpenAI's chat completions, passed through.
    OpenAi,
}

/// What a turn may do and show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turns {
    /// The answer to a tool that asks for permission.
    pub permission: PermissionPolicy,
    /// opencode permission rules for every agent: tool → `allow`, `ask` or `deny`.
    pub permissions: BTreeMap<String, String>,
    /// How tool activity is shown to callers that have no setting of their own.
    pub tools: ToolStyle,
    /// How often a silent stream gets a keep-alive comment.
    pub keep_alive: Duration,
    /// Whether a chat keeps its session across turns unless its persona says otherwise.
    pub memory: bool,
    /// Chats remembered per workspace; the longest unused are forgotten first.
    pub max_chats: usize,
}

/// The answer to a tool that asks for permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermissionPolicy {
    /// No, with a message that the model and the user can read.
    Reject,
    /// Yes, this once.
    Allow,
}

/// Sizes in bytes and deadlines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest request body.
    pub body: usize,
    /// The deepest nesting of a JSON body.
    pub json_depth: usize,
    /// The largest request head, all headers together.
    pub headers: usize,
    /// How long a caller may take for a whole request head.
    pub header_deadline: Duration,
    /// How long a caller may take for a whole request body, and to take a piece of the answer.
    pub body_deadline: Duration,
    /// How long a turn may last.
    pub turn: Duration,
    /// How long a runner may say nothing within a turn, not even a heartbeat.
    pub idle: Duration,
    /// How long until a turn's first sign of work.
    pub first_byte: Duration,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Whether each request's user and workspace are logged (`LOG_WORKSPACE_ROUTING`).
    pub workspace_routing: bool,
}

/// The configuration in force. A reload swaps it; a request keeps the one it started with.
#[derive(Debug, Clone)]
pub struct Live(Arc<ArcSwap<Config>>);

impl Live {
    /// Puts `config` in force.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// The configuration of this moment.
    pub fn now(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Puts `config` in force for requests that start from now on.
    pub fn swap(&self, config: Config) {
        self.0.store(Arc::new(config));
    }
}

#[cfg(test)]
mod tests;
