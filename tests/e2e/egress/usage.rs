//! What is written down of what was used is what the provider says was used.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use futures_util::future::join_all;
use open_persona::usage::Tokens;
use tokio::{
    io::AsyncReadExt,
    time::{sleep, timeout},
};

use super::{SOON, call, front_end, id_of, key_header, path_of, runner, settings, wire::Wire};
use crate::{
    client::{Caller, prompt},
    provider::{Ledger, Provider, Style, Used},
    settings::workspace_id,
    stand::{OPEN_PERSONA, Stand},
};

const USERS: usize = 6;
const CHATS: usize = 4;
const CALLS: usize = 8;
/// Long enough to leave in its middle.
const LONG: &str = "[[words 30 20]]";

/// A choice that looks arbitrary and is the same in every run.
fn choice(of: impl Hash, most: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish() % most
}

fn user(number: usize) -> String {
    format!("user-{number}")
}

/// Every user has a key, so that the provider can tell them apart.
fn with_key(stand: &Stand, style: Style, user: &str) -> Caller {
    front_end(stand, user).with(key_header(style), format!("sk-of-{user}"))
}

/// What the provider has told, by user and model.
fn told(ledger: &Ledger, style: Style) -> BTreeMap<(String, String), Used> {
    let user = |key: &str| key.strip_prefix("sk-of-").unwrap_or(key).to_owned();
    let rows = ledger
        .used
        .iter()
        .map(|((key, model), used)| ((user(key), format!("{}/{model}", id_of(style))), *used));
    rows.collect()
}

/// What the gateway has written down, by user and model. None of it may be an estimate.
fn written(stand: &Stand) -> BTreeMap<(String, String), Used> {
    let mut command = stand.command(OPEN_PERSONA);
    command.args(["usage", "--csv", "--by", "user,model", "--config", "conf/gateway.yaml"]);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().expect("a head");
    let row = |cells: Vec<&str>| {
        let cell = |name| cells[head.iter().position(|it| *it == name).expect("a column")];
        let number = |name| cell(name).parse::<u64>().expect("a number");
        assert_eq!(number("estimated"), 0, "{text}");
        let tokens = Tokens {
            input: number("input"),
            cached: number("cached"),
            cache_write: number("cache_write"),
            output: number("output"),
            reasoning: number("reasoning"),
        };
        let used = Used { calls: number("calls"), tokens };
        ((cell("user").to_owned(), cell("model").to_owned()), used)
    };
    lines.map(row).collect()
}

/// Waits until the provider is done, and what is written is what it has told.
async fn is_written(stand: &Stand, provider: &Provider, style: Style) {
    provider.settles(SOON).await;
    let ledger = provider.ledger();
    assert_eq!((ledger.early, ledger.untold), (0, 0), "{style:?}: {ledger:?}");
    let told = told(&ledger, style);
    let agrees = async {
        while written(stand) != told {
            sleep(Duration::from_millis(100)).await;
        }
    };
    if timeout(SOON, agrees).await.is_err() {
        assert_eq!(written(stand), told, "{style:?}");
    }
}

/// A user's chats, some of which the user leaves.
async fn chats(stand: &Stand, number: usize) {
    let user = user(number);
    let caller = with_key(stand, Style::Chat, &user);
    for chat in 0..CHATS {
        let text =
            ["[[delegate run echo a tool]]", LONG][usize::from(choice((number, chat), 3) > 0)];
        let mut answer = caller.open(&prompt(text)).await;
        assert_eq!(answer.status, 200);
        if choice((number, chat, "leaves"), 2) == 0 {
            answer.rest().await.whole();
            continue;
        }
        for _ in 0..=choice((number, chat, "after"), 10) {
            answer.next().await;
        }
    }
}

/// Calls of a user's runner, all at once, some of which it leaves.
async fn calls(stand: &Stand, style: Style, number: usize) {
    let home = workspace_id(&user(number));
    let runners = stand.runners();
    let (pid, _) = runners.iter().find(|(_, cwd)| cwd.ends_with(&home)).expect("a runner");
    let token = runner::token(*pid);
    join_all((0..CALLS).map(|each| {
        let ask = call(style, ["m1", "m2"][each % 2], LONG, each % 3 > 0);
        let wire = Wire::post(stand.egress, &path_of(style), &token, &ask);
        async move {
            if choice((number, each), 2) == 0 {
                let back = wire.send(stand.egress).await;
                assert_eq!(back.status, 200, "{back:?}");
                return;
            }
            let left = wire.open(stand.egress).await;
            let some = choice((number, each, "bytes"), 4000);
            left.take(some).read_to_end(&mut Vec::new()).await.ok();
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_come_and_leave_as_they_like_are_counted_exactly() {
    let (style, provider) = (Style::Chat, Provider::start().await);
    let stand = Stand::start(settings(style, &provider).with_patience());
    join_all((0..USERS).map(|number| chats(&stand, number))).await;
    join_all((0..USERS).map(|number| calls(&stand, style, number))).await;
    is_written(&stand, &provider, style).await;
    let ledger = provider.ledger();
    assert!(ledger.told > u64::try_from(USERS * CALLS).unwrap(), "{ledger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_runner_has_left_is_counted_in_every_style() {
    for style in Style::ALL {
        let provider = Provider::start().await;
        let stand = Stand::start(settings(style, &provider));
        let alice = with_key(&stand, style, "alice");
        let mut leaves = alice.open(&prompt("[[hold one two three four]]")).await;
        leaves.until_text().await;
        provider.holds(1, SOON).await;
        drop(leaves);
        // The runner has hung up when it takes the next prompt.
        alice.ask(&prompt("Hello")).await.text();
        provider.release(1);
        provider.settles(SOON).await;
        let ledger = provider.ledger();
        assert_eq!((ledger.early, ledger.told), (0, 2), "{style:?}: {ledger:?}");
        is_written(&stand, &provider, style).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_answers_are_counted_and_arrive() {
    for style in Style::ALL {
        let provider = Provider::start().await;
        let stand = Stand::start(settings(style, &provider));
        let alice = with_key(&stand, style, "alice");
        for answer in [
            alice.ask(&prompt("[[gzip packed text]]")).await.text().to_owned(),
            alice.stream(&prompt("[[gzip packed text]]")).await.whole().to_owned(),
        ] {
            assert!(answer.contains("packed text"), "{style:?}: {answer}");
        }
        assert_eq!(provider.ledger().told, 2, "{style:?}");
        is_written(&stand, &provider, style).await;
    }
}
