//! What a front end says about the chat a request belongs to. The user is certain, this is not: any
//! signed-in user of Open WebUI can make it up, so it only ever selects within that user's own.

use std::collections::BTreeMap;

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderMap;
use serde::Deserialize;

use crate::{
    config::{FrontEnd, is_plain_name},
    error::Refusal,
    keys,
    secret::Secret,
};

/// Where a request comes from, as its front end tells. Ids are 1 to 256 printable ASCII bytes; what
/// is not, or is empty, is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origin {
    /// The chat. `None` also for chats that are not saved.
    pub chat: Option<String>,
    /// The answer that is to be written.
    pub message: Option<String>,
    /// The user's message that is answered.
    pub user_message: Option<String>,
    /// The answer before the user's message.
    pub parent_message: Option<String>,
    /// The background task, such as `title_generation`.
    pub task: Option<String>,
    /// The model the user picked, which may be a persona built on one of ours.
    pub model: Option<String>,
    /// How the picked model tunes its persona.
    pub meta: Option<PersonaMeta>,
    /// The user's own keys, by provider.
    pub keys: Vec<(String, Secret)>,
}

/// The `open_persona` member of an Open WebUI model's meta.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PersonaMeta {
    /// The persona's name.
    pub template: Option<String>,
    /// Integrations turned on or off, by name.
    pub integrations: BTreeMap<String, bool>,
    /// Whether a chat keeps its session.
    pub memory: Option<bool>,
    /// How much the persona speaks of itself, 0 to 1.
    pub self_reference_level: Option<f32>,
}

impl Origin {
    /// Reads the origin from what `front_end` sent. Without a front end nothing is believed.
    ///
    /// # Errors
    /// 400 when a header of these has two values, or when persona meta that would be believed
    /// cannot be read.
    pub fn of(front_end: Option<&FrontEnd>, headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(front_end) = front_end else { return Ok(Self::default()) };
        let original_model = if front_end.meta_headers {
            id(headers, &["x-openpersona-original-model-id"])?
        } else {
            None
        };
        let chat = id(headers, &["x-openpersona-chat-id", "x-openwebui-chat-id"])?;
        Ok(Self {
            chat: chat.filter(|chat| !UNSAVED.iter().any(|prefix| chat.starts_with(prefix))),
            message: id(headers, &["x-openpersona-message-id", "x-openwebui-message-id"])?,
            user_message: id(headers, &["x-openpersona-user-message-id"])?,
            parent_message: id(headers, &["x-openpersona-parent-message-id"])?,
            task: id(headers, &["x-openpersona-task"])?,
            model: match original_model {
                Some(model) => Some(model),
                None => id(headers, &["x-openpersona-model-id"])?,
            },
            meta: if front_end.meta_headers { meta(headers)? } else { None },
            keys: if front_end.key_headers { keys(headers)? } else { Vec::new() },
        })
    }

    /// Whether a person waits for this answer in a browser, where Open WebUI renders its own kinds
    /// of frames: an answer has an id and is no background task. True for unsaved chats too.
    pub fn is_browser_chat(&self) -> bool {
        self.message.is_some() && self.task.is_none()
    }
}

impl PersonaMeta {
    /// Reads `{persona:{template}, integrations:{<name>:{enabled}},
    /// memory:{enabled, self_reference_level}}`, which may be wrapped in `open_persona`. Unknown
    /// members are ignored. The error says what is wrong without quoting.
    pub fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let outer: Outer = serde_json::from_slice(json).map_err(|_| "is not JSON of this shape")?;
        let Inner { persona, integrations, memory } = outer.open_persona.unwrap_or(Inner {
            persona: outer.persona,
            integrations: outer.integrations,
            memory: outer.memory,
        });
        let memory = memory.unwrap_or_default();
        if memory.self_reference_level.is_some_and(|level| !(0.0..=1.0).contains(&level)) {
            return Err("has a `self_reference_level` that is not between 0 and 1");
        }
        let enabled = |(name, of): (String, Option<Enabled>)| Some((name, of?.enabled?));
        Ok(Self {
            template: persona.and_then(|p| p.template).filter(|name| !name.is_empty()),
            integrations: integrations
                .unwrap_or_default()
                .into_iter()
                .filter_map(enabled)
                .collect(),
            memory: memory.enabled,
            self_reference_level: memory.self_reference_level,
        })
    }
}

/// Persona meta as it is written.
#[derive(Deserialize)]
struct Outer {
    open_persona: Option<Inner>,
    persona: Option<Template>,
    integrations: Option<BTreeMap<String, Option<Enabled>>>,
    memory: Option<Memory>,
}

#[derive(Deserialize)]
struct Inner {
    persona: Option<Template>,
    integrations: Option<BTreeMap<String, Option<Enabled>>>,
    memory: Option<Memory>,
}

#[derive(Deserialize)]
struct Template {
    template: Option<String>,
}

#[derive(Deserialize)]
struct Enabled {
    enabled: Option<bool>,
}

#[derive(Deserialize, Default)]
struct Memory {
    enabled: Option<bool>,
    self_reference_level: Option<f32>,
}

/// The first of `names` that is set. A template that has no value sends an empty header.
fn id(headers: &HeaderMap, names: &[&'static str]) -> Result<Option<String>, Refusal> {
    let mut found = None;
    for name in names {
        found = found.or(single(headers, name)?.filter(|value| value.len() <= ID_BYTES));
    }
    let printable = |bytes: &&[u8]| bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    Ok(found.filter(printable).map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.as_bytes().trim_ascii());
    if values.next().is_some() {
        let message = format!("The header `{name}` must have exactly one value. Send it once.");
        return Err(Refusal::bad_request("repeated_header", message).param(name));
    }
    Ok(first.filter(|value| !value.is_empty()))
}

fn meta(headers: &HeaderMap) -> Result<Option<PersonaMeta>, Refusal> {
    let Some(text) = single(headers, META)? else { return Ok(None) };
    let refuse = |fault: &str| {
        let message = format!("The header `{META}` {fault}. Send base64 of the persona's JSON.");
        Refusal::bad_request("invalid_persona_meta", message).param(META)
    };
    if text.len() > META_BYTES {
        return Err(refuse("is longer than 16 KiB"));
    }
    let url_safe = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let alphabet = if url_safe { &URL_SAFE } else { &STANDARD };
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let json =
        GeneralPurpose::new(alphabet, lenient).decode(text).map_err(|_| refuse("is not base64"))?;
    PersonaMeta::parse(&json).map(Some).map_err(refuse)
}

/// The users' own keys in `x-openpersona-<provider>-api-key`. One that is not configured is kept as
/// well: it may be tomorrow.
fn keys(headers: &HeaderMap) -> Result<Vec<(String, Secret)>, Refusal> {
    let mut found = Vec::new();
    for name in headers.keys() {
        let provider = name.as_str().strip_prefix(KEY_START);
        let Some(provider) = provider.and_then(|rest| rest.strip_suffix(KEY_END)) else { continue };
        let mut values = headers.get_all(name).iter();
        let value = values.next().map_or(&[][..], |value| value.as_bytes().trim_ascii());
        let refuse = |fault: &dyn std::fmt::Display| {
            let message = format!("In the header `{name}`, {fault}.");
            Refusal::bad_request("invalid_provider_key", message).param(name.as_str().to_owned())
        };
        if values.next().is_some() {
            return Err(refuse(&"there is more than one key; send one"));
        }
        // A template that has no value sends an empty header.
        if !value.is_empty() && is_plain_name(provider) {
            let key = keys::check(value).map_err(|fault| refuse(&fault))?;
            found.push((provider.to_owned(), key));
        }
    }
    Ok(found)
}

const KEY_START: &str = "x-openpersona-";
const KEY_END: &str = "-api-key";
const META: &str = "x-openpersona-meta-b64";
const META_BYTES: usize = 16 * 1024;
const ID_BYTES: usize = 256;

/// How Open WebUI begins the ids of chats that it does not save.
const UNSAVED: &[&str] = &["temporary:", "local:", "channel:"];

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use http::{HeaderValue, header::HeaderName};
    use proptest::prelude::*;

    use super::*;
    use crate::config::{KeyCheck, ToolStyle, UserClaim};

    fn front_end(meta_headers: bool) -> FrontEnd {
        FrontEnd {
            name: "webui".into(),
            key: KeyCheck([0; 32]),
            networks: Vec::new(),
            user: UserClaim::Headers,
            tools: ToolStyle::Native,
            meta_headers,
            key_headers: true,
        }
    }

    fn read(meta_headers: bool, lines: &[(&'static str, &[u8])]) -> Result<Origin, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        assert_eq!(Origin::of(None, &headers).unwrap(), Origin::default());
        Origin::of(Some(&front_end(meta_headers)), &headers)
    }

    fn read_meta(json: &str) -> Result<PersonaMeta, Refusal> {
        let text = BASE64_STANDARD.encode(json);
        read(true, &[(META, text.as_bytes())]).map(|origin| origin.meta.unwrap())
    }

    #[test]
    fn an_empty_header_is_no_header() {
        let lines: &[(_, &[u8])] = &[
            ("x-openpersona-chat-id", b""),
            ("x-openwebui-chat-id", b"c1"),
            ("x-openpersona-message-id", b"m1"),
            ("x-openpersona-task", b" "),
            (META, b""),
        ];
        let origin = read(true, lines).unwrap();
        assert_eq!(origin.chat.as_deref(), Some("c1"));
        assert!(origin.is_browser_chat());
        assert_eq!((origin.task, origin.meta), (None, None));
    }

    #[test]
    fn an_id_that_is_long_or_unprintable_is_ignored() {
        for bad in [&[b'a'; 257][..], b"a\tb", "ä".as_bytes(), b"\xff"] {
            assert_eq!(read(false, &[("x-openwebui-chat-id", bad)]).unwrap().chat, None);
        }
        for odd in [&b"../../etc/passwd"[..], &[b'a'; 256], b"a b", b"'; DROP TABLE chats;--"] {
            assert!(read(false, &[("x-openwebui-chat-id", odd)]).unwrap().chat.is_some());
        }
    }

    #[test]
    fn an_unsaved_chat_keeps_nothing_but_is_a_browser_chat() {
        for chat in [&b"temporary:geYwckP2"[..], b"local:1", b"channel:x"] {
            let lines = [("x-openwebui-chat-id", chat), ("x-openpersona-message-id", b"m1")];
            let origin = read(false, &lines).unwrap();
            assert!(origin.chat.is_none() && origin.is_browser_chat());
        }
    }

    #[test]
    fn two_values_are_refused_by_name() {
        for name in ["x-openwebui-chat-id", "x-openpersona-task", META] {
            let refusal = read(true, &[(name, b"a"), (name, b"b")]).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.param), (400, Some(name.into())));
        }
    }

    #[test]
    fn meta_is_read_bare_or_wrapped_and_in_either_alphabet() {
        let bare = r#"{"persona":{"template":"izzy","x":1},"integrations":{"github":{"enabled":true},
            "jira":{"enabled":false},"empty":null},"memory":{"enabled":true,"self_reference_level":0.35},"y":[]}"#;
        let wanted = PersonaMeta {
            template: Some("izzy".into()),
            integrations: [("github".into(), true), ("jira".into(), false)].into(),
            memory: Some(true),
            self_reference_level: Some(0.35),
        };
        assert_eq!(read_meta(bare).unwrap(), wanted);
        assert_eq!(read_meta(&format!(r#"{{"open_persona":{bare}}}"#)).unwrap(), wanted);
        let text = BASE64_URL_SAFE_NO_PAD.encode(bare.replace(r#""y""#, r#""ÿÿÿ???~~~""#));
        assert!(text.contains(['-', '_']), "{text}");
        assert_eq!(read(true, &[(META, text.as_bytes())]).unwrap().meta.unwrap(), wanted);
        assert_eq!(read_meta("{}").unwrap(), PersonaMeta::default());
        assert_eq!(read_meta(r#"{"persona":null,"memory":null}"#).unwrap(), PersonaMeta::default());
    }

    #[test]
    fn meta_that_cannot_be_read_is_refused_by_name() {
        let deep = format!(r#"{{"memory":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
        for json in [
            " ",
            "null",
            "[]",
            "7",
            "{",
            r#"{"persona":"izzy"}"#,
            r#"{"memory":{"self_reference_level":1.5}}"#,
            r#"{"memory":{"self_reference_level":1e999}}"#,
            r#"{"memory":{"enabled":"yes"}}"#,
            r#"{"persona":{},"persona":{}}"#,
            &deep,
        ] {
            let refusal = read_meta(json).expect_err(json);
            assert_eq!(
                (refusal.status.as_u16(), refusal.param),
                (400, Some(META.into())),
                "{json}"
            );
        }
        let ignored = format!(r#"{{"x":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
        assert!(read_meta(&ignored).is_ok());
        for text in [&b"!!!"[..], b"e30\xff", &vec![b'A'; META_BYTES + 1]] {
            assert_eq!(read(true, &[(META, text)]).unwrap_err().status, 400);
        }
    }

    #[test]
    fn meta_headers_are_believed_only_where_that_is_configured() {
        let lines: &[(_, &[u8])] = &[
            (META, b"!!!"),
            ("x-openpersona-original-model-id", b"admin-persona"),
            ("x-openpersona-model-id", b"izzy"),
        ];
        let origin = read(false, lines).unwrap();
        assert_eq!((origin.meta, origin.model.as_deref()), (None, Some("izzy")));
        let origin = read(true, &lines[1..]).unwrap();
        assert_eq!(origin.model.as_deref(), Some("admin-persona"));
    }

    proptest! {
        #[test]
        fn an_id_is_kept_as_it_is_or_not_at_all(bytes in proptest::collection::vec(32u8..=255, 0..300)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let headers = HeaderMap::from_iter([(HeaderName::from_static("x-openwebui-chat-id"), value)]);
            let chat = Origin::of(Some(&front_end(false)), &headers).unwrap().chat;
            if let Some(chat) = chat {
                prop_assert_eq!(chat.as_bytes(), bytes.trim_ascii());
                prop_assert!(!chat.is_empty() && chat.len() <= 256);
            }
        }

        #[test]
        fn meta_that_is_read_is_within_bounds(
            level in "[0-9.eE+-]{1,8}", name in "[a-z]{0,3}", rest in "[{}\\[\\]:,\"a-z]{0,12}",
        ) {
            let json = format!(
                r#"{{"persona":{{"template":"{name}"}},"memory":{{"self_reference_level":{level}}}{rest}}}"#
            );
            if let Ok(meta) = PersonaMeta::parse(json.as_bytes()) {
                prop_assert!((0.0..=1.0).contains(&meta.self_reference_level.unwrap()));
                prop_assert!(meta.template.is_none_or(|template| template == name));
            }
        }
    }
}
