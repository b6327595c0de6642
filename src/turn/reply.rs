//! Events in, what a caller should hear of them out: one prompt's reply, without I/O or clock.
//!
//! A turn ends with `session.idle`, but not every `session.idle` ends it: errors and aborts say it
//! twice, a leftover of the turn before can come late, and some failures are only ever said by
//! `session.error`. So an end that could still be contradicted is *settling*: whoever feeds the
//! events waits [`SETTLE`], and then takes [`Reply::settled`] for it.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde_json::value::RawValue;

use super::ask::Ask;
use crate::opencode::event::{
    Delta, ErrorEvent, Event, Failure, Message, MessageEvent, Part, Status, StatusEvent, Tokens,
    ToolState,
};

/// How long a settling end may be contradicted.
pub const SETTLE: Duration = Duration::from_millis(500);

/// The reply to one prompt, as far as it has been heard.
#[derive(Debug)]
pub struct Reply {
    session: String,
    prompt: String,
    /// The session and those its sub-agents run in.
    family: HashSet<String>,
    /// Whether opencode has taken the prompt; before that, what it says is about an earlier one.
    taken: bool,
    busy: bool,
    /// Whether an answering message is complete.
    answered: bool,
    failure: Option<Failure<'static>>,
    finish: Option<String>,
    settling: bool,
    /// A summary was written: from here on answers have other parents.
    compacted: bool,
    messages: HashMap<String, Voice>,
    parts: HashMap<String, Kind>,
    /// Whether any of the running step was passed on.
    told_of_step: bool,
    /// Steps that were counted: a part is told more than once.
    counted: HashSet<String>,
    tokens: Tokens,
}

/// Whose a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    /// The answer's.
    Answer,
    /// Nobody's that a caller should hear: the user, a summary, another turn.
    Unheard,
}

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Kind {
    Said(Strand),
    Tool(Stage),
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

/// Something a caller should hear, or somebody should act on.
#[derive(Debug)]
pub enum Heard<'a> {
    /// A new paragraph begins.
    Begin(Strand),
    /// A piece of the answer or of the reasoning.
    Piece(Strand, Cow<'a, str>),
    /// A tool call came a stage further.
    Tool(Tool<'a>),
    /// The runner waits, for ever if nobody answers.
    Ask(Ask),
    /// The provider failed and opencode will try again.
    Retry(Retry<'a>),
    /// The turn is over.
    End(Outcome),
}

/// What a piece of text belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Strand {
    /// The answer.
    Text,
    /// The model's reasoning.
    Reasoning,
}

/// A tool call at one of its stages.
#[derive(Debug)]
pub struct Tool<'a> {
    /// Its id, unique within the session.
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
}

/// A step that will be tried again.
#[derive(Debug)]
pub struct Retry<'a> {
    /// Why, in the provider's words.
    pub reason: Cow<'a, str>,
    /// When, in Unix milliseconds.
    pub next: u64,
    /// Whether some of the step was passed on already: it will be said again.
    pub told: bool,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer, or without one because nothing was to be said.
    Finished(Finish),
    /// With an error.
    Failed(Failure<'static>),
    /// The stream said that nothing more comes.
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

impl Reply {
    /// The reply to the prompt with the message id `prompt` in `session`. Nothing was heard yet.
    pub fn new(session: &str, prompt: &str) -> Self {
        Self {
            session: session.to_owned(),
            prompt: prompt.to_owned(),
            family: HashSet::from([session.to_owned()]),
            taken: false,
            busy: false,
            answered: false,
            failure: None,
            finish: None,
            settling: false,
            compacted: false,
            messages: HashMap::new(),
            parts: HashMap::new(),
            told_of_step: false,
            counted: HashSet::new(),
            tokens: Tokens::default(),
        }
    }

    /// Whether the turn is over unless something else is heard within [`SETTLE`].
    pub fn is_settling(&self) -> bool {
        self.settling
    }

    /// How the turn ended, when nothing else was heard.
    pub fn settled(&mut self) -> Outcome {
        self.outcome()
    }

    /// The tokens of all model calls of this turn, sub-agents' included.
    pub fn tokens(&self) -> Tokens {
        self.tokens
    }

    /// Whether opencode has shown that it works on the prompt.
    pub fn is_taken(&self) -> bool {
        self.taken
    }

    /// Takes in one event.
    pub fn hear<'a>(&mut self, event: Event<'a>) -> Option<Heard<'a>> {
        match event {
            Event::Delta(delta) => self.delta(delta),
            Event::Part(event) => self.part(event.part),
            Event::Message(event) => self.message(&event),
            Event::Status(event) => self.status(event),
            Event::Idle(of) if of.session == self.session => self.idle(),
            Event::Error(event) => self.error(event),
            Event::PermissionAsked(ask) if self.is_family(&ask.session) => {
                Some(Heard::Ask(Ask::Permission {
                    request: ask.id.into_owned(),
                    permission: ask.permission.unwrap_or_default().into_owned(),
                }))
            }
            Event::QuestionAsked(ask) if self.is_family(&ask.session) => {
                Some(Heard::Ask(Ask::Question { request: ask.id.into_owned() }))
            }
            Event::SessionCreated(event) => {
                if event.info.parent.is_some_and(|parent| self.is_family(&parent)) {
                    self.family.insert(event.session.into_owned());
                }
                None
            }
            Event::Disposed => Some(Heard::End(Outcome::Interrupted)),
            _ => None,
        }
    }

    fn is_family(&self, session: &str) -> bool {
        self.family.contains(session)
    }

    fn delta<'a>(&mut self, delta: Delta<'a>) -> Option<Heard<'a>> {
        let Some(Kind::Said(strand)) = self.parts.get(delta.part.as_ref()) else { return None };
        self.told_of_step = true;
        Some(Heard::Piece(*strand, delta.delta))
    }

    fn part<'a>(&mut self, part: Part<'a>) -> Option<Heard<'a>> {
        self.count(&part);
        if part.session != self.session {
            return None;
        }
        if part.kind == "step-start" {
            self.told_of_step = false;
        }
        let voice = self.messages.get(part.message.as_ref()).copied();
        if voice != Some(Voice::Answer) || part.synthetic {
            return None;
        }
        match part.kind.as_ref() {
            "text" => self.begin(part, Strand::Text),
            "reasoning" => self.begin(part, Strand::Reasoning),
            "tool" => self.tool(part),
            _ => None,
        }
    }

    fn begin(&mut self, part: Part<'_>, strand: Strand) -> Option<Heard<'static>> {
        let is_new = self.parts.insert(part.id.into_owned(), Kind::Said(strand)).is_none();
        is_new.then_some(Heard::Begin(strand))
    }

    fn count(&mut self, part: &Part<'_>) {
        let Some(tokens) = part.tokens.filter(|_| part.kind == "step-finish") else { return };
        let is_ours =
            if part.session == self.session { self.taken } else { self.is_family(&part.session) };
        if is_ours && self.counted.insert(part.id.clone().into_owned()) {
            self.tokens.input += tokens.input;
            self.tokens.output += tokens.output;
            self.tokens.reasoning += tokens.reasoning;
            self.tokens.cache.read += tokens.cache.read;
            self.tokens.cache.write += tokens.cache.write;
        }
    }

    fn tool<'a>(&mut self, part: Part<'a>) -> Option<Heard<'a>> {
        let ToolState { status, input, output, title, error } = part.state?;
        let stage = match status.as_ref() {
            "pending" => Stage::Announced,
            "running" => Stage::Running,
            "completed" => Stage::Done,
            "error" => Stage::Failed,
            _ => return None,
        };
        let kind = Kind::Tool(stage);
        let before = self.parts.insert(part.id.into_owned(), kind);
        // Each stage once: a running tool is told again with every line it prints.
        if before.is_some_and(|before| before >= kind) {
            return None;
        }
        self.told_of_step = true;
        Some(Heard::Tool(Tool {
            call: part.call?,
            name: part.tool?,
            stage,
            input: input.filter(|_| stage > Stage::Announced),
            output: output.or(error),
            title: title.filter(|title| !title.is_empty()),
        }))
    }

    fn message(&mut self, event: &MessageEvent<'_>) -> Option<Heard<'static>> {
        if event.session != self.session {
            return None;
        }
        let message = &event.info;
        if message.role == "user" {
            if !self.taken && message.id == self.prompt {
                self.taken = true;
                // What was said before was about an earlier prompt.
                self.failure = None;
                self.settling = false;
            }
            return None;
        }
        if !self.taken {
            return None;
        }
        let voice = self.voice_of(message);
        self.messages.insert(message.id.clone().into_owned(), voice);
        let is_complete = message.time.as_ref().is_some_and(|time| time.completed.is_some());
        if voice == Voice::Answer && is_complete {
            self.answered = true;
            // A complete answer also takes back an error that compaction has mended.
            self.failure = message.error.clone().map(Failure::into_owned);
            self.finish = message.finish.clone().map(Cow::into_owned);
        }
        None
    }

    fn voice_of(&mut self, message: &Message<'_>) -> Voice {
        if message.mode.as_deref() == Some("compaction") {
            self.compacted = true;
            return Voice::Unheard;
        }
        let parent = message.parent.as_deref();
        if self.compacted || parent == Some(&self.prompt) { Voice::Answer } else { Voice::Unheard }
    }

    fn status<'a>(&mut self, event: StatusEvent<'a>) -> Option<Heard<'a>> {
        if event.session != self.session || !self.taken {
            return None;
        }
        let Status { kind, message, next } = event.status;
        if kind != "busy" && kind != "retry" {
            return None;
        }
        self.busy = true;
        self.settling = false;
        (kind == "retry").then(|| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a time; `as` saturates"
            )]
            let next = next.unwrap_or_default() as u64;
            Heard::Retry(Retry {
                reason: message.unwrap_or_default(),
                next,
                told: self.told_of_step,
            })
        })
    }

    fn idle(&mut self) -> Option<Heard<'static>> {
        if !self.taken || !self.busy {
            return None;
        }
        if self.answered || self.failure.is_some() {
            return Some(Heard::End(self.outcome()));
        }
        self.settling = true;
        None
    }

    fn error(&mut self, event: ErrorEvent<'_>) -> Option<Heard<'static>> {
        if event.session.as_deref() != Some(&self.session) {
            return None;
        }
        // The first says what is wrong; a second one of the same failure is a stack trace.
        if self.failure.is_none() || self.taken {
            self.failure = Some(event.error.into_owned());
        }
        self.settling |= !self.busy;
        None
    }

    fn outcome(&mut self) -> Outcome {
        if let Some(failure) = self.failure.take() {
            if failure.name == "ContentFilterError" {
                return Outcome::Finished(Finish::ContentFilter);
            }
            return Outcome::Failed(failure);
        }
        Outcome::Finished(match self.finish.as_deref() {
            Some("length") => Finish::Length,
            Some("content-filter") => Finish::ContentFilter,
            // The model wanted to go on: only a refusal ends a turn there.
            Some("tool-calls") => Finish::Refused,
            _ => Finish::Stop,
        })
    }
}
