//! Takes out of an event what no turn listens to, so that a prompt that comes back does not fill
//! the queue in front of its own answer.
//!
//! A model's text is left alone: a turn compares it with what it heard.

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

/// `event` without a part's text or data URL, where those make it large. A prompt comes back part
/// by part, images and all, and without the times that a model's text has (observed with opencode
/// 1.18).
pub(in crate::opencode) fn slim(event: Bytes) -> Bytes {
    if event.len() <= SMALL {
        return event;
    }
    let Ok(Envelope { properties: Properties { part: Part { text, url, time: None } } }) =
        serde_json::from_slice(&event)
    else {
        return event;
    };
    let Some(content) = [text, url].into_iter().flatten().max_by_key(|raw| raw.get().len()) else {
        return event;
    };
    let Some(at) = offset(&event, content.get()) else { return event };
    let rest = &event[at + content.get().len()..];
    [&event[..at], b"\"\"", rest].concat().into()
}

/// Where `part`, which was borrowed from `whole`, begins in it.
fn offset(whole: &[u8], part: &str) -> Option<usize> {
    let at = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (at + part.len() <= whole.len()).then_some(at)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    properties: Properties<'a>,
}

#[derive(Deserialize)]
struct Properties<'a> {
    #[serde(borrow)]
    part: Part<'a>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    time: Option<IgnoredAny>,
}

/// Bytes of an event that need no second look.
const SMALL: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn part(content: &Value) -> Bytes {
        let mut part = json!({"id": "prt_1", "sessionID": "ses_1", "messageID": "msg_1"});
        part.as_object_mut().expect("an object").extend(content.as_object().cloned().unwrap());
        let event = json!({"type": "message.part.updated",
            "properties": {"sessionID": "ses_1", "part": part, "time": 1}});
        event.to_string().into()
    }

    #[test]
    fn a_prompt_that_comes_back_loses_its_text_and_its_files_and_nothing_else() {
        let long = "\"\\u20ac\n".repeat(SMALL);
        for (kind, member) in [("text", "text"), ("file", "url")] {
            let slimmed = slim(part(&json!({"type": kind, member: long})));
            let expected = part(&json!({"type": kind, member: ""}));
            let read = |event: &Bytes| serde_json::from_slice::<Value>(event).unwrap();
            assert_eq!(read(&slimmed), read(&expected));
        }
    }

    #[test]
    fn anything_else_is_passed_on_as_it_is() {
        let long = "x".repeat(SMALL);
        let tool = part(&json!({"type": "tool", "state": {"status": "completed", "output": long}}));
        let said = part(&json!({"type": "text", "text": long, "time": {"start": 1, "end": 2}}));
        let small = part(&json!({"type": "text", "text": "Hello"}));
        let other = Bytes::from(json!({"type": "session.diff", "diff": long}).to_string());
        for event in [tool, said, small, other, Bytes::from(vec![b'{'; 2 * SMALL])] {
            assert_eq!(slim(event.clone()), event);
        }
    }
}
