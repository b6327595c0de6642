//! Open WebUI's native frames for tool activity: items of the Responses API on a chat stream.
//!
//! Open WebUI 0.12 puts an item in place of an earlier one with the same `id`, and appends it when
//! `output_index` is past the end (observed). A `function_call` without its output at the end of
//! the stream is run by Open WebUI itself, so each must get one.

use bytes::Bytes;
use serde_json::json;

use super::sse;

/// How a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStatus {
    /// Under way.
    InProgress,
    /// It gave a result.
    Completed,
    /// It did not.
    Failed,
}

impl CallStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// The frame that shows the call `id` of `tool` with its `arguments` (JSON) as it stands.
pub fn call(id: &str, tool: &str, arguments: &str, status: CallStatus) -> Bytes {
    added(&json!({
        "type": "function_call", "id": id, "call_id": id, "name": tool,
        "arguments": arguments, "status": status.as_str(),
    }))
}

/// The frame that shows what the call `id` gave.
pub fn output(id: &str, text: &str, status: CallStatus) -> Bytes {
    added(&json!({
        "type": "function_call_output", "id": format!("{id}_output"), "call_id": id,
        "output": [{"type": "input_text", "text": text}], "status": status.as_str(),
    }))
}

fn added(item: &serde_json::Value) -> Bytes {
    sse::data(&json!({
        "type": "response.output_item.added", "output_index": PAST_THE_END, "item": item,
    }))
}

/// No answer has as many items.
const PAST_THE_END: u32 = 9999;
