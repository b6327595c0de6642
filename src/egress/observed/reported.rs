//! The members of the usage objects that the APIs have, and what they mean.

use serde_json::Value;

use super::Endpoint;
use crate::usage::Tokens;

/// The largest that was reported of each. They are cumulative where they repeat.
#[derive(Debug, Default)]
pub(super) struct Reported {
    input: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
    total: Option<u64>,
    /// Whether caches were reported beside the input, as Anthropic does.
    has_caches_beside: bool,
}

impl Reported {
    /// Adds what the usage object `text` says, and whether that is anything.
    pub(super) fn add(&mut self, text: &[u8]) -> bool {
        let Ok(usage) = serde_json::from_slice::<Value>(text) else { return false };
        let mut is_any = false;
        let mut largest = |member: &mut Option<u64>, paths: &[&[&str]]| {
            for number in paths.iter().filter_map(|path| count(at(&usage, path)?)) {
                *member = (*member).max(Some(number));
                is_any = true;
            }
        };
        largest(&mut self.input, &[&["prompt_tokens"], &["input_tokens"]]);
        largest(&mut self.cached, CACHED);
        largest(&mut self.cache_write, CACHE_WRITE);
        largest(&mut self.output, &[&["completion_tokens"], &["output_tokens"]]);
        largest(&mut self.reasoning, REASONING);
        largest(&mut self.total, &[&["total_tokens"]]);
        self.has_caches_beside |=
            [CACHED[0], CACHE_WRITE[0]].iter().any(|path| at(&usage, path).is_some());
        is_any
    }

    /// What that means, where `endpoint` reported it.
    pub(super) fn tokens(&self, endpoint: Endpoint) -> Option<Tokens> {
        let all = [self.input, self.cached, self.cache_write, self.output, self.reasoning];
        if all.iter().chain([&self.total]).all(Option::is_none) {
            return None;
        }
        let [input, cached, cache_write, output, reasoning] = all.map(Option::unwrap_or_default);
        if endpoint == Endpoint::Messages || endpoint == Endpoint::Other && self.has_caches_beside {
            let output = output.saturating_sub(reasoning);
            return Some(Tokens { input, cached, cache_write, output, reasoning });
        }
        // Input has the caches in it, and output the reasoning. The total tells of those who
        // count the reasoning beside the output, as xAI does, or report it nowhere else.
        let beside = self.total.unwrap_or_default().saturating_sub(input + output);
        let (input, beside) = match endpoint {
            Endpoint::Embeddings => (input + beside, 0),
            _ => (input, beside),
        };
        let within = reasoning.saturating_sub(beside);
        Some(Tokens {
            input: input.saturating_sub(cached + cache_write),
            cached,
            cache_write,
            output: output.saturating_sub(within),
            reasoning: within + beside,
        })
    }
}

fn at<'a>(usage: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(usage, |value, name| value.get(name))
}

/// A number of tokens. What cannot be one is none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
fn count(value: &Value) -> Option<u64> {
    let number = value.as_f64()?;
    (0.0..=MOST).contains(&number).then_some(number as u64)
}

/// Where the APIs have the tokens read from a cache: Anthropic's, `OpenAI`'s two, `DeepSeek`'s.
const CACHED: &[&[&str]] = &[
    &["cache_read_input_tokens"],
    &["prompt_tokens_details", "cached_tokens"],
    &["input_tokens_details", "cached_tokens"],
    &["prompt_cache_hit_tokens"],
];
const CACHE_WRITE: &[&[&str]] = &[
    &["cache_creation_input_tokens"],
    &["prompt_tokens_details", "cache_write_tokens"],
    &["input_tokens_details", "cache_write_tokens"],
];
const REASONING: &[&[&str]] = &[
    &["completion_tokens_details", "reasoning_tokens"],
    &["output_tokens_details", "reasoning_tokens"],
];
/// More than any call can have, and far from where sums overflow or floats lose precision.
const MOST: f64 = 1e12;
