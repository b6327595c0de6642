//! Who may call, as it is used.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;

use super::Listen;
use crate::secret::Secret;

/// Who may call, and who they are. See `gateway::identity` for the order.
#[derive(Debug, Clone, Default)]
pub struct IdentityRules {
    /// Callers trusted to say who the user is.
    pub front_ends: Vec<Arc<FrontEnd>>,
    /// Keys of ours, each standing for one user.
    pub api_keys: Vec<ApiKey>,
    /// Development: the body's `user` member names the user when nothing better did.
    pub body_user: bool,
    /// Development: a request without any identity is the user `anonymous`.
    pub anonymous: bool,
    /// Development identities are meant even though the listener is not loopback.
    pub allow_insecure: bool,
}

impl IdentityRules {
    /// Whether callers may say themselves who they are.
    pub fn is_development(&self) -> bool {
        self.body_user || self.anonymous
    }

    /// Whether callers from other machines may say who they are, without that being asked for.
    pub fn lets_strangers_in(&self, listen: &Listen) -> bool {
        let local = listen.address.ip().to_canonical().is_loopback();
        self.is_development() && !local && !self.allow_insecure
    }
}

/// A caller trusted to assert who the user is, such as Open WebUI.
#[derive(Debug)]
pub struct FrontEnd {
    /// Its name in logs.
    pub name: String,
    /// The bearer key it calls with.
    pub key: KeyCheck,
    /// Where it may call from; empty means anywhere.
    pub networks: Vec<IpNet>,
    /// How it says who the user is.
    pub user: UserClaim,
    /// How tool activity is shown to its users.
    pub tools: ToolStyle,
    /// Whether `x-openpersona-meta-b64` and `x-openpersona-original-model-id` are believed.
    pub meta_headers: bool,
    /// Whether users' own provider keys in `x-openpersona-<provider>-api-key` are believed.
    pub key_headers: bool,
}

/// A key of ours that stands for one user.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// The user it stands for.
    pub user: String,
    /// The key, as its digest.
    pub key: KeyCheck,
    /// The user's role.
    pub role: Option<String>,
    /// How tool activity is shown to this caller.
    pub tools: ToolStyle,
}

/// What is known of a key that callers present: its SHA-256. Keys are long and random, so a plain
/// digest is enough, and comparing digests leaks nothing about the key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyCheck(pub [u8; 32]);

impl std::fmt::Debug for KeyCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// How a front end says who the user is.
#[derive(Debug, Clone)]
pub enum UserClaim {
    /// Open WebUI's HS256 `X-OpenWebUI-User-Jwt`, and nothing else.
    Jwt {
        /// Accepted secrets, at least one, each of 32 bytes or more; two during a rotation.
        secrets: Vec<Secret>,
        /// The required `iss`.
        issuer: String,
        /// Allowance on `exp` for clocks that differ.
        leeway: Duration,
    },
    /// Plain `X-OpenWebUI-User-*` headers.
    Headers,
}

/// How tool activity is shown in an answer. Never as `tool_calls`: a client would run them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolStyle {
    /// A line of text for each tool.
    #[default]
    Plain,
    /// Open WebUI's native item frames, in browser chats; elsewhere as `Plain`.
    Native,
    /// Not at all.
    None,
}
