//! Every default, in one place. `conf/gateway.yaml` shows the same ones, and a test compares.

use std::time::Duration;

pub(super) const ADDRESS: &str = "127.0.0.1:8000";
pub(super) const DRAIN: Duration = Duration::from_secs(10);

pub(super) const ISSUER: &str = "open-webui";
pub(super) const LEEWAY: Duration = Duration::from_secs(30);

pub(super) const EGRESS_ADDRESS: &str = "127.0.0.1:8002";
pub(super) const EGRESS_BODY: usize = 64 << 20;
pub(super) const LINGER: Duration = Duration::from_mins(2);
/// Within the state directory.
pub(super) const KEY_FILE: &str = "key";
pub(super) const KEEP_KEYS: Duration = Duration::from_hours(29 * 24);
pub(super) const KEY_HELP: &str =
    "Set one in your chat's Controls, under Valves, or ask your admin.";
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// What may be asked of a provider: what opencode's SDK packages ask for.
pub(super) const PATHS: &[&str] =
    &["chat/completions", "responses", "messages", "models", "embeddings"];

pub(super) const WORKSPACES: &str = "./workspaces";
pub(super) const STATE: &str = "./state";
/// Within the state directory.
pub(super) const RUNNER_DATA: &str = "runners";
/// Relative to the configuration file.
pub(super) const PERSONAS: &str = "personas";

pub(super) const MAIN_MODEL: (&str, &str) = ("openai", "gpt-5");
pub(super) const CONTEXT: usize = 128_000;
pub(super) const OUTPUT: usize = 16_384;
pub(super) const INTEGRATION_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const COMMAND: &str = "opencode";
pub(super) const OPENCODE_URL: &str = "http://127.0.0.1:4096";
pub(super) const MAX_RUNNING: usize = 50;
pub(super) const MAX_STARTING: usize = 4;
pub(super) const START_TIMEOUT: Duration = Duration::from_mins(1);
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_mins(3);
pub(super) const IDLE_AFTER: Duration = Duration::from_mins(15);
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);
pub(super) const MEMORY: bool = true;
pub(super) const MAX_CHATS: usize = 1000;

pub(super) const BODY: usize = 32 << 20;
pub(super) const JSON_DEPTH: usize = 64;
pub(super) const HEADERS: usize = 64 << 10;
pub(super) const HEADER_DEADLINE: Duration = Duration::from_secs(10);
pub(super) const BODY_DEADLINE: Duration = Duration::from_mins(2);
pub(super) const TURN: Duration = Duration::from_mins(30);
pub(super) const IDLE: Duration = Duration::from_secs(90);
pub(super) const FIRST_BYTE: Duration = Duration::from_mins(2);
