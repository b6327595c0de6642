//! New keys while a turn goes on.

use std::fs;

use super::{SOON, entry, front_end, key_header, logs, runner, settings_with};
use crate::{
    client::prompt,
    provider::{Provider, Style},
    stand::Stand,
};

const OLD: &str = "sk-canary-before-the-rotation";
const NEW: &str = "sk-canary-after-the-rotation";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_changed_in_mid_turn_is_used_by_the_turns_next_call_and_nothing_restarts() {
    for style in Style::ALL {
        let (provider, secrets) = (Provider::start().await, tempfile::tempdir().unwrap());
        let file = secrets.path().join("key");
        fs::write(&file, OLD).unwrap();
        let key = format!("file:{}", file.display());
        let stand = Stand::start(settings_with(style, &entry(style, &provider.url, &key, "")));
        let alice = front_end(&stand, "alice");
        alice.ask(&prompt("Hello")).await.text();
        let before = runner::only(&stand);

        let ask = prompt("[[run-held echo the tool has run]]");
        let (answer, ()) = tokio::join!(alice.ask(&ask), async {
            provider.holds(1, SOON).await;
            fs::write(&file, NEW).unwrap();
            logs(&stand, "reload result=applied").await;
            provider.accept_only(&[NEW]);
            provider.release(1);
        });
        assert!(answer.text().contains("the tool has run"), "{style:?}: {answer:?}");
        let keys: Vec<_> =
            provider.seen().iter().map(|seen| seen.key().unwrap().to_owned()).collect();
        assert_eq!(keys, [OLD, OLD, NEW], "{style:?}");
        assert_eq!(runner::only(&stand), before, "{style:?}");
        for key in [OLD, NEW] {
            assert_eq!(runner::places_of(&stand, key), Vec::<String>::new(), "{style:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_of_the_users_own_is_used_by_the_next_call() {
    let (style, provider) = (Style::Chat, Provider::start().await);
    let stand = Stand::start(super::settings(style, &provider));
    let alice = front_end(&stand, "alice");
    for (key, uses) in [(Some(OLD), OLD), (Some(NEW), NEW), (None, NEW)] {
        let caller =
            key.into_iter().fold(alice.clone(), |caller, key| caller.with(key_header(style), key));
        caller.ask(&prompt("Hello")).await.text();
        assert_eq!(provider.seen().last().unwrap().key(), Some(uses));
    }
    runner::only(&stand);
}
