//! Providers behind TLS, and connections that are used again.

use std::{fs, pin::pin, time::Duration};

use futures_util::future::{Either, select};
use http::Version;
use tokio::time::sleep;

use super::{
    ADMIN_KEY, VARIABLE, call, entry, front_end, path_of, runner, settings, settings_with,
    wire::{Back, Wire},
};
use crate::{
    client::prompt,
    provider::{Authority, Provider, Style},
    stand::Stand,
};

const CALLS: usize = 10;

/// As many calls, one after the other.
async fn calls(stand: &Stand, style: Style) {
    let token = runner::token(runner::only(stand));
    for _ in 0..CALLS {
        let ask = call(style, "m1", "Hello", true);
        let back = Wire::post(stand.egress, &path_of(style), &token, &ask).send(stand.egress).await;
        assert_eq!(back.status, 200, "{back:?}");
    }
}

/// A gateway whose provider is behind TLS, with `tls` as its settings for that.
fn behind_tls(style: Style, provider: &Provider, tls: &str) -> Stand {
    let key = format!("env:{VARIABLE}");
    let entry = entry(style, &provider.url, &key, &format!(", tls: {{ {tls} }}"));
    Stand::start(settings_with(style, &entry))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_with_an_authority_of_its_own_is_reached_by_http_2_on_few_connections() {
    for style in Style::ALL {
        let (authority, place) = (Authority::new(), tempfile::tempdir().unwrap());
        let provider = Provider::start_tls(&authority).await;
        let ca = place.path().join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let stand =
            behind_tls(style, &provider, &format!("verify: true, ca: \"{}\"", ca.display()));
        let answer = front_end(&stand, "alice").ask(&prompt("[[run echo by tls]]")).await;
        assert!(answer.text().contains("by tls"), "{style:?}: {answer:?}");
        calls(&stand, style).await;
        for seen in provider.seen() {
            assert_eq!((seen.version, seen.key()), (Version::HTTP_2, Some(ADMIN_KEY)));
        }
        assert!(provider.connections() <= 3, "{style:?}: {} connections", provider.connections());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_speaks_http_1_alone_is_reached_with_and_without_tls() {
    let style = Style::Chat;
    let (authority, place) = (Authority::without_http2(), tempfile::tempdir().unwrap());
    let ca = place.path().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let secured = Provider::start_tls(&authority).await;
    let plain = Provider::start().await;
    let tls = format!("verify: true, ca: \"{}\"", ca.display());
    for (provider, stand) in [
        (&secured, behind_tls(style, &secured, &tls)),
        (&plain, Stand::start(settings(style, &plain))),
    ] {
        front_end(&stand, "alice").ask(&prompt("Hello")).await.text();
        calls(&stand, style).await;
        assert!(provider.seen().iter().all(|seen| seen.version == Version::HTTP_11));
        assert!(provider.connections() <= 3, "{} connections", provider.connections());
    }
}

/// What a runner that has just started hears when it is known to the egress.
async fn first_answer(stand: &Stand, style: Style) -> Back {
    loop {
        if let Some((pid, _)) = stand.runners().first() {
            let ask = call(style, "m1", "Hello", true);
            let wire = Wire::post(stand.egress, &path_of(style), &runner::token(*pid), &ask);
            let back = wire.send(stand.egress).await;
            if back.status != 403 {
                return back;
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_authority_is_unknown_gets_no_key() {
    let (style, authority) = (Style::Chat, Authority::new());
    let place = tempfile::tempdir().unwrap();
    let other = place.path().join("other.pem");
    fs::write(&other, Authority::new().pem()).unwrap();
    let provider = Provider::start_tls(&authority).await;
    for tls in ["verify: true".to_owned(), format!("ca: \"{}\"", other.display())] {
        let stand = behind_tls(style, &provider, &tls);
        let (alice, ask) = (front_end(&stand, "alice"), prompt("Hello"));
        // opencode would try again for a minute.
        let chat = pin!(async {
            alice.stream(&ask).await;
            std::future::pending::<()>().await;
        });
        let back = match select(chat, pin!(first_answer(&stand, style))).await {
            Either::Left(_) => unreachable!("it is pending"),
            Either::Right((back, _)) => back,
        };
        assert_eq!((back.status, back.refusal()), (502, "provider_unreachable"), "{tls}: {back:?}");
    }
    assert!(provider.seen().is_empty(), "{:?}", provider.seen());
    let stand = behind_tls(style, &provider, "verify: false");
    front_end(&stand, "alice").ask(&prompt("Hello")).await.text();
}
