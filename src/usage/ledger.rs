//! What users have used, in the database, and what they may still use, in memory.
//!
//! What a user has spent is read from the database once in a period and kept in memory from then
//! on. Memory and database agree because both change together: an account is opened, and a call is
//! settled, while the database is held. The accounts' own lock is always the inner one, so a call
//! that finds its account open never waits for the database.

use std::sync::Arc;

use parking_lot::Mutex;
use time::OffsetDateTime;

use super::{
    Budget, Day, OverBudget, Record, Spend,
    accounts::{self, Accounts, Pages},
    table,
};
use crate::state::{State, StateError};

/// Counts what users use and holds them to their budgets. The only writer of its table.
#[derive(Debug)]
pub struct Usage {
    state: State,
    accounts: Mutex<Accounts>,
}

/// Why a call is not let in.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// The user's budget says no.
    #[error(transparent)]
    Over(#[from] OverBudget),
    /// Nobody knows what was spent.
    #[error("what the user has spent so far cannot be read")]
    Unknown(#[source] StateError),
}

impl Usage {
    /// The usage kept in `state`.
    pub fn new(state: State) -> Self {
        Self { state, accounts: Mutex::default() }
    }

    /// Lets a call of `user` begin and reserves `worst`, the most it can cost, until it is settled.
    ///
    /// It may begin if, for every limit of `budget`, what is spent and what calls in flight have
    /// reserved is below the limit. So N calls at once overspend by at most one of them, and calls
    /// one after the other are let in as long as anything is left.
    ///
    /// Blocks on the database when it is the user's first call of a day; never without a budget.
    pub fn begin(
        self: &Arc<Self>,
        user: &str,
        budget: &Budget,
        worst: Spend,
        now: OffsetDateTime,
    ) -> Result<Reservation, BudgetError> {
        let mut reservation = Reservation {
            usage: Arc::clone(self),
            user: user.to_owned(),
            day: Day::of(now),
            reserved: None,
        };
        if !budget.is_unlimited() {
            self.ask(user, now, |pages| accounts::admit(pages, budget, worst, now))?;
            reservation.reserved = Some(worst);
        }
        Ok(reservation)
    }

    /// Whether `user` has something of `budget` left, calls in flight aside: if not, it is of no
    /// use to begin anything that makes calls. Blocks as [`begin`](Self::begin).
    pub fn check(
        &self,
        user: &str,
        budget: &Budget,
        now: OffsetDateTime,
    ) -> Result<(), BudgetError> {
        if budget.is_unlimited() {
            return Ok(());
        }
        self.ask(user, now, |pages| accounts::check(&pages, budget, now))
    }

    /// What `question` is answered, after the user's account was opened if it has to be.
    fn ask(
        &self,
        user: &str,
        now: OffsetDateTime,
        question: impl Fn(Pages<'_>) -> Result<(), OverBudget>,
    ) -> Result<(), BudgetError> {
        let day = Day::of(now);
        if let Some(pages) = self.accounts.lock().pages(user, day) {
            return Ok(question(pages)?);
        }
        let answer = self.state.with(|db| {
            let spent = table::spent(db, user, day)?;
            // Asked before the database is let go: nothing is settled in between, and no other
            // day can close the account again.
            Ok(question(self.accounts.lock().open(user, day, spent)))
        });
        Ok(answer.map_err(BudgetError::Unknown)??)
    }
}

/// The right to make one call. Dropping it gives back what it reserved and records nothing.
#[derive(Debug)]
#[must_use = "a call that is not settled costs nothing"]
pub struct Reservation {
    usage: Arc<Usage>,
    user: String,
    day: Day,
    /// Without a budget, nothing.
    reserved: Option<Spend>,
}

impl Reservation {
    /// Records what the call used, on the day it began, in place of what it reserved. Blocks.
    ///
    /// # Errors
    ///
    /// It could not be written down. The budget counts it all the same, until a restart.
    pub fn settle(mut self, record: &Record) -> Result<(), StateError> {
        let usage = Arc::clone(&self.usage);
        usage.state.with(|db| {
            let written = table::add(db, &self.user, self.day, record);
            let real = Spend { tokens: record.tokens.total(), money: record.money };
            let mut accounts = usage.accounts.lock();
            // Also for a call that began without a budget: its user may have got one since.
            accounts.spend(&self.user, self.day, real);
            self.release(&mut accounts);
            written
        })
    }

    fn release(&mut self, accounts: &mut Accounts) {
        if let Some(worst) = self.reserved.take() {
            accounts.release(&self.user, self.day, worst);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.reserved.is_some() {
            let usage = Arc::clone(&self.usage);
            self.release(&mut usage.accounts.lock());
        }
    }
}

#[cfg(test)]
mod tests;
