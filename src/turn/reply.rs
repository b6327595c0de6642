//! Events in, what a caller should hear of them out: one prompt's reply, without I/O or clock.
//!
//! A turn ends with `session.idle`, but not every `session.idle` ends it: errors and aborts say it
//! twice, a leftover of the turn before can come late, and some failures are only ever said by
//! `session.error`. So an end that could still be contradicted is *settling*: whoever feeds the
//! events waits [`SETTLE`], and then takes [`Reply::settled`] for it.

mod heard;
mod ledger;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashSet, time::Duration};

pub use self::heard::{Finish, Heard, Outcome, Retry, Stage, Strand, Tool};
use self::ledger::{Author, Kind, Ledger, Rest};
use super::ask::Ask;
use crate::opencode::event::{
    AskEvent, Delta, ErrorEvent, Event, Failure, FailureData, Message, MessageEvent, Part,
    ReplyEvent, StatusEvent, Tokens,
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
    phase: Phase,
    busy: bool,
    /// Whether the newest answering message is complete.
    answered: bool,
    failure: Option<Failure<'static>>,
    finish: Option<String>,
    settling: bool,
    ledger: Ledger,
    told: Told,
    /// What the session waits for.
    asked: Vec<Ask>,
    /// What the running step was refused first.
    refused: Option<Ask>,
    tokens: Tokens,
}

/// How far a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// opencode has not taken the prompt: what it says is about an earlier one.
    Prompted,
    /// It works on it.
    Taken,
    /// Nothing more will be heard.
    Over,
}

/// What text was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// None.
    Nothing,
    /// Some, but none of the running step.
    Earlier,
    /// Some of the running step.
    OfStep,
}

impl Reply {
    /// The reply to the prompt with the message id `prompt` in `session`. Nothing was heard yet;
    /// hear what is said from before the prompt is sent.
    pub fn new(session: &str, prompt: &str) -> Self {
        Self {
            session: session.to_owned(),
            prompt: prompt.to_owned(),
            family: HashSet::from([session.to_owned()]),
            phase: Phase::Prompted,
            busy: false,
            answered: false,
            failure: None,
            finish: None,
            settling: false,
            ledger: Ledger::new(prompt),
            told: Told::Nothing,
            asked: Vec::new(),
            refused: None,
            tokens: Tokens::default(),
        }
    }

    /// Whether the turn is over unless something else is heard within [`SETTLE`] of the event
    /// that made it so. To be asked after every event.
    pub fn is_settling(&self) -> bool {
        self.settling
    }

    /// How the turn ended, when nothing else was heard.
    pub fn settled(&mut self) -> Outcome {
        self.outcome()
    }

    /// The tokens of all model calls of this turn so far: sub-agents' and summaries' included.
    pub fn tokens(&self) -> Tokens {
        self.tokens
    }

    /// Whether opencode has shown that it works on the prompt.
    pub fn is_taken(&self) -> bool {
        self.phase != Phase::Prompted
    }

    /// What a turn that ended as [`Finish::Refused`] was refused; `None` when that is not known.
    pub fn refused(&self) -> Option<&Ask> {
        self.refused.as_ref()
    }

    /// Takes in one event. After [`Heard::End`] nothing is heard.
    pub fn hear<'a>(&mut self, event: Event<'a>) -> Option<Heard<'a>> {
        match (self.phase, event) {
            (Phase::Over, _) => None,
            (_, Event::Disposed) => Some(Heard::End(self.over(Outcome::Interrupted))),
            (_, Event::Error(event)) => {
                self.error(event);
                None
            }
            (Phase::Prompted, Event::Message(event)) => {
                self.await_prompt(&event);
                None
            }
            (Phase::Prompted, _) => None,
            (Phase::Taken, event) => self.listen(event),
        }
    }

    fn listen<'a>(&mut self, event: Event<'a>) -> Option<Heard<'a>> {
        match event {
            Event::Delta(delta) => self.delta(delta),
            Event::Part(event) if event.part.session == self.session => self.part(event.part),
            Event::Part(event) => {
                self.count_child(&event.part);
                None
            }
            Event::Message(event) => self.message(&event),
            Event::Status(event) => self.status(event),
            Event::Idle(of) if of.session == self.session => self.idle(),
            Event::PermissionAsked(ask) => self.ask(ask, |ask| Ask::Permission {
                request: ask.id.into_owned(),
                permission: ask.permission.unwrap_or_default().into_owned(),
                patterns: ask.patterns,
            }),
            Event::QuestionAsked(ask) => self.ask(ask, |ask| Ask::Question {
                request: ask.id.into_owned(),
                questions: ask.questions.into_iter().map(|asked| asked.question).collect(),
            }),
            Event::PermissionReplied(reply) => {
                self.replied(&reply, reply.reply.as_deref() == Some("reject"));
                None
            }
            Event::QuestionRejected(reply) => {
                self.replied(&reply, true);
                None
            }
            Event::SessionCreated(event) => {
                if event.info.parent.is_some_and(|parent| self.family.contains(parent.as_ref())) {
                    self.family.insert(event.session.into_owned());
                }
                None
            }
            Event::Idle(_) | Event::Error(_) | Event::Disposed | Event::Other => None,
        }
    }

    fn await_prompt(&mut self, event: &MessageEvent<'_>) {
        if event.session != self.session || event.info.role != "user" {
            return;
        }
        self.ledger.note_user(&event.info);
        if event.info.id == self.prompt {
            self.phase = Phase::Taken;
            // What was said before was about an earlier prompt.
            self.failure = None;
            self.settling = false;
        }
    }

    fn delta<'a>(&mut self, delta: Delta<'a>) -> Option<Heard<'a>> {
        if delta.session != self.session {
            return None;
        }
        let strand = self.ledger.add(&delta)?;
        self.told = Told::OfStep;
        Some(Heard::Piece(strand, delta.delta))
    }

    /// The next step begins: what was passed on will not be said again.
    fn step(&mut self) {
        if self.told == Told::OfStep {
            self.told = Told::Earlier;
        }
    }

    fn part<'a>(&mut self, part: Part<'a>) -> Option<Heard<'a>> {
        let author = self.ledger.author_of(&part);
        if part.kind == "step-finish" && matches!(author, Author::Answer | Author::Summary) {
            self.step();
            self.count(&part);
        }
        if author != Author::Answer || part.synthetic {
            return None;
        }
        match part.kind.as_ref() {
            "text" => self.text(part, Strand::Text),
            "reasoning" => self.text(part, Strand::Reasoning),
            "tool" => self.tool(part),
            _ => None,
        }
    }

    fn text<'a>(&mut self, part: Part<'a>, strand: Strand) -> Option<Heard<'a>> {
        match self.ledger.hold(&part, strand) {
            Rest::New if part.text.is_empty() => Some(Heard::Begin(strand)),
            Rest::New => {
                self.told = Told::OfStep;
                Some(Heard::Paragraph(strand, part.text))
            }
            Rest::Nothing => None,
            Rest::Missing(said) => {
                let rest = match part.text {
                    Cow::Borrowed(text) => Cow::Borrowed(&text[said..]),
                    Cow::Owned(mut text) => Cow::Owned(text.split_off(said)),
                };
                self.told = Told::OfStep;
                Some(Heard::Piece(strand, rest))
            }
            // Something was lost in between, and what was passed on cannot be taken back.
            Rest::Contradicts => Some(Heard::End(self.over(Outcome::Interrupted))),
        }
    }

    fn tool<'a>(&mut self, part: Part<'a>) -> Option<Heard<'a>> {
        let tool = Tool::of(part)?;
        self.ledger.advance(&tool.part, Kind::Tool(tool.stage)).then_some(Heard::Tool(tool))
    }

    fn count_child(&mut self, part: &Part<'_>) {
        if self.family.contains(part.session.as_ref()) {
            self.count(part);
        }
    }

    fn count(&mut self, part: &Part<'_>) {
        let Some(tokens) = part.tokens.filter(|_| part.kind == "step-finish") else { return };
        // A part may be told more than once.
        if self.ledger.advance(&part.id, Kind::Counted) {
            let sum = &mut self.tokens;
            sum.input = sum.input.saturating_add(tokens.input);
            sum.output = sum.output.saturating_add(tokens.output);
            sum.reasoning = sum.reasoning.saturating_add(tokens.reasoning);
            sum.cache.read = sum.cache.read.saturating_add(tokens.cache.read);
            sum.cache.write = sum.cache.write.saturating_add(tokens.cache.write);
        }
    }

    fn message(&mut self, event: &MessageEvent<'_>) -> Option<Heard<'static>> {
        if event.session != self.session {
            return None;
        }
        let message = &event.info;
        if message.role == "user" {
            self.ledger.note_user(message);
            return None;
        }
        let noted = self.ledger.note_assistant(message);
        if noted.author != Author::Answer {
            return None;
        }
        if noted.was_heard_before {
            // Some of it was said before it was known to be the answer: that is lost.
            return Some(Heard::End(self.over(Outcome::Interrupted)));
        }
        if noted.is_new {
            self.answered = false;
            self.step();
            self.refused = None;
        }
        if message.complete {
            self.complete(message);
        }
        None
    }

    fn complete(&mut self, message: &Message<'_>) {
        self.answered = true;
        // A complete answer also takes back an error that compaction has mended.
        self.failure = message.error.clone().map(Failure::into_owned);
        self.finish = message.finish.clone().map(Cow::into_owned);
    }

    fn status<'a>(&mut self, event: StatusEvent<'a>) -> Option<Heard<'a>> {
        let is_own = event.session == self.session;
        let status = event.status;
        if is_own && (status.kind == "busy" || status.kind == "retry") {
            self.busy = true;
            self.settling = false;
        }
        if status.kind != "retry" || !self.family.contains(event.session.as_ref()) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` saturates"
        )]
        let next = status.next.unwrap_or_default() as u64;
        let reason = status.message.unwrap_or_default();
        Some(Heard::Retry(Retry { reason, next, told: is_own && self.told == Told::OfStep }))
    }

    fn idle(&mut self) -> Option<Heard<'static>> {
        if !self.busy {
            return None;
        }
        if self.answered || self.failure.is_some() {
            return Some(Heard::End(self.outcome()));
        }
        self.settling = true;
        None
    }

    fn error(&mut self, event: ErrorEvent<'_>) {
        if event.session.as_deref() != Some(&self.session) {
            return;
        }
        // Before the prompt is taken the first says what is wrong, and the second is its trace.
        if self.failure.is_none() || self.phase == Phase::Taken {
            self.failure = Some(event.error.into_owned());
        }
        self.settling |= !self.busy;
    }

    fn ask<'a>(
        &mut self,
        event: AskEvent<'a>,
        ask: impl FnOnce(AskEvent<'a>) -> Ask,
    ) -> Option<Heard<'a>> {
        if !self.family.contains(event.session.as_ref()) {
            return None;
        }
        let is_own = event.session == self.session;
        let ask = ask(event);
        if is_own {
            self.asked.push(ask.clone());
        }
        Some(Heard::Ask(ask))
    }

    fn replied(&mut self, event: &ReplyEvent<'_>, is_refusal: bool) {
        let of = |ask: &Ask| ask.request() == event.request;
        let Some(index) = self.asked.iter().position(of) else { return };
        let ask = self.asked.swap_remove(index);
        if is_refusal {
            self.refused.get_or_insert(ask);
        }
    }

    fn over(&mut self, outcome: Outcome) -> Outcome {
        self.phase = Phase::Over;
        self.settling = false;
        outcome
    }

    fn outcome(&mut self) -> Outcome {
        let outcome = match self.failure.take() {
            Some(failure) => self.failed(failure),
            None => self.finished(),
        };
        self.over(outcome)
    }

    fn failed(&self, failure: Failure<'static>) -> Outcome {
        let told = self.told != Told::Nothing;
        match failure.name.as_ref() {
            // What there is of an answer stands, and says how it ended.
            "ContentFilterError" if told => Outcome::Finished(Finish::ContentFilter),
            "MessageOutputLengthError" if told => Outcome::Finished(Finish::Length),
            // A refused `doom_loop` is told as an error, other refusals are not.
            "UnknownError" if self.refused.is_some() => Outcome::Finished(Finish::Refused),
            _ => Outcome::Failed(failure),
        }
    }

    fn finished(&self) -> Outcome {
        match self.finish.as_deref().filter(|_| self.answered) {
            Some("length") => Outcome::Finished(Finish::Length),
            Some("content-filter") => Outcome::Finished(Finish::ContentFilter),
            // The model wanted to go on: only a refusal ends a turn there.
            Some("tool-calls") => Outcome::Finished(Finish::Refused),
            Some(_) => Outcome::Finished(Finish::Stop),
            None => Outcome::Failed(Failure {
                name: Cow::Borrowed(NO_ANSWER),
                data: FailureData::default(),
            }),
        }
    }
}

/// The name of the failure of a turn that ended without an answer and without an error: the
/// prompt had been answered before, or what was said of it was lost. A name of our own.
pub const NO_ANSWER: &str = "NoAnswer";
