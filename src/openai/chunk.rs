//! The pieces of a streamed chat completion, and the document of one that is not streamed.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::json;

use super::sse;

/// Makes the chunks of one completion. What they share is written once; a delta costs the text it
/// carries.
#[derive(Debug)]
pub struct Chunks {
    id: String,
    created: u64,
    model: String,
    /// `data: {…,"choices":[{"index":0,"delta":{`
    open: Bytes,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// It ran into its limit.
    Length,
    /// The provider held the answer back.
    ContentFilter,
}

/// Tokens in `OpenAI`'s terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub prompt: u64,
    /// Of these, from the provider's cache.
    pub cached: u64,
    /// Tokens written, reasoning included.
    pub completion: u64,
    /// Of these, as reasoning.
    pub reasoning: u64,
}

impl Serialize for Usage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt.saturating_add(self.completion),
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        })
        .serialize(serializer)
    }
}

/// The models that answered, and what chose them: an addition of ours to `OpenAI`'s shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelDetails {
    /// `provider/model` of the answer.
    pub model: String,
    /// `provider/model` of the small tasks.
    pub small_model: String,
    /// `workspace`, `template`, `environment` or `default`.
    pub resolved_from: String,
}

impl Chunks {
    /// Chunks of the completion `id` of `model`; `created` in Unix seconds.
    pub fn new(id: &str, created: u64, model: &str) -> Self {
        let mut open = BytesMut::new();
        open.put_slice(b"data: {\"id\":");
        sse::write_json(&mut open, id);
        open.put_slice(b",\"object\":\"chat.completion.chunk\",\"created\":");
        sse::write_json(&mut open, &created);
        open.put_slice(b",\"model\":");
        sse::write_json(&mut open, model);
        open.put_slice(b",\"choices\":[{\"index\":0,\"delta\":{");
        Self { id: id.to_owned(), created, model: model.to_owned(), open: open.freeze() }
    }

    /// The completion's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The first chunk: whose words follow.
    pub fn role(&self) -> Bytes {
        self.delta("role", "assistant")
    }

    /// A piece of the answer.
    pub fn content(&self, text: &str) -> Bytes {
        self.delta("content", text)
    }

    /// A piece of the model's reasoning.
    pub fn reasoning(&self, text: &str) -> Bytes {
        self.delta("reasoning_content", text)
    }

    fn delta(&self, member: &str, text: &str) -> Bytes {
        let mut frame = BytesMut::with_capacity(self.open.len() + text.len() + text.len() / 8 + 64);
        frame.put_slice(&self.open);
        frame.put_u8(b'"');
        frame.put_slice(member.as_bytes());
        frame.put_slice(b"\":");
        sse::write_json(&mut frame, text);
        frame.put_slice(b"},\"finish_reason\":null}]}\n\n");
        frame.freeze()
    }

    /// The last chunks: the finish, the usage if asked for, and `[DONE]`.
    pub fn end(&self, finish: FinishReason, details: &ModelDetails, usage: Option<Usage>) -> Bytes {
        let mut frames = BytesMut::new();
        let mut last = self.envelope("chat.completion.chunk");
        last["choices"] = json!([{"index": 0, "delta": {}, "finish_reason": finish}]);
        last["model_details"] = json!(details);
        frames.put_slice(&sse::data(&last));
        if let Some(usage) = usage {
            last["choices"] = json!([]);
            last["usage"] = json!(usage);
            frames.put_slice(&sse::data(&last));
        }
        frames.put_slice(sse::DONE);
        frames.freeze()
    }

    /// The whole completion as one document.
    pub fn document(
        &self,
        content: &str,
        reasoning: &str,
        finish: FinishReason,
        details: &ModelDetails,
        usage: Usage,
    ) -> Bytes {
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !reasoning.is_empty() {
            message["reasoning_content"] = json!(reasoning);
        }
        let mut document = self.envelope("chat.completion");
        document["choices"] = json!([{
            "index": 0, "message": message, "logprobs": null, "finish_reason": finish,
        }]);
        document["usage"] = json!(usage);
        document["model_details"] = json!(details);
        Bytes::from(document.to_string())
    }

    fn envelope(&self, object: &str) -> serde_json::Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks() -> Chunks {
        Chunks::new("chatcmpl-1", 7, "open-persona/build")
    }

    fn frames(bytes: &Bytes) -> Vec<serde_json::Value> {
        let text = std::str::from_utf8(bytes).unwrap();
        let frames = text.split("\n\n").filter_map(|frame| frame.strip_prefix("data: "));
        frames.filter_map(|json| serde_json::from_str(json).ok()).collect()
    }

    #[test]
    fn a_delta_is_a_chunk_whatever_its_text() {
        for text in ["Hi", "", "\"\\\n\n\u{2028}\u{0}", "data: [DONE]\n\n", "😀"] {
            let frame = chunks().content(text);
            assert_eq!(
                frames(&frame),
                [json!({
                    "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7,
                    "model": "open-persona/build",
                    "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}],
                })]
            );
            assert_eq!(frame.windows(2).filter(|pair| pair == b"\n\n").count(), 1);
        }
    }

    #[test]
    fn usage_comes_in_a_chunk_without_choices_before_done() {
        let details = ModelDetails {
            model: "demo/demo".to_owned(),
            small_model: "demo/small".to_owned(),
            resolved_from: "default".to_owned(),
        };
        let usage = Usage { prompt: 10, cached: 4, completion: 5, reasoning: 2 };
        let end = chunks().end(FinishReason::ContentFilter, &details, Some(usage));
        assert!(end.ends_with(b"}\n\ndata: [DONE]\n\n"));
        let frames = frames(&end);
        assert_eq!(frames[0]["choices"][0]["finish_reason"], "content_filter");
        assert_eq!(frames[0]["model_details"]["small_model"], "demo/small");
        assert_eq!(frames[1]["choices"], json!([]));
        assert_eq!(frames[1]["usage"]["total_tokens"], 15);
        assert_eq!(frames[1]["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
        assert_eq!(frames[1]["usage"]["completion_tokens_details"]["reasoning_tokens"], 2);
    }
}
