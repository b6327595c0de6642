//! What is written down when a provider says nothing of usage, says it late, or where it is a lie.

use std::time::Duration;

use open_persona::usage::Tokens;
use serde_json::json;

use super::{
    dialect::{STYLES, Style, json_answer, piece, post, stream, tokens},
    provider::{Gate, Seen, Step},
    world::World,
};

#[tokio::test]
async fn a_call_that_is_cut_is_never_counted_as_exact() {
    let world = World::with("", |config| config.egress.linger = Duration::ZERO).await;
    let runner = world.runner("alice");
    let never = Gate::new();
    world.provider.script(move |seen| {
        let style = style_of(seen);
        let stays = seen.json()["parts"].as_u64().unwrap();
        let mut pieces = stream(&style.events(Tokens { input: 7, ..Tokens::default() }, 5));
        pieces.truncate(usize::try_from(stays).unwrap());
        pieces.into_iter().map(Step::Send).chain([Step::Wait(never.clone())]).collect()
    });
    let mut calls = 0;
    for style in STYLES {
        // Nothing, the head, and further parts, the last of which is before the usage.
        for parts in 0..=6 {
            let body = json!({"model": "m1", "stream": true, "parts": parts, "pad": PADDING});
            let mut client = world.connect().await;
            client.send(style.request(&world, &runner.token, &body.to_string())).await;
            calls += 1;
            world.provider.until_whole(calls).await;
            match parts {
                0 => {}
                1 => client.read_until("\r\n\r\n").await,
                _ => client.read_until(&piece(parts - 2)).await,
            }
        }
    }
    for ((_, model), totals) in world.used().await {
        assert_eq!((totals.calls, totals.estimated), (7, 7), "{model} {totals:?}");
        // A token is taken for four bytes where nothing was said of it.
        let told = if model.starts_with("messages") { 5 } else { 0 };
        assert!(totals.tokens.input >= (7 - told) * 100 + told * 7, "{model} {totals:?}");
        assert_eq!(totals.tokens.output, 1 + 2 + 3 + 4 + 5, "{model} {totals:?}");
    }
}

fn style_of(seen: &Seen) -> Style {
    let path = seen.asked();
    STYLES.into_iter().find(|style| path.contains(style.provider())).unwrap_or(Style::Messages)
}

#[tokio::test]
async fn an_answer_without_usage_or_with_a_coding_is_estimated() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let words: String = (0..9).map(|number| Style::Chat.delta(&piece(number))).collect();
    let streamed = json!({"model": "m1", "stream": true}).to_string();
    let whole = json!({"model": "m1"}).to_string();
    // What cannot be read is not read, whatever it looks like.
    let document = json!({"usage": Style::Chat.usage(tokens(1, 1)), "pad": PADDING}).to_string();
    let coded = json_answer("200 OK\r\nContent-Encoding: gzip", &document);
    let stream = stream(&[words]).concat();
    for (body, answer) in [(&streamed, stream), (&whole, coded.into_bytes())] {
        world.provider.answer(answer);
        let answer = world.raw(Style::Chat.request(&world, &runner.token, body)).await;
        assert_eq!(answer.status, 200);
    }
    let totals = world.used_once().await;
    assert_eq!((totals.calls, totals.estimated), (2, 2));
    assert_eq!(totals.tokens.output, 9 + document.len() as u64 / 4);
    assert_eq!(totals.tokens.input, (streamed.len() / 4 + whole.len() / 4) as u64);
}

#[tokio::test]
async fn usage_in_what_a_model_writes_is_not_usage() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let lie = r#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#;
    let mut events = Style::Chat.events(tokens(70, 7), 2);
    events.insert(1, Style::Chat.delta(lie));
    world.provider.answer(stream(&events).concat());
    let body = json!({"model": "m1", "stream": true, "usage": {"prompt_tokens": 1}}).to_string();
    world.raw(Style::Chat.request(&world, &runner.token, &body)).await;
    let totals = world.used_once().await;
    assert_eq!((totals.tokens, totals.estimated), (tokens(70, 7), 0));
}

#[tokio::test]
async fn embeddings_and_lists_of_models_cost_what_they_say() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let credential = Style::Chat.credential(&runner.token);
    let list =
        format!("GET /chat/v1/models HTTP/1.1\r\nHost: {}\r\n{credential}\r\n", world.authority);
    let usage = json!({"object": "list", "usage": {"prompt_tokens": 8, "total_tokens": 8}});
    world.provider.answer(json_answer("200 OK", &usage.to_string()));
    assert_eq!(world.raw(&list).await.json(), usage);
    let body = json!({"model": "m1", "input": "hello"}).to_string();
    let embed = post(&world, "/chat/v1/embeddings", &credential, &body);
    assert_eq!(world.raw(embed).await.json(), usage);
    let totals = world.used_once().await;
    assert_eq!((totals.calls, totals.tokens, totals.estimated), (1, tokens(8, 0), 0));
}

/// Four hundred bytes.
const PADDING: &str = concat!(
    "....................................................................................................",
    "....................................................................................................",
    "....................................................................................................",
    "....................................................................................................",
);
