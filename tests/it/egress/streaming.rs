//! Requests and answers pass as they come: at once, and unchanged.

use serde_json::json;

use super::{
    dialect::{STYLES, Style, json_answer, piece, stream, tokens},
    provider::{Gate, Step},
    world::World,
};
use crate::stub::{STREAM, chunk};

fn body() -> String {
    json!({"model": "m1", "stream": true}).to_string()
}

#[tokio::test]
async fn each_piece_of_an_answer_arrives_before_the_next_is_written() {
    let world = World::new().await;
    let runner = world.runner("alice");
    for style in STYLES {
        let events = style.events(tokens(3, 4), 20);
        let (sent, gate) = (stream(&events), Gate::new());
        let waiting = gate.clone();
        world.provider.script(move |_| {
            let gated = |piece: &Vec<u8>| [Step::Wait(waiting.clone()), Step::Send(piece.clone())];
            sent.iter().flat_map(gated).collect()
        });
        let mut client = world.connect().await;
        client.send(style.request(&world, &runner.token, &body())).await;
        gate.open();
        client.read_until("\r\n\r\n").await;
        for event in &events {
            gate.open();
            client.read_until(event).await;
        }
        gate.open();
        assert_eq!(client.answer().await.body, events.concat().into_bytes());
    }
}

#[tokio::test]
async fn each_piece_of_a_request_arrives_before_the_next_is_sent_but_the_last_waits() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let words: Vec<_> = (0..20).map(piece).collect();
    let whole = json!({"messages": words, "model": "m1"}).to_string();
    for is_chunked in [false, true] {
        let request = Style::Chat.request(&world, &runner.token, &whole);
        let (head, _) = request.split_once("\r\n\r\n").unwrap();
        let (most, _) = head.split_once("Content-Length").unwrap();
        let number = world.provider.seen().len();
        let mut client = world.connect().await;
        if is_chunked {
            client.send(format!("{most}Transfer-Encoding: chunked\r\n\r\n")).await;
        } else {
            client.send(format!("{head}\r\n\r\n")).await;
        }
        let mut sent = 0;
        let (all_but_one, last) = whole.split_at(whole.len() - 1);
        for part in all_but_one.as_bytes().chunks(17) {
            client.send(if is_chunked { chunk(part) } else { part.to_vec() }).await;
            sent += part.len();
            let has_come = |seen: &super::provider::Seen| seen.body.len() == sent && !seen.is_whole;
            world.provider.until(|seen| seen.get(number).is_some_and(has_come)).await;
        }
        client
            .send(if is_chunked {
                [&*chunk(last.as_bytes()), b"0\r\n\r\n"].concat()
            } else {
                last.into()
            })
            .await;
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(world.provider.seen()[number].body, whole.as_bytes());
    }
}

#[tokio::test]
async fn whatever_a_provider_answers_comes_byte_for_byte() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let bytes: Vec<u8> = (0..40_000u32).map(|number| (number * number / 7 % 251) as u8).collect();
    let text =
        b"\xef\xbb\xbf: hi\r\n\r\ndata: {\"usage\" : \r\n\r\ndata:x\n\n\xff\xfe\0data: [DONE]"
            .to_vec();
    let mut client = world.connect().await;
    for body in [bytes, text, Vec::new()] {
        for kind in [
            "text/event-stream",
            "application/json",
            "application/octet-stream\r\nContent-Encoding: gzip",
        ] {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n");
            let length = body.len();
            let mut sized = format!("{head}Content-Length: {length}\r\n\r\n").into_bytes();
            sized.extend(&body);
            let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            chunked.extend(body.chunks(1_234).flat_map(chunk));
            chunked.extend(b"0\r\n\r\n");
            for answer in [sized, chunked] {
                world.provider.answer(answer);
                client.send(Style::Chat.request(&world, &runner.token, &self::body())).await;
                let answer = client.answer().await;
                assert_eq!(answer.status, 200);
                assert!(answer.body == body, "{kind} {}", answer.head);
            }
            let mut closed = head.replace("1.1", "1.0").into_bytes();
            closed.extend([b"\r\n", &*body].concat());
            world.provider.script(move |_| vec![Step::Send(closed.clone()), Step::HangUp]);
            client.send(Style::Chat.request(&world, &runner.token, &self::body())).await;
            assert!(client.answer().await.body == body, "{kind} until closed");
        }
    }
}

#[tokio::test]
async fn connections_are_used_again_on_both_sides() {
    let world = World::new().await;
    let (alice, bob) = (world.runner("alice"), world.runner("bob"));
    let events = stream(&Style::Chat.events(tokens(1, 1), 3)).concat();
    for answer in [
        events,
        json_answer("200 OK", "{}").into_bytes(),
        json_answer("429 Slow", "{}").into_bytes(),
    ] {
        world.provider.answer(answer);
        let mut client = world.connect().await;
        for runner in [&alice, &bob, &alice] {
            client.send(Style::Chat.request(&world, &runner.token, &body())).await;
            client.answer().await;
        }
        // Only then the last one's connection is free again for the next client's.
        client.send("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        client.rest().await;
    }
    let connections: Vec<_> = world.provider.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0; 9]);
    world.raw(Style::Responses.request(&world, &alice.token, &body())).await;
    let other = world.provider.seen().pop().unwrap();
    assert_eq!(other.connection, 1, "each provider has connections of its own");
}

#[tokio::test]
async fn a_request_that_was_refused_on_its_way_leaves_no_connection_to_use_again() {
    let world = World::new().await;
    let runner = world.runner("alice");
    for model in ["m9", "m1"] {
        let body = json!({"x": "x".repeat(200_000), "model": model}).to_string();
        world.raw(Style::Chat.request(&world, &runner.token, &body)).await;
    }
    let seen = world.provider.seen();
    let found: Vec<_> = seen.iter().map(|seen| (seen.connection, seen.is_whole)).collect();
    assert_eq!(found, [(0, false), (1, true)]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_runner_too() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let mut pieces = stream(&Style::Chat.events(tokens(1, 1), 3));
    pieces.truncate(3);
    let sized = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"piece-1;".to_vec();
    for answer in [pieces.concat(), sized] {
        world.provider.script(move |_| vec![Step::Send(answer.clone()), Step::HangUp]);
        let all = world.raw_to_end(Style::Chat.request(&world, &runner.token, &body())).await;
        assert!(all.contains("piece-1;") && !all.ends_with("0\r\n\r\n"), "{all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    }
    let totals = world.used_once().await;
    assert_eq!((totals.calls, totals.estimated), (2, 2));
}

#[tokio::test]
async fn a_list_of_models_has_a_head_too() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let credential = Style::Chat.credential(&runner.token);
    let host = &world.authority;
    world.provider.answer("HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n");
    let mut client = world.connect().await;
    for _ in 0..2 {
        client
            .send(format!("HEAD /chat/v1/models HTTP/1.1\r\nHost: {host}\r\n{credential}\r\n"))
            .await;
        let answer = client.answer_to("HEAD").await;
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("77")));
    }
    let seen = world.provider.seen();
    assert_eq!((seen[1].asked(), seen[1].connection), ("HEAD /chat/api/models", 0));
}

#[tokio::test]
async fn a_head_without_its_stream_is_passed_on_at_once() {
    let world = World::new().await;
    let runner = world.runner("alice");
    world.provider.script(|_| vec![Step::Send(STREAM.into()), Step::AwaitEnd]);
    let mut client = world.connect().await;
    client.send(Style::Chat.request(&world, &runner.token, &body())).await;
    client.read_until("\r\n\r\n").await;
}
