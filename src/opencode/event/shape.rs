//! The shapes of the events, member by member. Serde borrows only from a `Cow` that is written
//! out: not through an alias, nor within an `Option`.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Number, value::RawValue};

/// `message.part.delta`. `field` is `text` for reasoning as well.
#[derive(Debug, Deserialize)]
pub struct Delta<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Cow<'a, str>,
    /// The message.
    #[serde(borrow, rename = "messageID")]
    pub message: Cow<'a, str>,
    /// The part.
    #[serde(borrow, rename = "partID")]
    pub part: Cow<'a, str>,
    /// What is new. Never empty.
    #[serde(borrow)]
    pub delta: Cow<'a, str>,
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
    pub id: Cow<'a, str>,
    /// Its session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Cow<'a, str>,
    /// Its message.
    #[serde(borrow, rename = "messageID")]
    pub message: Cow<'a, str>,
    /// `text`, `reasoning`, `tool`, `step-start`, `step-finish`, …
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// All of a text: empty while its deltas come.
    #[serde(borrow, default)]
    pub text: Cow<'a, str>,
    /// Text written by opencode itself, not by the model.
    #[serde(default)]
    pub synthetic: bool,
    /// Whether a text is complete.
    #[serde(default, rename = "time", deserialize_with = "has_end")]
    pub ended: bool,
    /// A tool's name.
    #[serde(borrow)]
    pub tool: Option<Cow<'a, str>>,
    /// A tool call's id.
    #[serde(borrow, rename = "callID")]
    pub call: Option<Cow<'a, str>>,
    /// What a tool call does.
    #[serde(borrow)]
    pub state: Option<ToolState<'a>>,
    /// What a finished step cost, in tokens.
    #[serde(default, deserialize_with = "lenient")]
    pub tokens: Option<Tokens>,
}

/// The state of a tool call.
#[derive(Debug, Deserialize)]
pub struct ToolState<'a> {
    /// `pending`, `running`, `completed` or `error`.
    #[serde(borrow)]
    pub status: Cow<'a, str>,
    /// Its arguments, once they are complete.
    #[serde(borrow)]
    pub input: Option<&'a RawValue>,
    /// What it gave.
    #[serde(borrow)]
    pub output: Option<Cow<'a, str>>,
    /// A line about what it did.
    #[serde(borrow)]
    pub title: Option<Cow<'a, str>>,
    /// Why it failed.
    #[serde(borrow)]
    pub error: Option<Cow<'a, str>>,
    /// What the tool adds, in a shape of its own.
    #[serde(borrow)]
    pub metadata: Option<&'a RawValue>,
}

impl ToolState<'_> {
    /// The exit status of a command that did not succeed: for opencode that is a completed call.
    pub fn failed_exit(&self) -> Option<i64> {
        #[derive(Deserialize)]
        struct Metadata {
            exit: i64,
        }
        let metadata: Metadata = serde_json::from_str(self.metadata?.get()).ok()?;
        Some(metadata.exit).filter(|exit| *exit != 0)
    }
}

/// Tokens of one model call. `input` excludes cached ones, `output` excludes reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// Read anew.
    #[serde(deserialize_with = "count")]
    pub input: u64,
    /// Written as answer.
    #[serde(deserialize_with = "count")]
    pub output: u64,
    /// Written as reasoning.
    #[serde(deserialize_with = "count")]
    pub reasoning: u64,
    /// Read from and written to the provider's cache.
    pub cache: Cache,
}

/// Cached tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// Read from the cache.
    #[serde(deserialize_with = "count")]
    pub read: u64,
    /// Written to the cache.
    #[serde(deserialize_with = "count")]
    pub write: u64,
}

/// `message.updated`.
#[derive(Debug, Deserialize)]
pub struct MessageEvent<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Cow<'a, str>,
    /// The message as it is now.
    #[serde(borrow)]
    pub info: Message<'a>,
}

/// A message.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    /// Its id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// `user` or `assistant`.
    #[serde(borrow)]
    pub role: Cow<'a, str>,
    /// The message an assistant answers.
    #[serde(borrow, rename = "parentID")]
    pub parent: Option<Cow<'a, str>>,
    /// `compaction` for a summary, else the agent's name.
    #[serde(borrow)]
    pub mode: Option<Cow<'a, str>>,
    /// `true` for a summary; of a user's message it is an object.
    #[serde(default, deserialize_with = "is_true")]
    pub summary: bool,
    /// Why the model stopped.
    #[serde(borrow)]
    pub finish: Option<Cow<'a, str>>,
    /// Why there is no answer.
    #[serde(borrow)]
    pub error: Option<Failure<'a>>,
    /// Whether nothing more will be added.
    #[serde(default, rename = "time", deserialize_with = "has_completed")]
    pub complete: bool,
}

/// `session.status`.
#[derive(Debug, Deserialize)]
pub struct StatusEvent<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Cow<'a, str>,
    /// What it does.
    #[serde(borrow)]
    pub status: Status<'a>,
}

/// What a session does.
#[derive(Debug, Deserialize)]
pub struct Status<'a> {
    /// `busy`, `idle` or `retry`.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// For `retry`: why.
    #[serde(borrow)]
    pub message: Option<Cow<'a, str>>,
    /// For `retry`: when, in Unix milliseconds.
    pub next: Option<f64>,
}

/// An event that only names its session.
#[derive(Debug, Deserialize)]
pub struct Of<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Cow<'a, str>,
}

/// `session.error`.
#[derive(Debug, Deserialize)]
pub struct ErrorEvent<'a> {
    /// The session, if it is one's.
    #[serde(borrow, rename = "sessionID")]
    pub session: Option<Cow<'a, str>>,
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
    pub name: Cow<'a, str>,
    /// What is known of it.
    #[serde(default, deserialize_with = "lenient")]
    pub data: FailureData,
}

/// What is known of an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FailureData {
    /// A sentence, or a stack trace.
    #[serde(deserialize_with = "lenient")]
    pub message: Option<String>,
    /// The provider's HTTP status; absent for connection errors.
    #[serde(rename = "statusCode", deserialize_with = "lenient")]
    pub status: Option<u16>,
    /// When the provider wants to be asked again.
    #[serde(rename = "responseHeaders", deserialize_with = "retry_after")]
    pub retry_after: Option<Duration>,
}

impl Failure<'_> {
    /// The same, owning its texts.
    pub fn into_owned(self) -> Failure<'static> {
        Failure { name: Cow::Owned(self.name.into_owned()), data: self.data }
    }
}

/// `permission.asked`, `question.asked`.
#[derive(Debug, Deserialize)]
pub struct AskEvent<'a> {
    /// The request to answer.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Cow<'a, str>,
    /// What kind of permission.
    #[serde(borrow)]
    pub permission: Option<Cow<'a, str>>,
    /// What the permission is for: commands, paths, …
    #[serde(default, deserialize_with = "lenient")]
    pub patterns: Vec<String>,
    /// What is asked.
    #[serde(default, deserialize_with = "lenient")]
    pub questions: Vec<Question>,
}

/// A question of the model.
#[derive(Debug, Deserialize)]
pub struct Question {
    /// In the model's words.
    pub question: String,
}

/// `permission.replied`, `question.rejected`.
#[derive(Debug, Deserialize)]
pub struct ReplyEvent<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Cow<'a, str>,
    /// The request that was answered.
    #[serde(borrow, rename = "requestID")]
    pub request: Cow<'a, str>,
    /// Of a permission: `once`, `always` or `reject`.
    #[serde(borrow)]
    pub reply: Option<Cow<'a, str>>,
}

/// `session.created`.
#[derive(Debug, Deserialize)]
pub struct SessionEvent<'a> {
    /// The session.
    #[serde(borrow, rename = "sessionID")]
    pub session: Cow<'a, str>,
    /// What it is.
    #[serde(borrow)]
    pub info: SessionInfo<'a>,
}

/// What a session is.
#[derive(Debug, Deserialize)]
pub struct SessionInfo<'a> {
    /// The session that spawned it.
    #[serde(borrow, rename = "parentID")]
    pub parent: Option<Cow<'a, str>>,
}

/// The value, or the default when it has another type.
fn lenient<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    let json = <&RawValue>::deserialize(from)?;
    Ok(serde_json::from_str(json.get()).unwrap_or_default())
}

/// A number of tokens. Providers have been seen to count below zero.
fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number: Option<Number> = lenient(from)?;
    Ok(number.and_then(|number| number.as_u64()).unwrap_or_default())
}

fn is_true<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(<&RawValue>::deserialize(from)?.get() == "true")
}

/// When something began and ended.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Times {
    end: Option<IgnoredAny>,
    completed: Option<IgnoredAny>,
}

fn has_end<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(lenient::<D, Times>(from)?.end.is_some())
}

fn has_completed<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(lenient::<D, Times>(from)?.completed.is_some())
}

/// Finds `retry-after` in seconds, or `retry-after-ms`, among a provider's headers.
fn retry_after<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let headers: HashMap<String, String> = lenient(from)?;
    let number = |name: &str| headers.get(name)?.trim().parse::<u64>().ok();
    let millis = number("retry-after-ms").map(Duration::from_millis);
    Ok(millis.or_else(|| number("retry-after").map(Duration::from_secs)))
}
