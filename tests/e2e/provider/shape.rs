//! How each style writes a reply and an error. Text only.

mod chat;
mod messages;
mod responses;

use open_persona::usage::Tokens;
use serde_json::Value;

use super::{Call, Reply, Style};

/// The time that everything says it was made at.
const CREATED: u64 = 1_700_000_000;

/// A reply to one call.
#[derive(Debug)]
pub(super) struct Told<'a> {
    /// The call's number, which makes its ids.
    pub(super) number: u64,
    pub(super) model: &'a str,
    pub(super) reply: &'a Reply,
    /// What it has used, if that is told.
    pub(super) tokens: Option<Tokens>,
}

/// One style's words for things. A streamed reply is an opening, pieces of text, at most one call,
/// and a closing, which alone has the final usage.
pub(super) trait Shape {
    fn opening(&self, told: &Told<'_>) -> String;
    fn piece(&self, told: &Told<'_>, text: &str) -> String;
    fn call(&self, told: &Told<'_>, call: &Call) -> String;
    fn closing(&self, told: &Told<'_>) -> String;
    /// The reply that is not streamed.
    fn whole(&self, told: &Told<'_>) -> Value;
    fn error(&self, status: u16, message: &str) -> Value;
}

impl Style {
    /// How it is written.
    pub(super) fn shape(self) -> &'static dyn Shape {
        match self {
            Self::Responses => &responses::Responses,
            Self::Messages => &messages::Messages,
            Self::Chat => &chat::Chat,
        }
    }
}

impl Told<'_> {
    /// An id with the prefix the style has for it.
    fn id(&self, prefix: &str) -> String {
        format!("{prefix}_{:012}", self.number)
    }

    fn has_text(&self) -> bool {
        !self.reply.pieces.is_empty()
    }
}

/// One event of a stream whose events have names.
fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

/// The arguments in the small parts in which models write them.
fn parts(arguments: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = arguments.chars().collect();
    let parts: Vec<String> = characters.chunks(24).map(|part| part.iter().collect()).collect();
    parts.into_iter()
}
