//! A prompt in opencode's words.

use std::collections::BTreeMap;

use serde::Serialize;

/// A prompt as `POST /session/{id}/prompt_async` takes it.
#[derive(Debug, Serialize)]
pub struct Prompt<'a> {
    /// Our id for the user message: starts with `msg`, unique in the server's whole database.
    #[serde(rename = "messageID")]
    pub id: &'a str,
    /// The agent of this turn. Absent means `build`, not the previous one.
    pub agent: &'a str,
    /// The model of this turn.
    pub model: Model<'a>,
    /// Appended at the end of the system prompt, for this turn only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<&'a str>,
    /// Tool patterns that are on or off from this turn on, whatever the configuration says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, bool>,
    /// Text and files.
    pub parts: Vec<Part<'a>>,
}

/// A model in opencode's words.
#[derive(Debug, Serialize)]
pub struct Model<'a> {
    /// The provider.
    #[serde(rename = "providerID")]
    pub provider: &'a str,
    /// The model within that provider.
    #[serde(rename = "modelID")]
    pub model: &'a str,
}

/// A part of a prompt. There is no way to write a `file:` or `http:` URL: opencode reads the
/// former from anywhere on its disk without asking.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Part<'a> {
    /// Text.
    Text {
        /// The text.
        text: &'a str,
    },
    /// A file as a `data:` URL.
    File {
        /// Its media type.
        mime: &'a str,
        /// A `data:` URL.
        url: &'a str,
        /// Its name, when it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<&'a str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_written_as_opencode_reads_it() {
        let prompt = Prompt {
            id: "msg_1",
            agent: "build",
            model: Model { provider: "demo", model: "demo" },
            system: None,
            tools: BTreeMap::new(),
            parts: vec![
                Part::Text { text: "hi" },
                Part::File { mime: "image/png", url: "data:image/png;base64,AA==", filename: None },
            ],
        };
        assert_eq!(
            serde_json::to_value(&prompt).unwrap(),
            serde_json::json!({
                "messageID": "msg_1", "agent": "build",
                "model": {"providerID": "demo", "modelID": "demo"},
                "parts": [
                    {"type": "text", "text": "hi"},
                    {"type": "file", "mime": "image/png", "url": "data:image/png;base64,AA=="},
                ],
            })
        );
    }
}
