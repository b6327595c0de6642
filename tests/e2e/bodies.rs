//! Bodies from small to large, for every way of saying who the user is, in both dialects.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::{
    client::Caller,
    settings::{FRONT_END_KEY, JWT_FRONT_END_KEY, JWT_SECRET, Settings},
    stand::Stand,
};

const KIB: usize = 1024;
const SIZES: [usize; 4] = [KIB, 100 * KIB, 1024 * KIB, 20 * 1024 * KIB];
/// As far as a body's `user` can be seen in the openai dialect: Pingora's retry buffer.
const PEEK: usize = 64 * KIB;

/// A way of saying who the user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    ApiKey,
    Body,
    Anonymous,
    Header,
    Jwt,
}

const WAYS: [By; 5] = [By::ApiKey, By::Body, By::Anonymous, By::Header, By::Jwt];

impl By {
    fn caller(self, stand: &Stand) -> Caller {
        let caller = stand.caller();
        match self {
            Self::ApiKey => caller.with_key("keyed-user-key"),
            Self::Body | Self::Anonymous => caller,
            Self::Header => {
                caller.with_key(FRONT_END_KEY).with("x-openwebui-user-id", "header-user")
            }
            Self::Jwt => {
                caller.with_key(JWT_FRONT_END_KEY).with("x-openwebui-user-jwt", signed("jwt-user"))
            }
        }
    }
}

fn settings() -> Settings {
    Settings::strict().with_development_identities().with_key("keyed-user", "keyed-user-key")
}

/// What Open WebUI sends: HS256, its own issuer, five minutes.
fn signed(user: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({"sub": user, "iss": "open-webui", "iat": now, "exp": now + 300,
        "email": "user@example.test", "name": "User", "role": "user"});
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token")
}

/// A request of about `size` bytes. The bulk is in an earlier message, where files and long
/// pastes are.
fn bulky(size: usize, by: By, nonce: &str) -> Value {
    let mut ask = json!({
        "model": "open-persona/build",
        "messages": [
            {"role": "user", "content": "lorem ipsum ".repeat(size / "lorem ipsum ".len())},
            {"role": "assistant", "content": "Read."},
            {"role": "user", "content": format!("echo {nonce}")},
        ],
    });
    if by == By::Body {
        ask["user"] = json!("body-user");
    }
    ask
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_and_identity_reach_opencode() {
    let stand = Stand::start(settings());
    for by in WAYS {
        for size in SIZES {
            let nonce = format!("{by:?}-{size}");
            let answer = by.caller(&stand).stream(&bulky(size, by, &nonce)).await;
            assert!(answer.whole().contains(&nonce), "{nonce}: {answer:?}");
        }
    }
    assert_eq!(stand.runners().len(), WAYS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_and_identity_reach_runners_that_speak_openai() {
    let stand = Stand::start(settings().with_openai_runners());
    for by in WAYS {
        for size in SIZES {
            let nonce = format!("{by:?}-{size}");
            let ask = bulky(size, by, &nonce);
            // Whose body it is cannot be seen beyond the buffer, whether it then names a user or
            // nobody; any other identity came with the head.
            if size > PEEK && matches!(by, By::Body | By::Anonymous) {
                let refused = by.caller(&stand).ask(&ask).await;
                assert_eq!(refused.status, 413, "{nonce}: {refused:?}");
                let message = refused.body["error"]["message"].as_str().unwrap_or_default();
                assert!(message.contains("64"), "the reason is missing: {message}");
                continue;
            }
            let streamed = by.caller(&stand).stream(&ask).await;
            assert!(streamed.whole().contains(&nonce), "{nonce}: {streamed:?}");
            let whole = by.caller(&stand).ask(&ask).await;
            assert!(whole.text().contains(&nonce), "{nonce}: {whole:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_413_and_starts_nothing() {
    let stand = Stand::start(settings());
    let refused = By::ApiKey.caller(&stand).ask(&bulky(33 * 1024 * KIB, By::ApiKey, "x")).await;
    assert_eq!(refused.status, 413, "{refused:?}");
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("32"), "{refused:?}");
    assert_eq!(stand.runners(), []);
}
