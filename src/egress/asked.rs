//! What a model request asks for, read from its body as it streams past.

use crate::skim::{Found, Keys, Path, Progress, Skim};

/// A request to a model as far as its body has passed.
///
/// A piece may go on as soon as it was fed without a fault, except the last one, which waits for
/// [`finish`](Self::finish): a body that lacks its end makes no provider work.
#[derive(Debug)]
pub struct Asked {
    skim: Skim,
    wish: Wish,
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
}

impl Asked {
    /// Of a body that is to come.
    pub fn new() -> Self {
        Self {
            skim: Skim::new(CONTROL, Keys::AnyCase, LARGEST),
            wish: Wish::default(),
            bytes: 0,
            fault: None,
        }
    }

    /// Reads the next piece. After a fault there is nothing but that fault.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
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

    /// Whether the model reads something that is not in the body, but kept by the provider.
    pub fn refers_elsewhere(&self) -> bool {
        self.wish.refers_elsewhere
    }

    /// Whether the provider is to work on it after the reply, which then reports no usage.
    pub fn in_background(&self) -> bool {
        self.wish.in_background
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

/// What the control members say.
#[derive(Debug, Default)]
struct Wish {
    model: Option<String>,
    output: Option<u64>,
    answers: u64,
    refers_elsewhere: bool,
    in_background: bool,
    streams: bool,
}

impl Wish {
    fn take(&mut self, found: &Found<'_>) -> Result<(), Fault> {
        let member = found.path[0];
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
            "background" => self.in_background = found.text == b"true",
            _ => self.streams = found.text == b"true",
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
    &["background"],
];
const LONGEST_MODEL: usize = 256;
/// A model's name of which every byte is escaped, and some.
const LARGEST: usize = 2048;

#[cfg(test)]
mod tests;
