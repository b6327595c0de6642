//! The usage that a provider reports, read from its reply as it streams past.

use crate::{
    skim::{Found, Keys, Path, Skim},
    usage::Tokens,
};

mod lines;
mod reported;

use lines::{Lines, Part};
use reported::Reported;

/// What a provider has said of its usage so far.
///
/// Only the places count where its API reports usage, whatever the model writes elsewhere.
#[derive(Debug)]
pub struct Observed {
    endpoint: Endpoint,
    form: Form,
    lines: Lines,
    skim: Skim,
    said: Said,
    bytes: u64,
}

/// What is asked, which says how usage is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// OpenAI's `chat/completions`, which many others have too.
    ChatCompletions,
    /// OpenAI's `responses`.
    Responses,
    /// Anthropic's `messages`.
    Messages,
    /// OpenAI's `embeddings`.
    Embeddings,
    /// Something else, such as a list of models.
    Other,
}

/// What kind of text a reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A stream of events, each of which is a JSON document.
    Events,
    /// One JSON document.
    Json,
    /// None that has usage in it.
    Other,
}

impl Form {
    /// Of a reply with this `content-type`. Nothing is seen in one that has a `content-encoding`.
    pub fn of(content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "text/event-stream" => Self::Events,
            "application/json" => Self::Json,
            _ => Self::Other,
        }
    }
}

impl Observed {
    /// Of a reply that is to come.
    pub fn new(endpoint: Endpoint, form: Form) -> Self {
        Self {
            endpoint,
            form,
            lines: Lines::default(),
            skim: Skim::new(WANTED, Keys::Exact, LARGEST),
            said: Said::default(),
            bytes: 0,
        }
    }

    /// Reads the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        let (skim, said) = (&mut self.skim, &mut self.said);
        match self.form {
            Form::Events => self.lines.feed(piece, |part| match part {
                Part::Data(data) => skim.feed(data, |found| said.hear(&found)),
                Part::End => {
                    skim.restart();
                    said.end_event();
                }
            }),
            Form::Json => skim.feed(piece, |found| said.hear(&found)),
            Form::Other => {}
        }
    }

    /// The tokens used so far, once the provider said anything about them.
    pub fn tokens(&self) -> Option<Tokens> {
        self.said.reported.tokens(self.endpoint)
    }

    /// Whether the tokens are those of all that was said: the model said nothing since the
    /// provider reported what it wrote.
    pub fn is_final(&self) -> bool {
        self.said.is_settled
    }

    /// How many events carried a part of the answer. Providers send a few tokens in each.
    pub fn events(&self) -> u64 {
        if self.form == Form::Events { self.said.events } else { 0 }
    }

    /// How long the reply is so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What the documents say.
#[derive(Debug, Default)]
struct Said {
    reported: Reported,
    is_settled: bool,
    events: u64,
    /// Whether the event that is not over yet reported usage, and whether it is counted.
    has_usage: bool,
    has_content: bool,
}

impl Said {
    fn hear(&mut self, found: &Found<'_>) {
        match *found.path {
            ["choices"] if is_empty_array(found.text) => {}
            ["type"] if !is_delta(found.text) => {}
            ["choices" | "type"] => {
                self.events += u64::from(!self.has_content);
                self.has_content = true;
                self.is_settled &= self.has_usage;
            }
            // Such as `null`, which many send until the end.
            _ if !found.text.starts_with(b"{") || !found.is_whole => {}
            // At the start of a message, about the start of it.
            ["message", _] => _ = self.reported.add(found.text),
            _ => {
                if self.reported.add(found.text) {
                    (self.is_settled, self.has_usage) = (true, true);
                }
            }
        }
    }

    fn end_event(&mut self) {
        (self.has_usage, self.has_content) = (false, false);
    }
}

fn is_empty_array(text: &[u8]) -> bool {
    matches!(text.strip_prefix(b"["), Some(rest) if rest.trim_ascii_start().starts_with(b"]"))
}

/// `content_block_delta` of messages, `response.output_text.delta` and others of responses.
fn is_delta(kind: &[u8]) -> bool {
    kind == b"\"content_block_delta\"" || kind.ends_with(b".delta\"")
}

/// Where usage is, and what tells that an event has content.
const WANTED: &[Path] =
    &[&["usage"], &["response", "usage"], &["message", "usage"], &["choices"], &["type"]];
/// Usage objects have some hundred bytes.
const LARGEST: usize = 16 << 10;

#[cfg(test)]
mod tests;
