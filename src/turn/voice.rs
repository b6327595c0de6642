//! What was heard → what the caller gets, in the form and style of that caller.

mod tool_line;

use std::collections::{BTreeMap, HashSet};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;

use self::tool_line::{failure_line, tool_line};
use super::reply::{Finish, Stage, Strand, Tool};
use crate::{
    config::ToolStyle,
    openai::{
        chunk::{Chunks, FinishReason, ModelDetails, Usage},
        item::{self, CallStatus},
    },
    opencode::event::Tokens,
};

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As chunks, with the usage at the end or not.
    Stream {
        /// `stream_options.include_usage`.
        include_usage: bool,
    },
    /// As one document.
    Document,
}

/// Says an answer, frame by frame or all at once.
#[derive(Debug)]
pub struct Voice {
    chunks: Chunks,
    form: Form,
    style: ToolStyle,
    /// Whether anything was sent.
    begun: bool,
    /// The answer so far, if it is to be one document.
    content: String,
    reasoning: String,
    /// How the answer's text stands: the next paragraph needs a break or not.
    text_ends: Ends,
    reasoning_ends: Ends,
    /// Native calls that have no output yet: our id → name and arguments.
    open_calls: BTreeMap<String, (String, String)>,
    /// Plain calls whose line was written: their parts' ids.
    shown_calls: HashSet<String>,
}

/// How a strand of text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Nothing was said, or a paragraph was closed.
    Closed,
    /// In the middle of a paragraph.
    Open,
    /// A paragraph is over; the next words start another.
    Due,
}

impl Voice {
    /// A voice that speaks in `chunks`.
    pub fn new(chunks: Chunks, form: Form, style: ToolStyle) -> Self {
        Self {
            chunks,
            form,
            style,
            begun: false,
            content: String::new(),
            reasoning: String::new(),
            text_ends: Ends::Closed,
            reasoning_ends: Ends::Closed,
            open_calls: BTreeMap::new(),
            shown_calls: HashSet::new(),
        }
    }

    /// A new paragraph of `strand` begins with what is said next.
    pub fn begin(&mut self, strand: Strand) {
        let ends = self.ends(strand);
        if *ends == Ends::Open {
            *ends = Ends::Due;
        }
    }

    /// Says a piece of `strand`. `None` when it is kept for the document.
    pub fn say(&mut self, strand: Strand, text: &str) -> Option<Bytes> {
        let ends = self.ends(strand);
        let is_due = std::mem::replace(ends, Ends::Open) == Ends::Due;
        let parted;
        let text = if is_due {
            parted = format!("{BREAK}{text}");
            &parted
        } else {
            text
        };
        match (self.form, strand) {
            (Form::Document, Strand::Text) => self.content.push_str(text),
            (Form::Document, Strand::Reasoning) => self.reasoning.push_str(text),
            (Form::Stream { .. }, Strand::Text) => {
                return Some(self.opened(self.chunks.content(text)));
            }
            (Form::Stream { .. }, Strand::Reasoning) => {
                return Some(self.opened(self.chunks.reasoning(text)));
            }
        }
        None
    }

    /// Shows tool activity in this caller's style.
    pub fn tool(&mut self, tool: &Tool<'_>) -> Option<Bytes> {
        match (self.style, self.form) {
            (ToolStyle::None, _) => None,
            (ToolStyle::Native, Form::Stream { .. }) => Some(self.native(tool)),
            (ToolStyle::Plain | ToolStyle::Native, _) => self.plain(tool),
        }
    }

    fn plain(&mut self, tool: &Tool<'_>) -> Option<Bytes> {
        if tool.stage == Stage::Announced {
            return None;
        }
        let call = self.shown_calls.insert(tool.part.clone().into_owned()).then(|| tool_line(tool));
        match (call, failure_line(tool)) {
            (Some(call), Some(failure)) => self.paragraph(&format!("{call}{BREAK}{failure}")),
            (Some(line), None) | (None, Some(line)) => self.paragraph(&line),
            (None, None) => None,
        }
    }

    fn native(&mut self, tool: &Tool<'_>) -> Bytes {
        // Open WebUI wants ids that are unique in the chat: a part's is, a provider's need not be.
        let id = tool.part.clone().into_owned();
        let arguments = tool.input.map_or_else(String::new, |input| shown_arguments(input.get()));
        // Text after an item stands by itself already.
        self.text_ends = Ends::Closed;
        let frames = match tool.stage {
            Stage::Announced | Stage::Running => {
                let frame = item::call(&id, &tool.name, &arguments, CallStatus::InProgress);
                self.open_calls.insert(id, (tool.name.clone().into_owned(), arguments));
                frame
            }
            Stage::Done | Stage::Failed => {
                let status = match tool.stage {
                    Stage::Done => CallStatus::Completed,
                    _ => CallStatus::Failed,
                };
                self.open_calls.remove(&id);
                let text = tool.output.as_deref().unwrap_or_default();
                closed(&id, &tool.name, &arguments, text, status)
            }
        };
        self.opened(frames)
    }

    /// Says a paragraph of our own.
    pub fn paragraph(&mut self, text: &str) -> Option<Bytes> {
        self.begin(Strand::Text);
        let frame = self.say(Strand::Text, text);
        self.text_ends = Ends::Due;
        frame
    }

    /// Says why the answer ends here, in words of our own.
    pub(super) fn stop_short(&mut self, text: &str) -> Option<Bytes> {
        let mut frames = BytesMut::from(&self.broken_off()[..]);
        frames.put_slice(&self.paragraph(text)?);
        Some(frames.freeze())
    }

    /// Ends the answer: the last frames, or the whole document.
    pub fn end(&mut self, finish: Finish, tokens: Tokens, details: &ModelDetails) -> Bytes {
        let usage = usage_of(tokens);
        let finish = match finish {
            Finish::Stop | Finish::Refused => FinishReason::Stop,
            Finish::Length => FinishReason::Length,
            Finish::ContentFilter => FinishReason::ContentFilter,
        };
        match self.form {
            Form::Document => {
                self.chunks.document(&self.content, &self.reasoning, finish, details, usage)
            }
            Form::Stream { include_usage } => {
                let mut frames = BytesMut::from(&self.broken_off()[..]);
                let end = self.chunks.end(finish, details, include_usage.then_some(usage));
                frames.put_slice(&self.opened(end));
                frames.freeze()
            }
        }
    }

    /// What must be sent before an answer breaks off: outputs for calls that will get none.
    pub fn broken_off(&mut self) -> Bytes {
        let mut frames = BytesMut::new();
        for (id, (name, arguments)) in std::mem::take(&mut self.open_calls) {
            frames.put_slice(&closed(&id, &name, &arguments, "(interrupted)", CallStatus::Failed));
        }
        frames.freeze()
    }

    fn ends(&mut self, strand: Strand) -> &mut Ends {
        match strand {
            Strand::Text => &mut self.text_ends,
            Strand::Reasoning => &mut self.reasoning_ends,
        }
    }

    /// `frame`, after the chunk that opens a stream if it is the first.
    fn opened(&mut self, frame: Bytes) -> Bytes {
        if std::mem::replace(&mut self.begun, true) {
            return frame;
        }
        let mut both = BytesMut::from(&self.chunks.role()[..]);
        both.put_slice(&frame);
        both.freeze()
    }
}

fn closed(id: &str, name: &str, arguments: &str, text: &str, status: CallStatus) -> Bytes {
    // A call that is over has arguments, and they are JSON.
    let arguments = if arguments.is_empty() { "{}" } else { arguments };
    let mut frames = BytesMut::from(&item::call(id, name, arguments, status)[..]);
    let cut = text.floor_char_boundary(LONGEST_SHOWN);
    let left_out = text.len() - cut;
    if left_out == 0 {
        frames.put_slice(&item::output(id, text, status));
    } else {
        let text = format!("{}\n… ({left_out} bytes are not shown)", &text[..cut]);
        frames.put_slice(&item::output(id, &text, status));
    }
    frames.freeze()
}

/// Arguments as they are, unless they are longer than anybody would read: then what is said of
/// them is JSON as well.
fn shown_arguments(json: &str) -> String {
    if json.len() <= LONGEST_SHOWN {
        return json.to_owned();
    }
    json!({"not shown": format!("{} bytes", json.len())}).to_string()
}

fn usage_of(tokens: Tokens) -> Usage {
    Usage {
        prompt: tokens.input.saturating_add(tokens.cache.read).saturating_add(tokens.cache.write),
        cached: tokens.cache.read,
        completion: tokens.output.saturating_add(tokens.reasoning),
        reasoning: tokens.reasoning,
    }
}

/// Between paragraphs.
const BREAK: &str = "\n\n";
/// Bytes of a call's arguments, and of its output, that are shown; the model has seen it all.
const LONGEST_SHOWN: usize = 16 << 10;
