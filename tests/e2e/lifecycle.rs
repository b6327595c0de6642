//! Ends, wanted and unwanted: of runners, of the gateway, of callers.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    client::prompt,
    processes::{self, is_alive},
    scripted::Scripted,
    settings::Settings,
    stand::Stand,
};

/// How soon what must follow has followed, on a slow machine.
const SOON: Duration = Duration::from_secs(15);

fn alice(text: &str) -> Value {
    let mut ask = prompt(text);
    ask["user"] = json!("alice");
    ask
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_killed_mid_turn_is_an_error_for_that_caller_and_the_next_request_works() {
    let model = Scripted::start().await;
    let stand = Stand::start(Settings::shipped().with_model(&model.url));
    let caller = stand.caller();
    let mut stream = caller.open(&alice("be slow")).await;
    stream.until_text().await;
    let runners = stand.runners();
    assert_eq!(runners.len(), 1, "{runners:?}");
    processes::signal(runners[0].0, Signal::KILL);

    let cut = stream.rest().await;
    assert!(!cut.done, "a killed runner looked like a normal end: {cut:?}");
    let error = cut.error.expect("an error event");
    let message = error["error"]["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "{error}");
    assert!(error["error"]["type"].is_string(), "{error}");

    let next = caller.stream(&alice("are you back?")).await;
    assert!(next.whole().contains("All is well."), "{next:?}");
    let again = stand.runners();
    assert_eq!(again.len(), 1, "{again:?}");
    assert_ne!(again[0].0, runners[0].0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dies_at_its_start_fails_the_request_at_once() {
    let command = r#"[bash, -c, "echo no such luck >&2; exit 3"]"#;
    let settings = Settings::strict().with_development_identities().with_command(command);
    let stand = Stand::start(settings);
    let answer = tokio::time::timeout(SOON, stand.caller().ask(&alice("hello"))).await;
    let answer = answer.expect("an answer long before the start's deadline");
    assert!((500..=599).contains(&answer.status), "{answer:?}");
    assert!(answer.body["error"]["message"].is_string(), "{}", answer.body);
    assert!(stand.log().contains("no such luck"), "the log has the runner's last words");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_gateway_and_leaves_no_child() {
    ends_with_nothing_left(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_the_gateway_and_leaves_no_child() {
    ends_with_nothing_left(Signal::INT).await;
}

async fn ends_with_nothing_left(signal: Signal) {
    let mut stand = Stand::start(Settings::shipped());
    for user in ["alice", "bob"] {
        let mut ask = prompt("echo hello");
        ask["user"] = json!(user);
        stand.caller().stream(&ask).await.whole();
    }
    assert_eq!(stand.runners().len(), 2);
    let status = stand.end(signal);
    assert!(status.success(), "{signal:?} ended the gateway with {status}");
    assert_eq!(stand.started(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_and_started_again_leaves_no_old_child() {
    let mut stand = Stand::start(Settings::shipped());
    stand.caller().stream(&alice("echo before")).await.whole();
    let old = stand.started();
    assert!(!old.is_empty());
    stand.end(Signal::KILL);

    stand.start_gateway();
    let gone = processes::until(SOON, || old.iter().all(|pid| !is_alive(*pid)).then_some(()));
    assert!(gone.is_some(), "of {old:?} still there: {:?}", stand.started());
    assert!(stand.caller().stream(&alice("echo after")).await.whole().contains("after"));
    assert_eq!(stand.runners().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_ends_the_turn_whenever_that_is() {
    let model = Scripted::start().await;
    // With a linger the gateway would listen on, to count what is said.
    let settings = Settings::strict().with_development_identities().without_linger();
    let stand = Stand::start(settings.with_model(&model.url));
    // The first answer starts the runner: the cases below are about turns, not starts.
    stand.caller().stream(&alice("hello")).await.whole();
    let runner = stand.runners();

    let mut midway = stand.caller().open(&alice("be slow")).await;
    midway.until_text().await;
    model.listened_to(1, SOON).await;
    drop(midway);
    model.listened_to(0, SOON).await;

    let (silent, slow) = (alice("be silent"), alice("be slow"));
    leaves_when_the_model_works(&model, stand.caller().open(&silent)).await;
    leaves_when_the_model_works(&model, stand.caller().ask(&silent)).await;
    leaves_when_the_model_works(&model, stand.caller().ask(&slow)).await;

    assert_eq!(stand.runners(), runner, "the runner has outlived them all");
    assert!(stand.caller().stream(&alice("hello")).await.whole().contains("All is well."));
}

/// Drops `request`, and with it the connection, as soon as its turn has reached the model.
async fn leaves_when_the_model_works<T>(model: &Scripted, request: impl Future<Output = T>) {
    {
        let request = std::pin::pin!(async {
            let _answer = request.await;
            std::future::pending::<()>().await;
        });
        let working = std::pin::pin!(model.listened_to(1, SOON));
        futures_util::future::select(request, working).await;
    }
    model.listened_to(0, SOON).await;
}
