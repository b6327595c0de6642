//! `OpenAI`'s `responses`.

use open_persona::usage::Tokens;
use serde_json::{Value, json};

use super::{CREATED, Call, Shape, Told, event, parts};

/// The style.
pub(super) struct Responses;

impl Shape for Responses {
    fn opening(&self, told: &Told<'_>) -> String {
        let mut response = response(told, "in_progress");
        response["output"] = json!([]);
        let mut text = event(&json!({"type": "response.created", "response": response}));
        text += &event(&json!({"type": "response.in_progress", "response": response}));
        if told.has_text() {
            let mut item = message(told, "in_progress");
            item["content"] = json!([]);
            text += &event(&json!({"type": "response.output_item.added", "output_index": 0,
                "item": item}));
            text += &event(&json!({"type": "response.content_part.added", "output_index": 0,
                "content_index": 0, "item_id": told.id("msg"), "part": output_text("")}));
        }
        text
    }

    fn piece(&self, told: &Told<'_>, text: &str) -> String {
        event(&json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0,
            "item_id": told.id("msg"), "delta": text}))
    }

    fn call(&self, told: &Told<'_>, call: &Call) -> String {
        let (index, id) = (u8::from(told.has_text()), told.id("fc"));
        let mut begun = function_call(told, call, "in_progress");
        begun["arguments"] = json!("");
        let mut text = event(&json!({"type": "response.output_item.added", "output_index": index,
            "item": begun}));
        for part in parts(&call.arguments) {
            text += &event(&json!({"type": "response.function_call_arguments.delta",
                "output_index": index, "item_id": id, "delta": part}));
        }
        text += &event(&json!({"type": "response.function_call_arguments.done",
            "output_index": index, "item_id": id, "arguments": call.arguments}));
        text + &event(&json!({"type": "response.output_item.done", "output_index": index,
            "item": function_call(told, call, "completed")}))
    }

    fn closing(&self, told: &Told<'_>) -> String {
        let mut text = String::new();
        if told.has_text() {
            text += &event(&json!({"type": "response.output_text.done", "output_index": 0,
                "content_index": 0, "item_id": told.id("msg"), "text": told.reply.text()}));
            text += &event(&json!({"type": "response.output_item.done", "output_index": 0,
                "item": message(told, "completed")}));
        }
        text + &event(&json!({"type": "response.completed", "response": self.whole(told)}))
    }

    fn whole(&self, told: &Told<'_>) -> Value {
        let mut whole = response(told, "completed");
        let text = told.has_text().then(|| message(told, "completed"));
        let call = told.reply.call.iter().map(|call| function_call(told, call, "completed"));
        whole["output"] = text.into_iter().chain(call).collect();
        whole["usage"] = told.tokens.map_or(Value::Null, usage);
        whole
    }

    fn error(&self, status: u16, message: &str) -> Value {
        super::chat::Chat.error(status, message)
    }
}

fn response(told: &Told<'_>, status: &str) -> Value {
    json!({
        "id": told.id("resp"),
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": null,
        "incomplete_details": null,
        "model": told.model,
        "usage": null,
    })
}

fn message(told: &Told<'_>, status: &str) -> Value {
    json!({"id": told.id("msg"), "type": "message", "status": status, "role": "assistant",
        "content": [output_text(&told.reply.text())]})
}

fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": []})
}

fn function_call(told: &Told<'_>, call: &Call, status: &str) -> Value {
    json!({"id": told.id("fc"), "type": "function_call", "status": status,
        "call_id": told.id("call"), "name": call.name, "arguments": call.arguments})
}

/// Cached tokens are among the input's, those for reasoning among the output's.
fn usage(tokens: Tokens) -> Value {
    json!({
        "input_tokens": tokens.input + tokens.cached,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.output + tokens.reasoning,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.total(),
    })
}
