//! Model name → agent, prompt, profile.

use std::sync::Arc;

/// A named system prompt with features, read from `conf/personas/<name>.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persona {
    /// Its name: the file's, `[a-z0-9-]+`, neither `build` nor `plan`.
    pub name: String,
    /// One line for people and for opencode's agent list.
    pub description: String,
    /// The prompt that no user can change.
    pub core: String,
    /// The heading under which a user's own system prompt is appended.
    pub user_heading: String,
    /// Integrations this persona turns on.
    pub integrations: Vec<String>,
    /// Whether a chat keeps its session; `None` leaves it to `turns.memory`.
    pub memory: Option<bool>,
    /// The only tools it may use, in opencode's words; empty means all.
    pub tools: Vec<String>,
}

/// The personas on offer, in name order.
#[derive(Debug, Clone, Default)]
pub struct Personas(pub Vec<Arc<Persona>>);
