//! The provider's books: what it has said that was used, and how calls ended.

use std::collections::BTreeMap;

use open_persona::usage::Tokens;

use super::Style;

/// What was used with one key of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Calls whose usage was told.
    pub(crate) calls: u64,
    pub(crate) tokens: Tokens,
}

/// The books. A call is in exactly one of `told`, `untold`, `early` once it has ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    /// Calls that were answered with something other than an error.
    pub(crate) begun: u64,
    /// Calls that ended after their usage was told.
    pub(crate) told: u64,
    /// Calls that ended as they should, without usage.
    pub(crate) untold: u64,
    /// Calls whose caller left, or that were cut, before their usage was told.
    pub(crate) early: u64,
    /// Calls that got an error or a redirect.
    pub(crate) refused: u64,
    /// By key and model.
    pub(crate) used: BTreeMap<(String, String), Used>,
}

impl Ledger {
    /// Calls that have not ended.
    pub(crate) fn open(&self) -> u64 {
        self.begun - self.told - self.untold - self.early
    }

    /// What was used with `key` of `model`.
    pub(crate) fn of(&self, key: &str, model: &str) -> Used {
        self.used.get(&(key.to_owned(), model.to_owned())).copied().unwrap_or_default()
    }

    /// What was used in all.
    pub(crate) fn total(&self) -> Used {
        self.used.values().fold(Used::default(), |mut sum, used| {
            sum.calls += used.calls;
            sum.tokens += used.tokens;
            sum
        })
    }

    pub(super) fn tell(&mut self, key: &str, model: &str, tokens: Tokens) {
        let used = self.used.entry((key.to_owned(), model.to_owned())).or_default();
        used.calls += 1;
        used.tokens += tokens;
    }
}

/// What call number `number` has used: different for each, the same in every run, and nothing
/// that the style has no word for.
pub(super) fn drawn(number: u64, style: Style) -> Tokens {
    let mut state = number;
    let mut draw = |most: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    };
    let mut tokens = Tokens {
        input: 1 + draw(900),
        cached: draw(400),
        cache_write: draw(100),
        output: 1 + draw(300),
        reasoning: draw(200),
    };
    match style {
        Style::Messages => tokens.reasoning = 0,
        Style::Responses | Style::Chat => tokens.cache_write = 0,
    }
    tokens
}
