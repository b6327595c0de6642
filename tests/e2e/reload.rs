//! A running gateway takes a new config, and keeps the old one when the new one is wrong.

use std::{fs, time::Duration};

use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use crate::{settings::Settings, stand::Stand};

const OLD: &str = "old-key-for-the-reload-tests";
const NEW: &str = "new-key-for-the-reload-tests";
/// How long a change may take to be seen.
const SOON: Duration = Duration::from_secs(15);

async fn accepts(stand: &Stand, key: &str) -> bool {
    let status = stand.caller().with_key(key).get("/v1/models").await.status;
    assert!(status == 200 || status == 401, "status {status}");
    status == 200
}

async fn comes_to_accept(stand: &Stand, key: &str) {
    let accepted = async {
        while !accepts(stand, key).await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let done = timeout(SOON, accepted).await.is_ok();
    assert!(done, "the new config is not in force after {SOON:?}");
}

async fn logs(stand: &Stand, word: &str) {
    let logged = async {
        while !stand.log().contains(word) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let done = timeout(SOON, logged).await.is_ok();
    assert!(done, "the log does not say {word:?} after {SOON:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_takes_effect_by_itself_and_by_sighup() {
    let old = Settings::strict().with_key("alice", OLD);
    let mut stand = Stand::start(old.clone());
    assert!(accepts(&stand, OLD).await);
    assert!(!accepts(&stand, NEW).await);

    stand.rewrite(stand_settings(&stand, Settings::strict().with_key("alice", NEW)));
    comes_to_accept(&stand, NEW).await;
    assert!(!accepts(&stand, OLD).await, "the old key is no longer one");

    stand.rewrite(stand_settings(&stand, old));
    stand.signal(Signal::HUP);
    comes_to_accept(&stand, OLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_a_file_again_that_has_not_changed() {
    let stand = Stand::start(Settings::strict().with_key("alice", OLD));
    assert!(!stand.log().contains("reload result"), "{}", stand.log());
    stand.signal(Signal::HUP);
    logs(&stand, "reload result=applied").await;
    assert!(accepts(&stand, OLD).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_with_an_error_changes_nothing_and_is_reported() {
    let stand = Stand::start(Settings::strict().with_key("alice", OLD));
    let good = fs::read_to_string(stand.config()).unwrap();
    let keyless = good.replace(OLD, NEW).replace("dialect: opencode", "dialekt: opencode");
    fs::write(stand.config(), keyless).unwrap();
    stand.signal(Signal::HUP);
    logs(&stand, "dialekt").await;
    assert!(accepts(&stand, OLD).await);

    fs::write(stand.config(), "listen: [").unwrap();
    stand.signal(Signal::HUP);
    sleep(Duration::from_secs(1)).await;
    assert!(accepts(&stand, OLD).await);
}

/// The same provider as before: only what a test is about changes.
fn stand_settings(stand: &Stand, settings: Settings) -> Settings {
    settings.with_model(stand.model_url())
}
