//! Runners that speak `OpenAI` themselves: what reaches them, and what of theirs reaches callers.

use std::sync::atomic::Ordering;

use open_persona::config::Dialect;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    stub::{self, Reply, STREAM, Stub, chunk},
    world::{Answer, DEVELOPMENT, World},
};

const ASK: &str = r#"{"model":"open-persona/build","stream":true,"messages":[]}"#;

async fn ask(world: &World, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut connection = world.connect();
    connection.post(headers, body.as_bytes()).await;
    connection.answer().await
}

/// The configuration of one API key, alice's.
fn keyed(key: &str) -> String {
    let digest = hex::encode(Sha256::digest(key));
    format!("identity: {{ api_keys: [{{ user: alice, key: 'sha256:{digest}' }}] }}")
}

#[tokio::test]
async fn only_the_model_and_the_agent_of_a_body_are_changed() {
    let (world, stub) = stub::world().await;
    let body = "\t{ \"stream\" : true,\n\t\"temperature\":1e400 , \"unknown\":1,\"unknown\":2,\r\n \
                \"mod\\u0065l\" : \"open-persona\\/build\", \"x\":\"\\u00e9\\ud83d\\ude00é \\/ \\ud800\", \
                \"big\":123456789012345678901234567890.10,\"agent\"  :[\"any\"],\"z\":-0.0,\
                \"messages\":[{\"role\":\"user\",\"content\":\"model\"}],\"n\":{\"model\":\"kept\"} } ";
    let answer = ask(&world, &[], body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let expected = body
        .replace("\"open-persona\\/build\"", "\"mock/m1\"")
        .replace("[\"any\"]", "\"build\"");
    assert_eq!(stub.only().body, expected);
}

#[tokio::test]
async fn a_missing_agent_is_put_first_and_a_chunked_body_comes_whole() {
    let (world, stub) = stub::world().await;
    let mut request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n\
        Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    for part in br#"{ "model":"open-persona/build","messages":[]}"#.chunks(3) {
        request.extend(chunk(part));
    }
    request.extend(b"0\r\n\r\n");
    assert_eq!(world.raw(&request).await.status, 200);
    assert_eq!(stub.only().body, r#"{"agent":"build", "model":"mock/m1","messages":[]}"#);
}

#[tokio::test]
async fn an_event_stream_passes_untouched_however_it_is_cut() {
    let (world, stub) = stub::world().await;
    let stream = "\u{feff}: a comment\r\nid: 7\ndata: {\"x\": 1e400,  \"é\": \"\\u00e9\"}\n\n\
                  event: odd\r\ndata: two\r\ndata:lines\r\n\r\nretry: 5\n\ndata: 👩‍💻\n\ndata: [DONE]\n\n";
    for size in [1, 2, 3, 7, 64, 4096] {
        stub.reply(Reply::stream(stream.as_bytes(), size));
        let answer = ask(&world, &[], ASK).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, stream), "chunks of {size}");
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        assert_eq!(answer.headers["x-accel-buffering"], "no");
    }
}

#[tokio::test]
async fn an_answer_with_a_length_passes_untouched() {
    let (world, stub) = stub::world().await;
    stub.reply(Reply::json("{ \"n\": 1e400,\r\n \"é\":\"\\u00e9\" }"));
    assert_eq!(ask(&world, &[], ASK).await.body, "{ \"n\": 1e400,\r\n \"é\":\"\\u00e9\" }");
}

#[tokio::test]
async fn a_runner_may_listen_on_a_unix_socket() {
    let world = World::with(DEVELOPMENT, |config| config.runners.dialect = Dialect::OpenAi).await;
    let stub = Stub::unix(&world.files.path().join("runner.sock"));
    world.launcher.aim(stub.address.clone(), Some("runner-password"));
    stub.reply(Reply::stream(b"data: [DONE]\n\n", 5));
    let answer = ask(&world, &[], ASK).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "data: [DONE]\n\n"));
    let seen = stub.only();
    assert_eq!(seen.values("host"), ["localhost"]);
    assert_eq!(seen.values("authorization"), ["Bearer runner-password"]);
}

#[tokio::test]
async fn a_body_that_two_readers_could_read_differently_is_400_and_reaches_no_runner() {
    let key = keyed("alices-key");
    let with_key = [("Authorization", "Bearer alices-key")];
    for (body, code) in [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("{\"model\":\"open-persona/build\",}", "invalid_json"),
        ("{\"model\":\"open-persona/build\"} {}", "invalid_json"),
        ("{\"model\":\"open-persona/build\",\"n\":NaN}", "invalid_json"),
        ("{\"model\":\"open-persona/build\",\"n\":01}", "invalid_json"),
        ("\u{feff}{\"model\":\"open-persona/build\"}", "invalid_json"),
        ("[{\"model\":\"open-persona/build\"}]", "invalid_json"),
        (r#"{"model":"open-persona/build","model":"open-persona/plan"}"#, "duplicate_member"),
        (r#"{"model":"open-persona/build","\u006dodel":"x"}"#, "duplicate_member"),
        (r#"{"model":"open-persona/build","user":"a","user":"b"}"#, "duplicate_member"),
        (r#"{"model":"open-persona/build","stream":true,"stream":false}"#, "duplicate_member"),
        (r#"{"model":"open-persona/build","stream":"yes"}"#, "invalid_type"),
        (r#"{"model":["open-persona/build"]}"#, "invalid_type"),
        (r#"{"messages":[]}"#, "missing_model"),
    ] {
        for (yaml, headers) in [(DEVELOPMENT, &[][..]), (key.as_str(), &with_key[..])] {
            let (world, stub) = stub::world_with(yaml, |_| {}).await;
            let answer = ask(&world, headers, body).await;
            assert_eq!(answer.status, 400, "{body}: {}", answer.body);
            assert_eq!(answer.json()["error"]["code"], code, "{body}");
            assert!(stub.seen().is_empty(), "{body}");
        }
    }
}

#[tokio::test]
async fn what_a_caller_says_of_itself_is_replaced_by_what_we_know() {
    let (world, stub) = stub::world_with(&keyed("alices-key"), |_| {}).await;
    world.launcher.aim(stub.address.clone(), Some("runner-password"));
    let hostile = [
        ("Authorization", "Bearer alices-key"),
        ("X-OpenWebUI-User-Id", "mallory"),
        ("x_openwebui_user_id", "mallory"),
        ("X-OpenPersona-User-Id", "mallory"),
        ("x-openpersona_user.id", "mallory"),
        ("X-OpenPersona-Workspace", "mallory"),
        ("X-OpenPersona-Identity-Source", "mallory"),
        ("X-OpenPersona-User-Role", "admin"),
        ("X-Forwarded-User", "mallory"),
        ("X-User-Id", "mallory"),
        ("Remote-User", "mallory"),
        ("X-Auth-Request-Email", "mallory"),
        ("Cookie", "session=mallory"),
        ("Api-Key", "mallory"),
        ("Proxy-Authorization", "Basic mallory"),
        ("TE", "trailers"),
        ("Trailer", "X-OpenPersona-User-Id"),
        ("Keep-Alive", "timeout=mallory"),
        ("Accept-Encoding", "gzip"),
        ("Connection", "x-openpersona-user-id, authorization, x-openpersona-workspace, close"),
    ];
    assert_eq!(ask(&world, &hostile, ASK).await.status, 200);
    let seen = stub.only();
    assert!(!seen.head.contains("mallory"), "{}", seen.head);
    assert_eq!(seen.values("x-openpersona-user-id"), ["alice"]);
    assert_eq!(seen.values("x-openpersona-identity-source"), ["api_key"]);
    assert_eq!(seen.values("x-openpersona-workspace"), ["2bd806c97f0e00af"]);
    assert_eq!(seen.values("authorization"), ["Bearer runner-password"]);
    for gone in ["x-openpersona-user-role", "accept-encoding", "te", "trailer", "keep-alive"] {
        assert!(seen.values(gone).is_empty(), "{}", seen.head);
    }
    for connection in seen.values("connection") {
        assert!(!connection.contains('-') || connection == "keep-alive", "{connection}");
    }
    assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", seen.head);
}

#[tokio::test]
async fn an_upgrade_goes_no_further_than_the_gateway() {
    let (world, stub) = stub::world().await;
    let headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    stub.reply(Reply::of(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw",
    ).then_hang_up());
    let answer = ask(&world, &headers, ASK).await;
    assert_eq!(answer.status, 502, "{}", answer.body);
    let seen = stub.only();
    assert!(seen.values("upgrade").is_empty(), "{}", seen.head);
}

#[tokio::test]
async fn of_a_runners_headers_only_the_listed_reach_a_caller() {
    let (world, stub) = stub::world().await;
    stub.reply(Reply::of(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: a=b\r\n\
         Location: http://127.0.0.1:9/\r\nKeep-Alive: timeout=1\r\nProxy-Authenticate: Basic\r\n\
         Access-Control-Allow-Origin: *\r\nServer: runner/1\r\nX-Evil: 1\r\nAlt-Svc: h3=\":1\"\r\n\
         X-Request-Id: theirs\r\nCache-Control: public\r\nConnection: close, x-evil\r\n\
         Content-Length: 2\r\n\r\n{}",
    ));
    // `Answer` refuses every header that is not on its own list.
    let answer = ask(&world, &[], ASK).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(answer.headers["x-request-id"].starts_with("req_"), "{:?}", answer.headers);
}

#[tokio::test]
async fn an_early_word_of_a_runner_carries_nothing_to_the_caller() {
    let (world, stub) = stub::world().await;
    stub.reply(Reply::of(
        "HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=b\r\nLink: </x>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    ));
    let mut connection = world.connect();
    connection.post(&[("Connection", "close")], ASK.as_bytes()).await;
    let all = connection.rest().await;
    assert!(all.contains("HTTP/1.1 200 OK") && !all.contains("Cookie"), "{all}");
    assert!(!all.to_ascii_lowercase().contains("link:"), "{all}");
}

#[tokio::test]
async fn what_a_runner_must_not_answer_is_502() {
    for head in [
        "301 Moved Permanently\r\nLocation: http://127.0.0.1:9/v1/chat/completions",
        "307 Temporary Redirect\r\nLocation: /session/x/shell",
        "304 Not Modified",
        "200 OK\r\nContent-Encoding: gzip",
        "200 OK\r\nContent-Encoding: br\r\nContent-Type: text/event-stream",
    ] {
        let (world, stub) = stub::world().await;
        stub.reply(Reply::of(format!("HTTP/1.1 {head}\r\nContent-Length: 2\r\n\r\nxx")));
        let answer = ask(&world, &[], ASK).await;
        assert_eq!(answer.status, 502, "{head}: {}", answer.body);
        assert_eq!(answer.json()["error"]["code"], "runner_failed");
        assert_eq!(stub.seen().len(), 1, "{head}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_502() {
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(3 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(5000));
    for reply in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n{}",
        "",
        &endless,
        &many,
    ] {
        let (world, stub) = stub::world().await;
        stub.reply(Reply::of(reply).then_hang_up());
        let answer = ask(&world, &[], ASK).await;
        assert_eq!(answer.status, 502, "{:.60}: {}", reply, answer.body);
        assert_eq!(answer.json()["error"]["type"], "server_error");
    }
}

#[tokio::test]
async fn a_runner_that_dies_in_a_stream_is_an_error_event_and_no_end() {
    let (world, stub) = stub::world().await;
    let pieces = vec![STREAM.into(), chunk(b"data: {\"n\":1}\n\n"), b"20\r\ndata: {\"cut".to_vec()];
    stub.reply(Reply { pieces, hang_up: true });
    let answer = ask(&world, &[], ASK).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("data: {\"n\":1}\n\n"), "{}", answer.body);
    assert!(!answer.body.contains("[DONE]"), "{}", answer.body);
    let last = answer.body.trim_end().rsplit("\n").next().unwrap();
    let error: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "runner_failed");
    assert_eq!(ask(&world, &[], ASK).await.status, 200, "the next request works");
}

#[tokio::test]
async fn a_body_too_large_to_say_who_asks_is_413_with_the_reason() {
    let (world, stub) = stub::world().await;
    let body = large(65 << 10);
    let answer = ask(&world, &[], &body).await;
    assert_eq!(answer.status, 413, "{}", answer.body);
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "body_too_large_to_identify");
    assert!(error["message"].as_str().unwrap().contains("API key"), "{error}");
    assert!(stub.seen().is_empty());
    assert_eq!(world.launcher.launches.load(Ordering::SeqCst), 0);
    assert_eq!(ask(&world, &[], &large(63 << 10)).await.status, 200);
}

#[tokio::test]
async fn a_body_of_20_mb_passes_with_an_api_key() {
    let (world, stub) = stub::world_with(&keyed("alices-key"), |_| {}).await;
    for size in [1 << 10, 100 << 10, 1 << 20, 20 << 20] {
        let body = large(size);
        let answer = ask(&world, &[("Authorization", "Bearer alices-key")], &body).await;
        assert_eq!(answer.status, 200, "{size}: {}", answer.body);
        let expected = body.replacen("open-persona/build", "mock/m1", 1);
        let seen = stub.seen().pop().unwrap().body;
        assert!(seen == expected.replacen('{', "{\"agent\":\"build\",", 1), "{size}");
    }
}

/// A body of `size` bytes.
fn large(size: usize) -> String {
    let rest = json!({"role": "user", "content": ""}).to_string();
    let start = format!(r#"{{"model":"open-persona/build","messages":[{rest}],"pad":""#);
    let pad = "x".repeat(size - start.len() - 2);
    format!("{start}{pad}\"}}")
}

#[tokio::test]
async fn connections_are_used_again_while_the_runner_lives() {
    let (world, stub) = stub::world().await;
    for _ in 0..3 {
        assert_eq!(ask(&world, &[], ASK).await.status, 200);
    }
    assert_eq!((stub.connections(), stub.seen().len()), (1, 3));
}

#[tokio::test]
async fn a_connection_of_an_ended_runner_is_never_used_for_the_next() {
    let (world, stub) = stub::world().await;
    assert_eq!(ask(&world, &[], ASK).await.status, 200);
    world.launcher.runners.lock()[0].ended.cancel();
    assert_eq!(ask(&world, &[], ASK).await.status, 200);
    assert_eq!(world.launcher.launches.load(Ordering::SeqCst), 2);
    let on: Vec<_> = stub.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(on, [0, 1]);
}

#[tokio::test]
async fn what_a_runner_says_after_its_answer_is_nobodys_answer() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n\"poison\"";
    for first in ["{}", "{\"chunked\":true}"] {
        let (world, stub) = stub::world().await;
        let mut reply = if first == "{}" {
            Reply::json(first)
        } else {
            Reply::stream(first.as_bytes(), 4)
        };
        reply.pieces.last_mut().unwrap().extend_from_slice(poison.as_bytes());
        stub.reply(reply);
        assert_eq!(ask(&world, &[], ASK).await.body, first);
        for _ in 0..3 {
            let answer = ask(&world, &[], ASK).await;
            assert_eq!(answer.body, "{\"ok\":true}", "after {first}");
        }
        assert_eq!(stub.seen()[1].connection, 1, "a poisoned connection was used again");
    }
}

#[tokio::test]
async fn an_answer_before_the_whole_request_does_not_spoil_the_next() {
    let (world, stub) = stub::world_with(&keyed("alices-key"), |_| {}).await;
    let key = [("Authorization", "Bearer alices-key")];
    stub.reply(Reply::of("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"));
    let answer = ask(&world, &key, &large(1 << 20)).await;
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (429, "7"));
    assert_eq!(ask(&world, &key, ASK).await.body, "{\"ok\":true}");
}
