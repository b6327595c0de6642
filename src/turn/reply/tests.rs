//! What no recording shows.

use serde_json::{Value, json};

use super::*;

/// A reply that has heard `events`, each `(type, properties)`, and what it told of the last.
fn hearing(events: &[(&str, Value)]) -> (Reply, Option<String>) {
    let mut reply = Reply::new("ses_1", "msg_1");
    let mut told = None;
    for (kind, properties) in events {
        let json = json!({"type": kind, "properties": properties}).to_string();
        let heard = reply.hear(Event::parse(json.as_bytes()).unwrap());
        told = heard.map(|heard| format!("{heard:?}"));
    }
    (reply, told)
}

fn message(id: &str, more: &Value) -> (&'static str, Value) {
    let mut info = json!({"id": id, "role": "assistant", "parentID": "msg_1"});
    for (member, value) in more.as_object().unwrap() {
        info[member] = value.clone();
    }
    ("message.updated", json!({"sessionID": "ses_1", "info": info}))
}

fn user(id: &str) -> (&'static str, Value) {
    message(id, &json!({"role": "user"}))
}

fn status(session: &str, kind: &str) -> (&'static str, Value) {
    let status = json!({"type": kind, "attempt": 1, "message": "busy", "next": 1e12});
    ("session.status", json!({"sessionID": session, "status": status}))
}

fn part(message: &str, more: &Value) -> (&'static str, Value) {
    let mut part = json!({"id": "prt_1", "sessionID": "ses_1", "messageID": message});
    for (member, value) in more.as_object().unwrap() {
        part[member] = value.clone();
    }
    ("message.part.updated", json!({"part": part}))
}

fn text(text: &str, is_whole: bool) -> (&'static str, Value) {
    let time = if is_whole { json!({"start": 1, "end": 2}) } else { json!({"start": 1}) };
    part("msg_2", &json!({"type": "text", "text": text, "time": time}))
}

fn delta(text: &str) -> (&'static str, Value) {
    let ids = json!({"sessionID": "ses_1", "messageID": "msg_2", "partID": "prt_1", "delta": text});
    ("message.part.delta", ids)
}

fn begun() -> Vec<(&'static str, Value)> {
    vec![user("msg_1"), status("ses_1", "busy"), message("msg_2", &json!({}))]
}

fn after_begun(more: Vec<(&'static str, Value)>) -> (Reply, Option<String>) {
    hearing(&[begun(), more].concat())
}

#[test]
fn a_lost_last_delta_is_caught_up_with_when_the_text_ends() {
    let (_, told) = after_begun(vec![text("", false), delta("Hello"), text("Hello you", true)]);
    assert_eq!(told.as_deref(), Some(r#"Piece(Text, " you")"#));
}

#[test]
fn a_lost_delta_within_a_text_breaks_the_turn_off() {
    let (_, told) = after_begun(vec![text("", false), delta("you"), text("Hello you", true)]);
    assert_eq!(told.as_deref(), Some("End(Interrupted)"));
}

#[test]
fn a_message_that_was_told_of_too_late_breaks_the_turn_off() {
    let events = [
        user("msg_1"),
        text("", false),
        delta("Hello"),
        message("msg_2", &json!({"finish": "stop"})),
    ];
    assert_eq!(hearing(&events).1.as_deref(), Some("End(Interrupted)"));
}

#[test]
fn a_retry_repeats_only_text_of_its_own_step_and_session() {
    let told = |events| after_begun(events).1.unwrap().contains("told: true");
    let tool =
        part("msg_2", &json!({"type": "tool", "tool": "bash", "state": {"status": "pending"}}));
    let finished = part("msg_2", &json!({"id": "prt_2", "type": "step-finish"}));
    let child = json!({"sessionID": "ses_2", "info": {"parentID": "ses_1"}});
    assert!(!told(vec![text("", false), status("ses_1", "retry")]));
    assert!(!told(vec![tool, status("ses_1", "retry")]));
    assert!(told(vec![text("", false), delta("Hello"), status("ses_1", "retry")]));
    assert!(!told(vec![text("", false), delta("Hello"), finished, status("ses_1", "retry")]));
    let child = ("session.created", child);
    assert!(!told(vec![child, text("", false), delta("Hello"), status("ses_2", "retry")]));
}

#[test]
fn an_end_settles_until_the_session_works_again() {
    let idle = ("session.idle", json!({"sessionID": "ses_1"}));
    let (mut reply, told) = after_begun(vec![idle.clone()]);
    assert!(told.is_none() && reply.is_settling());
    assert!(matches!(reply.settled(), Outcome::Failed(failure) if failure.name == NO_ANSWER));
    let (reply, _) = after_begun(vec![idle, status("ses_1", "busy")]);
    assert!(!reply.is_settling());
}

#[test]
fn an_error_of_the_turn_before_is_forgotten_when_the_prompt_is_taken() {
    let error = json!({"sessionID": "ses_1", "error": {"name": "MessageAbortedError", "data": {}}});
    let error = ("session.error", error);
    let (reply, _) = hearing(std::slice::from_ref(&error));
    assert!(reply.is_settling());
    let (reply, _) = hearing(&[error, user("msg_1")]);
    assert!(!reply.is_settling() && reply.is_taken());
}

#[test]
fn a_prompt_that_waits_is_not_taken_for_opencodes_own_after_it_compacted() {
    let summary = json!({"summary": true, "mode": "compaction", "parentID": "msg_3", "time": {"completed": 1}});
    let mut events = vec![user("msg_9"), user("msg_3"), message("msg_4", &summary)];
    let of = |parent: &str| message("msg_2", &json!({"parentID": parent}));
    let says = [text("", false), delta("Hello")];
    // Its own user message, and the answer to it.
    let own = [events.clone(), vec![user("msg_5"), of("msg_5")], says.to_vec()].concat();
    assert_eq!(
        hearing(&[begun()[..2].to_vec(), own].concat()).1.as_deref(),
        Some(r#"Piece(Text, "Hello")"#)
    );
    events.extend([user("msg_5"), of("msg_9")]);
    events.extend(says);
    assert_eq!(hearing(&[begun()[..2].to_vec(), events].concat()).1, None);
}

#[test]
fn the_users_text_and_opencodes_own_are_not_the_answer() {
    let typed = part("msg_1", &json!({"type": "text", "text": "hi"}));
    assert_eq!(after_begun(vec![typed]).1, None);
    let synthetic = part("msg_2", &json!({"type": "text", "text": "go on", "synthetic": true}));
    assert_eq!(after_begun(vec![synthetic]).1, None);
}
