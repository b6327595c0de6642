//! What opencode says on its event stream, as far as a turn listens.
//!
//! Lenient: unknown events are [`Event::Other`], unknown members are skipped, and members that
//! are only nice to have may have any type. Observed with opencode 1.18.

mod frames;
mod shape;
mod slim;

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

pub(super) use self::slim::slim;
pub use self::{
    frames::{FrameTooLarge, Frames},
    shape::{
        AskEvent, Cache, Delta, ErrorEvent, Failure, FailureData, Message, MessageEvent, Of, Part,
        PartEvent, Question, ReplyEvent, SessionEvent, SessionInfo, Status, StatusEvent, Tokens,
        ToolState,
    },
};

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
    /// A permission was given or not.
    PermissionReplied(ReplyEvent<'a>),
    /// The model waits for an answer of the user.
    QuestionAsked(AskEvent<'a>),
    /// A question will not be answered.
    QuestionRejected(ReplyEvent<'a>),
    /// A session appeared; with a parent, it is a sub-agent's.
    SessionCreated(SessionEvent<'a>),
    /// The instance is gone, and the stream with it. It concerns every session.
    Disposed,
    /// Nothing a turn needs.
    Other,
}

impl<'a> Event<'a> {
    /// Reads an event in one pass. The error names what is missing or of another type.
    pub fn parse(json: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// The session it is about, if it is about one.
    pub fn session(&self) -> Option<&str> {
        Some(match self {
            Self::Delta(delta) => &delta.session,
            Self::Part(event) => &event.part.session,
            Self::Message(event) => &event.session,
            Self::Status(event) => &event.session,
            Self::Idle(of) => &of.session,
            Self::Error(event) => event.session.as_deref()?,
            Self::PermissionAsked(ask) | Self::QuestionAsked(ask) => &ask.session,
            Self::PermissionReplied(reply) | Self::QuestionRejected(reply) => &reply.session,
            Self::SessionCreated(event) => &event.session,
            Self::Disposed | Self::Other => return None,
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Event<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Envelope)
    }
}

/// Reads `{"id", "type", "properties"}`.
struct Envelope;

impl<'de> Visitor<'de> for Envelope {
    type Value = Event<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event with a type")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Event<'de>, M::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        let (mut kind, mut event, mut early) = (None::<Name<'de>>, None, None::<&'de RawValue>);
        while let Some(Name(member)) = map.next_key()? {
            match (member.as_ref(), &kind) {
                ("type", _) => kind = Some(map.next_value()?),
                ("properties", Some(Name(kind))) => {
                    event = Some(map.next_value_seed(Properties(kind))?);
                }
                // opencode writes the type first, but nobody promised it.
                ("properties", None) => early = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let Name(kind) = kind.ok_or_else(|| de::Error::missing_field("type"))?;
        match (event, early) {
            (Some(event), _) => Ok(event),
            (None, properties) => {
                let properties = properties.map_or("{}", RawValue::get);
                let mut properties = serde_json::Deserializer::from_str(properties);
                Properties(&kind).deserialize(&mut properties).map_err(de::Error::custom)
            }
        }
    }
}

/// Reads the properties of an event of this type.
struct Properties<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for Properties<'_> {
    type Value = Event<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Event<'de>, D::Error> {
        Ok(match self.0 {
            "message.part.delta" => Event::Delta(Deserialize::deserialize(from)?),
            "message.part.updated" => Event::Part(Deserialize::deserialize(from)?),
            "message.updated" => Event::Message(Deserialize::deserialize(from)?),
            "session.status" => Event::Status(Deserialize::deserialize(from)?),
            "session.idle" => Event::Idle(Deserialize::deserialize(from)?),
            "session.error" => Event::Error(Deserialize::deserialize(from)?),
            "session.created" => Event::SessionCreated(Deserialize::deserialize(from)?),
            "permission.asked" => Event::PermissionAsked(Deserialize::deserialize(from)?),
            "permission.replied" => Event::PermissionReplied(Deserialize::deserialize(from)?),
            "question.asked" => Event::QuestionAsked(Deserialize::deserialize(from)?),
            "question.rejected" => Event::QuestionRejected(Deserialize::deserialize(from)?),
            kind => {
                IgnoredAny::deserialize(from)?;
                match kind {
                    "server.instance.disposed" | "global.disposed" => Event::Disposed,
                    _ => Event::Other,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELTA: &str = r#"{"id":"evt_1","type":"message.part.delta","properties":{"sessionID":
        "ses_1","messageID":"msg_1","partID":"prt_1","field":"text","delta":"a\nb"}}"#;

    #[test]
    fn a_delta_borrows_its_ids_and_unescapes_its_text() {
        let Ok(Event::Delta(delta)) = Event::parse(DELTA.as_bytes()) else { panic!("no delta") };
        assert!(matches!(delta.part, Cow::Borrowed("prt_1")));
        assert_eq!(delta.delta, "a\nb");
    }

    #[test]
    fn the_type_may_come_last() {
        let json = br#"{"properties":{"sessionID":"ses_1"},"type":"session.idle"}"#;
        let event = Event::parse(json).unwrap();
        assert!(matches!(event, Event::Idle(_)));
        assert_eq!(event.session(), Some("ses_1"));
    }

    #[test]
    fn what_is_not_known_is_other_and_what_is_broken_is_an_error() {
        let other = [&br#"{"type":"lsp.updated","properties":[1]}"#[..], br#"{"type":"sync"}"#];
        for json in other {
            assert!(matches!(Event::parse(json), Ok(Event::Other)));
        }
        let broken = [&br#"{"type":"session.idle"}"#[..], b"{}", b"[]", br#"{"type":"x""#];
        for json in broken {
            assert!(Event::parse(json).is_err(), "{}", String::from_utf8_lossy(json));
        }
    }

    #[test]
    fn details_of_another_type_than_expected_do_no_harm() {
        let json = br#"{"type":"session.error","properties":{"sessionID":"ses_1","error":
            {"name":"APIError","data":{"message":7,"statusCode":"429","responseHeaders":[]}}}}"#;
        let Ok(Event::Error(event)) = Event::parse(json) else { panic!("no error") };
        assert_eq!(event.error.data, FailureData::default());
    }
}
