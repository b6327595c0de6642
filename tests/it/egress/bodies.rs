//! What a hostile runner may write as a body: other models than it is allowed, several of them, or
//! more than is taken. The provider never gets all of it.

use serde_json::json;

use super::{
    client::Answer,
    dialect::{STYLES, Style, post},
    world::{Runner, World},
};
use crate::stub::chunk;

/// Sends `body`, sized and in chunks of several sizes, and gives the answers. Asserts that the
/// provider never got all of it.
async fn refused(world: &World, runner: &Runner, body: &str) -> Vec<Answer> {
    let sized = Style::Chat.request(world, &runner.token, body);
    let (head, _) = sized.split_once("Content-Length").unwrap();
    let mut requests = vec![sized.clone().into_bytes()];
    for size in [1 + body.len() / 100, 1 + body.len() / 3, 1 + body.len()] {
        let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        chunked.extend(body.as_bytes().chunks(size).flat_map(chunk));
        chunked.extend(b"0\r\n\r\n");
        requests.push(chunked);
    }
    let mut answers = Vec::new();
    for request in requests {
        answers.push(world.raw(request).await);
        assert_eq!(world.provider.whole(), 0, "{body:.200} {:?}", world.provider.seen().pop());
    }
    answers
}

/// A world in which few models may be used, and a runner of it.
async fn limited() -> (World, Runner) {
    let yaml = "roles: { default: { models: [chat/m1, 'responses/*'] } }";
    let world = World::with(yaml, |_| {}).await;
    let runner = world.runner("alice");
    (world, runner)
}

#[tokio::test]
async fn a_body_that_two_could_read_differently_is_refused() {
    let (world, runner) = limited().await;
    for body in [
        r#"{"model":"m1","model":"m2"}"#,
        r#"{"model":"m1","model":"m1"}"#,
        r#"{"model":"m1","messages":[],"MODEL":"m2"}"#,
        r#"{"model":"m1","Model":"m2"}"#,
        r#"{"model":"m1","mod\u0065l":"m2"}"#,
        r#"{"\u006dodel":"m1","m\u006fdel":"m2"}"#,
        r#"{"model":"m1","max_tokens":1,"max_tokens":99999}"#,
        r#"{"model":"m1","stream":true,"ſtream":false,"STREAM":false}"#,
        r#"{"model":null}"#,
        r#"{"model":["m1"]}"#,
        r#"{"model":{"model":"m1"}}"#,
        r#"{"model":""}"#,
        r#"{"model":"m1\u0000"}"#,
        r#"{"model":"m1\n"}"#,
        r#"{"messages":[{"model":"m1"}]}"#,
        "{}",
        "",
        "null",
        r#""model""#,
        r#"[{"model":"m1"}]"#,
        r#"{"model":"m1"}{"model":"m2"}"#,
        r#"{"model":"m1"} x"#,
        r#"{"model":"m1""#,
        r#"{"model":"m1","#,
        r#"{"model":"m1" "messages":[]}"#,
        r"{'model':'m1'}",
        "model=m1",
        "\u{feff}{\"model\":\"m1\"}",
    ] {
        for answer in refused(&world, &runner, body).await {
            answer.assert_refused(400, "invalid_request");
        }
    }
    let background = r#"{"model":"m1","background":true}"#;
    for answer in refused(&world, &runner, background).await {
        answer.assert_refused(400, "invalid_request");
    }
    assert!(world.used().await.is_empty());
}

#[tokio::test]
async fn a_call_without_a_body_is_refused_before_anybody_is_asked() {
    let world = World::new().await;
    let runner = world.runner("alice");
    for style in STYLES {
        let with_length = style.request(&world, &runner.token, "");
        let without = with_length.replace("Content-Length: 0\r\n", "");
        for request in [with_length, without] {
            let answer = world.raw(request).await;
            answer.assert_refused(400, "invalid_request");
            assert_eq!(answer.json()["error"]["message"], "The request body is incomplete.");
        }
    }
    assert!(world.provider.seen().is_empty(), "{:?}", world.provider.seen());
}

#[tokio::test]
async fn a_model_that_is_not_allowed_is_refused_wherever_it_is_written() {
    let (world, runner) = limited().await;
    let long = format!(r#"{{"input":"{}","model":"m2"}}"#, "x".repeat(300_000));
    for body in [
        r#"{"model":"m2"}"#,
        r#"{"model":"m1 "}"#,
        r#"{"model":"M1"}"#,
        r#"{"model":"../m1"}"#,
        r#"{"model":"responses/m1"}"#,
        r#"{"model":"\u006d2"}"#,
        r#"{"\u006dodel":"m2"}"#,
        r#"{"MODEL":"m2"}"#,
        r#"{"messages":[{"model":"m1"}],"model":"m2"}"#,
        &long,
    ] {
        for answer in refused(&world, &runner, body).await {
            answer.assert_refused(403, "model_not_allowed");
        }
    }
    assert!(world.used().await.is_empty());
}

#[tokio::test]
async fn each_provider_has_models_of_its_own() {
    let (world, runner) = limited().await;
    for (style, model, status) in [
        (Style::Chat, "m1", 200),
        (Style::Chat, "m2", 403),
        (Style::Responses, "anything", 200),
        (Style::Messages, "m1", 403),
    ] {
        let body = json!({"model": model}).to_string();
        let answer = world.raw(style.request(&world, &runner.token, &body)).await;
        assert_eq!(answer.status, status, "{style:?} {model}");
        let shaped = status == 403 && style == Style::Messages;
        assert_eq!(answer.json()["type"] == "error", shaped, "{answer:?}");
    }
    assert_eq!(world.provider.whole(), 2);
}

#[tokio::test]
async fn a_model_behind_five_megabytes_is_found_in_time() {
    let world = World::with("", |config| config.egress.body = 6 << 20).await;
    let runner = world.runner("alice");
    let long = |model: &str| {
        let image = "x".repeat(5 << 20);
        format!(
            r#"{{"messages":[{{"content":"{image}\"model\":\"m1\""}}],"mod\u0065l" : "{model}"}}"#
        )
    };
    for style in STYLES {
        let answer = world.raw(style.request(&world, &runner.token, &long("m3"))).await;
        answer.assert_refused(403, "model_not_allowed");
    }
    assert_eq!(world.provider.whole(), 0);
    // It was on its way all the same, but for its end.
    let most = world.provider.seen().iter().map(|seen| seen.body.len()).max();
    assert!((4 << 20..(5 << 20) + 50).contains(&most.unwrap()), "{most:?}");
    let sent = long(r"\u006d1");
    assert_eq!(world.raw(Style::Chat.request(&world, &runner.token, &sent)).await.status, 200);
    assert_eq!(world.provider.seen().last().unwrap().body, sent.as_bytes());
}

#[tokio::test]
async fn a_coded_body_is_415() {
    let world = World::new().await;
    let runner = world.runner("alice");
    for coding in ["gzip", "br", "identity, gzip", "x", "GZIP\r\nContent-Encoding: identity"] {
        let headers =
            format!("{}Content-Encoding: {coding}\r\n", Style::Chat.credential(&runner.token));
        let answer =
            world.raw(post(&world, Style::Chat.path(), &headers, r#"{"model":"m1"}"#)).await;
        answer.assert_refused(415, "encoded_body");
    }
    assert!(world.provider.seen().is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_however_it_comes() {
    let world = World::with("", |config| config.egress.body = 100_000).await;
    let runner = world.runner("alice");
    let body = |length: usize| {
        let around = json!({"model": "m1", "x": ""}).to_string().len();
        json!({"model": "m1", "x": "x".repeat(length - around)}).to_string()
    };
    for (length, status) in [(100_000, 200), (100_001, 413), (1_000_000, 413)] {
        let sized = Style::Chat.request(&world, &runner.token, &body(length));
        let (head, _) = sized.split_once("Content-Length").unwrap();
        let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        chunked.extend(body(length).as_bytes().chunks(9_000).flat_map(chunk));
        chunked.extend(b"0\r\n\r\n");
        for sent in [sized.into_bytes(), chunked] {
            let answer = world.raw(sent).await;
            if status == 200 {
                assert_eq!(answer.status, 200);
            } else {
                answer.assert_refused(status, "body_too_large");
            }
        }
    }
    assert_eq!(world.provider.whole(), 2);
}
