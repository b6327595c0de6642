//! What opencode says on its event stream, as far as a turn listens.
//!
//! Lenient: unknown events are [`Event::Other`], unknown members are skipped. Observed with
//! opencode 1.18.

mod frames;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::frames::{FrameTooLarge, Frames};

/// An event, borrowed from its JSON.
#[derive(Debug)]
pub enum Event<'a> {
    /// A piece of a text or reasoning part.
    Delta(Delta<'a>),
    /// A part began, moved on or ended.
    Part(PartEvent<'a>),
    /// A message appeared or changed.
    Message(MessageEvent<'a>),
    /// What a session does.
    Status(StatusEvent<'a>),
    /// A session has stopped.
    Idle(Of<'a>),
    /// Something failed. Without a session it is nobody's.
    Error(ErrorEvent<'a>),
    /// A tool waits for permission.
    PermissionAsked(AskEvent<'a>),
    /// The model waits for an answer of the user.
    QuestionAsked(AskEvent<'a>),
    /// A session appeared; with a parent, it is a sub-agent's.
    SessionCreated(SessionEvent<'a>),
    /// The instance is gone, and the stream with it.
    Disposed,
    /// Nothing a turn needs.
    Other,
}

/// Text as it stands in the JSON, or unescaped when it has escapes.
type Text<'a> = Cow<'a, str>;

/// `message.part.delta`. `field` is `text` for reasoning as well.
#[derive(Debug, Deserialize)]
pub struct Delta<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Text<'a>,
    /// The message.
    #[serde(borrow, rename = "messageID")]
    pub message: Text<'a>,
    /// The part.
    #[serde(borrow, rename = "partID")]
    pub part: Text<'a>,
    /// What is new.
    #[serde(borrow)]
    pub delta: Text<'a>,
}

/// `message.part.updated`.
#[derive(Debug, Deserialize)]
pub struct PartEvent<'a> {
    /// The part as it is now.
    #[serde(borrow)]
    pub part: Part<'a>,
}

/// A part of a message.
#[derive(Debug, Deserialize)]
pub struct Part<'a> {
    /// Its id.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// Its session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Text<'a>,
    /// Its message.
    #[serde(borrow, rename = "messageID")]
    pub message: Text<'a>,
    /// `text`, `reasoning`, `tool`, `step-start`, `step-finish`, …
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    /// Text written by opencode itself, not by the model.
    #[serde(default)]
    pub synthetic: bool,
    /// A tool's name.
    #[serde(borrow)]
    pub tool: Option<Text<'a>>,
    /// A tool call's id.
    #[serde(borrow, rename = "callID")]
    pub call: Option<Text<'a>>,
    /// What a tool call does.
    #[serde(borrow)]
    pub state: Option<ToolState<'a>>,
    /// What a finished step cost, in tokens.
    pub tokens: Option<Tokens>,
}

/// The state of a tool call.
#[derive(Debug, Deserialize)]
pub struct ToolState<'a> {
    /// `pending`, `running`, `completed` or `error`.
    #[serde(borrow)]
    pub status: Text<'a>,
    /// Its arguments, once they are complete.
    #[serde(borrow)]
    pub input: Option<&'a RawValue>,
    /// What it gave.
    #[serde(borrow)]
    pub output: Option<Text<'a>>,
    /// A line about what it did.
    #[serde(borrow)]
    pub title: Option<Text<'a>>,
    /// Why it failed.
    #[serde(borrow)]
    pub error: Option<Text<'a>>,
}

/// Tokens of one model call. `input` excludes cached ones, `output` excludes reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// Read anew.
    pub input: u64,
    /// Written as answer.
    pub output: u64,
    /// Written as reasoning.
    pub reasoning: u64,
    /// Read from and written to the provider's cache.
    pub cache: Cache,
}

/// Cached tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// Read from the cache.
    pub read: u64,
    /// Written to the cache.
    pub write: u64,
}

/// `message.updated`.
#[derive(Debug, Deserialize)]
pub struct MessageEvent<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Text<'a>,
    /// The message as it is now.
    #[serde(borrow)]
    pub info: Message<'a>,
}

/// A message.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    /// Its id.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// `user` or `assistant`.
    #[serde(borrow)]
    pub role: Text<'a>,
    /// The message an assistant answers.
    #[serde(borrow, rename = "parentID")]
    pub parent: Option<Text<'a>>,
    /// `compaction` for a summary, else the agent's name.
    #[serde(borrow)]
    pub mode: Option<Text<'a>>,
    /// Why the model stopped.
    #[serde(borrow)]
    pub finish: Option<Text<'a>>,
    /// Why there is no answer.
    #[serde(borrow)]
    pub error: Option<Failure<'a>>,
    /// When it began and ended.
    pub time: Option<Times>,
}

/// When a message began and ended, in Unix milliseconds.
#[derive(Debug, Deserialize)]
pub struct Times {
    /// Absent until it is complete.
    pub completed: Option<f64>,
}

/// `session.status`.
#[derive(Debug, Deserialize)]
pub struct StatusEvent<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Text<'a>,
    /// What it does.
    #[serde(borrow)]
    pub status: Status<'a>,
}

/// What a session does.
#[derive(Debug, Deserialize)]
pub struct Status<'a> {
    /// `busy`, `idle` or `retry`.
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    /// For `retry`: why.
    #[serde(borrow)]
    pub message: Option<Text<'a>>,
    /// For `retry`: when, in Unix milliseconds.
    pub next: Option<f64>,
}

/// An event that only names its session.
#[derive(Debug, Deserialize)]
pub struct Of<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Text<'a>,
}

/// `session.error`.
#[derive(Debug, Deserialize)]
pub struct ErrorEvent<'a> {
    /// The session, if it is one's.
    #[serde(borrow, rename = "sessionID")]
    pub session: Option<Text<'a>>,
    /// What failed.
    #[serde(borrow)]
    pub error: Failure<'a>,
}

/// An error as opencode tells it. Its texts may hold stack traces, URLs and a provider's whole
/// reply: they are for the log, and never as they are for a caller.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Failure<'a> {
    /// `APIError`, `ProviderAuthError`, `MessageAbortedError`, …
    #[serde(borrow)]
    pub name: Text<'a>,
    /// What is known of it.
    #[serde(borrow, default)]
    pub data: FailureData<'a>,
}

/// What is known of an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FailureData<'a> {
    /// A sentence, or a stack trace.
    #[serde(borrow)]
    pub message: Option<Text<'a>>,
    /// The provider's HTTP status; absent for connection errors.
    #[serde(rename = "statusCode")]
    pub status: Option<u16>,
}

impl Failure<'_> {
    /// The same, owning its texts.
    pub fn into_owned(self) -> Failure<'static> {
        Failure {
            name: Cow::Owned(self.name.into_owned()),
            data: FailureData {
                message: self.data.message.map(|message| Cow::Owned(message.into_owned())),
                status: self.data.status,
            },
        }
    }
}

/// `permission.asked`, `question.asked`.
#[derive(Debug, Deserialize)]
pub struct AskEvent<'a> {
    /// The request to answer.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Text<'a>,
    /// What kind of permission.
    #[serde(borrow)]
    pub permission: Option<Text<'a>>,
}

/// `session.created`.
#[derive(Debug, Deserialize)]
pub struct SessionEvent<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Text<'a>,
    /// What it is.
    #[serde(borrow)]
    pub info: SessionInfo<'a>,
}

/// What a session is.
#[derive(Debug, Deserialize)]
pub struct SessionInfo<'a> {
    /// The session that spawned it.
    #[serde(borrow, rename = "parentID")]
    pub parent: Option<Text<'a>>,
}

impl<'a> Event<'a> {
    /// Reads an event. The error names what is missing, and quotes nothing but a type.
    pub fn parse(json: &'a [u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            properties: Option<&'a RawValue>,
        }
        let envelope: Envelope<'a> = serde_json::from_slice(json)?;
        let properties = envelope.properties.map_or("{}", RawValue::get);
        Ok(match envelope.kind.as_ref() {
            "message.part.delta" => Self::Delta(serde_json::from_str(properties)?),
            "message.part.updated" => Self::Part(serde_json::from_str(properties)?),
            "message.updated" => Self::Message(serde_json::from_str(properties)?),
            "session.status" => Self::Status(serde_json::from_str(properties)?),
            "session.idle" => Self::Idle(serde_json::from_str(properties)?),
            "session.error" => Self::Error(serde_json::from_str(properties)?),
            "session.created" => Self::SessionCreated(serde_json::from_str(properties)?),
            "permission.asked" => Self::PermissionAsked(serde_json::from_str(properties)?),
            "question.asked" => Self::QuestionAsked(serde_json::from_str(properties)?),
            "server.instance.disposed" => Self::Disposed,
            _ => Self::Other,
        })
    }
}
