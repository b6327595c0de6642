//! What a model request asks for, read from its body as it streams past.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::skim::{Found, Keys, Path, Progress, Skim};

/// A request to a model as far as its body has passed.
///
/// A piece may go on as soon as it was fed without a fault, except the one that makes it
/// [whole](Self::is_whole), or ends it: that waits for [`finish`](Self::finish). Some providers begin to
/// work once the object is whole, and do not wait for the body's end.
#[derive(Debug)]
pub struct Asked {
    skim: Skim,
    wish: Wish,
    seam: Seam,
    bytes: u64,
    fault: Option<Fault>,
}

/// Why a request is not passed on. None of these repeats any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is something else than one JSON object.
    #[error("body is not a JSON object")]
    NotAnObject,
    /// A control member appears twice, so that we and a provider could read different ones.
    #[error("member {0} appears twice")]
    Duplicate(&'static str),
    /// The model's name cannot be one.
    #[error("model is {0}")]
    Model(&'static str),
    /// It ended without a model.
    #[error("body names no model")]
    NoModel,
    /// It ended before the object did.
    #[error("body is incomplete")]
    Incomplete,
    /// Something followed the object.
    #[error("body goes on behind its JSON object")]
    Trailing,
    /// A member that would lead elsewhere, or would leave no usage behind.
    #[error("member {0} is not allowed")]
    Forbidden(&'static str),
}

impl Asked {
    /// Of a body that is to come.
    pub fn new() -> Self {
        Self {
            skim: Skim::new(CONTROL, Keys::AnyCase, LARGEST),
            wish: Wish::default(),
            seam: Seam::default(),
            bytes: 0,
            fault: None,
        }
    }

    /// Reads the next piece. After a fault there is nothing but that fault.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        self.wish.refers_elsewhere |= self.seam.shows_sign(piece);
        let (wish, fault) = (&mut self.wish, &mut self.fault);
        self.skim.feed(piece, |found| {
            if fault.is_none() {
                *fault = wish.take(&found).err();
            }
        });
        self.fault = self.fault.or(match self.skim.progress() {
            Progress::Unfinished | Progress::Whole => None,
            Progress::NotAnObject | Progress::Broken => Some(Fault::NotAnObject),
            Progress::Followed => Some(Fault::Trailing),
        });
        self.fault.map_or(Ok(()), Err)
    }

    /// Says whether the body that ended here may be passed on.
    pub fn finish(&self) -> Result<(), Fault> {
        match self.fault {
            Some(fault) => Err(fault),
            None if self.skim.progress() != Progress::Whole => Err(Fault::Incomplete),
            None if self.wish.model.is_none() => Err(Fault::NoModel),
            None => Ok(()),
        }
    }

    /// The model, once it has passed.
    pub fn model(&self) -> Option<&str> {
        self.wish.model.as_deref()
    }

    /// How many tokens the answers may have altogether, if the request limits them. It is
    /// `u64::MAX` if we cannot read how: a provider may be able to.
    pub fn worst_output(&self) -> Option<u64> {
        self.wish.output.map(|output| output.saturating_mul(self.answers()))
    }

    /// How many answers it asks for at once, or has the provider choose from.
    pub fn answers(&self) -> u64 {
        self.wish.answers.max(1)
    }

    /// Whether the model may read something that is not in the body: what the provider keeps, or
    /// fetches. Said of some requests too many.
    pub fn refers_elsewhere(&self) -> bool {
        self.wish.refers_elsewhere
    }

    /// Whether all of the object has passed: what may follow is white space.
    pub fn is_whole(&self) -> bool {
        self.skim.progress() == Progress::Whole
    }

    /// Whether a stream is to say at its end what was used.
    pub fn wants_usage(&self) -> bool {
        self.wish.wants_usage
    }

    /// Whether the answer is to be streamed.
    pub fn streams(&self) -> bool {
        self.wish.streams
    }

    /// How long the body is so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Default for Asked {
    fn default() -> Self {
        Self::new()
    }
}

/// The end of the piece before, in which a sign may have begun.
#[derive(Debug, Default)]
struct Seam(Vec<u8>);

impl Seam {
    /// Whether there is a sign in `piece`, or across its beginning.
    fn shows_sign(&mut self, piece: &[u8]) -> bool {
        let holds_sign = |text: &[u8]| ELSEWHERE.iter().any(|sign| sign.find(text).is_some());
        self.0.extend(&piece[..piece.len().min(LONGEST_SIGN)]);
        let shown = holds_sign(&self.0) || holds_sign(piece);
        if piece.len() >= LONGEST_SIGN {
            self.0.clear();
            self.0.extend(&piece[piece.len() - LONGEST_SIGN..]);
        } else {
            self.0.drain(..self.0.len().saturating_sub(LONGEST_SIGN));
        }
        shown
    }
}

/// What the control members say.
#[derive(Debug, Default)]
struct Wish {
    model: Option<String>,
    output: Option<u64>,
    answers: u64,
    refers_elsewhere: bool,
    wants_usage: bool,
    streams: bool,
}

impl Wish {
    fn take(&mut self, found: &Found<'_>) -> Result<(), Fault> {
        let member = *found.path.last().unwrap_or(&"");
        if found.is_again {
            return Err(Fault::Duplicate(member));
        }
        match member {
            "model" => self.model = Some(model(found)?),
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                self.output = self.output.max(count(found));
            }
            "n" | "best_of" => self.answers = self.answers.max(count(found).unwrap_or(1)),
            "previous_response_id" | "conversation" => {
                self.refers_elsewhere |= found.text != b"null";
            }
            // As a string it is the input of the oldest endpoint.
            "prompt" => self.refers_elsewhere |= found.text.starts_with(b"{"),
            "include_usage" => self.wants_usage = found.text == b"true",
            // Lenient providers take more than `true` for a yes.
            "stream" => self.streams = !matches!(found.text, b"false" | b"null"),
            _ if !matches!(found.text, b"false" | b"null") => {
                return Err(Fault::Forbidden(member));
            }
            _ => {}
        }
        Ok(())
    }
}

fn model(found: &Found<'_>) -> Result<String, Fault> {
    let too_long = Fault::Model("longer than 256 bytes");
    if !found.is_whole && found.text.starts_with(b"\"") {
        return Err(too_long);
    }
    let name: String =
        serde_json::from_slice(found.text).map_err(|_| Fault::Model("not a string"))?;
    match name {
        name if name.is_empty() => Err(Fault::Model("empty")),
        name if name.len() > LONGEST_MODEL => Err(too_long),
        name if name.contains(char::is_control) => Err(Fault::Model("not printable")),
        name => Ok(name),
    }
}

/// Some providers take numbers in strings, and numbers below zero for no limit.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn count(found: &Found<'_>) -> Option<u64> {
    if found.text == b"null" {
        return None;
    }
    let number = serde_json::from_slice(found.text).ok().filter(|_| found.is_whole);
    Some(number.filter(|number| *number >= 0.0).map_or(u64::MAX, |number: f64| number as u64))
}

/// The members that decide where a request goes and what it may cost.
const CONTROL: &[Path] = &[
    &["model"],
    &["stream"],
    &["max_tokens"],
    &["max_completion_tokens"],
    &["max_output_tokens"],
    &["n"],
    &["best_of"],
    &["previous_response_id"],
    &["conversation"],
    &["prompt"],
    &["stream_options", "include_usage"],
    // The provider would work on after its reply, which then reports no usage.
    &["background"],
    // OpenRouter: other models when this one fails, or in its place.
    &["models"],
    &["fallbacks"],
    &["route"],
    &["preset"],
    // LiteLLM and its like: another provider, with our key or another.
    &["api_base"],
    &["base_url"],
    &["api_key"],
    &["user_config"],
];
/// Signs of a URL to fetch and of a file that was uploaded, which begin or name a value.
static ELSEWHERE: LazyLock<[Finder<'static>; 3]> = LazyLock::new(|| {
    [Finder::new("\"http://"), Finder::new("\"https://"), Finder::new("\"file_id\"")]
});
const LONGEST_SIGN: usize = 9;
const LONGEST_MODEL: usize = 256;
/// A model's name of which every byte is escaped, and some.
const LARGEST: usize = 2048;

#[cfg(test)]
mod tests;
