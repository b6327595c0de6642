//! What the provider does about a call.

use std::time::Duration;

use super::Call;

/// What a call is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// A reply of the model.
    Reply(Reply),
    /// An error in the style's own shape. It repeats the key it was called with, as careless
    /// providers do.
    Fail(u16),
    /// A redirect to this URL.
    Redirect(String),
}

/// A reply of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Its text, in the pieces it is streamed in.
    pub(crate) pieces: Vec<String>,
    /// A pause before each piece.
    pub(crate) pause: Duration,
    /// The tool it calls after its text.
    pub(crate) call: Option<Call>,
    /// What is special about it.
    pub(crate) quirk: Quirk,
}

/// What may be special about a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quirk {
    None,
    /// It waits at the gate halfway through its text.
    Held,
    /// It does not tell what was used.
    Unmetered,
    /// It is compressed, where the caller allows that.
    Compressed,
    /// The connection breaks instead of an end.
    Cut,
}

impl Reply {
    /// A reply that says `text`, word by word.
    pub(crate) fn saying(text: &str) -> Self {
        Self {
            pieces: text.split_inclusive(' ').map(str::to_owned).collect(),
            pause: Duration::ZERO,
            call: None,
            quirk: Quirk::None,
        }
    }

    /// A reply that does nothing but call a tool.
    pub(crate) fn calling(name: &str, arguments: &serde_json::Value) -> Self {
        let call = Call { name: name.to_owned(), arguments: arguments.to_string() };
        Self { call: Some(call), ..Self::saying("") }
    }

    /// Its whole text.
    pub(crate) fn text(&self) -> String {
        self.pieces.concat()
    }
}
