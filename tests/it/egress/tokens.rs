//! Who may call: a runner that lives, from its own address, with its own token.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use super::{
    dialect::{Style, post},
    world::World,
};
use crate::secrets;

const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn body() -> String {
    json!({"model": "m1"}).to_string()
}

#[tokio::test]
async fn a_token_is_taken_in_every_style_that_sdks_have() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let token = &runner.token;
    for headers in [
        format!("Authorization: Bearer {token}\r\n"),
        format!("authorization: bearer  {token} \r\n"),
        format!("Authorization: {token}\r\n"),
        format!("x-api-key: {token}\r\n"),
        format!("Api-Key: {token}\r\n"),
        format!("Authorization: Bearer {token}\r\nx-api-key: {token}\r\napi-key: {token}\r\n"),
    ] {
        let request = post(&world, Style::Chat.path(), &headers, &body());
        assert_eq!(world.raw(request).await.status, 200, "{headers}");
    }
}

#[tokio::test]
async fn without_a_token_or_with_two_a_call_is_refused() {
    let world = World::new().await;
    let (alice, bob) = (world.runner("alice"), world.runner("bob"));
    let (token, other) = (&alice.token, &bob.token);
    for headers in [
        String::new(),
        "Authorization:\r\n".to_owned(),
        "x-api-key: \r\n".to_owned(),
        format!("Proxy-Authorization: Bearer {token}\r\n"),
        format!("X-Goog-Api-Key: {token}\r\n"),
        format!("Authorization: Bearer {token}\r\nx-api-key: {other}\r\n"),
        format!("x-api-key: {other}\r\napi-key: {token}\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {other}\r\n"),
        format!("Authorization: Bearer {token}\r\napi-key:\r\n"),
    ] {
        let request = post(&world, Style::Chat.path(), &headers, &body());
        world.raw(request).await.assert_refused(403, "token_missing");
    }
    assert!(world.provider.seen().is_empty());
}

#[tokio::test]
async fn a_token_that_is_no_live_runner_s_is_refused_and_a_warning_is_logged() {
    secrets::listen();
    let world = World::new().await;
    let (alice, gone) = (world.runner("alice"), world.runner("bob").token);
    // Bob's runner was dropped as it was made.
    let token = &alice.token;
    let cut = &token[..token.len() - 1];
    for wrong in [&gone, cut, &format!("{token}0"), &token.to_uppercase(), "sk-admin-chat", "x"] {
        for headers in [
            format!("Authorization: Bearer {wrong}\r\n"),
            format!("x-api-key: {wrong}\r\n"),
            format!("api-key: {wrong}\r\n"),
            format!("Authorization: Basic {token}\r\n"),
        ] {
            let request = post(&world, Style::Chat.path(), &headers, &body());
            let answer = world.raw(request).await;
            answer.assert_refused(403, "token_unknown");
            let id = answer.header("x-request-id").unwrap();
            assert!(
                secrets::was_logged(&["security: call refused", id, "no live runner's"]),
                "{id}"
            );
            assert!(!secrets::was_logged(&[id, wrong]) || wrong.len() < 2, "{wrong} was logged");
        }
    }
    assert!(world.provider.seen().is_empty());
}

#[tokio::test]
async fn a_token_from_another_address_is_refused_and_a_warning_is_logged() {
    secrets::listen();
    let world = World::new().await;
    let runner = world.runner("alice-elsewhere");
    for path in [Style::Chat.path(), Style::Messages.path(), "/mcp/crm"] {
        let headers = Style::Chat.credential(&runner.token);
        let request = post(&world, path, &headers, &body());
        let mut client = world.connect_from(THERE).await;
        client.send(&request).await;
        let answer = client.answer().await;
        answer.assert_refused(403, "token_foreign_address");
        let id = answer.header("x-request-id").unwrap();
        let workspace = runner.start.grant.workspace.as_str();
        let cause = format!("the token of workspace {workspace} epoch 1 came from 127.0.0.2");
        assert!(secrets::was_logged(&["security: call refused", id, &cause]), "{id}");
    }
    assert!(world.provider.seen().is_empty());
}

#[tokio::test]
async fn a_runner_that_works_for_nobody_yet_may_not_call() {
    let world = World::new().await;
    let start = world.idle("alice");
    let request = Style::Chat.request(&world, start.token.expose(), &body());
    world.raw(&request).await.assert_refused(403, "token_foreign_address");
    start.grant.bind(super::world::HERE);
    world.raw(&request).await.assert_refused(403, "token_unknown");
    assert!(world.provider.seen().is_empty());
}

#[tokio::test]
async fn a_call_goes_on_when_its_runner_is_stopped_and_the_next_is_refused() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let gate = super::provider::Gate::new();
    let waiting = gate.clone();
    let answer = super::dialect::json_answer("200 OK", "{}");
    world.provider.script(move |_| {
        use super::provider::Step;
        vec![Step::Wait(waiting.clone()), Step::Send(answer.clone().into())]
    });
    let request = Style::Chat.request(&world, &runner.token, &body());
    let mut client = world.connect().await;
    client.send(&request).await;
    world.provider.until_whole(1).await;
    drop(runner);
    gate.open();
    assert_eq!(client.answer().await.status, 200);
    client.send(&request).await;
    client.answer().await.assert_refused(403, "token_unknown");
}
