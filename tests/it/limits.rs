//! Sizes and deadlines, in short: what is over one is refused, as early as it is known.

use std::time::Duration;

use open_persona::config::Config;
use serde_json::{Value, json};

use crate::{
    opencode::Script,
    stub,
    world::{Answer, DEVELOPMENT, World},
};

const HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n\
    Content-Type: application/json\r\n";
const SHORT: Duration = Duration::from_millis(50);

fn ask() -> Value {
    json!({"model": "open-persona/build", "stream": true, "user": "alice",
           "messages": [{"role": "user", "content": "hello"}]})
}

async fn world(change: impl FnOnce(&mut Config)) -> World {
    World::with(DEVELOPMENT, change).await
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.json()["error"]["code"], code, "{}", answer.body);
}

/// Asserts that a stream was cut by an error event with `code`.
fn assert_cut(answer: &Answer, code: &str) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let last: Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], code, "{}", answer.body);
    assert!(!answer.body.contains("[DONE]"), "{}", answer.body);
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_413_before_any_of_it_is_sent() {
    let world = world(|config| config.limits.body = 1000).await;
    for length in ["1001", "99999999999"] {
        for expect in ["", "Expect: 100-continue\r\n"] {
            let head = format!("{HEAD}{expect}Content-Length: {length}\r\n\r\n");
            assert_refused(&world.raw(head.as_bytes()).await, 413, "body_too_large");
        }
    }
    assert!(world.opencode.calls().is_empty());
}

#[tokio::test]
async fn a_body_that_grows_past_the_limit_is_413() {
    let (openai, stub) = stub::world_with(DEVELOPMENT, |config| config.limits.body = 1000).await;
    let opencode = world(|config| config.limits.body = 1000).await;
    for world in [&opencode, &openai] {
        let mut connection = world.connect();
        connection.send(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await;
        for _ in 0..4 {
            connection.send(&stub::chunk(&[b' '; 300])).await;
        }
        assert_refused(&connection.answer().await, 413, "body_too_large");
    }
    assert!(opencode.opencode.calls_to("prompt_async").is_empty());
    assert!(stub.seen().is_empty());
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken() {
    let body = ask().to_string();
    let world = world(|config| config.limits.body = body.len()).await;
    assert_eq!(world.chat(&ask()).await.status, 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let world = world(|config| config.limits.headers = 4096).await;
    let large = format!("X: {}\r\n", "x".repeat(4096));
    let many =
        (0..200).map(|n| format!("X-Header-{n}: 0123456789\r\n")).collect::<Vec<_>>().concat();
    for headers in [&large, &many] {
        let request = format!("{HEAD}{headers}Content-Length: 0\r\n\r\n");
        assert_refused(&world.raw(request.as_bytes()).await, 431, "headers_too_large");
    }
    let target = format!("GET /v1/models?{} HTTP/1.1\r\nHost: gateway\r\n\r\n", "x".repeat(4096));
    assert_refused(&world.raw(target.as_bytes()).await, 431, "headers_too_large");
}

#[tokio::test]
async fn a_head_without_end_is_given_up() {
    let world = World::new().await;
    let endless = format!("{HEAD}X: {}", "x".repeat(3 << 20));
    let all = world.raw_to_end(endless.as_bytes()).await;
    assert!(all.is_empty() || all.starts_with("HTTP/1.1 4"), "{all}");
    let many = format!("{HEAD}{}", "X: y\r\n".repeat(10_000));
    let all = world.raw_to_end(many.as_bytes()).await;
    assert!(all.is_empty() || all.starts_with("HTTP/1.1 4"), "{all}");
}

#[tokio::test]
async fn a_head_that_does_not_end_in_time_is_given_up() {
    let world = world(|config| config.limits.header_deadline = SHORT).await;
    let all = world.raw_to_end(HEAD.as_bytes()).await;
    assert!(all.is_empty() || all.starts_with("HTTP/1.1 4"), "{all}");
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_408() {
    let (openai, stub) =
        stub::world_with(DEVELOPMENT, |config| config.limits.body_deadline = SHORT).await;
    let opencode = world(|config| config.limits.body_deadline = SHORT).await;
    for world in [&opencode, &openai] {
        let head = format!("{HEAD}Content-Length: 100\r\n\r\n{{");
        assert_refused(&world.raw(head.as_bytes()).await, 408, "body_too_slow");
    }
    assert!(stub.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_drips_is_408_though_it_is_never_silent() {
    let (openai, stub) =
        stub::world_with(DEVELOPMENT, |config| config.limits.body_deadline = SHORT).await;
    let opencode = world(|config| config.limits.body_deadline = SHORT).await;
    for world in [&opencode, &openai] {
        let mut connection = world.connect();
        connection.send(format!("{HEAD}Content-Length: 1000000\r\n\r\n").as_bytes()).await;
        let (mut answers, mut drips) = tokio::io::split(connection.pipe);
        #[expect(clippy::disallowed_methods, reason = "aborted below")]
        let drip = tokio::spawn(async move {
            let mut clock = tokio::time::interval(SHORT / 10);
            loop {
                clock.tick().await;
                if tokio::io::AsyncWriteExt::write_all(&mut drips, b" ").await.is_err() {
                    return;
                }
            }
        });
        let mut head = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut answers, &mut head).await.unwrap();
        drip.abort();
        assert_eq!(&head, b"HTTP/1.1 408");
    }
    assert!(stub.seen().is_empty());
}

#[tokio::test]
async fn a_turn_without_a_sign_of_work_is_an_http_error_before_the_first_byte() {
    let world = world(|config| config.limits.first_byte = SHORT).await;
    for stream in [true, false] {
        world.opencode.script(Script::Silence);
        let mut request = ask();
        request["stream"] = json!(stream);
        assert_refused(&world.chat(&request).await, 504, "first_byte_timeout");
    }
    assert_eq!(world.chat(&ask()).await.text(), "Hello the quick brown fox.");
}

#[tokio::test]
async fn silence_is_filled_with_comments_and_failure_is_then_an_event() {
    let world = world(|config| {
        config.limits.first_byte = SHORT * 4;
        config.turns.keep_alive = SHORT / 5;
    })
    .await;
    world.opencode.script(Script::Silence);
    let answer = world.chat(&ask()).await;
    assert!(answer.body.starts_with(": keep-alive\n\n: keep-alive\n\n"), "{}", answer.body);
    assert_cut(&answer, "first_byte_timeout");
}

#[tokio::test]
async fn comments_come_between_what_is_said_too() {
    let world = world(|config| config.turns.keep_alive = SHORT / 5).await;
    world.opencode.script(Script::Until("text", "message.part.delta"));
    let mut connection = world.post(&ask()).await;
    connection.read_until("\"content\":\"Hello").await;
    connection.read_until(": keep-alive\n\n").await;
    world.opencode.say_delta("ses_stub1", " again");
    connection.read_until("\"content\":\" again").await;
}

#[tokio::test]
async fn a_turn_that_lasts_too_long_is_aborted_and_its_caller_told() {
    let world = world(|config| config.limits.turn = SHORT * 4).await;
    world.opencode.script(Script::Until("text", "message.part.delta"));
    let answer = world.chat(&ask()).await;
    assert_cut(&answer, "turn_timeout");
    assert_eq!(answer.text(), "Hello");
    world.opencode.wait_for_call("/abort").await;
    world.opencode.script(Script::Silence);
    assert_refused(&world.chat(&ask()).await, 504, "turn_timeout");
}

#[tokio::test]
async fn a_runner_that_says_nothing_at_all_is_given_up() {
    let world = world(|config| config.limits.idle = SHORT).await;
    world.opencode.script(Script::Silence);
    assert_refused(&world.chat(&ask()).await, 502, "runner_failed");
    world.opencode.script(Script::Until("text", "message.part.delta"));
    assert_cut(&world.chat(&ask()).await, "runner_failed");
}

#[tokio::test]
async fn an_openai_runner_that_says_nothing_is_504() {
    let (world, stub) = stub::world_with(DEVELOPMENT, |config| {
        config.limits.first_byte = SHORT;
        config.limits.idle = SHORT;
    })
    .await;
    stub.reply(stub::Reply { pieces: Vec::new(), hang_up: false });
    assert_refused(&world.chat(&ask()).await, 504, "runner_timeout");
    stub.reply(stub::Reply {
        pieces: vec![stub::STREAM.into(), stub::chunk(b"data: {\"n\":1}\n\n")],
        hang_up: false,
    });
    assert_cut(&world.chat(&ask()).await, "runner_timeout");
}

#[tokio::test]
async fn a_closed_gateway_lets_nobody_in_and_says_when_to_come_again() {
    let world = World::new().await;
    assert_eq!(world.raw(b"GET /readyz HTTP/1.1\r\nHost: g\r\n\r\n").await.status, 200);
    world.gateway.drain().close_and_wait().await;
    let models = world.raw(b"GET /v1/models HTTP/1.1\r\nHost: g\r\n\r\n").await;
    let ready = world.raw(b"GET /readyz HTTP/1.1\r\nHost: g\r\n\r\n").await;
    for answer in [world.chat(&ask()).await, models, ready] {
        assert_refused(&answer, 503, "stopping");
        assert_eq!(answer.headers["retry-after"], "5");
    }
    assert_eq!(world.raw(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n").await.status, 200);
    assert!(world.opencode.calls().is_empty());
}

#[tokio::test]
async fn a_turn_in_flight_may_end_while_the_gateway_closes() {
    let world = World::new().await;
    world.opencode.script(Script::Until("text", "message.part.delta"));
    let mut connection = world.post(&ask()).await;
    connection.read_until("\"content\":\"").await;
    assert_eq!(world.gateway.drain().in_flight(), 1);
    let mut closed = Box::pin(world.gateway.drain().close_and_wait());
    assert!(futures_util::FutureExt::now_or_never(&mut closed).is_none());
    world.opencode.finish("text", "ses_stub1");
    let answer = connection.answer().await;
    assert_eq!(answer.text(), "Hello the quick brown fox.");
    closed.await;
}
