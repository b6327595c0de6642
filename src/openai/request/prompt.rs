//! What to ask an agent, in our own words.

use std::fmt::Write as _;

use super::File;

/// A conversation, split into what was said before and what is to be answered now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// All system and developer messages, in order, with an empty line between them.
    pub system: Option<String>,
    /// Everything said before `parts`, oldest first.
    pub transcript: Vec<Entry>,
    /// What to answer: the user's last message, or, when somebody else spoke last, a cue of ours
    /// to go on. Never empty.
    pub parts: Vec<Part>,
    /// Who spoke last.
    pub ending: Ending,
}

/// One thing said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who said it.
    pub speaker: Speaker,
    /// The text of it, for a call its arguments; its text parts have a line break between them.
    pub text: String,
    /// The files that came with it.
    pub files: Vec<File>,
}

/// Who said something. Tool names are of `A-Z a-z 0-9 _ - .`, at most 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speaker {
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The model, calling the tool of this name.
    Call(String),
    /// The tool of this name, answering.
    Tool(String),
}

/// A piece of the message to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// A file, with its bytes.
    File(File),
}

/// Who spoke last, and so what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The user: an answer.
    User,
    /// The model: the rest of its answer. Open WebUI's "Continue Response".
    Assistant,
    /// A tool that the caller ran: an answer that uses the result.
    Tool,
}

const BEFORE: &str = "This is the conversation so far, oldest message first. Every line of a \
    message begins with \"| \"; a line that does not is no part of any message.\n";
const AFTER: &str = "\nThis is the end of the conversation so far. What to answer now follows.";

/// Whatever may be read as the end of a line.
pub(super) const BREAKS: [char; 7] =
    ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];

impl Prompt {
    /// What to send to a session that knows nothing yet: the transcript as text, its files, then
    /// `parts`.
    pub fn replayed(mut self) -> Vec<Part> {
        let told = self.told();
        let files = self.transcript.drain(..).flat_map(|entry| entry.files).map(Part::File);
        let mut all: Vec<Part> = told.map(Part::Text).into_iter().chain(files).collect();
        all.append(&mut self.parts);
        all
    }

    /// The transcript as text, or `None` when there is none.
    ///
    /// Each line of a message is quoted with `| `, like a reply in a mail, and any character that
    /// could pass for a line break counts as one. So a message cannot pretend to end, nor to be
    /// somebody else's, and code stays readable, which it would not as JSON.
    pub fn told(&self) -> Option<String> {
        if self.transcript.is_empty() {
            return None;
        }
        let mut told = BEFORE.to_owned();
        let mut files = 0;
        for entry in &self.transcript {
            entry.tell(&mut told, &mut files);
        }
        told.push_str(AFTER);
        Some(told)
    }
}

impl Entry {
    /// What `speaker` said in `parts`.
    pub(super) fn of(speaker: Speaker, parts: Vec<Part>) -> Self {
        let mut said = Self { speaker, text: String::new(), files: Vec::new() };
        let mut texts = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => texts.push(text),
                Part::File(file) => said.files.push(file),
            }
        }
        said.text = if texts.len() == 1 { texts.swap_remove(0) } else { texts.join("\n") };
        said
    }

    /// Whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.files.is_empty()
    }

    fn tell(&self, told: &mut String, files: &mut usize) {
        let speaker = match &self.speaker {
            Speaker::User => "The user:".to_owned(),
            Speaker::Assistant => "You:".to_owned(),
            Speaker::Call(tool) => format!("You called the tool {tool} with:"),
            Speaker::Tool(tool) => format!("The tool {tool} answered:"),
        };
        told.push('\n');
        told.push_str(&speaker);
        for line in self.text.replace("\r\n", "\n").split(BREAKS) {
            told.push_str("\n| ");
            told.push_str(line);
        }
        for File { mime, .. } in &self.files {
            *files += 1;
            // Writing to a string cannot fail.
            write!(told, "\n[with file {files} of those below, {mime}]").unwrap_or_default();
        }
        told.push('\n');
    }
}

impl Ending {
    /// What stands in for the user's message when it is not the last.
    pub(super) fn cue(self) -> &'static str {
        match self {
            Self::User => "",
            Self::Assistant => {
                "Go on with your last answer from exactly where it stops, \
                 without repeating any of it."
            }
            Self::Tool => "Answer with the help of the tool results above.",
        }
    }
}
