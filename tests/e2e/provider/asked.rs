//! A call as its body asks for it, in any style.

use serde_json::Value;

use super::{Seen, Style};

/// What a call asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) style: Style,
    /// The key it came with; empty without one.
    pub(crate) key: String,
    pub(crate) model: String,
    pub(crate) streamed: bool,
    /// Whether a stream's end is to tell what was used, where that is for the caller to say.
    pub(crate) metered: bool,
    /// Whether the reply may be compressed.
    pub(crate) takes_gzip: bool,
    /// What the user has said last.
    pub(crate) text: String,
    /// What the tools called since have returned.
    pub(crate) results: Vec<String>,
}

/// Something said, whatever style it was written in.
enum Said {
    User(String),
    Result(String),
    Other,
}

impl Asked {
    /// Reads a request to an endpoint of `style`.
    pub(super) fn of(style: Style, seen: &Seen) -> Self {
        let body = seen.json();
        let (mut text, mut results, mut follows) = (String::new(), Vec::new(), false);
        for said in body[list_of(style)].as_array().into_iter().flatten().flat_map(said_in) {
            match said {
                Said::User(more) if follows => {
                    text.push('\n');
                    text.push_str(&more);
                }
                Said::User(new) => {
                    text = new;
                    results.clear();
                    follows = true;
                }
                Said::Result(result) => {
                    results.push(result);
                    follows = false;
                }
                Said::Other => follows = false,
            }
        }
        let metered = style != Style::Chat || body["stream_options"]["include_usage"] == true;
        Self {
            style,
            key: seen.key().unwrap_or_default().to_owned(),
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            streamed: body["stream"] == true,
            metered,
            takes_gzip: seen.header("accept-encoding").contains("gzip"),
            text,
            results,
        }
    }
}

/// The member that holds the conversation.
fn list_of(style: Style) -> &'static str {
    match style {
        Style::Responses => "input",
        Style::Messages | Style::Chat => "messages",
    }
}

/// What is said in one message. The styles differ in where they put a tool's result: Responses
/// has an item for it, Messages a block in a user's message, Chat a message of its own.
fn said_in(message: &Value) -> Vec<Said> {
    if message["type"] == "function_call_output" {
        return vec![Said::Result(text_in(&message["output"]))];
    }
    match message["role"].as_str() {
        Some("tool") => vec![Said::Result(text_in(&message["content"]))],
        Some("user") => match message["content"].as_array() {
            Some(blocks) => blocks.iter().map(said_in_block).collect(),
            None => vec![Said::User(text_in(&message["content"]))],
        },
        _ => vec![Said::Other],
    }
}

fn said_in_block(block: &Value) -> Said {
    match block["type"].as_str() {
        Some("tool_result") => Said::Result(text_in(&block["content"])),
        Some("text" | "input_text") => Said::User(text_in(&block["text"])),
        _ => Said::Other,
    }
}

/// The text of a string or of a list of blocks with text.
fn text_in(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts: Vec<&str> =
                blocks.iter().filter_map(|block| block["text"].as_str()).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}
