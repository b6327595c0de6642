//! Whose the messages of a turn are, and how much of each part was passed on.

use std::collections::{HashMap, HashSet};

use super::{Stage, Strand};
use crate::opencode::event::{Delta, Message, Part};

/// Messages and parts of one session since its prompt.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The prompt, and the messages in which opencode repeats it after it compacted.
    prompts: HashSet<String>,
    /// Other messages of the user.
    strangers: HashSet<String>,
    messages: HashMap<String, Author>,
    parts: HashMap<String, Kind>,
    /// Whether the model works for our prompt, not for another one in the same session.
    is_ours: bool,
    /// A summary is complete: the next new message of the user is opencode's own, and for us.
    adopts: bool,
}

/// Whose a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    /// The answer's.
    Answer,
    /// A summary that opencode makes for itself, in our turn.
    Summary,
    /// Somebody's that a caller should not hear: the user, another turn.
    Other,
    /// Not known yet.
    Unknown,
}

/// What a part is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text, as far as it was passed on.
    Open(Strand, String),
    /// Text that is complete.
    Closed,
    /// A tool call.
    Tool(Stage),
    /// A step whose tokens were counted.
    Counted,
}

/// What is still to be passed on of a text.
pub(super) enum Rest {
    /// All of it: it begins.
    New,
    /// Nothing.
    Nothing,
    /// All from this byte on.
    Missing(usize),
    /// What was passed on is not how it begins.
    Contradicts,
}

/// What is known of an assistant's message.
pub(super) struct Noted {
    pub(super) author: Author,
    /// It was not known before.
    pub(super) is_new: bool,
    /// Parts of it came before it was known.
    pub(super) was_heard_before: bool,
}

impl Ledger {
    pub(super) fn new(prompt: &str) -> Self {
        Self {
            prompts: HashSet::from([prompt.to_owned()]),
            strangers: HashSet::new(),
            messages: HashMap::new(),
            parts: HashMap::new(),
            is_ours: true,
            adopts: false,
        }
    }

    /// Notes a message of the user: the prompt, another one, or one that opencode made.
    pub(super) fn note_user(&mut self, message: &Message<'_>) {
        let id = message.id.as_ref();
        self.messages.insert(id.to_owned(), Author::Other);
        if self.prompts.contains(id) || self.strangers.contains(id) {
            return;
        }
        let is_adopted = std::mem::take(&mut self.adopts);
        let set = if is_adopted { &mut self.prompts } else { &mut self.strangers };
        set.insert(id.to_owned());
    }

    /// Notes a message of the model.
    pub(super) fn note_assistant(&mut self, message: &Message<'_>) -> Noted {
        let before = self.messages.get(message.id.as_ref()).copied();
        let author = match before {
            Some(known) if known != Author::Unknown => known,
            _ => self.decide(message),
        };
        if before != Some(author) {
            self.messages.insert(message.id.clone().into_owned(), author);
        }
        if author == Author::Summary && message.complete && self.is_first_end(&message.id) {
            self.adopts = true;
        }
        Noted {
            author,
            is_new: before.is_none(),
            was_heard_before: before == Some(Author::Unknown) && author == Author::Answer,
        }
    }

    fn decide(&mut self, message: &Message<'_>) -> Author {
        if message.summary || message.mode.as_deref() == Some("compaction") {
            return if self.is_ours { Author::Summary } else { Author::Other };
        }
        self.is_ours = message.parent.as_deref().is_some_and(|parent| {
            self.prompts.contains(parent) || (self.adopts && !self.strangers.contains(parent))
        });
        if self.is_ours { Author::Answer } else { Author::Other }
    }

    /// Whether it is told for the first time that the summary `id` is complete.
    fn is_first_end(&mut self, id: &str) -> bool {
        self.parts.insert(id.to_owned(), Kind::Closed).is_none()
    }

    /// Whose `part` is. A part of an unknown message makes that message one that was heard.
    pub(super) fn author_of(&mut self, part: &Part<'_>) -> Author {
        self.author(&part.message)
    }

    fn author(&mut self, message: &str) -> Author {
        if let Some(author) = self.messages.get(message) {
            return *author;
        }
        self.messages.insert(message.to_owned(), Author::Unknown);
        Author::Unknown
    }

    /// Notes that `delta` is passed on, if it is the answer's: gives what it belongs to.
    pub(super) fn add(&mut self, delta: &Delta<'_>) -> Option<Strand> {
        match self.parts.get_mut(delta.part.as_ref()) {
            Some(Kind::Open(strand, said)) => {
                said.push_str(&delta.delta);
                Some(*strand)
            }
            // A delta of a part that was not told is caught up with when the part ends.
            None => {
                self.author(&delta.message);
                None
            }
            Some(_) => None,
        }
    }

    /// Notes a text as it is now, and gives what is still to be passed on of it.
    pub(super) fn hold(&mut self, part: &Part<'_>, strand: Strand) -> Rest {
        let rest = match self.parts.get(part.id.as_ref()) {
            None => Rest::New,
            // Before it ends, a text that is told again is no news but when deltas were lost.
            Some(Kind::Open(_, said)) if !part.ended && part.text.len() <= said.len() => {
                return Rest::Nothing;
            }
            Some(Kind::Open(_, said)) if part.text.starts_with(said.as_str()) => {
                let known = said.len();
                if known == part.text.len() { Rest::Nothing } else { Rest::Missing(known) }
            }
            Some(Kind::Open(..)) => Rest::Contradicts,
            Some(_) => return Rest::Nothing,
        };
        let kind = if part.ended {
            Kind::Closed
        } else {
            Kind::Open(strand, part.text.clone().into_owned())
        };
        self.parts.insert(part.id.clone().into_owned(), kind);
        rest
    }

    /// Notes that the part `id` came to be `kind`. False when it had come as far before.
    pub(super) fn advance(&mut self, id: &str, kind: Kind) -> bool {
        let advances = match (self.parts.get(id), &kind) {
            (None, _) => true,
            (Some(Kind::Tool(Stage::Done | Stage::Failed)), _) => false,
            (Some(Kind::Tool(before)), Kind::Tool(stage)) => stage > before,
            _ => false,
        };
        if advances {
            self.parts.insert(id.to_owned(), kind);
        }
        advances
    }
}
