//! Anthropic's `messages`.

use open_persona::usage::Tokens;
use serde_json::{Value, json};

use super::{Call, Shape, Told, event, parts};

/// The style.
pub(super) struct Messages;

impl Shape for Messages {
    /// The usage here is what is known before a word is written.
    fn opening(&self, told: &Told<'_>) -> String {
        let mut message = message(told);
        message["content"] = json!([]);
        if let Some(tokens) = told.tokens {
            message["usage"] = usage(Tokens { output: 1, ..tokens });
        }
        let mut text = event(&json!({"type": "message_start", "message": message}));
        if told.has_text() {
            text += &event(&json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""}}));
        }
        text + &event(&json!({"type": "ping"}))
    }

    fn piece(&self, _: &Told<'_>, text: &str) -> String {
        event(&json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": text}}))
    }

    fn call(&self, told: &Told<'_>, call: &Call) -> String {
        let index = u8::from(told.has_text());
        let mut text = event(&json!({"type": "content_block_start", "index": index,
            "content_block": tool_use(told, call, &json!({}))}));
        for part in parts(&call.arguments) {
            text += &event(&json!({"type": "content_block_delta", "index": index,
                "delta": {"type": "input_json_delta", "partial_json": part}}));
        }
        text + &event(&json!({"type": "content_block_stop", "index": index}))
    }

    fn closing(&self, told: &Told<'_>) -> String {
        let mut text = String::new();
        if told.has_text() {
            text += &event(&json!({"type": "content_block_stop", "index": 0}));
        }
        let mut end = json!({"type": "message_delta",
            "delta": {"stop_reason": reason(told), "stop_sequence": null}});
        end["usage"] = told.tokens.map_or_else(|| json!({"output_tokens": 0}), usage);
        text += &event(&end);
        text + &event(&json!({"type": "message_stop"}))
    }

    fn whole(&self, told: &Told<'_>) -> Value {
        let mut whole = message(told);
        let text = told.has_text().then(|| json!({"type": "text", "text": told.reply.text()}));
        let call = told.reply.call.iter().map(|call| {
            let input: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            tool_use(told, call, &input)
        });
        whole["content"] = text.into_iter().chain(call).collect();
        whole["stop_reason"] = json!(reason(told));
        if let Some(tokens) = told.tokens {
            whole["usage"] = usage(tokens);
        }
        whole
    }

    fn error(&self, status: u16, message: &str) -> Value {
        let kind = match status {
            401 => "authentication_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        };
        json!({"type": "error", "error": {"type": kind, "message": message}})
    }
}

fn message(told: &Told<'_>) -> Value {
    json!({
        "id": told.id("msg"),
        "type": "message",
        "role": "assistant",
        "model": told.model,
        "stop_reason": null,
        "stop_sequence": null,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    })
}

fn tool_use(told: &Told<'_>, call: &Call, input: &Value) -> Value {
    json!({"type": "tool_use", "id": told.id("toolu"), "name": call.name, "input": input})
}

fn reason(told: &Told<'_>) -> &'static str {
    if told.reply.call.is_some() { "tool_use" } else { "end_turn" }
}

/// What is cached is not among the input.
fn usage(tokens: Tokens) -> Value {
    json!({
        "input_tokens": tokens.input,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation_input_tokens": tokens.cache_write,
        "output_tokens": tokens.output + tokens.reasoning,
    })
}
