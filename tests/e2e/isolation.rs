//! Many users at once, and many requests of one.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    client::prompt,
    settings::{Settings, workspace_id},
    stand::Stand,
};

const USERS: usize = 20;
const REQUESTS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_users_at_once_get_twenty_workspaces_and_runners_and_only_their_own_answers() {
    let stand = Stand::start(Settings::strict().with_development_identities().with_patience());
    let asked = (0..USERS).map(|number| {
        let caller = stand.caller();
        async move {
            let mut ask = prompt(&format!("echo nonce-{number:03}-of-user-{number:03}"));
            ask["user"] = json!(format!("user-{number:03}"));
            caller.stream(&ask).await
        }
    });
    for (number, answer) in join_all(asked).await.iter().enumerate() {
        let heard: BTreeSet<&str> = answer
            .whole()
            .split_whitespace()
            .filter_map(|word| word.find("nonce-").map(|at| &word[at..]))
            .map(|nonce| &nonce[.."nonce-000-of-user-000".len()])
            .collect();
        assert_eq!(heard, [&*format!("nonce-{number:03}-of-user-{number:03}")].into());
    }

    let expected: BTreeSet<String> =
        (0..USERS).map(|number| workspace_id(&format!("user-{number:03}"))).collect();
    let found: BTreeSet<String> = std::fs::read_dir(stand.path("workspaces"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
    let runners = stand.runners();
    assert_eq!(runners.len(), USERS, "{runners:?}");
    let served: BTreeSet<String> =
        runners.iter().filter_map(|(_, cwd)| Some(cwd.rsplit_once('/')?.1.to_owned())).collect();
    assert_eq!(served, expected, "every runner works in the workspace of one user");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_first_requests_of_one_user_at_once_start_one_runner() {
    let stand = Stand::start(Settings::strict().with_development_identities().with_patience());
    let mut asked = JoinSet::new();
    for number in 0..REQUESTS {
        let caller = stand.caller();
        asked.spawn(async move {
            let mut ask = prompt(&format!("echo request-{number:03}"));
            ask["user"] = json!("alice");
            (number, caller.stream(&ask).await)
        });
    }
    // A second runner would live for minutes, so looking once with every answer sees each.
    let mut seen = BTreeSet::new();
    while let Some(answered) = asked.join_next().await {
        let (number, answer) = answered.unwrap();
        assert!(answer.whole().contains(&format!("request-{number:03}")), "{answer:?}");
        seen.extend(stand.runners());
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}
