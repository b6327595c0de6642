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

/// Why the personas could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PersonaError {
    /// The directory or a file in it cannot be read.
    #[error("the personas in {path} cannot be read")]
    Unreadable {
        /// The directory or file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl Personas {
    /// Reads the personas in `directory`.
    pub fn load(directory: &std::path::Path) -> Result<Self, PersonaError> {
        std::fs::read_dir(directory).map(|_| Self::default()).map_err(|source| {
            PersonaError::Unreadable { path: directory.display().to_string(), source }
        })
    }
}
