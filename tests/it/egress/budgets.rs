//! Budgets hold for calls one after the other, and for calls at the same time.

use std::sync::Arc;

use open_persona::usage::{Tokens, Totals};
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    client::Answer,
    dialect::{STYLES, Style, json_answer, tokens},
    provider::{Gate, Step},
    world::World,
};

/// A world in which everybody may use `tokens` a day.
async fn world(tokens: u64) -> World {
    let yaml = format!("roles: {{ default: {{ budget: {{ day: {{ tokens: {tokens} }} }} }} }}");
    World::with(&yaml, |_| {}).await
}

/// A request's body with which an answer may have `output` tokens.
fn ask(output: u64) -> String {
    json!({"model": "m1", "max_tokens": output}).to_string()
}

/// An answer that reports `tokens`.
fn reporting(style: Style, tokens: Tokens) -> Vec<u8> {
    json_answer("200 OK", &style.document(tokens, 1).concat()).into_bytes()
}

fn assert_over(answer: &Answer, status: u16, within: std::ops::RangeInclusive<u64>) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("x-open-persona-refusal"), Some("budget_exceeded"), "{answer:?}");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(within.contains(&wait), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_calls_of_one_user_at_once_overspend_by_one_call_at_most() {
    const LIMIT: u64 = 20_000;
    const OUTPUT: u64 = 900;
    let world = Arc::new(world(LIMIT).await);
    let runner = world.runner("alice");
    let gate = Gate::new();
    let waiting = gate.clone();
    world.provider.script(move |seen| {
        // All of the output that was allowed, and a token of input for every byte: the worst.
        let used = tokens(seen.body.len() as u64, OUTPUT);
        vec![Step::Wait(waiting.clone()), Step::Send(reporting(Style::Chat, used))]
    });
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let (world, token, gate) = (Arc::clone(&world), runner.token.clone(), gate.clone());
        calls.spawn(async move {
            let answer = world.raw(Style::Chat.request(&world, &token, &ask(OUTPUT))).await;
            // Who is refused makes room for one that waits for its answer.
            gate.open();
            answer
        });
    }
    // The first is let through, and all others after it.
    world.provider.until_whole(1).await;
    gate.open();
    let mut answered = 0;
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        match answer.status {
            200 => answered += 1,
            429 => assert_over(&answer, 429, 5..=5),
            _ => assert_over(&answer, 402, 1..=86_400),
        }
    }
    assert_eq!(world.provider.whole(), answered);
    let each = ask(OUTPUT).len() as u64 + OUTPUT;
    let Totals { calls, tokens, estimated, .. } = world.used_once().await;
    assert_eq!((calls, tokens.total(), estimated), (answered as u64, calls * each, 0));
    assert!(tokens.total() < LIMIT + each, "{tokens:?}");
    // What fits is let in, even when all come at once.
    assert!(calls >= LIMIT / each, "{calls}");
}

#[tokio::test]
async fn a_call_that_is_answered_gives_back_what_it_did_not_use() {
    let world = world(1_000).await;
    let runner = world.runner("alice");
    let gate = Gate::new();
    let waiting = gate.clone();
    world.provider.script(move |_| {
        vec![Step::Wait(waiting.clone()), Step::Send(reporting(Style::Chat, tokens(100, 0)))]
    });
    let request = Style::Chat.request(&world, &runner.token, &ask(2_000));
    let mut first = world.connect().await;
    first.send(&request).await;
    world.provider.until_whole(1).await;
    assert_over(&world.raw(&request).await, 429, 5..=5);
    gate.open();
    assert_eq!(first.answer().await.status, 200);
    for _ in 1..10 {
        // On the same connection a call begins when the one before it is written down.
        gate.open();
        first.send(&request).await;
        assert_eq!(first.answer().await.status, 200);
    }
    first.send(&request).await;
    assert_over(&first.answer().await, 402, 1..=86_400);
    assert_eq!(world.provider.whole(), 10);
    assert_eq!(world.used_once().await.tokens, tokens(1_000, 0));
}

#[tokio::test]
async fn who_is_over_the_budget_is_told_in_every_style_and_others_are_not() {
    let world = world(1).await;
    let (alice, bob) = (world.runner("alice"), world.runner("bob"));
    world.provider.answer(reporting(Style::Chat, tokens(1, 0)));
    let mut connection = world.connect().await;
    connection.send(Style::Chat.request(&world, &alice.token, &ask(1))).await;
    assert_eq!(connection.answer().await.status, 200);
    connection.send(Style::Chat.request(&world, &alice.token, &ask(1))).await;
    assert_over(&connection.answer().await, 402, 1..=86_400);
    for style in STYLES {
        let answer = world.raw(style.request(&world, &alice.token, &ask(1))).await;
        assert_over(&answer, 402, 1..=86_400);
        let said = answer.json();
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("Your budget of 1 tokens for today is used up."), "{said}");
        assert_eq!(said["type"] == "error", style == Style::Messages, "{said}");
    }
    assert_eq!(world.raw(Style::Chat.request(&world, &bob.token, &ask(1))).await.status, 200);
    assert_eq!(world.provider.whole(), 2);
}

#[tokio::test]
async fn money_is_limited_too() {
    let yaml = "roles: { default: { budget: { month: { money: 0.000010 } } } }";
    let world = World::with(yaml, |_| {}).await;
    let runner = world.runner("alice");
    // A token of output costs exactly that.
    world.provider.answer(reporting(Style::Chat, tokens(0, 1)));
    let mut connection = world.connect().await;
    for status in [200, 402] {
        connection.send(Style::Chat.request(&world, &runner.token, &ask(1))).await;
        assert_eq!(connection.answer().await.status, status);
    }
    assert_eq!(world.used_once().await.cost.0, 10_000);
}

#[tokio::test]
async fn a_provider_that_fails_costs_nothing() {
    let world = world(1_000).await;
    let runner = world.runner("alice");
    let usage = Style::Chat.document(tokens(5_000, 5_000), 1).concat();
    let request = Style::Chat.request(&world, &runner.token, &ask(2_000));
    let failures = ["500 Oops", "503 Unavailable", "429 Too Many Requests", "400 Bad Request"];
    for failure in failures {
        world.provider.answer(json_answer(failure, &usage));
        let mut connection = world.connect().await;
        for _ in 0..2 {
            connection.send(&request).await;
            let answer = connection.answer().await;
            assert!(failure.starts_with(&answer.status.to_string()), "{answer:?}");
            assert_eq!(String::from_utf8(answer.body).unwrap(), usage);
        }
    }
    for broken in ["", "HTTP/1.1 nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Le"] {
        world.provider.script(|_| vec![Step::Send(broken.into()), Step::HangUp]);
        world.raw(&request).await.assert_refused(502, "provider_unreachable");
    }
    world.provider.answer(reporting(Style::Chat, tokens(7, 0)));
    assert_eq!(world.raw(&request).await.status, 200);
    assert_eq!(world.used_once().await.tokens, tokens(7, 0));
}
