use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const PNG: &str = "data:image/png;base64,iVBORw0KGgo=";

fn parse(body: &Value) -> Result<ChatRequest, Refusal> {
    ChatRequest::parse(body.to_string().as_bytes(), 64)
}

fn request(messages: &Value) -> ChatRequest {
    parse(&json!({"model": "m", "messages": messages})).unwrap()
}

fn refused(body: &Value) -> (&'static str, String) {
    let refusal = parse(body).unwrap_err();
    assert_eq!(refusal.status, 400);
    (refusal.code, refusal.param.unwrap_or_default().into_owned())
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

/// Bodies as Open WebUI 0.12.4 sent them, each beside what we make of it.
#[test]
fn open_webuis_requests_are_understood() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/openai");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for name in [
        "chat-after-tool-items",
        "chat-continue",
        "chat-first-turn",
        "chat-image",
        "chat-model-params",
        "chat-regenerate-guided",
        "chat-second-turn",
        "chat-tool-follow-up",
        "task-title-generation",
    ] {
        let body = std::fs::read(format!("{folder}/{name}.json")).unwrap();
        let request = ChatRequest::parse(&body, 64).unwrap();
        let told = request.prompt.told().unwrap_or_default();
        settings.bind(|| insta::assert_snapshot!(name, format!("{request:#?}\n\n{told}")));
    }
}

#[test]
fn the_switches_are_read() {
    let hello = json!([{"role": "user", "content": "hello"}]);
    let plain = request(&hello);
    assert!(!plain.stream && !plain.include_usage && plain.user.is_none());
    let full = parse(&json!({
        "model": "m", "messages": hello, "stream": true, "user": "alice", "n": 1,
        "stream_options": {"include_usage": true}, "tools": [{"type": "function"}],
        "tool_choice": "auto", "functions": 5, "temperature": "hot",
    }))
    .unwrap();
    assert!(full.stream && full.include_usage);
    assert_eq!(full.user.as_deref(), Some("alice"));
    assert_eq!(full.prompt, plain.prompt);
}

#[test]
fn system_and_developer_messages_are_joined_wherever_they_stand() {
    let prompt = request(&json!([
        {"role": "system", "content": "One."},
        {"role": "user", "content": "hello"},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
        {"role": "system", "content": " "},
    ]))
    .prompt;
    assert_eq!(prompt.system.as_deref(), Some("One.\n\nTwo."));
    assert_eq!((prompt.parts, prompt.ending), (vec![text("hello")], Ending::User));
    assert!(prompt.transcript.is_empty());
}

#[test]
fn a_failed_turn_leaves_two_user_messages_and_the_last_is_answered() {
    let prompt = request(&json!([
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": null},
        {"role": "user", "content": "second"},
    ]))
    .prompt;
    assert_eq!(prompt.parts, [text("second")]);
    assert_eq!(prompt.transcript, [Entry::of(Speaker::User, vec![text("first")])]);
}

#[test]
fn an_answer_that_ends_the_messages_is_continued() {
    let messages = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
    let prompt = request(&messages).prompt;
    assert_eq!(prompt.ending, Ending::Assistant);
    assert_eq!(prompt.transcript.len(), 2);
    assert_eq!(prompt.parts, [text(Ending::Assistant.cue())]);
    let unanswered =
        json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]);
    assert_eq!(request(&unanswered).prompt.parts, [text("q")]);
}

#[test]
fn files_of_earlier_messages_are_replayed_in_order() {
    let image =
        |url: &str| json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}});
    let prompt = request(&json!([
        {"role": "user", "content": [image(PNG), {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]},
        {"role": "user", "content": [
            {"type": "input_text", "text": "and"},
            {"type": "input_image", "image_url": "data:image/gif;base64,R0lGODlh"},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "JVBERi0x"}},
            {"type": "input_file", "filename": "b.pdf", "file_data": "JVBERi0x"},
            {"type": "text", "text": "these?"},
        ]},
    ]))
    .prompt;
    let told = prompt.told().unwrap();
    assert!(told.contains("The user:\n| what?\n[with file 1 of those below, image/png]\n"));
    assert!(told.contains("You:\n| I will not.\n"));
    let shape: Vec<String> = prompt
        .replayed()
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => text.lines().last().unwrap_or_default().to_owned(),
            Part::File(file) => format!("{} {:?}", file.mime, file.filename.as_deref()),
        })
        .collect();
    assert_eq!(
        shape,
        [
            "This is the end of the conversation so far. What to answer now follows.",
            "image/png None",
            "and",
            "image/gif None",
            "application/pdf Some(\"a.pdf\")",
            "application/pdf Some(\"b.pdf\")",
            "these?",
        ]
    );
}

#[test]
fn a_refusal_names_the_member() {
    let with = |message: Value| {
        refused(&json!({"model": "m", "messages": [{"role": "user", "content": "a"}, message]}))
    };
    let part = |part: Value| {
        with(json!({"role": "user", "content": [{"type": "text", "text": ""}, part]}))
    };
    for ((code, param), expected) in [
        (with(json!(5)), ("invalid_type", "messages.1")),
        (with(json!({"content": "x"})), ("invalid_type", "messages.1")),
        (with(json!({"role": "root", "content": "x"})), ("unsupported_content", "messages.1.role")),
        (with(json!({"role": "user", "content": 5})), ("invalid_type", "messages.1.content")),
        (with(json!({"role": "user"})), ("unsupported_content", "messages.1.content")),
        (
            with(json!({"role": "user", "content": []})),
            ("unsupported_content", "messages.1.content"),
        ),
        (
            with(json!({"role": "system", "content": [{"type": "image_url", "image_url": PNG}]})),
            ("unsupported_content", "messages.1.content"),
        ),
        (part(json!("x")), ("invalid_type", "messages.1.content.1")),
        (part(json!({"type": "text"})), ("unsupported_content", "messages.1.content.1.text")),
        (
            part(json!({"type": "input_audio"})),
            ("unsupported_content", "messages.1.content.1.type"),
        ),
        (
            part(json!({"type": "image_url", "image_url": {"url": "http://127.0.0.1/x"}})),
            ("unsupported_url", "messages.1.content.1.image_url"),
        ),
        (
            part(json!({"type": "file", "file": {"file_id": "file-1"}})),
            ("unsupported_content", "messages.1.content.1.file_data"),
        ),
        (
            part(json!({"type": "file", "file": {"file_data": "file:///etc/passwd"}})),
            ("unsupported_url", "messages.1.content.1.file"),
        ),
    ] {
        assert_eq!((code, param.as_str()), expected);
    }
}

#[test]
fn what_a_request_must_have_is_asked_for() {
    let hello = json!([{"role": "user", "content": "hello"}]);
    for (body, expected) in [
        (json!({"model": "m"}), ("missing_member", "messages")),
        (json!({"model": "m", "messages": []}), ("missing_member", "messages")),
        (json!({"model": "m", "messages": {}}), ("invalid_type", "messages")),
        (
            json!({"model": "m", "messages": [{"role": "system", "content": "s"}]}),
            ("unsupported_content", "messages"),
        ),
        (json!({"messages": hello}), ("missing_member", "model")),
        (json!({"model": "m", "messages": hello, "n": 2}), ("unsupported_value", "n")),
        (json!({"model": "m", "messages": hello, "n": 1.5}), ("invalid_type", "n")),
        (
            json!({"model": "m", "messages": hello, "stream_options": 1}),
            ("invalid_type", "stream_options"),
        ),
    ] {
        let (code, param) = refused(&body);
        assert_eq!((code, param.as_str()), expected);
    }
    let doubled = br#"{"model":"m","messages":[],"messages":[]}"#;
    assert_eq!(ChatRequest::parse(doubled, 64).unwrap_err().code, "invalid_json");
    let doubled = br#"{"model":"m","messages":[],"mod\u0065l":"n"}"#;
    assert_eq!(ChatRequest::parse(doubled, 64).unwrap_err().code, "duplicate_member");
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    assert_eq!(ChatRequest::parse(deep.as_bytes(), 64).unwrap_err().code, "nested_too_deep");
}

#[test]
fn a_refusal_repeats_nothing_of_the_request() {
    for message in [
        json!({"role": "canary", "content": "x"}),
        json!({"role": "user", "content": {"canary": 1}}),
        json!({"role": "user", "content": [{"type": "canary"}]}),
        json!({"role": "user", "content": [{"type": "image_url", "image_url": "http://canary"}]}),
        json!({"role": "user", "content": [{"type": "file", "file": {"file_data": "canary"}}]}),
    ] {
        let refusal = parse(&json!({"model": "canary", "messages": [message]})).unwrap_err();
        assert!(!format!("{refusal:?}").contains("canary"), "{refusal:?}");
    }
}

#[test]
fn a_large_image_is_read() {
    let url = format!("data:image/png;base64,{}", "iVBORw0KGgoA".repeat((20 << 20) / 12));
    let part = json!({"type": "image_url", "image_url": {"url": url}});
    let prompt = request(&json!([{"role": "user", "content": [part]}])).prompt;
    assert!(matches!(prompt.parts.as_slice(), [Part::File(file)] if file.url == url));
}

proptest! {
    #[test]
    fn no_message_can_speak_for_another(
        texts in prop::collection::vec(
            "([a-z]|The user:|You:|\\[with file 1|This is the end|[\\|\\n\\r\u{b}\u{c}\u{85}\u{2028}\u{2029} ]){0,12}",
            1..6,
        ),
        name in ".{0,9}",
    ) {
        let mut messages: Vec<Value> =
            texts.iter().map(|text| json!({"role": "tool", "name": name, "content": text})).collect();
        messages.push(json!({"role": "user", "content": "now"}));
        let told = request(&Value::from(messages)).prompt.told().unwrap();
        let ours = |line: &str| line.starts_with("The tool ") && line.ends_with(" answered:");
        let lines: Vec<&str> = told.split(prompt::BREAKS).collect();
        prop_assert_eq!(lines.iter().filter(|line| ours(line)).count(), texts.len());
        let own = lines.iter().filter(|line| !line.is_empty() && !line.starts_with("| ")).count();
        prop_assert_eq!(own, texts.len() + 2);
    }
}
