//! A chat completion request, checked, as far as a turn needs it.
//!
//! Lenient where it can be: members that mean nothing to an agent (`tools`, `temperature`, …) are
//! ignored. Strict where it matters: what a turn uses has its type, and no URL is ever fetched.

mod file;
mod message;
mod prompt;

use serde::Deserialize;
use serde_json::value::RawValue;

use self::message::Conversation;
pub use self::{
    file::File,
    prompt::{Ending, Entry, Part, Prompt, Speaker},
};
use super::splice::Scan;
use crate::error::Refusal;

/// A checked request. Only [`ChatRequest::parse`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChatRequest {
    /// The model asked for, as written. It may not exist.
    pub model: String,
    /// The user the body claims. A claim, not an identity.
    pub user: Option<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a streamed answer ends with a chunk that holds the usage.
    pub include_usage: bool,
    /// What to ask the agent.
    pub prompt: Prompt,
}

impl ChatRequest {
    /// Reads a body of at most `max_depth` levels. Each refusal is a 400 whose `param` is the
    /// member at fault, as in `messages.3.content`, and whose message repeats nothing of the body.
    pub fn parse(body: &[u8], max_depth: usize) -> Result<Self, Refusal> {
        let scan = Scan::of(body, max_depth)?;
        let members: Members<'_> = serde_json::from_slice(body).map_err(|_| {
            let message = "The request has a member twice, or one whose name is not text.";
            Refusal::bad_request("invalid_json", message)
        })?;
        if let Some(n) = members.n
            && read::<u64>(n, "n")? != 1
        {
            let message = "An agent gives one answer. Leave `n` out or send 1.";
            return Err(Refusal::bad_request("unsupported_value", message).param("n"));
        }
        let include_usage = match members.stream_options {
            Some(options) => read::<StreamOptions>(options, "stream_options")?.include_usage,
            None => None,
        };
        let messages: Vec<&RawValue> =
            read(members.messages.ok_or_else(|| missing("messages"))?, "messages")?;
        let mut conversation = Conversation::default();
        for (index, message) in messages.into_iter().enumerate() {
            conversation.hear(message, &format!("messages.{index}"))?;
        }
        Ok(Self {
            model: scan.model().ok_or_else(|| missing("model"))?.to_owned(),
            user: scan.user().map(str::to_owned),
            stream: scan.stream(),
            include_usage: include_usage.unwrap_or(false),
            prompt: conversation.prompt()?,
        })
    }
}

/// The members that are not control members. Each is read by itself, so that a refusal can say
/// which one it is about.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    n: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_options: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Reads the member at `param`, or refuses it.
fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue, param: &str) -> Result<T, Refusal> {
    serde_json::from_str(raw.get()).map_err(|_| {
        let message = format!("`{param}`, or a member of it, is missing or has the wrong type.");
        Refusal::bad_request("invalid_type", message).param(param.to_owned())
    })
}

fn missing(param: &'static str) -> Refusal {
    Refusal::bad_request("missing_member", format!("The request needs `{param}`.")).param(param)
}

#[cfg(test)]
mod tests;
