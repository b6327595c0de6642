//! What a call costs: reserved before its request is whole, read off its answer, and written down.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{
    asked::Asked,
    observed::{Endpoint, Form, Observed},
    refusal,
};
use crate::{
    config::{ModelRef, Policy, Provider},
    error::Refusal,
    state::StateError,
    usage::{Price, Record, Reservation, Spend, Tokens, Usage},
};

/// The bill of a call that may be made. To drop it unsettled costs nobody anything.
#[derive(Debug)]
pub(super) struct Bill {
    reservation: Reservation,
    model: ModelRef,
    price: Price,
    endpoint: Endpoint,
    /// Of the request, whose tokens are guessed from it when nobody says them.
    bytes: u64,
    streams: bool,
    /// Once there is an answer that costs something.
    observed: Option<Observed>,
}

impl Bill {
    /// Opens the bill of what was `asked` of `provider` for `user`, and reserves the most it can be.
    pub(super) fn open(
        usage: &Arc<Usage>,
        (user, policy): (&str, &Policy),
        (id, provider): (&str, &Provider),
        endpoint: Endpoint,
        asked: &Asked,
    ) -> Result<Self, Refusal> {
        let name = asked.model().unwrap_or_default();
        let model = ModelRef { provider: id.to_owned(), model: name.to_owned() };
        let known = provider.models.get(name);
        let budget = &policy.budget;
        if budget.limits_money() && known.is_none_or(|known| known.price.is_none()) {
            return Err(refusal::no_price(&model).because(format!("user={user:?}")));
        }
        if !budget.is_unlimited()
            && endpoint == Endpoint::ChatCompletions
            && asked.streams()
            && !asked.wants_usage()
        {
            return Err(refusal::no_usage());
        }
        let price = known.and_then(|known| known.price).unwrap_or_default();
        // No token is shorter than a byte; what is not in the request is no longer than can be read.
        let context = known.map_or(DEFAULT_CONTEXT, |known| known.context);
        let elsewhere = if asked.refers_elsewhere() { context } else { 0 };
        let input = asked.bytes().saturating_add(elsewhere);
        let output = asked.worst_output().unwrap_or_else(|| {
            let each = known.map_or(DEFAULT_OUTPUT, |known| known.output);
            each.saturating_mul(asked.answers())
        });
        let plain = Tokens { input, output, ..Tokens::default() };
        let to_cache = Tokens { cache_write: input, output, ..Tokens::default() };
        let money = price.of(&plain).max(price.of(&to_cache));
        let worst = Spend { tokens: plain.total(), money };
        let begun = usage.begin(user, budget, worst, OffsetDateTime::now_utc());
        let reservation = begun.map_err(refusal::of_budget)?;
        let (bytes, streams) = (asked.bytes(), asked.streams());
        Ok(Self { reservation, model, price, endpoint, bytes, streams, observed: None })
    }

    /// There is an answer of this form, and it costs something.
    pub(super) fn expect(&mut self, form: Form) {
        self.observed = Some(Observed::new(self.endpoint, form));
    }

    /// Reads a piece of the answer; gives the tokens so far if it changed them.
    pub(super) fn observe(&mut self, piece: &[u8]) -> Option<Tokens> {
        let observed = self.observed.as_mut()?;
        let before = observed.tokens();
        observed.feed(piece);
        observed.tokens().filter(|now| Some(*now) != before)
    }

    /// What the call used; `None` when that was nothing. `is_cut`: it ended early, and neither by
    /// its provider nor because we did not like the answer.
    pub(super) fn record(&self, is_cut: bool) -> Option<Record> {
        let of = |tokens: Tokens, estimated: bool| Record {
            model: self.model.to_string(),
            tokens,
            money: self.price.of(&tokens),
            estimated,
        };
        let guessed = Tokens { input: self.bytes / BYTES_PER_TOKEN, ..Tokens::default() };
        let Some(observed) = &self.observed else {
            // The provider has read it all the same.
            return is_cut.then(|| of(guessed, true));
        };
        let told = observed.tokens();
        if let Some(tokens) = told.filter(|_| observed.is_final()) {
            return Some(of(tokens, false));
        }
        let mut tokens = told.unwrap_or(guessed);
        tokens.output = tokens.output.max(self.guessed_output(observed));
        Some(of(tokens, true))
    }

    /// What a provider that said nothing of it may have written.
    fn guessed_output(&self, observed: &Observed) -> u64 {
        match self.endpoint {
            Endpoint::Embeddings => 0,
            _ if self.streams => observed.events(),
            _ => observed.bytes() / BYTES_PER_TOKEN,
        }
    }

    /// Writes `record` down in place of what was reserved. Blocks.
    pub(super) fn settle(self, record: &Record) -> Result<(), StateError> {
        self.reservation.settle(record)
    }
}

/// What is taken for the limits of a model of which only the name is known.
const DEFAULT_CONTEXT: u64 = 1_000_000;
const DEFAULT_OUTPUT: u64 = 128_000;
/// Of English text and code, which is what there is most of.
const BYTES_PER_TOKEN: u64 = 4;
