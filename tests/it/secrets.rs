//! Secrets that pass through the gateway come out nowhere else, whatever fails: neither in an
//! answer nor in a log line.

use std::sync::{LazyLock, Once};

use log::{Level, LevelFilter, Log, Metadata, Record};
use open_persona::{config::Address, secret::Secret};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    opencode::Script,
    stub::{self, Reply, STREAM, Stub, chunk},
    world::World,
};

const API_KEY: &str = "canary-api-key-5f2c";
const FRONT_END_KEY: &str = "canary-front-end-key-81ab";
const UNKNOWN_KEY: &str = "canary-unknown-key-77d0";
const PASSWORD: &str = "canary-runner-password-c3e9";
const PROVIDER_KEY: &str = "sk-canary-provider-key-0b64";
const TOKEN: &str = "canary.user.token-9d1f";
const PROMPT: &str = "canary-prompt-e44a";

fn identity() -> String {
    let digest = |key: &str| hex::encode(Sha256::digest(key));
    format!(
        "identity:\n  api_keys: [{{ user: alice, key: 'sha256:{}' }}]\n  front_ends:\n  \
         - {{ name: webui, key: 'sha256:{}', user: jwt, jwt: {{ secrets: ['env:JWT_SECRET'] }} }}\n",
        digest(API_KEY),
        digest(FRONT_END_KEY),
    )
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// Asserts that nothing of `secrets` is in what was answered or logged so far.
fn assert_hidden(path: &str, answer: &str) {
    let lines = LINES.lock();
    for secret in ["canary", PASSWORD, API_KEY] {
        assert!(!answer.contains(secret), "{path} answered {answer}");
        let told = lines.iter().find(|line| line.contains(secret));
        assert!(told.is_none(), "{path} logged {told:?}");
    }
    for secret in [API_KEY, FRONT_END_KEY, UNKNOWN_KEY, PASSWORD, PROVIDER_KEY] {
        // As `Authorization: Basic` carries them.
        let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, secret);
        assert!(!answer.contains(&encoded) && !lines.iter().any(|line| line.contains(&encoded)));
    }
}

fn body() -> String {
    json!({"model": "open-persona/build", "stream": true,
           "messages": [{"role": "user", "content": PROMPT}]})
    .to_string()
}

fn request(headers: &str, body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
         Content-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_refused_caller_reads_no_secret_and_leaves_none_in_the_log() {
    listen();
    let world = world().await;
    let key = format!("Authorization: {}\r\n", bearer(API_KEY));
    let front_end = format!("Authorization: {}\r\n", bearer(FRONT_END_KEY));
    let cases = [
        format!("Authorization: {}\r\n", bearer(UNKNOWN_KEY)),
        format!("Authorization: Basic {UNKNOWN_KEY}\r\n"),
        format!("Authorization: {UNKNOWN_KEY}\r\n"),
        format!("Authorization: {}, {}\r\n", bearer(API_KEY), bearer(UNKNOWN_KEY)),
        format!("{key}{key}"),
        format!("{key}X-OpenWebUI-User-Jwt: {TOKEN}\r\nX-OpenWebUI-User-Jwt: {TOKEN}\r\n"),
        format!("{front_end}X-OpenWebUI-User-Jwt: {TOKEN}\r\n"),
        format!("{front_end}X-OpenWebUI-User-Jwt: {}\r\n", TOKEN.repeat(1000)),
        format!("{front_end}X-OpenWebUI-User-Id: {TOKEN}\r\n"),
        front_end.clone(),
        format!("{key}broken line\r\n"),
        format!("{key}Bad Name: {TOKEN}\r\n"),
        format!("{key}X: \0{TOKEN}\r\n"),
        format!("{key}Content-Length: 1\r\n"),
        format!("{key}Expect: {TOKEN}\r\n"),
        format!("{key}Content-Encoding: {TOKEN}\r\n"),
        format!("{key}Connection: :{TOKEN}\r\n"),
        format!("{key}X: {}\r\n", TOKEN.repeat(10_000)),
        format!("{key}Transfer-Encoding: {TOKEN}\r\n"),
    ];
    for headers in &cases {
        let all = world.raw_to_end(request(headers, &body()).as_bytes()).await;
        assert!(all.starts_with("HTTP/1.1 4"), "{headers:.80?}: {all}");
        assert_hidden(headers, &all);
    }
    for bad in [
        format!("{{\"{PROMPT}\""),
        format!("{{\"model\":\"open-persona/build\",\"messages\":\"{PROMPT}\"}}"),
        format!("{{\"model\":\"{PROMPT}\",\"messages\":[]}}"),
        format!("{{\"model\":\"open-persona/build\",\"messages\":[{{\"role\":\"{PROMPT}\"}}]}}"),
    ] {
        let all = world.raw_to_end(request(&key, &bad).as_bytes()).await;
        assert!(all.starts_with("HTTP/1.1 4"), "{bad}: {all}");
        // What a caller sent as a model's name may be said back to that caller.
        assert_hidden(&bad, &all.replace(PROMPT, ""));
    }
    let query = request(&key, &body()).replace(" HTTP", &format!("x?key={API_KEY} HTTP"));
    assert_hidden("a query", &world.raw_to_end(query.as_bytes()).await);
}

#[tokio::test]
async fn a_failing_openai_runner_gives_no_secret_away() {
    listen();
    let key = format!("Authorization: {}\r\n", bearer(API_KEY));
    let replies = [
        format!("HTTP/1.1 302 Found\r\nLocation: http://x/{PASSWORD}\r\nContent-Length: 0\r\n\r\n"),
        format!(
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {PASSWORD}\r\nContent-Length: 0\r\n\r\n"
        ),
        format!("HTTP/1.1 200 OK\r\nX-Echo: {PASSWORD}\r\nContent-Encoding: gzip\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nBad {PASSWORD}: x\r\n\r\n"),
        format!("{PASSWORD}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {PASSWORD}\r\n\r\n"),
        format!("{STREAM}{PASSWORD}\r\n"),
        format!("{STREAM}ffffffffffffffffff\r\n{PASSWORD}"),
        String::new(),
    ];
    for reply in replies {
        let (world, stub) = stub::world_with(&identity(), configure).await;
        world.launcher.aim(stub.address.clone(), Some(PASSWORD));
        stub.reply(Reply::of(reply.clone()).then_hang_up());
        let all = world.raw_to_end(request(&key, &body()).as_bytes()).await;
        assert!(all.starts_with("HTTP/1.1 "), "{reply:?}: {all}");
        assert_hidden(&reply, &all);
    }
    let (world, _stub) = stub::world_with(&identity(), configure).await;
    world.launcher.aim(Address::Tcp("127.0.0.1:1".to_owned()), Some(PASSWORD));
    let all = world.raw_to_end(request(&key, &body()).as_bytes()).await;
    assert!(all.starts_with("HTTP/1.1 502 "), "{all}");
    assert_hidden("nobody there", &all);
}

#[tokio::test]
async fn a_failing_opencode_gives_no_secret_away() {
    listen();
    let key = format!("Authorization: {}\r\n", bearer(API_KEY));
    let echo = format!(
        "{{\"name\":\"ConfigInvalidError\",\"config\":\"{PASSWORD}\",\"data\":{{\"message\":\"{PROVIDER_KEY}\"}}}}"
    );
    for reply in [
        format!("HTTP/1.1 500 Oops\r\nContent-Length: {}\r\n\r\n{echo}", echo.len()),
        format!("HTTP/1.1 401 {PASSWORD}\r\nContent-Length: {}\r\n\r\n{echo}", echo.len()),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{echo}", echo.len()),
        format!("{PASSWORD} {PROVIDER_KEY}\r\n\r\n"),
        String::from_utf8([STREAM.as_bytes(), &chunk(PASSWORD.as_bytes())].concat()).unwrap(),
    ] {
        let world = world().await;
        let stub = Stub::tcp().await;
        world.launcher.aim(stub.address.clone(), Some(PASSWORD));
        stub.reply(Reply::of(reply.clone()).then_hang_up());
        let all = world.raw_to_end(request(&key, &body()).as_bytes()).await;
        assert!(all.starts_with("HTTP/1.1 5"), "{reply}: {all}");
        assert_hidden(&reply, &all);
    }
}

#[tokio::test]
async fn a_provider_that_echoes_its_key_is_not_quoted() {
    listen();
    let key = format!("Authorization: {}\r\n", bearer(API_KEY));
    let message =
        format!("Incorrect API key provided: {PROVIDER_KEY}. Authorization: Bearer {PROVIDER_KEY}");
    for (name, status) in [
        ("APIError", 401),
        ("APIError", 400),
        ("APIError", 429),
        ("APIError", 500),
        ("UnknownError", 0),
        ("ProviderAuthError", 0),
    ] {
        let world = world().await;
        world.opencode.script(Script::Silence);
        let mut connection = world.connect();
        connection.send(request(&key, &body()).as_bytes()).await;
        world.opencode.wait_for_call("/prompt_async").await;
        let error = json!({"name": name, "data": {"message": message, "statusCode": status,
            "isRetryable": false, "responseBody": message, "responseHeaders": {"x": PROVIDER_KEY}}});
        for event in [
            json!({"type": "session.status", "properties": {"sessionID": "ses_stub1",
                "status": {"type": "busy"}}}),
            json!({"type": "session.error", "properties": {"sessionID": "ses_stub1", "error": error}}),
            json!({"type": "session.status", "properties": {"sessionID": "ses_stub1",
                "status": {"type": "idle"}}}),
            json!({"type": "session.idle", "properties": {"sessionID": "ses_stub1"}}),
        ] {
            world.opencode.say(&event);
        }
        let all = connection.rest().await;
        assert!(all.starts_with("HTTP/1.1 "), "{name} {status}: {all}");
        assert!(all.contains("\"error\""), "{name} {status}: {all}");
        assert_hidden(&format!("{name} {status}"), &all);
    }
}

async fn world() -> World {
    World::with(&identity(), configure).await
}

fn configure(config: &mut open_persona::config::Config) {
    config.providers.get_mut("mock").unwrap().key = Some(Secret::new(PROVIDER_KEY));
}

static LINES: LazyLock<Mutex<Vec<String>>> = LazyLock::new(Mutex::default);
static LISTENING: Once = Once::new();

/// Keeps every line that the program could be made to log, ours at any level.
pub(crate) fn listen() {
    LISTENING.call_once(|| {
        log::set_logger(&Lines).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
}

/// Whether a line was kept that has all of `parts` in it.
pub(crate) fn was_logged(parts: &[&str]) -> bool {
    LINES.lock().iter().any(|line| parts.iter().all(|part| line.contains(part)))
}

struct Lines;

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // As the program does: libraries that see requests say no more than warnings.
        metadata.target().starts_with("open_persona") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            LINES.lock().push(format!("{} {}", record.target(), record.args()));
        }
    }

    fn flush(&self) {}
}
