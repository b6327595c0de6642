use http_body_util::BodyExt;
use hyper::client::conn::http1 as client;

use super::*;

fn ask(text: &str) -> Value {
    let tools: Vec<Value> = ["bash", "write"]
        .iter()
        .map(|name| json!({"type": "function", "function": {"name": name}}))
        .collect();
    json!({"model": "demo", "messages": [{"role": "user", "content": text}], "tools": tools})
}

fn text(request: &Value) -> String {
    answer(request).unwrap().text
}

/// Sends `body` over a connection in memory: status, content type and body of the reply.
async fn post(body: &Value, delay: Duration) -> (StatusCode, String, String) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let talk = async {
        let (mut sender, driver) = client::handshake(TokioIo::new(near)).await.unwrap();
        let request = Request::post("/v1/chat/completions")
            .body(Full::<Bytes>::from(body.to_string()))
            .unwrap();
        let exchange = async {
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            let kind = head.headers["content-type"].to_str().unwrap().to_owned();
            let body = body.collect().await.unwrap().to_bytes();
            (head.status, kind, String::from_utf8(body.to_vec()).unwrap())
        };
        tokio::select! { reply = exchange => reply, _ = driver => unreachable!("no reply") }
    };
    tokio::select! { reply = talk => reply, () = connection(far, delay) => unreachable!("closed") }
}

#[test]
fn echo_gives_back_exactly_the_text() {
    assert_eq!(text(&ask("echo  Ünï {} \"code\"")), " Ünï {} \"code\"");
    assert_eq!(text(&ask("ECHO a")), "a");
}

#[test]
fn a_greeting_says_that_this_is_a_demo_and_repeats_the_message() {
    let text = text(&ask("What is up?"));
    assert!(text.contains("scripted demo model") && text.contains("\"What is up?\""));
}

#[test]
fn a_tool_is_called_and_its_result_told() {
    let mut request = ask("Please list files");
    let call = answer(&request).unwrap().call.unwrap();
    assert_eq!((call.0, call.1["command"].as_str()), ("bash", Some("ls -la")));
    let messages = request["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "tool_calls": []}));
    messages.push(json!({"role": "tool", "content": "notes.txt"}));
    let told = answer(&request).unwrap();
    assert!(told.text.ends_with("notes.txt") && told.call.is_none());
}

#[test]
fn a_file_gets_only_a_plain_name() {
    for (asked, name) in [
        ("write a file", "demo.txt"),
        ("Write a file named notes.md.", "notes.md"),
        ("write a file ../../etc/x.txt", "demo.txt"),
        ("write a file .bashrc", "demo.txt"),
    ] {
        assert_eq!(answer(&ask(asked)).unwrap().call.unwrap().1["filePath"], name, "{asked}");
    }
}

#[test]
fn a_tool_that_is_not_offered_is_not_called() {
    let mut request = ask("list files");
    request["tools"] = json!([]);
    assert_eq!(answer(&request).unwrap().call, None);
}

#[test]
fn what_opencode_adds_is_not_what_the_user_said() {
    let mut request = ask("");
    request["messages"][0]["content"] = json!([
        {"type": "text", "text": "earlier: list files"},
        {"type": "text", "text": "echo hi"},
        {"type": "text", "text": "<system-reminder>Plan mode is active.</system-reminder>"},
    ]);
    assert_eq!(text(&request), "hi");
}

#[test]
fn chores_are_answered_in_their_form() {
    let chore = "### Task:\nTitle it.\nJSON format: { \"title\": \"x\" }";
    assert_eq!(text(&ask(chore)), r#"{"title": "Demo chat"}"#);
    let mut request = ask("list files");
    request["messages"] = json!([
        {"role": "system", "content": "You are a title generator."},
        {"role": "user", "content": "fail 500"},
    ]);
    request["tools"] = Value::Null;
    assert_eq!(text(&request), "Demo chat");
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_arrives_word_by_word_with_its_usage() {
    let mut request = ask("think");
    request["stream"] = json!(true);
    request["stream_options"] = json!({"include_usage": true});
    let began = tokio::time::Instant::now();
    let (status, kind, body) = post(&request, Duration::from_millis(10)).await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/event-stream"));
    let lines: Vec<&str> = body.split_terminator("\n\n").collect();
    assert_eq!(lines.last(), Some(&"data: [DONE]"));
    assert_eq!(began.elapsed().as_millis(), 10 * (lines.len() as u128 - 1));
    let chunks: Vec<Value> = lines[..lines.len() - 1]
        .iter()
        .map(|line| serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let said = |member: &str| -> String {
        chunks.iter().filter_map(|c| c["choices"][0]["delta"][member].as_str()).collect()
    };
    let whole = answer(&request).unwrap();
    assert_eq!(said("reasoning_content"), whole.reasoning);
    assert_eq!(said("content"), whole.text);
    assert!(chunks.last().unwrap()["usage"]["completion_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_streamed_comes_whole() {
    let (_, kind, body) = post(&ask("write a file"), Duration::from_secs(1)).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(kind, "application/json");
    assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(body["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "write");
}

#[tokio::test(start_paused = true)]
async fn it_fails_on_demand() {
    for (asked, status) in [("fail 401", 401), ("fail", 500), ("fail 200", 500), ("Fail 429", 429)]
    {
        let (got, _, body) = post(&ask(asked), Duration::ZERO).await;
        assert_eq!(got.as_u16(), status);
        assert!(body.starts_with("{\"error\":{"));
    }
}
