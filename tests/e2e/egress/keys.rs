//! Where keys go, and where they do not.

use super::{
    ADMIN_KEY, VARIABLE, call, entry, front_end, header_of, key_header, path_of, runner, settings,
    settings_with, wire::Wire,
};
use crate::{
    client::prompt,
    provider::{Provider, Style},
    settings::Settings,
    stand::{OPEN_PERSONA, Stand},
};

/// A key of a user's own.
const USER_KEY: &str = "sk-canary-of-the-user-93ab07";

/// Everything that goes on in a stand, with every log line there is.
fn talkative(settings: Settings) -> Settings {
    settings.with_variable("RUST_LOG", "trace")
}

/// The provider has seen `key` in the style's own header, and nothing of the gateway's own.
fn saw_only(provider: &Provider, style: Style, key: &str, token: &str) {
    let seen = provider.seen();
    assert!(!seen.is_empty());
    for seen in &seen {
        assert_eq!(seen.keys(), [(header_of(style), key)], "{seen:?}");
        assert!(!seen.mentions(token), "{seen:?}");
        assert_eq!(seen.host(), provider.address.to_string(), "{seen:?}");
        let ours = seen.headers.keys().find(|name| {
            let name = name.as_str();
            name.starts_with("x-openpersona") || name.starts_with("x-open-persona")
        });
        assert_eq!(ours, None, "{seen:?}");
    }
}

/// What a hostile provider says reaches nobody, whoever asks.
async fn keeps_an_echoed_key_to_itself(stand: &Stand, style: Style, token: &str, keys: &[&str]) {
    for (status, stream) in [(400, false), (401, true), (403, false), (422, true)] {
        let text = format!("[[fail {status}]]");
        let told = front_end(stand, "alice").ask(&prompt(&text)).await.body.to_string();
        let call = call(style, "m1", &text, stream);
        let wire = Wire::post(stand.egress, &path_of(style), token, &call);
        let back = wire.send(stand.egress).await;
        assert_eq!(back.status, status, "{back:?}");
        for key in keys {
            assert!(!told.contains(key), "{told}");
            assert!(!back.text.contains(key), "{back:?}");
        }
    }
}

/// What an admin sees.
fn printed(stand: &Stand) -> String {
    let config = ["--config", "conf/gateway.yaml"];
    let print = |command: &str| {
        let output =
            stand.command(OPEN_PERSONA).arg(command).args(config).output().expect("it runs");
        assert!(output.status.success(), "{command}: {output:?}");
        format!("{output:?}")
    };
    print("check") + &print("usage")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admins_key_reaches_the_provider_and_nothing_else_in_every_style() {
    for style in Style::ALL {
        let provider = Provider::start().await;
        provider.accept_only(&[ADMIN_KEY]);
        let stand = Stand::start(talkative(settings(style, &provider)));
        let text = "[[delegate run echo hello from bash]]";
        let answer = front_end(&stand, "alice").ask(&prompt(text)).await;
        assert!(answer.text().contains("hello from bash"), "{style:?}: {answer:?}");

        let token = runner::token(runner::only(&stand));
        saw_only(&provider, style, ADMIN_KEY, &token);
        keeps_an_echoed_key_to_itself(&stand, style, &token, &[ADMIN_KEY]).await;
        assert_eq!(runner::places_of(&stand, ADMIN_KEY), Vec::<String>::new(), "{style:?}");
        assert!(!printed(&stand).contains(ADMIN_KEY), "{style:?}");
        the_search_finds_what_is_there(&stand, &token);
    }
}

/// Without this the search could be blind.
fn the_search_finds_what_is_there(stand: &Stand, token: &str) {
    let places = runner::places_of(stand, token);
    let runner = runner::only(stand);
    assert!(places.contains(&format!("environ of {runner}")), "{places:?}");
    let in_files: Vec<_> = places.iter().filter(|place| place.starts_with('/')).collect();
    assert!(in_files.is_empty(), "the token is in {in_files:?}");
    assert!(places.contains(&format!("memory of {runner}")), "{places:?}");
    let prompts = runner::places_of(stand, "echo hello from bash");
    assert!(prompts.iter().any(|place| place.starts_with('/')), "{prompts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_own_key_comes_before_the_admins_and_is_kept_where_nobody_finds_it() {
    for style in Style::ALL {
        let provider = Provider::start().await;
        provider.accept_only(&[USER_KEY]);
        let stand = Stand::start(talkative(settings(style, &provider)));
        let with_key = front_end(&stand, "alice").with(key_header(style), USER_KEY);
        let text = "[[delegate run echo hello from bash]]";
        let answer = with_key.ask(&prompt(text)).await;
        assert!(answer.text().contains("hello from bash"), "{style:?}: {answer:?}");
        // Whoever has no header later, such as a turn in the background, still has the key.
        let answer = front_end(&stand, "alice").ask(&prompt("[[echo kept]]")).await;
        assert!(answer.text().contains("kept"), "{style:?}: {answer:?}");

        let token = runner::token(runner::only(&stand));
        saw_only(&provider, style, USER_KEY, &token);
        let both = [USER_KEY, ADMIN_KEY];
        keeps_an_echoed_key_to_itself(&stand, style, &token, &both).await;
        for key in both {
            assert_eq!(runner::places_of(&stand, key), Vec::<String>::new(), "{style:?}");
            assert!(!printed(&stand).contains(key), "{style:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_own_key_outlives_the_gateway_and_is_nobody_elses() {
    let (style, provider) = (Style::Chat, Provider::start().await);
    let mut stand = Stand::start(settings(style, &provider));
    let with_key = front_end(&stand, "alice").with(key_header(style), USER_KEY);
    with_key.ask(&prompt("Hello")).await.text();
    assert!(stand.end(rustix::process::Signal::TERM).success());
    stand.start_gateway();
    for (user, key) in [("alice", USER_KEY), ("bob", ADMIN_KEY)] {
        front_end(&stand, user).ask(&prompt("Hello")).await.text();
        assert_eq!(provider.seen().last().unwrap().key(), Some(key), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_front_end_may_send_a_users_key() {
    let (style, provider) = (Style::Responses, Provider::start().await);
    let settings = settings(style, &provider)
        .with_development_identities()
        .with_key("keyed", "a-key-of-ours-for-tests");
    let stand = Stand::start(settings);
    for caller in [stand.caller(), stand.caller().with_key("a-key-of-ours-for-tests")] {
        let answer = caller.with(key_header(style), USER_KEY).ask(&prompt("Hello")).await;
        if answer.status == 200 {
            assert_eq!(provider.seen().last().unwrap().key(), Some(ADMIN_KEY));
        }
    }
    assert!(!provider.seen().iter().any(|seen| seen.mentions(USER_KEY)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_key_the_chat_says_which_is_missing_and_what_to_do() {
    let (style, provider) = (Style::Responses, Provider::start().await);
    let entry = entry(style, &provider.url, "env?:NO_SUCH_VARIABLE", "");
    let stand = Stand::start(settings_with(style, &entry));
    let alice = front_end(&stand, "alice");
    let whole = alice.ask(&prompt("Hello")).await.body.to_string();
    let streamed = format!("{:?}", alice.stream(&prompt("Hello")).await);
    for told in [whole, streamed] {
        assert!(told.contains("No OpenAI key is set"), "{told}");
        assert!(told.contains("Set one in"), "{told}");
    }
    let token = runner::token(runner::only(&stand));
    let call = call(style, "m1", "Hello", true);
    let back = Wire::post(stand.egress, &path_of(style), &token, &call).send(stand.egress).await;
    assert_eq!((back.status, back.refusal()), (401, "no_provider_key"), "{back:?}");
    assert!(provider.seen().is_empty() && provider.connections() == 0);
    assert!(!stand.log().contains(VARIABLE));
}
