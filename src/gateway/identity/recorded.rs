//! Requests that Open WebUI 0.12.4 really sent, read as the gateway reads them.

use std::{
    fs,
    time::{Duration, UNIX_EPOCH},
};

use http::HeaderValue;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::{
    config::{KeyCheck, UserClaim},
    gateway::{
        origin::Origin,
        route::{self, Route},
    },
    secret::Secret,
};

const ALICE: &str = "0779a753-c06a-44ea-9836-96295fe4df2c";
const BOB: &str = "0b795ff3-544a-4067-9f72-347c5d47f483";
const CHAT: &str = "1895df71-d5f6-4238-a5e1-16c3abad38a7";

/// The seconds at which the recorded tokens were valid.
const THEN: u64 = 1_795_250_500;

fn recorded(name: &str) -> (Value, HeaderMap) {
    let path = format!("{}/tests/fixtures/openwebui/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let request: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let lines = request["headers"].as_array().unwrap().iter().map(|line| {
        let name = line[0].as_str().unwrap().to_ascii_lowercase();
        let value = HeaderValue::from_bytes(line[1].as_str().unwrap().as_bytes()).unwrap();
        (HeaderName::try_from(name).unwrap(), value)
    });
    let headers = lines.collect();
    (request, headers)
}

fn rules(user: UserClaim) -> IdentityRules {
    let front_end = FrontEnd {
        name: "webui".into(),
        key: KeyCheck(Sha256::digest("sk-FAKE-gateway").into()),
        networks: Vec::new(),
        user,
        tools: ToolStyle::Native,
        meta_headers: true,
        key_headers: true,
    };
    IdentityRules { front_ends: vec![Arc::new(front_end)], ..IdentityRules::default() }
}

fn jwt() -> UserClaim {
    UserClaim::Jwt {
        secrets: vec![Secret::new("FAKE-jwt-secret-for-fixtures-0123456789")],
        issuer: "open-webui".into(),
        leeway: Duration::from_mins(1),
    }
}

fn read(name: &str, user: UserClaim, at: u64) -> Result<(Identity, Origin, Route), Refusal> {
    let (request, headers) = recorded(name);
    let now = UNIX_EPOCH + Duration::from_secs(at);
    let Caller::Known { identity, front_end, .. } = decide(&rules(user), &headers, None, now)?
    else {
        panic!("undecided");
    };
    let method = request["method"].as_str().unwrap().parse().unwrap();
    let route = route::of(&method, request["path"].as_str().unwrap())?;
    Ok((identity, Origin::of(front_end.as_deref(), &headers)?, route))
}

#[test]
fn the_signed_and_the_plain_form_name_the_same_user() {
    let (signed, ..) = read("chat-first-turn-jwt", jwt(), THEN).unwrap();
    let (plain, ..) = read("chat-first-turn", UserClaim::Headers, 0).unwrap();
    assert_eq!((signed.source, plain.source), (Source::Jwt, Source::Header));
    assert_eq!(signed, Identity { source: Source::Jwt, ..plain.clone() });
    assert_eq!((plain.user.as_str(), plain.name.as_deref()), (ALICE, Some("Alice Ünï")));
    assert_eq!(plain.is_admin(), Some(false));
}

#[test]
fn a_recorded_token_is_refused_later_and_by_other_secrets() {
    let late = read("chat-first-turn-jwt", jwt(), THEN + 3600).unwrap_err();
    assert_eq!((late.status.as_u16(), late.code), (401, "expired_user_token"));
    let other = UserClaim::Jwt {
        secrets: vec![Secret::new("another-secret-of-at-least-32-bytes")],
        issuer: "open-webui".into(),
        leeway: Duration::ZERO,
    };
    assert_eq!(read("chat-first-turn-jwt", other, THEN).unwrap_err().code, "invalid_user_token");
}

#[test]
fn neither_form_passes_for_the_other() {
    let downgraded = read("chat-first-turn", jwt(), THEN).unwrap_err();
    assert_eq!((downgraded.status.as_u16(), downgraded.code), (401, "missing_user"));
    assert!(downgraded.message.contains("must send `X-OpenWebUI-User-Jwt`"));
    assert!(downgraded.cause.contains("plain headers"));
    let unread = read("chat-first-turn-jwt", UserClaim::Headers, THEN).unwrap_err();
    assert_eq!((unread.status.as_u16(), unread.code), (401, "missing_user"));
}

#[test]
fn another_key_of_the_same_open_webui_is_refused() {
    let refusal = read("verify", UserClaim::Headers, 0).unwrap_err();
    assert_eq!((refusal.status.as_u16(), refusal.code), (401, "invalid_api_key"));
}

#[test]
fn the_list_of_models_has_a_user_and_no_chat() {
    for (name, user) in [("models-list", UserClaim::Headers), ("models-list-jwt", jwt())] {
        let (_, headers) = recorded(name);
        let issued = if headers.contains_key(claim::JWT) { issued_at(&headers) } else { 0 };
        let (identity, origin, route) = read(name, user, issued).unwrap();
        assert!(!identity.user.is_empty());
        assert_eq!((origin, route), (Origin::default(), Route::Models));
    }
}

fn issued_at(headers: &HeaderMap) -> u64 {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = headers[claim::JWT].to_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["iat"].as_u64().unwrap()
}

#[test]
fn a_chat_says_where_its_turn_stands() {
    let (.., route) = read("chat-first-turn", UserClaim::Headers, 0).unwrap();
    assert_eq!(route, Route::ChatCompletions);
    let ids = |name| {
        let (_, origin, _) = read(name, UserClaim::Headers, 0).unwrap();
        assert_eq!(origin.chat.as_deref(), Some(CHAT), "{name}");
        assert_eq!(origin.model.as_deref(), Some("izzy"), "{name}");
        assert!(origin.is_browser_chat(), "{name}");
        (origin.user_message, origin.parent_message, origin.message)
    };
    let (_, parent, first_answer) = ids("chat-first-turn");
    assert_eq!(parent, None);
    let second = ids("chat-second-turn");
    assert_eq!(second.1, first_answer);
    let again = ids("chat-regenerate");
    assert_eq!((&again.0, &again.1), (&second.0, &second.1));
    assert_ne!(again.2, second.2);
    let (_, parent, _) = ids("chat-edit-resend");
    assert_eq!(parent, None);
}

#[test]
fn a_task_is_not_a_browser_chat_and_an_api_client_has_no_chat() {
    let (_, task, _) = read("task-title-generation", UserClaim::Headers, 0).unwrap();
    assert_eq!(task.task.as_deref(), Some("title_generation"));
    assert!(!task.is_browser_chat());
    let (_, review, _) = read("task-memory-review", jwt(), THEN).unwrap();
    assert!(review.message.is_some() && !review.is_browser_chat());
    let (_, client, _) = read("chat-api-key", UserClaim::Headers, 0).unwrap();
    assert_eq!((client.chat.as_deref(), client.is_browser_chat()), (None, false));
    let (_, temporary, _) = read("chat-temporary", UserClaim::Headers, 0).unwrap();
    assert_eq!((temporary.chat.as_deref(), temporary.is_browser_chat()), (None, true));
}

#[test]
fn a_forged_request_still_belongs_to_its_forger() {
    let (identity, origin, _) = read("chat-direct-route-forged", UserClaim::Headers, 0).unwrap();
    assert_eq!(identity.user, BOB);
    assert_eq!(origin.chat.as_deref(), Some("../forged/chat"));
    assert!(!origin.is_browser_chat());
}
