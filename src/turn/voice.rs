//! What was heard → what the caller gets, in the form and style of that caller.

mod tool_line;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use self::tool_line::tool_line;
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
pub(super) enum Form {
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
pub(super) struct Voice {
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
    /// Plain calls whose line was written.
    shown_calls: Vec<String>,
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
    pub(super) fn new(chunks: Chunks, form: Form, style: ToolStyle) -> Self {
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
            shown_calls: Vec::new(),
        }
    }

    /// A new paragraph of `strand` begins with what is said next.
    pub(super) fn begin(&mut self, strand: Strand) {
        let ends = self.ends(strand);
        if *ends == Ends::Open {
            *ends = Ends::Due;
        }
    }

    /// Says a piece of `strand`. `None` when it is kept for the document.
    pub(super) fn say(&mut self, strand: Strand, text: &str) -> Option<Bytes> {
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
    pub(super) fn tool(&mut self, tool: &Tool<'_>) -> Option<Bytes> {
        match (self.style, self.form) {
            (ToolStyle::None, _) => None,
            (ToolStyle::Native, Form::Stream { .. }) => self.native(tool),
            (ToolStyle::Plain | ToolStyle::Native, _) => self.plain(tool),
        }
    }

    fn plain(&mut self, tool: &Tool<'_>) -> Option<Bytes> {
        let is_shown = self.shown_calls.iter().any(|call| call == tool.call.as_ref());
        match tool.stage {
            Stage::Announced => return None,
            Stage::Running | Stage::Done if is_shown => return None,
            Stage::Running | Stage::Done | Stage::Failed => {}
        }
        self.shown_calls.push(tool.call.clone().into_owned());
        self.paragraph(&tool_line(tool))
    }

    fn native(&mut self, tool: &Tool<'_>) -> Option<Bytes> {
        // A provider may count its calls from zero in every turn; Open WebUI wants them unique.
        let id = format!("{}-{}", self.chunks.id(), tool.call);
        let arguments = tool.input.map_or("", |input| input.get()).to_owned();
        // Text after an item stands by itself already.
        self.text_ends = Ends::Closed;
        let frames = match tool.stage {
            Stage::Announced | Stage::Running => {
                let frame = item::call(&id, &tool.name, &arguments, CallStatus::InProgress);
                self.open_calls.insert(id, (tool.name.clone().into_owned(), arguments));
                frame
            }
            Stage::Done | Stage::Failed => {
                let status = if tool.stage == Stage::Done {
                    CallStatus::Completed
                } else {
                    CallStatus::Failed
                };
                self.open_calls.remove(&id);
                let text = tool.output.as_deref().unwrap_or_default();
                closed(&id, &tool.name, &arguments, text, status)
            }
        };
        Some(self.opened(frames))
    }

    /// Says a paragraph of our own.
    pub(super) fn paragraph(&mut self, text: &str) -> Option<Bytes> {
        self.begin(Strand::Text);
        let frame = self.say(Strand::Text, text);
        self.text_ends = Ends::Due;
        frame
    }

    /// Ends the answer: the last frames, or the whole document.
    pub(super) fn end(&mut self, finish: Finish, tokens: Tokens, details: &ModelDetails) -> Bytes {
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
    pub(super) fn broken_off(&mut self) -> Bytes {
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
    let mut frames = BytesMut::from(&item::call(id, name, arguments, status)[..]);
    let cut = text.floor_char_boundary(LONGEST_OUTPUT);
    frames.put_slice(&item::output(id, &text[..cut], status));
    frames.freeze()
}

fn usage_of(tokens: Tokens) -> Usage {
    Usage {
        prompt: tokens.input + tokens.cache.read + tokens.cache.write,
        cached: tokens.cache.read,
        completion: tokens.output + tokens.reasoning,
        reasoning: tokens.reasoning,
    }
}

/// Between paragraphs.
const BREAK: &str = "\n\n";
/// Bytes of a tool's output that are shown; the model has seen it all.
const LONGEST_OUTPUT: usize = 16 << 10;
