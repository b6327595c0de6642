//! The model providers, as runners and the egress know them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use crate::{secret::Secret, usage::Price};

/// A model provider. Runners are told of its models; where it is and its key only the egress uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The bundled SDK package opencode drives it with, such as `@ai-sdk/openai-compatible`.
    pub npm: String,
    /// A name for people.
    pub name: String,
    /// Where it is. `None` only for a shared server's, which reaches its providers by itself.
    pub base_url: Option<BaseUrl>,
    /// The key of users who have none of their own.
    pub key: Option<Secret>,
    /// How it wants the key.
    pub auth: AuthStyle,
    /// What may be asked of it, relative to its base URL, such as `chat/completions`.
    pub paths: Vec<String>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long it may say nothing within a call.
    pub idle_timeout: Duration,
    /// How its certificate is checked.
    pub tls: Tls,
    /// Its models.
    pub models: BTreeMap<String, Model>,
}

/// How a provider wants its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthStyle {
    /// `Authorization: Bearer <key>`.
    Bearer,
    /// `x-api-key: <key>`.
    XApiKey,
    /// `api-key: <key>`.
    ApiKey,
    /// It asks for none.
    None,
}

impl AuthStyle {
    /// Its word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::XApiKey => "x-api-key",
            Self::ApiKey => "api-key",
            Self::None => "none",
        }
    }
}

/// A URL in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// Whether it is `https`.
    pub tls: bool,
    /// A name or an IP address; an IPv6 address without brackets.
    pub host: String,
    /// The port, the scheme's own when none is written.
    pub port: u16,
    /// Host and port as in a `Host` header.
    pub authority: String,
    /// The path, which begins with a slash.
    pub path: String,
    /// What follows `?`, if anything.
    pub query: Option<String>,
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

/// How a provider's certificate is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Whether it is checked at all.
    pub verify: bool,
    /// The only authorities that are believed, instead of the system's: the file they are from, and
    /// their certificates in DER.
    pub ca: Option<(PathBuf, Arc<[Vec<u8>]>)>,
}

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// A name for people.
    pub name: String,
    /// Tokens the model can read at most.
    pub context: u64,
    /// Tokens it can write at most.
    pub output: u64,
    /// Whether it can call tools.
    pub tools: bool,
    /// Whether it streams its reasoning.
    pub reasoning: bool,
    /// Whether it reads images.
    pub images: bool,
    /// What its tokens cost; `None` counts them as free.
    pub price: Option<Price>,
}
