//! What a runner's token is good for, and for whom.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;
use tokio::net::TcpListener;

use super::{call, front_end, logs, path_of, runner, settings, wire::Wire};
use crate::{
    client::prompt,
    provider::{Provider, Style},
    stand::Stand,
};

const STYLE: Style = Style::Chat;
/// An address of this machine that no runner calls from.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A gateway with one runner, which has had one chat.
async fn stand_of(provider: &Provider) -> Stand {
    let stand = Stand::start(settings(STYLE, provider));
    front_end(&stand, "alice").ask(&prompt("Hello")).await.text();
    stand
}

fn asks(stand: &Stand, token: &str) -> Wire {
    Wire::post(stand.egress, &path_of(STYLE), token, &call(STYLE, "m1", "Hello", true))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_accepted_from_its_runner_and_refused_from_anywhere_else() {
    let provider = Provider::start().await;
    let stand = stand_of(&provider).await;
    let token = runner::token(runner::only(&stand));
    let here = asks(&stand, &token).send(stand.egress).await;
    assert_eq!(here.status, 200, "{here:?}");
    assert!(here.text.contains("[DONE]"), "{here:?}");
    let calls = provider.seen().len();

    let there = asks(&stand, &token).from(ELSEWHERE).send(stand.egress).await;
    assert_eq!((there.status, there.refusal()), (403, "token_foreign_address"), "{there:?}");
    logs(&stand, "127.0.0.2").await;
    let log = stand.log();
    let warning = log.lines().find(|line| line.contains("127.0.0.2")).unwrap();
    assert!(warning.contains("WARN"), "{warning}");
    assert!(!log.contains(&token));
    assert_eq!(provider.seen().len(), calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_no_live_runner_has_is_refused() {
    let provider = Provider::start().await;
    let stand = stand_of(&provider).await;
    let token = runner::token(runner::only(&stand));
    let calls = provider.seen().len();
    let (head, tail) = token.split_at(token.len() - 1);
    let other = if tail == "0" { "1" } else { "0" };
    for wrong in [&format!("{head}{other}"), head, &format!("{token}0"), super::ADMIN_KEY] {
        let back = asks(&stand, wrong).send(stand.egress).await;
        assert_eq!((back.status, back.refusal()), (403, "token_unknown"), "{back:?}");
    }
    let log = stand.log();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("token")), "{log}");
    for none in [None, Some(""), Some("Bearer "), Some("Basic eDp5")] {
        let back = asks(&stand, &token).with("authorization", none).send(stand.egress).await;
        assert_eq!(back.status, 403, "{none:?} {back:?}");
    }

    assert_eq!(runner::kill(&stand, STYLE).await, token);
    // Until the gateway has seen the end, a call may still go through.
    assert!(provider.seen().iter().skip(calls).all(|seen| seen.key() == Some(super::ADMIN_KEY)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_runner_that_was_replaced_is_refused_and_the_new_one_accepted() {
    let provider = Provider::start().await;
    let stand = stand_of(&provider).await;
    let old = runner::kill(&stand, STYLE).await;
    front_end(&stand, "alice").ask(&prompt("Hello")).await.text();
    let new = runner::token(runner::only(&stand));
    assert_ne!(old, new);
    let (old, new) = (asks(&stand, &old), asks(&stand, &new));
    assert_eq!(old.send(stand.egress).await.refusal(), "token_unknown");
    assert_eq!(new.send(stand.egress).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_may_ask_for_nothing_but_the_listed_paths_hosts_and_models() {
    let (provider, evil) =
        (Provider::start().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let stand = stand_of(&provider).await;
    let token = runner::token(runner::only(&stand));
    let calls = provider.seen().len();
    let evil_host = evil.local_addr().unwrap().to_string();
    let (ask, path) = (asks(&stand, &token), path_of(STYLE));
    let with_model =
        |model: &str| Wire { body: call(STYLE, model, "Hello", true).to_string(), ..ask.clone() };
    let line = |path: &str| ask.clone().line(&format!("POST {path}"));
    for (asked, code) in [
        (line("/compat/v1/files"), "path_not_allowed"),
        (line("/compat/v1/chat/completions/"), "path_not_allowed"),
        (line("/compat/v1/%63hat/completions"), "path_not_allowed"),
        (line("/compat/v1/../v1/chat/completions"), "path_not_allowed"),
        (line("/compat/v1//chat/completions"), "path_not_allowed"),
        (line("/compat/chat/completions"), "path_not_allowed"),
        (line("/"), "path_not_allowed"),
        (line("/openai/v1/responses"), "provider_unknown"),
        (line("/opencode/v1/chat/completions"), "provider_unknown"),
        (
            line(&format!("http://{evil_host}{path}")).with("host", Some(&evil_host)),
            "host_not_allowed",
        ),
        (ask.clone().with("host", Some(&evil_host)), "host_not_allowed"),
        (with_model("m3"), "model_not_allowed"),
        (with_model("M1"), "model_not_allowed"),
        (with_model("../m1"), "model_not_allowed"),
    ] {
        let back = asked.send(stand.egress).await;
        assert_eq!((back.status, back.refusal()), (403, code), "{asked:?} {back:?}");
    }
    for line in [
        format!("CONNECT {evil_host}"),
        format!("CONNECT {}", provider.address),
        format!("POST http://{evil_host}{path}"),
    ] {
        let back = ask.clone().line(&line).send(stand.egress).await;
        assert!([400, 403, 405].contains(&back.status), "{line} {back:?}");
    }
    for (name, value) in [
        ("x-forwarded-host", evil_host.as_str()),
        ("x-openpersona-compat-api-key", "sk-of-a-runner"),
        ("x-openwebui-user-id", "bob"),
    ] {
        ask.clone().with(name, Some(value)).send(stand.egress).await;
    }
    for seen in provider.seen().iter().skip(calls) {
        assert_eq!(seen.host(), provider.address.to_string());
        assert!(
            !seen.mentions("sk-of-a-runner") && !seen.headers.contains_key("x-openwebui-user-id")
        );
    }
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(100), evil.accept()).await;
    assert!(nobody.is_err(), "somebody was sent to {evil_host}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_names_two_models_or_none_is_refused() {
    let provider = Provider::start().await;
    let stand = stand_of(&provider).await;
    let token = runner::token(runner::only(&stand));
    let calls = provider.seen().len();
    for body in [
        r#"{"model":"m1","messages":[],"model":"m3"}"#,
        r#"{"model":"m1","messages":[],"\u006dodel":"m3"}"#,
        r#"{"messages":[]}"#,
        r#"{"model":["m1","m3"]}"#,
        r#"{"model":"m1"} {"model":"m3"}"#,
        "model=m3",
    ] {
        let asked = Wire { body: body.to_owned(), ..asks(&stand, &token) };
        let back = asked.send(stand.egress).await;
        assert!((400..=403).contains(&back.status), "{body} {back:?}");
    }
    assert_eq!(usize::try_from(provider.ledger().begun), Ok(calls), "{:?}", provider.ledger());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_of_the_providers_is_not_followed_and_not_passed_on() {
    let (provider, evil) =
        (Provider::start().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let stand = stand_of(&provider).await;
    let token = runner::token(runner::only(&stand));
    let to = format!("http://{}/compat/v1/chat/completions", evil.local_addr().unwrap());
    let text = format!("[[redirect {to}]]");
    let asked = Wire { body: call(STYLE, "m1", &text, false).to_string(), ..asks(&stand, &token) };
    let back = asked.send(stand.egress).await;
    assert_eq!(back.status, 502, "{back:?}");
    assert!(!back.text.contains(&to), "{back:?}");
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(100), evil.accept()).await;
    assert!(nobody.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn models_can_be_listed_and_texts_embedded() {
    let provider = Provider::start().await;
    let stand = stand_of(&provider).await;
    let token = runner::token(runner::only(&stand));
    let list = asks(&stand, &token).line("GET /compat/v1/models");
    let list = Wire { body: String::new(), ..list }.send(stand.egress).await;
    assert_eq!(list.status, 200, "{list:?}");
    let body = json!({"model": "m2", "input": "a text"}).to_string();
    let embed = Wire { body, ..asks(&stand, &token).line("POST /compat/v1/embeddings") };
    let back = embed.send(stand.egress).await;
    assert!(back.status == 200 && back.text.contains("embedding"), "{back:?}");
    assert_eq!(provider.seen().last().unwrap().key(), Some(super::ADMIN_KEY));
}
