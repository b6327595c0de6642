//! What a hostile runner may write before a body: other paths, other hosts, other protocols. The
//! provider hears nothing of it.

use serde_json::json;

use super::{
    dialect::{Style, post},
    world::{Runner, World},
};

fn body() -> String {
    json!({"model": "m1", "messages": []}).to_string()
}

/// A request of `runner` with all of its line.
fn request(world: &World, runner: &Runner, line: &str, headers: &str, body: &str) -> String {
    let token = &runner.token;
    let host = if headers.contains("Host:") {
        String::new()
    } else {
        format!("Host: {}\r\n", world.authority)
    };
    format!(
        "{line}\r\n{host}{headers}x-api-key: {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn only_listed_paths_and_methods_are_asked_for() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let (path, method, provider) = ("path_not_allowed", "method_not_allowed", "provider_unknown");
    for (line, status, code) in [
        ("POST / HTTP/1.1", 403, path),
        ("POST /chat HTTP/1.1", 403, path),
        ("POST /chat/v1 HTTP/1.1", 403, path),
        ("POST /chat/v1/ HTTP/1.1", 403, path),
        ("POST /chat/v1/files HTTP/1.1", 403, path),
        ("POST /chat/v1/chat/completions/ HTTP/1.1", 403, path),
        ("POST /chat/v1/chat//completions HTTP/1.1", 403, path),
        ("POST //chat/v1/chat/completions HTTP/1.1", 403, provider),
        ("POST /chat/v1/../v1/chat/completions HTTP/1.1", 403, path),
        ("POST /chat/v1/./chat/completions HTTP/1.1", 403, path),
        ("POST /chat/v1/chat/completions/../../../files HTTP/1.1", 403, path),
        ("POST /chat/v1/chat/%63ompletions HTTP/1.1", 403, path),
        ("POST /chat/v1/chat%2fcompletions HTTP/1.1", 403, path),
        ("POST /chat/v1/chat\\completions HTTP/1.1", 403, path),
        ("POST /chat/v1/chat/completions;x=y HTTP/1.1", 403, path),
        ("POST /chat/v1/chat/completions%00 HTTP/1.1", 403, path),
        ("POST /chat/v1/chat/completions%0d%0aX:y HTTP/1.1", 403, path),
        ("POST /chat/v1/chat/Completions HTTP/1.1", 403, path),
        ("POST /chat/V1/chat/completions HTTP/1.1", 403, path),
        ("POST /chat/v2/chat/completions HTTP/1.1", 403, path),
        ("POST /%63hat/v1/chat/completions HTTP/1.1", 403, provider),
        ("POST /../chat/v1/chat/completions HTTP/1.1", 403, provider),
        ("POST /acme/v1/chat/completions HTTP/1.1", 403, provider),
        ("GET /chat/v1/chat/completions HTTP/1.1", 405, method),
        ("PUT /chat/v1/chat/completions HTTP/1.1", 405, method),
        ("post /chat/v1/chat/completions HTTP/1.1", 405, method),
        ("POST /chat/v1/models HTTP/1.1", 405, method),
        ("DELETE /chat/v1/models HTTP/1.1", 405, method),
        ("TRACE /mcp/crm HTTP/1.1", 405, method),
        ("POST /mcp/mail HTTP/1.1", 403, path),
        ("POST /mcp/crm/ HTTP/1.1", 403, provider),
        ("POST /mcp/../chat/v1/models HTTP/1.1", 403, provider),
        ("OPTIONS * HTTP/1.1", 403, path),
    ] {
        let answer = world.raw(request(&world, &runner, line, "", &body())).await;
        assert_eq!(answer.status, status, "{line} {answer:?}");
        assert_eq!(answer.header("x-open-persona-refusal"), Some(code), "{line}");
    }
    let connect = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n", world.provider.address);
    let all = world.raw_to_end(format!("{connect}x-api-key: {}\r\n\r\n", runner.token)).await;
    assert!(all.starts_with("HTTP/1.1 403 ") || all.starts_with("HTTP/1.1 405 "), "{all}");
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    assert!(world.provider.seen().is_empty(), "{:?}", world.provider.seen());
}

#[tokio::test]
async fn only_the_egress_itself_is_asked() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let ours = world.authority.clone();
    let there = world.provider.address;
    let path = Style::Chat.path();
    for host in ["evil.example", "127.0.0.1", &there.to_string(), &format!("{ours}.evil"), "x@y"] {
        for (target, header) in [
            (path.to_owned(), host),
            (format!("http://{host}{path}"), host),
            (format!("http://{host}{path}"), &ours),
            (format!("http://{ours}{path}"), host),
        ] {
            let line = format!("POST {target} HTTP/1.1");
            let header = format!("Host: {header}\r\n");
            let answer = world.raw(request(&world, &runner, &line, &header, &body())).await;
            assert!(matches!(answer.status, 400 | 403), "{target} {header} {answer:?}");
        }
    }
    let twice = format!("Host: {ours}\r\nHost: {ours}\r\n");
    let line = format!("POST {path} HTTP/1.1");
    let all = world.raw_to_end(request(&world, &runner, &line, &twice, &body())).await;
    assert!(all.starts_with("HTTP/1.1 400 "), "{all}");
    assert!(world.provider.seen().is_empty(), "{:?}", world.provider.seen());
    let line = format!("POST http://{ours}{path} HTTP/1.1");
    assert_eq!(world.raw(request(&world, &runner, &line, "", &body())).await.status, 200);
    let seen = world.provider.only();
    assert_eq!(seen.asked(), "POST /chat/api/chat/completions");
    assert_eq!(seen.values("host"), [there.to_string()]);
}

#[tokio::test]
async fn a_connection_is_never_upgraded() {
    let world = World::new().await;
    let runner = world.runner("alice");
    for path in [Style::Chat.path(), "/mcp/crm"] {
        for upgrade in ["websocket", "h2c", "anything"] {
            let line = format!("POST {path} HTTP/1.1");
            let headers = format!(
                "Upgrade: {upgrade}\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            );
            let sent = request(&world, &runner, &line, &headers, &body());
            assert_eq!(world.raw(sent).await.status, 200);
        }
    }
    for seen in world.provider.seen() {
        assert!(
            seen.values("upgrade").is_empty() && seen.values("connection").is_empty(),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn a_runner_that_waits_to_be_told_is_told_to_go_on_once_it_may() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let expecting = |token: &str| {
        let headers = format!("{}Expect: 100-continue\r\n", Style::Chat.credential(token));
        post(&world, Style::Chat.path(), &headers, &body())
    };
    let mut client = world.connect().await;
    let sent = expecting(&runner.token);
    let (head, rest) = sent.split_at(sent.len() - body().len());
    client.send(head).await;
    assert_eq!(client.answer().await.head, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(rest).await;
    assert_eq!(client.answer().await.status, 200);
    assert!(world.provider.only().values("expect").is_empty());
    let refused = expecting("opr-wrong");
    let mut client = world.connect().await;
    client.send(&refused[..refused.len() - body().len()]).await;
    client.answer().await.assert_refused(403, "token_unknown");
    let odd = expecting(&runner.token).replace("100-continue", "200-ok");
    world.raw(odd).await.assert_refused(417, "unknown_expectation");
}
