//! The three styles of API, by their paths.

/// A style of API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Style {
    /// `OpenAI`'s `responses`.
    Responses,
    /// Anthropic's `messages`.
    Messages,
    /// `chat/completions`, which everybody else speaks.
    Chat,
}

impl Style {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Responses, Self::Messages, Self::Chat];

    /// The style of a path, whatever comes before it.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|style| path.ends_with(&format!("/{}", style.endpoint())))
    }

    /// What follows the base URL.
    pub(crate) fn endpoint(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Chat => "chat/completions",
        }
    }

    /// The SDK package that opencode drives it with.
    pub(crate) fn npm(self) -> &'static str {
        match self {
            Self::Responses => "@ai-sdk/openai",
            Self::Messages => "@ai-sdk/anthropic",
            Self::Chat => "@ai-sdk/openai-compatible",
        }
    }
}
