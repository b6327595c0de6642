//! What users use of the model providers: counted, priced, limited.

mod accounts;
mod amount;
mod budget;
mod day;
mod ledger;
mod report;
mod table;

use std::fmt;

pub use self::{
    amount::{parse_tokens, per_million},
    budget::{Kind, Limit, OverBudget},
    day::{Day, Period},
    ledger::{BudgetError, Reservation, Usage},
    report::{By, Line, Query, Totals, report},
};

/// The tokens of one or more model calls. No token is in two of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read by the model, and not found in its cache.
    pub input: u64,
    /// Read from its cache.
    pub cached: u64,
    /// Written to its cache; providers that charge for that say so, others count it as `input`.
    pub cache_write: u64,
    /// Written by the model as its answer, tool calls included.
    pub output: u64,
    /// Written by the model for itself.
    pub reasoning: u64,
}

impl Tokens {
    /// All of them.
    pub fn total(&self) -> u64 {
        [self.cached, self.cache_write, self.output, self.reasoning]
            .into_iter()
            .fold(self.input, u64::saturating_add)
    }
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, more: Self) {
        self.input = self.input.saturating_add(more.input);
        self.cached = self.cached.saturating_add(more.cached);
        self.cache_write = self.cache_write.saturating_add(more.cache_write);
        self.output = self.output.saturating_add(more.output);
        self.reasoning = self.reasoning.saturating_add(more.reasoning);
    }
}

/// An amount of money in billionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(pub u64);

impl fmt::Display for Money {
    /// Dollars with six decimals, rounded half up: `$1.250000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.saturating_add(500) / 1_000;
        write!(f, "${}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}

/// What a model's tokens cost, in trillionths of a US dollar for each token, which is what a
/// dollar for a million tokens is a million of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    /// For [`Tokens::input`].
    pub input: u64,
    /// For [`Tokens::cached`].
    pub cached: u64,
    /// For [`Tokens::cache_write`].
    pub cache_write: u64,
    /// For [`Tokens::output`] and [`Tokens::reasoning`].
    pub output: u64,
}

impl Price {
    /// What `tokens` cost, rounded half up.
    pub fn of(&self, tokens: &Tokens) -> Money {
        let cost = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let trillionths = cost(tokens.input, self.input)
            + cost(tokens.cached, self.cached)
            + cost(tokens.cache_write, self.cache_write)
            + cost(tokens.output, self.output)
            + cost(tokens.reasoning, self.output);
        Money(u64::try_from((trillionths + 500) / 1_000).unwrap_or(u64::MAX))
    }
}

/// How much a user may use within a period. `None` is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Tokens of all kinds.
    pub tokens: Option<u64>,
    /// What they cost.
    pub money: Option<Money>,
}

/// How much a user may use. Days and months are UTC's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Between two midnights.
    pub day: Allowance,
    /// Within a calendar month.
    pub month: Allowance,
}

/// What one call costs, or can cost at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spend {
    /// Tokens of all kinds.
    pub tokens: u64,
    /// What they cost.
    pub money: Money,
}

/// What one call has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Of which model, written `provider/model`.
    pub model: String,
    /// How many tokens.
    pub tokens: Tokens,
    /// What they cost.
    pub money: Money,
    /// Whether the tokens are an estimate, because the provider did not say.
    pub estimated: bool,
}
