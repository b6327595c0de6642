//! Reads a request body's control members and rewrites two of them in place.
//!
//! The body is checked and scanned, never parsed into a tree, so that numbers, order, escapes and
//! members we do not know reach a runner exactly as the caller wrote them.

use std::{borrow::Cow, fmt, ops::Range};

use memchr::memchr2;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use crate::error::Refusal;

/// A body that is one JSON object, in which no control member appears twice. Only [`Scan::of`]
/// makes one.
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    body: &'a str,
    model: Option<Cow<'a, str>>,
    user: Option<Cow<'a, str>>,
    stream: bool,
    /// Where the values of `model` and `agent` are.
    model_at: Option<Range<usize>>,
    agent_at: Option<Range<usize>>,
    /// Just behind the opening brace.
    start: usize,
    is_empty: bool,
}

/// Why a body is not taken. None of these repeats any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Some byte sequence is not UTF-8.
    #[error("body is not UTF-8")]
    NotUtf8,
    /// It is not one JSON text as RFC 8259 has it; a byte order mark counts.
    #[error("body is not JSON")]
    NotJson,
    /// Arrays and objects are nested deeper than allowed.
    #[error("body is nested deeper than {0} levels")]
    TooDeep(usize),
    /// It begins like some other JSON value than an object.
    #[error("body is not a JSON object")]
    NotAnObject,
    /// A control member appears twice, so that we and a runner could read different ones.
    #[error("member {0} appears twice")]
    Duplicate(&'static str),
    /// A control member's value cannot be what it must be.
    #[error("member {member} is not {expected}")]
    WrongType {
        /// The member.
        member: &'static str,
        /// What it must be, with its article.
        expected: &'static str,
    },
}

impl<'a> Scan<'a> {
    /// Scans `body`, whose top-level object is the first of at most `max_depth` levels.
    ///
    /// A key counts as what it says after unescaping: `"mod\u0065l"` is `model`. A `null` model,
    /// user or stream counts as absent. Escaped lone surrogates are refused in `model` and `user`,
    /// which must be text, and let through elsewhere.
    pub fn of(body: &'a [u8], max_depth: usize) -> Result<Self, ScanError> {
        let body = std::str::from_utf8(body).map_err(|_| ScanError::NotUtf8)?;
        if is_deeper_than(max_depth, body.as_bytes()) {
            return Err(ScanError::TooDeep(max_depth));
        }
        let Members { values, duplicate, is_empty } =
            serde_json::from_str(body).map_err(|error| match error.classify() {
                Category::Data => ScanError::NotAnObject,
                _ => ScanError::NotJson,
            })?;
        if let Some(member) = duplicate {
            return Err(ScanError::Duplicate(member));
        }
        let [model, agent, user, stream] = values;
        // A `RawValue` borrows from the body without surrounding white space.
        let span = |value: &'a RawValue| {
            let start = value.get().as_ptr().addr() - body.as_ptr().addr();
            start..start + value.get().len()
        };
        Ok(Self {
            body,
            model: text("model", model)?,
            user: text("user", user)?,
            stream: flag("stream", stream)?,
            model_at: model.map(span),
            agent_at: agent.map(span),
            start: body.find('{').map_or(0, |brace| brace + 1),
            is_empty,
        })
    }

    /// The model asked for.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The user the body claims. A claim, not an identity.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Whether the answer is to be streamed.
    pub fn stream(&self) -> bool {
        self.stream
    }

    /// The body with `model` as its model and, if given, `agent` as its agent. A member that is
    /// missing is put first; every other byte stays as it is.
    pub fn rewrite(&self, model: &str, agent: Option<&str>) -> Vec<u8> {
        let mut inserted = String::new();
        let mut replaced: Vec<(Range<usize>, String)> = Vec::with_capacity(2);
        let members = [("model", Some(model), &self.model_at), ("agent", agent, &self.agent_at)];
        for (name, value, at) in members {
            let Some(value) = value.map(quoted) else { continue };
            match at {
                Some(at) => replaced.push((at.clone(), value)),
                None if inserted.is_empty() => inserted = format!("\"{name}\":{value}"),
                None => inserted = format!("{inserted},\"{name}\":{value}"),
            }
        }
        if !inserted.is_empty() {
            inserted.push_str(if self.is_empty { "" } else { "," });
            replaced.push((self.start..self.start, inserted));
        }
        replaced.sort_by_key(|(at, _)| at.start);

        let grown: usize = replaced.iter().map(|(_, value)| value.len()).sum();
        let mut out = Vec::with_capacity(self.body.len() + grown);
        let mut copied = 0;
        for (at, value) in replaced {
            out.extend_from_slice(&self.body.as_bytes()[copied..at.start]);
            out.extend_from_slice(value.as_bytes());
            copied = at.end;
        }
        out.extend_from_slice(&self.body.as_bytes()[copied..]);
        out
    }
}

impl From<ScanError> for Refusal {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::NotUtf8 | ScanError::NotJson => {
                Self::bad_request("invalid_json", "The request body is not valid JSON in UTF-8.")
            }
            ScanError::NotAnObject => {
                Self::bad_request("invalid_json", "The request body must be a JSON object.")
            }
            ScanError::TooDeep(max) => Self::bad_request(
                "nested_too_deep",
                format!("The request body is nested deeper than {max} levels."),
            ),
            ScanError::Duplicate(member) => Self::bad_request(
                "duplicate_member",
                format!("The member `{member}` appears more than once. Send it once."),
            )
            .param(member),
            ScanError::WrongType { member, expected } => Self::bad_request(
                "invalid_type",
                format!("The member `{member}` must be {expected}."),
            )
            .param(member),
        }
    }
}

/// The members we look for, in the order of [`Members::values`].
const CONTROL: [&str; 4] = ["model", "agent", "user", "stream"];

/// What one walk over the top-level object found.
#[derive(Default)]
struct Members<'a> {
    values: [Option<&'a RawValue>; CONTROL.len()],
    duplicate: Option<&'static str>,
    is_empty: bool,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Walk)
    }
}

/// Keys are taken raw: only one with an escape is worth unescaping, and one that does not unescape
/// is none of ours.
struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members { is_empty: true, ..Members::default() };
        while let Some((key, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            members.is_empty = false;
            let Some(which) = control(key.get()) else { continue };
            if members.values[which].replace(value).is_some() {
                members.duplicate.get_or_insert(CONTROL[which]);
            }
        }
        Ok(members)
    }
}

/// Which control member the raw `key`, with its quotes, names.
fn control(key: &str) -> Option<usize> {
    let of = |name: &str| CONTROL.iter().position(|control| *control == name);
    if key.contains('\\') {
        return of(&serde_json::from_str::<String>(key).ok()?);
    }
    of(key.trim_matches('"'))
}

fn text<'a>(
    member: &'static str,
    value: Option<&'a RawValue>,
) -> Result<Option<Cow<'a, str>>, ScanError> {
    let Some(raw) = value.map(RawValue::get) else { return Ok(None) };
    if raw == "null" {
        return Ok(None);
    }
    // The common case borrows; an escape needs a copy.
    if let Ok(plain) = serde_json::from_str::<&str>(raw) {
        return Ok(Some(Cow::Borrowed(plain)));
    }
    serde_json::from_str::<String>(raw)
        .map(|text| Some(Cow::Owned(text)))
        .map_err(|_| ScanError::WrongType { member, expected: "a string" })
}

fn flag(member: &'static str, value: Option<&RawValue>) -> Result<bool, ScanError> {
    match value.map(RawValue::get) {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ScanError::WrongType { member, expected: "true or false" }),
    }
}

/// Whether arrays and objects are nested more than `max` deep. Exact for JSON; for anything else
/// it merely ends.
fn is_deeper_than(max: usize, text: &[u8]) -> bool {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'[' | b'{' if depth == max => return true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => at = closing_quote(text, at),
            _ => {}
        }
        at += 1;
    }
    false
}

/// The end of the string that opens at `at`, or the end of the text.
fn closing_quote(text: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return at;
        }
        at += 2;
    }
    text.len()
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
