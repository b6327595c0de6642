//! MCP servers are reached by their names, with headers that runners never see.

use serde_json::json;

use super::{
    dialect::{Style, json_answer, stream},
    provider::{Gate, Step},
    world::World,
};

fn request(world: &World, method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: opencode/1\r\n\
         Accept: application/json, text/event-stream\r\nMcp-Session-Id: s7\r\n{headers}\
         Content-Length: {}\r\n\r\n{body}",
        world.authority,
        body.len()
    )
}

#[tokio::test]
async fn an_mcp_server_gets_its_own_headers_and_nothing_of_the_runner_s() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    world.provider.answer(
        "HTTP/1.1 200 OK\r\nMcp-Session-Id: s8\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}",
    );
    for (number, method) in ["POST", "GET", "DELETE"].into_iter().enumerate() {
        let headers = format!(
            "Authorization: Bearer {}\r\nX-Team: mine\r\nCookie: a=b\r\nX-OpenPersona-User-Id: x\r\n",
            runner.token
        );
        let path = "/mcp/crm?team=other";
        let answer = world.raw(request(&world, method, path, &headers, &call)).await;
        assert_eq!((answer.status, answer.header("mcp-session-id")), (200, Some("s8")));
        assert_eq!(answer.header("set-cookie"), None);
        let seen = world.provider.seen().swap_remove(number);
        assert_eq!(seen.asked(), format!("{method} /crm/endpoint?team=7"));
        let expected = [
            "accept: application/json, text/event-stream".to_owned(),
            "authorization: Bearer crm-secret".to_owned(),
            format!("content-length: {}", call.len()),
            format!("host: {}", world.provider.address),
            "mcp-session-id: s7".to_owned(),
            "user-agent: opencode/1".to_owned(),
            "x-team: seven".to_owned(),
        ];
        assert_eq!(seen.headers(), expected);
        assert_eq!(seen.body, call.as_bytes());
    }
    assert!(world.used().await.is_empty());
}

#[tokio::test]
async fn a_server_s_stream_is_passed_on_as_it_comes_and_cut_with_its_runner() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let events: Vec<_> = (0..5).map(|number| format!("data: {{\"n\":{number}}}\n\n")).collect();
    let (gate, sent) = (Gate::new(), stream(&events));
    let waiting = gate.clone();
    world.provider.script(move |_| {
        let mut steps = vec![Step::Send(sent[0].clone())];
        for piece in &sent[1..sent.len() - 1] {
            steps.extend([Step::Wait(waiting.clone()), Step::Send(piece.clone())]);
        }
        steps.push(Step::AwaitEnd);
        steps
    });
    let credential = Style::Chat.credential(&runner.token);
    let mut client = world.connect().await;
    client.send(request(&world, "GET", "/mcp/crm", &credential, "")).await;
    client.read_until("\r\n\r\n").await;
    for event in &events {
        gate.open();
        client.read_until(event).await;
    }
    drop(client);
    world.provider.until(|seen| seen[0].is_cut).await;
    assert!(world.used().await.is_empty());
}

#[tokio::test]
async fn an_unknown_server_is_403_and_a_known_one_needs_the_token_too() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let credential = Style::Chat.credential(&runner.token);
    for path in ["/mcp/mail", "/mcp/", "/mcp/CRM", "/mcp/%63rm"] {
        let answer = world.raw(request(&world, "POST", path, &credential, "{}")).await;
        answer.assert_refused(403, "path_not_allowed");
    }
    let answer = world.raw(request(&world, "POST", "/mcp/crm", "", "{}")).await;
    answer.assert_refused(403, "token_missing");
    let answer = world.raw(request(&world, "PUT", "/mcp/crm", &credential, "{}")).await;
    answer.assert_refused(405, "method_not_allowed");
    assert!(world.provider.seen().is_empty());
}

#[tokio::test]
async fn a_server_s_errors_are_passed_on_and_its_redirects_are_not() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let credential = Style::Chat.credential(&runner.token);
    let post = request(&world, "POST", "/mcp/crm", &credential, "{}");
    world.provider.answer(json_answer("404 Not Found", "{\"error\":1}"));
    let answer = world.raw(&post).await;
    assert_eq!((answer.status, answer.json()), (404, json!({"error": 1})));
    world.provider.answer("HTTP/1.1 307 x\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n");
    world.raw(&post).await.assert_refused(502, "provider_unreachable");
}
