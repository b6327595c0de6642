//! `chat/completions`.

use open_persona::usage::Tokens;
use serde_json::{Value, json};

use super::{CREATED, Call, Shape, Told, parts};

/// The style.
pub(super) struct Chat;

impl Shape for Chat {
    fn opening(&self, told: &Told<'_>) -> String {
        delta(told, &json!({"role": "assistant", "content": ""}), None)
    }

    fn piece(&self, told: &Told<'_>, text: &str) -> String {
        delta(told, &json!({"content": text}), None)
    }

    fn call(&self, told: &Told<'_>, call: &Call) -> String {
        let head = json!({"tool_calls": [tool_call(told, call, "")]});
        let rest = parts(&call.arguments).map(|part| {
            let part = json!({"tool_calls": [{"index": 0, "function": {"arguments": part}}]});
            delta(told, &part, None)
        });
        delta(told, &head, None) + &rest.collect::<String>()
    }

    fn closing(&self, told: &Told<'_>) -> String {
        let end = delta(told, &json!({}), Some(reason(told)));
        let usage = told.tokens.map(|tokens| {
            let mut last = chunk(told);
            last["choices"] = json!([]);
            last["usage"] = usage(tokens);
            format!("data: {last}\n\n")
        });
        end + &usage.unwrap_or_default() + "data: [DONE]\n\n"
    }

    fn whole(&self, told: &Told<'_>) -> Value {
        let calls = told.reply.call.iter().map(|call| tool_call(told, call, &call.arguments));
        let mut message = json!({"role": "assistant", "content": told.reply.text()});
        if told.reply.call.is_some() {
            message["tool_calls"] = calls.collect();
        }
        let mut whole = chunk(told);
        whole["object"] = json!("chat.completion");
        whole["choices"] = json!([{"index": 0, "message": message, "finish_reason": reason(told)}]);
        if let Some(tokens) = told.tokens {
            whole["usage"] = usage(tokens);
        }
        whole
    }

    fn error(&self, status: u16, message: &str) -> Value {
        let code = if status == 401 { json!("invalid_api_key") } else { Value::Null };
        let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
    }
}

fn chunk(told: &Told<'_>) -> Value {
    json!({
        "id": told.id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": told.model,
    })
}

fn delta(told: &Told<'_>, delta: &Value, reason: Option<&str>) -> String {
    let mut chunk = chunk(told);
    chunk["choices"] = json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
    format!("data: {chunk}\n\n")
}

fn tool_call(told: &Told<'_>, call: &Call, arguments: &str) -> Value {
    json!({
        "index": 0,
        "id": told.id("call"),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    })
}

fn reason(told: &Told<'_>) -> &'static str {
    if told.reply.call.is_some() { "tool_calls" } else { "stop" }
}

/// Cached tokens are among the prompt's, those for reasoning among the completion's.
fn usage(tokens: Tokens) -> Value {
    json!({
        "prompt_tokens": tokens.input + tokens.cached,
        "completion_tokens": tokens.output + tokens.reasoning,
        "total_tokens": tokens.total(),
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    })
}
