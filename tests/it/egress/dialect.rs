//! What runners and providers say to each other in each of the three styles.

use open_persona::usage::Tokens;
use serde_json::{Value, json};

use super::world::World;
use crate::stub::{STREAM, chunk};

/// The API that a provider has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Chat,
    Responses,
    Messages,
}

pub(super) const STYLES: [Style; 3] = [Style::Chat, Style::Responses, Style::Messages];

impl Style {
    /// The provider that has it.
    pub(super) fn provider(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }

    /// Where a runner asks it.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/v1/chat/completions",
            Self::Responses => "/responses/v1/responses",
            Self::Messages => "/messages/v1/messages",
        }
    }

    /// How its SDK writes the header with `key`.
    pub(super) fn credential(self, key: &str) -> String {
        match self {
            Self::Chat | Self::Responses => format!("Authorization: Bearer {key}\r\n"),
            Self::Messages => format!("x-api-key: {key}\r\n"),
        }
    }

    /// A request of the runner with `token`.
    pub(super) fn request(self, world: &World, token: &str, body: &str) -> String {
        post(world, self.path(), &self.credential(token), body)
    }

    /// A usage object that reports `tokens`.
    pub(super) fn usage(self, tokens: Tokens) -> Value {
        let Tokens { input, cached, cache_write, output, reasoning } = tokens;
        let (read, written) = (input + cached + cache_write, output + reasoning);
        match self {
            Self::Chat => json!({
                "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
                "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": cache_write},
                "completion_tokens_details": {"reasoning_tokens": reasoning},
            }),
            Self::Responses => json!({
                "input_tokens": read, "output_tokens": written, "total_tokens": read + written,
                "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": cache_write},
                "output_tokens_details": {"reasoning_tokens": reasoning},
            }),
            Self::Messages => json!({
                "input_tokens": input, "output_tokens": written,
                "cache_read_input_tokens": cached, "cache_creation_input_tokens": cache_write,
            }),
        }
    }

    /// A whole document, cut into `pieces`, the last of which reports `tokens`.
    pub(super) fn document(self, tokens: Tokens, pieces: usize) -> Vec<String> {
        let mut parts: Vec<_> =
            (0..pieces).map(|number| format!("\"m{number}\":\"{}\",", piece(number))).collect();
        parts[0].insert(0, '{');
        parts.push(format!("\"usage\":{}}}", self.usage(tokens)));
        parts
    }

    /// A stream's events, `pieces` of which carry a part of the answer. The one before the last
    /// reports `tokens`.
    pub(super) fn events(self, tokens: Tokens, pieces: usize) -> Vec<String> {
        let usage = self.usage(tokens);
        let mut events: Vec<_> = (0..pieces).map(|number| self.delta(&piece(number))).collect();
        match self {
            Self::Chat => {
                events.push(event(&json!({"choices": [], "usage": usage})));
                events.push("data: [DONE]\n\n".to_owned());
            }
            Self::Responses => {
                let done = json!({"type": "response.completed", "response": {"usage": usage}});
                events.push(event(&done));
                events.push(event(&json!({"type": "keepalive"})));
            }
            Self::Messages => {
                let mut early = usage.clone();
                early["output_tokens"] = json!(1);
                let start = json!({"type": "message_start", "message": {"usage": early}});
                events[0].insert_str(0, &event(&start));
                events.push(event(&json!({"type": "message_delta", "usage": usage})));
                events.push(event(&json!({"type": "message_stop"})));
            }
        }
        events
    }

    /// An event with a part of the answer.
    pub(super) fn delta(self, text: &str) -> String {
        event(&match self {
            Self::Chat => json!({"choices": [{"delta": {"content": text}}], "usage": null}),
            Self::Responses => json!({"type": "response.output_text.delta", "delta": text}),
            Self::Messages => json!({"type": "content_block_delta", "delta": {"text": text}}),
        })
    }
}

/// A request for `path` with `headers`.
pub(super) fn post(world: &World, path: &str, headers: &str, body: &str) -> String {
    let (host, length) = (&world.authority, body.len());
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         {headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// What is in the piece with this number, and in no other.
pub(super) fn piece(number: usize) -> String {
    format!("piece-{number};")
}

/// The head of a stream and its `events`, each a chunk.
pub(super) fn stream(events: &[String]) -> Vec<Vec<u8>> {
    let head = STREAM.as_bytes().to_vec();
    let chunks = events.iter().map(|event| chunk(event.as_bytes()));
    let mut pieces: Vec<_> = std::iter::once(head).chain(chunks).collect();
    pieces.push(b"0\r\n\r\n".to_vec());
    pieces
}

/// A JSON answer with its length.
pub(super) fn json_answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// As many tokens of input and of output.
pub(super) fn tokens(input: u64, output: u64) -> Tokens {
    Tokens { input, output, ..Tokens::default() }
}

fn event(document: &Value) -> String {
    format!("data: {document}\n\n")
}
