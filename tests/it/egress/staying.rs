//! A runner that leaves makes no call cheaper: its answer is read on, for as long as is configured.

use std::time::Duration;

use open_persona::usage::Tokens;
use serde_json::json;
use tokio::{runtime::Builder, time::Instant};

use super::{
    client::Client,
    dialect::{STYLES, Style, piece, stream, tokens},
    provider::{Gate, Step},
    world::{Runner, World, used},
};
use crate::stub::chunk;

const SHORT: Duration = Duration::from_millis(50);

fn body() -> String {
    json!({"model": "m1", "stream": true, "pad": "x".repeat(400)}).to_string()
}

/// What the provider of these tests reports.
fn reported() -> Tokens {
    tokens(1_000, 77)
}

/// Makes the provider write `parts` of its answer, and the rest once the gate is open.
fn hold_after(world: &World, style: Style, parts: usize) -> Gate {
    let (gate, mut pieces) = (Gate::new(), stream(&style.events(reported(), 5)));
    // More than the sockets in between hold, so that it is seen whether somebody reads.
    let many = chunk(format!(": {}\n\n", "x".repeat(1 << 20)).as_bytes());
    for _ in 0..8 {
        pieces.insert(parts.max(1), many.clone());
    }
    let mut steps: Vec<_> = pieces.into_iter().map(Step::Send).collect();
    steps.insert(parts, Step::Wait(gate.clone()));
    world.provider.script(move |_| steps.clone());
    gate
}

/// Makes a call and reads until the provider has written `parts` of its answer.
async fn begin(world: &World, runner: &Runner, style: Style, parts: usize) -> Client {
    let number = world.provider.seen().len();
    let mut client = world.connect().await;
    client.send(style.request(world, &runner.token, &body())).await;
    match parts {
        0 => world.provider.until(|seen| seen.get(number).is_some_and(|seen| seen.is_whole)).await,
        1 => client.read_until("\r\n\r\n").await,
        _ => client.read_until(&piece(parts - 2)).await,
    }
    client
}

#[tokio::test]
async fn an_answer_is_read_to_its_end_when_its_runner_has_left() {
    for style in STYLES {
        let world = World::new().await;
        let runner = world.runner("alice");
        for parts in [0, 1, 2, 6] {
            let gate = hold_after(&world, style, parts);
            drop(begin(&world, &runner, style, parts).await);
            gate.open();
        }
        world.provider.until(|seen| seen.iter().filter(|seen| seen.is_answered).count() == 4).await;
        let totals = world.used_once().await;
        assert_eq!((totals.calls, totals.estimated), (4, 0), "{style:?}");
        assert_eq!(totals.tokens, tokens(4_000, 4 * 77), "{style:?}");
    }
}

#[tokio::test]
async fn the_egress_has_not_drained_while_an_answer_is_read_on() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let gate = hold_after(&world, Style::Chat, 3);
    drop(begin(&world, &runner, Style::Chat, 3).await);
    let mut closed = Box::pin(world.egress.drain().close_and_wait());
    assert!(futures_util::FutureExt::now_or_never(&mut closed).is_none());
    let refused = world.raw(Style::Chat.request(&world, &runner.token, &body())).await;
    refused.assert_refused(503, "stopping");
    gate.open();
    closed.await;
    assert_eq!(used(&world.state).into_values().next().unwrap().tokens, reported());
}

#[tokio::test]
async fn a_runner_that_talks_instead_of_listening_pays_all_the_same() {
    for parts in [0, 3] {
        let world = World::new().await;
        let runner = world.runner("alice");
        let gate = hold_after(&world, Style::Chat, parts);
        let mut client = begin(&world, &runner, Style::Chat, parts).await;
        client.send(Style::Chat.request(&world, &runner.token, &body())).await;
        gate.open();
        let all = client.rest().await;
        assert!(all.matches("HTTP/1.1 ").count() <= 1, "{all}");
        assert_eq!(world.provider.whole(), 1);
        let totals = world.used_once().await;
        assert_eq!((totals.tokens, totals.estimated), (reported(), 0));
    }
}

#[tokio::test]
async fn a_provider_is_cut_when_it_goes_on_for_too_long() {
    for parts in [0, 1, 4] {
        let world = World::with("", |config| config.egress.linger = SHORT).await;
        let runner = world.runner("alice");
        let pieces = stream(&Style::Chat.events(reported(), 5));
        world.provider.script(move |_| {
            let sent = pieces[..parts].iter().cloned().map(Step::Send);
            sent.chain([Step::AwaitEnd]).collect()
        });
        let client = begin(&world, &runner, Style::Chat, parts).await;
        let left = Instant::now();
        drop(client);
        world.provider.until(|seen| seen[0].is_cut).await;
        assert!(left.elapsed() >= SHORT);
        let totals = world.used_once().await;
        assert_eq!((totals.calls, totals.estimated), (1, 1));
        let words = parts.saturating_sub(1) as u64;
        assert_eq!(totals.tokens, tokens((body().len() / 4) as u64, words));
    }
}

#[tokio::test]
async fn a_runner_that_stays_is_never_cut() {
    let world = World::with("", |config| config.egress.linger = Duration::from_millis(1)).await;
    let runner = world.runner("alice");
    let gate = hold_after(&world, Style::Chat, 3);
    let mut client = begin(&world, &runner, Style::Chat, 3).await;
    // Long after the linger of somebody else's call.
    drop(begin(&world, &runner, Style::Chat, 3).await);
    world.provider.until(|seen| seen.len() == 2).await;
    while world.egress.drain().in_flight() > 1 {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(client.answer().await.status, 200);
}

#[test]
fn calls_that_end_with_the_gateway_are_estimated() {
    for (parts, expected) in [(0, 0), (4, 3)] {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let kept = runtime.block_on(async {
            let world = World::new().await;
            let runner = world.runner("alice");
            hold_after(&world, Style::Chat, parts);
            let client = begin(&world, &runner, Style::Chat, parts).await;
            (world, client)
        });
        drop(runtime);
        let used: Vec<_> = used(&kept.0.state).into_values().collect();
        assert_eq!(used.len(), 1, "{parts}");
        assert_eq!((used[0].calls, used[0].estimated), (1, 1));
        assert_eq!(used[0].tokens, tokens((body().len() / 4) as u64, expected));
    }
}
