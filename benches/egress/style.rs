//! What providers' APIs say, and what is said to them.

use bytes::Bytes;
use serde_json::json;

/// A kind of call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    /// A chat completion that is not streamed.
    Whole,
    /// A streamed chat completion.
    Chat,
    /// A stream of `OpenAI`'s responses.
    Responses,
    /// A stream of Anthropic's messages.
    Messages,
}

impl Style {
    /// What is called.
    pub(crate) fn endpoint(self) -> &'static str {
        match self {
            Self::Whole | Self::Chat => "chat/completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }

    /// A request of about `size` bytes: a conversation about code.
    pub(crate) fn request(self, size: usize) -> Bytes {
        let stream = !matches!(self, Self::Whole);
        let turns = if matches!(self, Self::Responses) { "input" } else { "messages" };
        let text = &TEXT[..TEXT.floor_char_boundary(size)];
        let messages = vec![json!({"role": "user", "content": text}); size.div_ceil(TEXT.len())];
        let mut request = json!({"model": "m1", turns: messages, "stream": stream});
        if matches!(self, Self::Chat) {
            // As the SDKs do; without it, nobody says what the answer costs.
            request["stream_options"] = json!({"include_usage": true});
        }
        request.to_string().into()
    }

    /// What a stream begins with.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::Whole | Self::Chat => "",
            Self::Responses => RESPONSES_BEGIN,
            Self::Messages => MESSAGES_BEGIN,
        }
    }

    /// A delta, without its text.
    pub(crate) fn delta(self) -> (&'static str, &'static str) {
        let delta = match self {
            Self::Whole | Self::Chat => CHAT_DELTA,
            Self::Responses => RESPONSES_DELTA,
            Self::Messages => MESSAGES_DELTA,
        };
        delta.split_once('*').expect("a place for the text")
    }

    /// What a stream ends with, or the whole answer.
    pub(crate) fn end(self) -> &'static str {
        match self {
            Self::Whole => WHOLE,
            Self::Chat => CHAT_END,
            Self::Responses => RESPONSES_END,
            Self::Messages => MESSAGES_END,
        }
    }
}

const TEXT: &str = include_str!("../../src/egress.rs");

const WHOLE: &str = r#"{
  "id": "chatcmpl-CkQ8tXYGm1c2b3a4d5e6f7g8h9i0j",
  "object": "chat.completion",
  "created": 1795252825,
  "model": "m1",
  "choices": [
    {
      "index": 0,
      "message": {"role": "assistant", "content": "Yes.", "refusal": null, "annotations": []},
      "finish_reason": "stop"
    }
  ],
  "usage": {
    "prompt_tokens": 256,
    "completion_tokens": 10,
    "total_tokens": 266,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0}
  },
  "service_tier": "default"
}
"#;

const CHAT_DELTA: &str = r#"data: {"id":"chatcmpl-CkQ8tXYGm1c2b3a4d5e6f7g8h9i0j","object":"chat.completion.chunk","created":1795252825,"model":"m1","service_tier":"default","choices":[{"index":0,"delta":{"content":"*"},"logprobs":null,"finish_reason":null}],"usage":null}

"#;
const CHAT_END: &str = r#"data: {"id":"chatcmpl-CkQ8tXYGm1c2b3a4d5e6f7g8h9i0j","object":"chat.completion.chunk","created":1795252825,"model":"m1","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-CkQ8tXYGm1c2b3a4d5e6f7g8h9i0j","object":"chat.completion.chunk","created":1795252825,"model":"m1","choices":[],"usage":{"prompt_tokens":256,"completion_tokens":10,"total_tokens":266,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}

data: [DONE]

"#;

const RESPONSES_BEGIN: &str = r#"event: response.created
data: {"type":"response.created","response":{"id":"resp_68a1b2c3","object":"response","status":"in_progress","model":"m1","output":[],"usage":null},"sequence_number":0}

"#;
const RESPONSES_DELTA: &str = r#"event: response.output_text.delta
data: {"type":"response.output_text.delta","item_id":"msg_68a1b2c3d4e5f60718293a4b5c6d7e8f","output_index":0,"content_index":0,"delta":"*","logprobs":[],"obfuscation":"kT3xW9","sequence_number":42}

"#;
const RESPONSES_END: &str = r#"event: response.completed
data: {"type":"response.completed","response":{"id":"resp_68a1b2c3","object":"response","status":"completed","model":"m1","output":[{"id":"msg_68a1b2c3","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Yes."}]}],"usage":{"input_tokens":256,"input_tokens_details":{"cached_tokens":0},"output_tokens":10,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":266}},"sequence_number":43}

"#;

const MESSAGES_BEGIN: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_01AbCdEf","type":"message","role":"assistant","content":[],"model":"m1","usage":{"input_tokens":256,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

"#;
const MESSAGES_DELTA: &str = r#"event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"*"}       }

"#;
const MESSAGES_END: &str = r#"event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":10}}

event: message_stop
data: {"type":"message_stop"}

"#;
