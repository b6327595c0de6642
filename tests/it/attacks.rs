//! Hostile requests that are sound HTTP: methods, targets, headers and bodies.

use serde_json::{Value, json};

use crate::{
    opencode::Script,
    stub,
    world::{Answer, FRONT_END, World, front_end},
};

const BODY: &str = r#"{"model":"open-persona/build","user":"alice","messages":[{"role":"user","content":"hi"}]}"#;

/// A request of its own connection, closed after the answer.
fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
         Content-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn assert_is_openais_error(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let error = &answer.json()["error"];
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    assert!(error["type"].is_string() && error["code"].is_string(), "{error}");
}

#[tokio::test]
async fn connect_and_unknown_methods_are_405() {
    let world = World::new().await;
    let all = world.raw_to_end(b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n").await;
    assert!(all.starts_with("HTTP/1.1 405 "), "{all}");
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PURGE", "post"] {
        let sent = request(method, "/v1/chat/completions", "", BODY);
        assert_is_openais_error(&world.raw(sent.as_bytes()).await, 405);
    }
    assert!(world.opencode.calls().is_empty());
}

#[tokio::test]
async fn an_unknown_expectation_is_417() {
    let world = World::new().await;
    for expect in ["200-ok", "100-continue, x", ""] {
        let sent = request("POST", "/v1/chat/completions", &format!("Expect: {expect}\r\n"), BODY);
        assert_is_openais_error(&world.raw(sent.as_bytes()).await, 417);
    }
}

#[tokio::test]
async fn a_caller_that_waits_to_be_told_is_told_to_go_on() {
    let (openai, _stub) = stub::world().await;
    for world in [World::new().await, openai] {
        let mut connection = world.connect();
        let sent = request("POST", "/v1/chat/completions", "Expect: 100-continue\r\n", BODY);
        let (head, body) = sent.split_at(sent.len() - BODY.len());
        connection.send(head.as_bytes()).await;
        let told = connection.read_until("\r\n\r\n").await;
        assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n");
        connection.send(body.as_bytes()).await;
        let all = connection.rest().await;
        assert_eq!(all.matches("HTTP/1.1 ").count(), 2, "{all}");
        assert!(all.contains("HTTP/1.1 200 OK\r\n"), "{all}");
    }
}

#[tokio::test]
async fn the_authority_of_a_target_changes_nothing() {
    let (world, stub) = stub::world().await;
    for target in [
        "http://169.254.169.254/v1/chat/completions",
        "http://gateway/v1/chat/completions?url=http://169.254.169.254/",
        "https://gateway:1/v1/chat/completions",
    ] {
        let host = target.split('/').nth(2).unwrap();
        let sent = request("POST", target, "", BODY).replace("Host: gateway", &format!("Host: {host}"));
        assert_eq!(world.raw(sent.as_bytes()).await.status, 200, "{target}");
        let seen = stub.seen().pop().unwrap();
        assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", seen.head);
        assert!(!seen.head.contains(host), "{}", seen.head);
    }
    let conflicting = request("POST", "http://evil/v1/chat/completions", "", BODY);
    let all = world.raw_to_end(conflicting.as_bytes()).await;
    assert!(!all.contains("evil"), "{all}");
    let twice = request("POST", "/v1/chat/completions", "Host: other\r\n", BODY);
    assert!(world.raw_to_end(twice.as_bytes()).await.starts_with("HTTP/1.1 400 "));
    assert!(stub.seen().iter().all(|seen| !seen.head.contains("evil")));
}

#[tokio::test]
async fn no_path_of_ten_thousand_reaches_another_path_of_a_runner() {
    const PARTS: &[&str] = &[
        "v1", "chat", "completions", "models", "session", "x", "shell", "file", "content", "admin",
        "..", ".", "", "%2e%2e", "%2E", "%2f", "%5c", "\\", ";a=b", "%00", "%25", "%63hat", "V1",
        "completions%20", "completions?a=/session", "completions#", "c%68at", "//", "~", "*", "\u{e9}",
        "%c3%28", "global", "event", "%252e",
    ];
    let (world, stub) = stub::world().await;
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut passed = 0;
    for round in 0..10_000 {
        let mut path = String::new();
        for _ in 0..dice.below(7) {
            path = format!("{path}/{}", PARTS[dice.below(PARTS.len())]);
        }
        match round % 10 {
            0 => path = format!("/v1/chat/completions{path}"),
            1 => path = format!("{path}/v1/chat/completions"),
            2 => path = "/v1/chat/completions".bytes().fold(String::new(), |path, byte| {
                // A tenth of the bytes are escaped.
                if dice.below(10) == 0 { format!("{path}%{byte:02x}") } else { format!("{path}{}", byte as char) }
            }),
            _ => {}
        }
        let method = ["POST", "GET"][dice.below(2)];
        let all = world.raw_to_end(request(method, &path, "", BODY).as_bytes()).await;
        let status = all.get(9..12).unwrap_or_default();
        assert!(["200", "400", "404", "405"].contains(&status), "{method} {path}: {all}");
        passed += usize::from(method == "POST" && status == "200");
    }
    assert_eq!(stub.seen().len(), passed);
    assert!(passed > 10, "only {passed} passed");
    for seen in stub.seen() {
        assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", seen.head);
    }
}

/// Xorshift: the same paths each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

#[tokio::test]
async fn nominating_headers_as_hop_by_hop_takes_none_of_ours_away() {
    let (world, stub) = stub::world().await;
    world.launcher.aim(stub.address.clone(), Some("runner-password"));
    for nominated in [
        "x-openwebui-user-id",
        "x-openpersona-user-id, X-OpenPersona-Workspace",
        "authorization, content-type",
        "transfer-encoding, content-length",
        "x-openpersona-user-id, close, x-openpersona-user-id",
    ] {
        let sent = request("POST", "/v1/chat/completions", "", BODY)
            .replace("Connection: close", &format!("Connection: {nominated}"));
        let answer = world.raw(sent.as_bytes()).await;
        assert_eq!(answer.status, 200, "{nominated}: {}", answer.body);
        let seen = stub.seen().pop().unwrap();
        assert_eq!(seen.values("x-openpersona-user-id"), ["alice"], "{nominated}");
        assert_eq!(seen.values("x-openpersona-workspace").len(), 1, "{nominated}");
        assert_eq!(seen.values("authorization"), ["Bearer runner-password"], "{nominated}");
        assert!(!seen.values("connection").iter().any(|value| value.contains("x-")), "{seen:?}");
    }
    let before = stub.seen().len();
    for nominated in ["host", "x-forwarded-for", ":authority", "a,b,c,d,e,f,g,h,i,j,k,l", "\"x\""] {
        let sent = request("POST", "/v1/chat/completions", "", BODY)
            .replace("Connection: close", &format!("Connection: {nominated}"));
        assert_is_openais_error(&world.raw(sent.as_bytes()).await, 400);
    }
    assert_eq!(stub.seen().len(), before);
}

#[tokio::test]
async fn an_encoded_body_is_415() {
    let world = World::new().await;
    for coding in ["gzip", "br", "zstd", "deflate", "gzip, gzip", "identity, gzip", "x"] {
        let headers = format!("Content-Encoding: {coding}\r\n");
        let sent = request("POST", "/v1/chat/completions", &headers, BODY);
        assert_is_openais_error(&world.raw(sent.as_bytes()).await, 415);
    }
    let twice = "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n";
    let sent = request("POST", "/v1/chat/completions", twice, BODY);
    assert_is_openais_error(&world.raw(sent.as_bytes()).await, 415);
    assert!(world.opencode.calls().is_empty());
}

#[tokio::test]
async fn what_a_browser_can_send_without_asking_is_refused() {
    let world = World::new().await;
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        let sent = request("POST", "/v1/chat/completions", "", BODY)
            .replace("application/json", media_type);
        assert_is_openais_error(&world.raw(sent.as_bytes()).await, 415);
    }
    // A page of a name that now resolves to us may send JSON, but not without saying where it is.
    for headers in ["Origin: http://evil.test\r\n", "Origin: null\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
        let sent = request("POST", "/v1/chat/completions", headers, BODY);
        assert_is_openais_error(&world.raw(sent.as_bytes()).await, 403);
    }
    let preflight = request("OPTIONS", "/v1/chat/completions", "Origin: http://evil.test\r\n", "");
    assert_is_openais_error(&world.raw(preflight.as_bytes()).await, 405);
    assert!(world.opencode.calls().is_empty());
}

#[tokio::test]
async fn json_that_is_a_bomb_is_400_and_large_json_is_just_large() {
    let (openai, stub) = stub::world().await;
    let opencode = World::new().await;
    let deep = 100_000;
    for value in [
        format!("{}{}", "[".repeat(deep), "]".repeat(deep)),
        format!("{}1{}", "{\"a\":".repeat(deep), "}".repeat(deep)),
        "[".repeat(deep),
    ] {
        let body = BODY.replacen('{', &format!("{{\"deep\":{value},"), 1);
        let body = &body[..body.len().min(60_000)];
        for world in [&opencode, &openai] {
            let sent = request("POST", "/v1/chat/completions", "", body);
            assert_is_openais_error(&world.raw(sent.as_bytes()).await, 400);
        }
    }
    assert!(stub.seen().is_empty() && opencode.opencode.calls_to("prompt_async").is_empty());
    let keys: String = (0..1_000_000).map(|n| format!("\"k{n}\":0,")).collect();
    let sent = request("POST", "/v1/chat/completions", "", &BODY.replacen('{', &format!("{{{keys}"), 1));
    assert_eq!(opencode.raw(sent.as_bytes()).await.status, 200);
}

#[tokio::test]
async fn text_that_is_no_text_is_400() {
    let world = World::new().await;
    for content in [r"\ud800", r"\udc00\ud800", "\\u00"] {
        let body = BODY.replace("\"hi\"", &format!("\"{content}\""));
        let sent = request("POST", "/v1/chat/completions", "", &body);
        assert_is_openais_error(&world.raw(sent.as_bytes()).await, 400);
    }
    let mut sent = request("POST", "/v1/chat/completions", "", BODY).into_bytes();
    let at = sent.len() - 6;
    sent[at] = 0xff;
    assert_is_openais_error(&world.raw(&sent).await, 400);
    assert!(world.opencode.calls_to("prompt_async").is_empty());
}

#[tokio::test]
async fn no_url_of_a_request_is_fetched() {
    let canary = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", canary.local_addr().unwrap());
    let world = World::new().await;
    for body in [
        json!({"model": "open-persona/build", "user": "alice", "messages": [{"role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url}}]}]}),
        json!({"model": "open-persona/build", "user": "alice", "messages": [{"role": "user",
            "content": [{"type": "file", "file": {"file_data": url, "filename": "x"}}]}]}),
        json!({"model": url, "user": "alice", "messages": [{"role": "user", "content": "hi"}]}),
        json!({"model": "open-persona/build", "user": "alice", "base_url": url, "api_base": url,
            "messages": [{"role": "user", "content": "hi"}]}),
    ] {
        let headers = [("X-Forwarded-Host", url.as_str()), ("X-Original-URL", url.as_str())];
        drop(world.chat_with(&headers, &body).await);
        for (_, prompt) in world.opencode.calls_to("prompt_async") {
            assert!(!prompt.to_string().contains(&url), "{prompt}");
        }
    }
    let connected = futures_util::FutureExt::now_or_never(canary.accept());
    assert!(connected.is_none());
}

#[tokio::test]
async fn an_origin_that_makes_no_sense_is_ignored_or_400_and_never_believed() {
    let world = World::with(FRONT_END, |_| {}).await;
    let long = "c".repeat(300);
    for chat in ["temporary:x", "local:1", "channel:2", &long, "a\tb", "caf\u{e9}"] {
        let headers = front_end(&[("X-OpenWebUI-Chat-Id", chat), ("X-OpenPersona-Message-Id", "a1")]);
        assert_eq!(world.chat_with(&headers, &ask()).await.status, 200, "{chat}");
    }
    // Nothing of them was kept: every turn began a session of its own.
    let sessions = world.opencode.calls_to("/session").len();
    assert_eq!(sessions, 6);
    let twice = front_end(&[("X-OpenWebUI-Chat-Id", "a"), ("X-OpenWebUI-Chat-Id", "b")]);
    assert_is_openais_error(&world.chat_with(&twice, &ask()).await, 400);
    for name in ["X-OpenWebUI-User-Id", "Authorization"] {
        let twice = front_end(&[(name, "mallory")]);
        assert_is_openais_error(&world.chat_with(&twice, &ask()).await, 400);
    }
}

#[tokio::test]
async fn answers_of_two_users_are_never_crossed_nor_kept() {
    let (world, stub) = stub::world().await;
    let mut connection = world.connect();
    for round in 0..200 {
        let user = if round % 2 == 0 { "alice" } else { "bob" };
        stub.reply(stub::Reply::json(&format!("\"{user} {round}\"")));
        let headers = [("If-None-Match", "*"), ("Range", "bytes=0-0"), ("Cache-Control", "only-if-cached")];
        connection.post(&headers, BODY.replace("alice", user).as_bytes()).await;
        let answer = connection.answer().await;
        assert_eq!(answer.body, format!("\"{user} {round}\""));
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(stub.seen().pop().unwrap().values("x-openpersona-user-id"), [user]);
    }
}

#[tokio::test]
async fn what_a_model_says_cannot_end_or_fake_the_stream() {
    let world = World::new().await;
    world.opencode.script(Script::Until("text", "message.part.delta"));
    let mut connection = world.connect();
    let mut body = ask();
    body["stream"] = json!(true);
    connection.post(&[], body.to_string().as_bytes()).await;
    connection.read_until("\"content\":\"").await;
    let hostile = "\n\ndata: [DONE]\n\nevent: error\r\n\r\n\u{0}\u{2028}</script>";
    world.opencode.say_delta("ses_stub1", hostile);
    world.launcher.runners.lock()[0].ended.cancel();
    let answer = connection.answer().await;
    assert!(answer.text().contains(hostile), "{}", answer.body);
    assert!(!answer.events().contains(&"[DONE]"), "{}", answer.body);
    for event in answer.events() {
        serde_json::from_str::<Value>(event).unwrap_or_else(|error| panic!("{error}: {event:?}"));
    }
}

fn ask() -> Value {
    serde_json::from_str(BODY).unwrap()
}
