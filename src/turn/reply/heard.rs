//! What can be heard of a turn.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    opencode::event::{Failure, Part},
    turn::ask::Ask,
};

/// Something a caller should hear, or somebody should act on.
#[derive(Debug)]
pub enum Heard<'a> {
    /// A new paragraph begins.
    Begin(Strand),
    /// A new paragraph begins with this.
    Paragraph(Strand, Cow<'a, str>),
    /// A piece of the answer or of the reasoning.
    Piece(Strand, Cow<'a, str>),
    /// A tool call came a stage further. Sub-agents' calls are not told.
    Tool(Tool<'a>),
    /// The runner waits, for ever if nobody answers.
    Ask(Ask),
    /// The provider failed and opencode will try again.
    Retry(Retry<'a>),
    /// The turn is over.
    End(Outcome),
}

/// What a piece of text belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strand {
    /// The answer.
    Text,
    /// The model's reasoning.
    Reasoning,
}

/// How far a tool call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Stage {
    /// The model writes its arguments.
    Announced,
    /// It runs.
    Running,
    /// It gave a result.
    Done,
    /// It failed, or was not allowed.
    Failed,
}

/// A tool call at one of its stages.
#[derive(Debug)]
pub struct Tool<'a> {
    /// Its part's id, unique in the runner.
    pub part: Cow<'a, str>,
    /// The call's id, as the provider gave it: it may come again in a later turn.
    pub call: Cow<'a, str>,
    /// The tool's name.
    pub name: Cow<'a, str>,
    /// How far it is.
    pub stage: Stage,
    /// Its arguments, once they are complete: JSON.
    pub input: Option<&'a RawValue>,
    /// What it gave, or why it failed.
    pub output: Option<Cow<'a, str>>,
    /// A line about what it does.
    pub title: Option<Cow<'a, str>>,
    /// The exit status of a command that ran and did not succeed.
    pub exit: Option<i64>,
}

impl<'a> Tool<'a> {
    /// The call in `part`, if it is one.
    pub(super) fn of(part: Part<'a>) -> Option<Self> {
        let (name, call) = (part.tool?, part.state?);
        let stage = match call.status.as_ref() {
            "pending" => Stage::Announced,
            "running" => Stage::Running,
            "completed" if name == INVALID => Stage::Failed,
            "completed" => Stage::Done,
            "error" => Stage::Failed,
            _ => return None,
        };
        let exit = call.failed_exit().filter(|_| stage == Stage::Done);
        let tool = Self {
            part: part.id,
            call: part.call.unwrap_or_default(),
            name,
            stage,
            input: call.input.filter(|_| stage > Stage::Announced),
            exit,
            output: call.output.or(call.error),
            title: call.title.filter(|title| !title.is_empty()),
        };
        Some(if tool.name == INVALID { tool.meant() } else { tool })
    }

    /// A call that opencode could not understand, as the call that it was meant to be.
    fn meant(self) -> Self {
        #[derive(Deserialize)]
        struct Input {
            tool: String,
            error: String,
        }
        let input = self.input.and_then(|input| serde_json::from_str(input.get()).ok());
        let Some(Input { tool, error }) = input else { return self };
        let output = (self.stage == Stage::Failed).then_some(Cow::Owned(error));
        Self { name: Cow::Owned(tool), output, input: None, title: None, ..self }
    }
}

/// What opencode calls a call that it could not understand.
const INVALID: &str = "invalid";

/// A step that will be tried again.
#[derive(Debug)]
pub struct Retry<'a> {
    /// Why, in the provider's words.
    pub reason: Cow<'a, str>,
    /// When, in Unix milliseconds.
    pub next: u64,
    /// Whether some of the step was passed on already: it would be said again.
    pub told: bool,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer, or without one because nothing was to be said.
    Finished(Finish),
    /// With an error.
    Failed(Failure<'static>),
    /// Nothing more comes, or something is missing.
    Interrupted,
}

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It was done.
    Stop,
    /// It ran into its limit.
    Length,
    /// The provider held the answer back.
    ContentFilter,
    /// A tool it wanted was refused, and that was the end of it.
    Refused,
}
