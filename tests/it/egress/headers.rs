//! What a provider is told, and what a runner is told back: no more than they need.

use open_persona::{secret::Secret, workspace::WorkspaceId};
use serde_json::json;

use super::{
    dialect::{STYLES, Style, json_answer, post},
    provider::Step,
    world::{World, admin_key},
};
use crate::stub::chunk;

/// Headers of a runner that no provider is to see.
const UNWANTED: &str = "Cookie: a=b\r\nCookie2: x\r\nForwarded: for=1.2.3.4\r\n\
    X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nX-Real-IP: 1.2.3.4\r\n\
    X-OpenPersona-User-Id: mallory\r\nX-Open-Persona-Refusal: x\r\nX-OpenWebUI-User-Jwt: x\r\n\
    X_OpenPersona_Chat: x\r\nProxy-Authorization: Basic x\r\nAccept-Encoding: gzip, br\r\n\
    X-Original-URL: /x\r\nRemote-User: mallory\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\n\
    Upgrade: h2c\r\nConnection: x-hop, upgrade\r\nX-Hop: x\r\n";

fn body() -> String {
    json!({"model": "m1", "messages": []}).to_string()
}

/// What a provider sees of the headers that it should see, with `more`, in their order.
fn expected(world: &World, more: &[String]) -> Vec<String> {
    let mut lines = vec![
        "accept: text/event-stream".to_owned(),
        format!("content-length: {}", body().len()),
        "content-type: application/json".to_owned(),
        format!("host: {}", world.provider.address),
        "user-agent: opencode/1".to_owned(),
    ];
    lines.extend_from_slice(more);
    lines.sort();
    lines
}

#[tokio::test]
async fn a_provider_sees_its_key_in_its_style_and_nothing_of_the_runner_s() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let token = &runner.token;
    let kept = "User-Agent: opencode/1\r\nAccept: text/event-stream\r\n";
    let admin = |id| admin_key(id);
    for (path, target, key) in [
        (
            Style::Chat.path(),
            "POST /chat/api/chat/completions",
            format!("authorization: Bearer {}", admin("chat")),
        ),
        (
            Style::Responses.path(),
            "POST /responses/api/responses",
            format!("authorization: Bearer {}", admin("responses")),
        ),
        (Style::Messages.path(), "POST /messages", format!("x-api-key: {}", admin("messages"))),
        (
            "/azure/v1/chat/completions",
            "POST /azure/chat/completions?api-version=7",
            format!("api-key: {}", admin("azure")),
        ),
        ("/free/v1/embeddings", "POST /free/embeddings", String::new()),
        (
            "/messages/v1/messages?beta=true",
            "POST /messages?beta=true",
            format!("x-api-key: {}", admin("messages")),
        ),
    ] {
        for credential in [
            format!("Authorization: Bearer {token}\r\n"),
            format!("x-api-key: {token}\r\n"),
            format!("api-key: {token}\r\nAuthorization: bearer {token}\r\n"),
        ] {
            let seen = world.provider.seen().len();
            let headers = format!("{kept}{UNWANTED}{credential}");
            let answer = world.raw(post(&world, path, &headers, &body())).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let seen = world.provider.seen().swap_remove(seen);
            assert_eq!(seen.asked(), target);
            let key: Vec<_> = Some(key.clone()).filter(|key| !key.is_empty()).into_iter().collect();
            assert_eq!(seen.headers(), expected(&world, &key), "{path}");
            assert_eq!(seen.body, body().as_bytes());
        }
    }
}

#[tokio::test]
async fn a_user_s_own_key_comes_before_the_admin_s_and_is_nobody_else_s() {
    let world = World::new().await;
    let (alice, bob) = (world.runner("alice"), world.runner("bob"));
    let own = Secret::new("sk-own-alice");
    world.keys.remember(&WorkspaceId::of("alice"), "chat", own).unwrap();
    for (runner, style, key) in [
        (&alice, Style::Chat, "Bearer sk-own-alice"),
        (&bob, Style::Chat, "Bearer sk-admin-chat"),
        (&alice, Style::Responses, "Bearer sk-admin-responses"),
    ] {
        let seen = world.provider.seen().len();
        world.raw(style.request(&world, &runner.token, &body())).await;
        assert_eq!(world.provider.seen()[seen].values("authorization"), [key]);
    }
}

#[tokio::test]
async fn without_any_key_nothing_is_asked_and_the_user_is_told_what_to_do() {
    let world = World::with("", |config| {
        for provider in config.providers.values_mut() {
            provider.key = None;
        }
    })
    .await;
    let runner = world.runner("alice");
    for style in STYLES {
        let answer = world.raw(style.request(&world, &runner.token, &body())).await;
        answer.assert_refused(401, "no_provider_key");
        assert_eq!(
            answer.json()["error"]["message"],
            format!("No {} key is set. Set one.", style.provider())
        );
    }
    assert!(world.provider.seen().is_empty());
}

#[tokio::test]
async fn a_runner_sees_no_cookie_and_no_header_that_holds_the_key() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let key = admin_key("chat");
    for status in ["200 OK", "401 Unauthorized", &format!("401 {key}"), &format!("200 {key}")] {
        world.provider.answer(format!(
            "HTTP/1.1 {status}\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nX-Echo: <{key}>\r\n\
             X-Twice: plain\r\nX-Twice: {key}\r\nX-OpenPersona-Workspace: w\r\n\
             X-Open-Persona-Refusal: budget_exceeded\r\nX-RateLimit-Remaining: 7\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        ));
        let answer = world.raw(Style::Chat.request(&world, &runner.token, &body())).await;
        let mut names: Vec<_> =
            answer.head.lines().filter_map(|line| line.split_once(": ")).collect();
        names.retain(|(name, _)| !["Date", "Connection"].contains(name));
        names.sort_unstable();
        assert_eq!(
            names.iter().map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>(),
            ["content-length", "content-type", "x-ratelimit-remaining"],
            "{answer:?}"
        );
        assert!(!answer.head.contains(&key), "{answer:?}");
    }
}

#[tokio::test]
async fn an_error_that_repeats_the_key_is_masked_wherever_it_is_cut() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let key = admin_key("chat");
    let error = format!("{{\"error\":\"Incorrect API key: {key}. {key}{key}\"}}");
    let masked = error.replace(&key, &"*".repeat(key.len()));
    let head = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n";
    let length = error.len();
    let mut connection = world.connect().await;
    for cut in 1..length {
        let (one, two) = error.as_bytes().split_at(cut);
        let sized = vec![
            format!("{head}Content-Length: {length}\r\n\r\n").into(),
            one.to_vec(),
            two.to_vec(),
        ];
        let chunked = vec![
            format!("{head}Transfer-Encoding: chunked\r\n\r\n").into(),
            chunk(one),
            chunk(two),
            b"0\r\n\r\n".to_vec(),
        ];
        for pieces in [sized, chunked] {
            world.provider.script(move |_| pieces.iter().cloned().map(Step::Send).collect());
            connection.send(Style::Chat.request(&world, &runner.token, &body())).await;
            let answer = connection.answer().await;
            assert_eq!(answer.status, 401);
            assert_eq!(String::from_utf8(answer.body).unwrap(), masked, "cut at {cut}");
        }
    }
    let until_closed = format!("{head}\r\n{error}");
    world.provider.script(move |_| vec![Step::Send(until_closed.clone().into()), Step::HangUp]);
    let answer = world.raw(Style::Chat.request(&world, &runner.token, &body())).await;
    assert_eq!(String::from_utf8(answer.body).unwrap(), masked);
}

#[tokio::test]
async fn an_error_s_body_is_otherwise_left_as_it_is() {
    let world = World::new().await;
    let runner = world.runner("alice");
    for style in STYLES {
        let error = json!({"error": {"message": "overloaded", "type": "x"}}).to_string();
        world.provider.answer(json_answer("529 Overloaded", &error));
        let answer = world.raw(style.request(&world, &runner.token, &body())).await;
        assert_eq!((answer.status, answer.header("x-open-persona-refusal")), (529, None));
        assert_eq!(String::from_utf8(answer.body).unwrap(), error);
    }
}

#[tokio::test]
async fn a_redirect_is_a_failure_of_the_provider_and_nobody_is_led_anywhere() {
    let world = World::new().await;
    let runner = world.runner("alice");
    for status in ["300", "301", "302", "303", "305", "307", "308", "399"] {
        world.provider.answer(format!(
            "HTTP/1.1 {status} Elsewhere\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n"
        ));
        let answer = world.raw(Style::Chat.request(&world, &runner.token, &body())).await;
        answer.assert_refused(502, "provider_unreachable");
        assert!(!answer.head.contains("evil"), "{answer:?}");
    }
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    world.provider.answer(switch);
    let answer = world.raw(Style::Chat.request(&world, &runner.token, &body())).await;
    answer.assert_refused(502, "provider_unreachable");
    assert!(world.used().await.is_empty());
}
