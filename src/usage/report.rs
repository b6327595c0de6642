//! Usage as an administrator asks for it: filtered, grouped, summed up.

use std::collections::BTreeMap;

use super::{Day, Money, Tokens, table};
use crate::state::{State, StateError};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The first day.
    pub from: Day,
    /// The last day.
    pub to: Day,
    /// This user only.
    pub user: Option<String>,
    /// This model only, written `provider/model`.
    pub model: Option<String>,
    /// What gets lines of its own; the rest is summed up.
    pub by: By,
}

/// What gets lines of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By {
    /// Each user.
    pub user: bool,
    /// Each model.
    pub model: bool,
    /// Each day.
    pub day: bool,
}

/// A line of the answer. What it is not grouped by is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The user id, as the front end gave it: not to be printed as it is.
    pub user: Option<String>,
    /// `provider/model`.
    pub model: Option<String>,
    /// `YYYY-MM-DD`.
    pub day: Option<String>,
    /// What was used.
    pub totals: Totals,
}

/// What any number of calls used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many they are.
    pub calls: u64,
    /// Their tokens.
    pub tokens: Tokens,
    /// What they cost.
    pub cost: Money,
    /// Of how many the tokens were estimated, because the provider did not say.
    pub estimated: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, more: Self) {
        self.calls = self.calls.saturating_add(more.calls);
        self.tokens += more.tokens;
        self.cost = Money(self.cost.0.saturating_add(more.cost.0));
        self.estimated = self.estimated.saturating_add(more.estimated);
    }
}

/// What `query` asks of `state`, sorted by user, model and day. Blocks on the database.
pub fn report(state: &State, query: &Query) -> Result<Vec<Line>, StateError> {
    let mut groups = BTreeMap::<_, Totals>::new();
    let By { user, model, day } = query.by;
    state.with(|db| {
        table::read(db, query, |line| {
            let key = (
                line.user.filter(|_| user),
                line.model.filter(|_| model),
                line.day.filter(|_| day),
            );
            *groups.entry(key).or_default() += line.totals;
        })
    })?;
    let line = |((user, model, day), totals)| Line { user, model, day, totals };
    Ok(groups.into_iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Record;

    fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    /// Alice and Bob on two days at the turn of a month.
    fn state() -> State {
        let state = State::in_memory().unwrap();
        for (user, on, model, input) in [
            ("alice", "2025-01-31", "openai/gpt-5", 1),
            ("alice", "2025-01-31", "openai/gpt-5", 2),
            ("alice", "2025-02-01", "openai/gpt-5", 4),
            ("alice", "2025-02-01", "anthropic/claude", 8),
            ("bob", "2025-02-01", "openai/gpt-5", 16),
        ] {
            let record = Record {
                model: model.to_owned(),
                tokens: Tokens { input, ..Tokens::default() },
                money: Money(input * 10),
                estimated: input == 2,
            };
            state.with(|db| table::add(db, user, day(on), &record)).unwrap();
        }
        state
    }

    fn query(by: By) -> Query {
        let (from, to) = (day("2025-01-01"), day("2025-12-31"));
        Query { from, to, user: None, model: None, by }
    }

    const NOTHING: By = By { user: false, model: false, day: false };
    const ALL: By = By { user: true, model: true, day: true };

    /// Each line as its key and the number of input tokens.
    fn lines(query: &Query) -> Vec<(String, u64)> {
        let lines = report(&state(), query).unwrap();
        let key = |line: &Line| {
            let parts = [&line.user, &line.model, &line.day];
            parts.into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
        };
        lines.iter().map(|line| (key(line), line.totals.tokens.input)).collect()
    }

    fn expected(lines: &[(&str, u64)]) -> Vec<(String, u64)> {
        lines.iter().map(|(key, input)| ((*key).to_owned(), *input)).collect()
    }

    #[test]
    fn calls_of_one_user_day_and_model_are_one_line() {
        assert_eq!(
            lines(&query(ALL)),
            expected(&[
                ("alice anthropic/claude 2025-02-01", 8),
                ("alice openai/gpt-5 2025-01-31", 3),
                ("alice openai/gpt-5 2025-02-01", 4),
                ("bob openai/gpt-5 2025-02-01", 16),
            ])
        );
        let line = report(&state(), &query(ALL)).unwrap().swap_remove(1);
        let tokens = Tokens { input: 3, ..Tokens::default() };
        assert_eq!(line.totals, Totals { calls: 2, tokens, cost: Money(30), estimated: 1 });
    }

    #[test]
    fn what_is_not_grouped_by_is_summed_up() {
        assert_eq!(lines(&query(NOTHING)), expected(&[("", 31)]));
        let by = By { user: true, ..NOTHING };
        assert_eq!(lines(&query(by)), expected(&[("alice", 15), ("bob", 16)]));
        let by = By { model: true, ..NOTHING };
        let models = expected(&[("anthropic/claude", 8), ("openai/gpt-5", 23)]);
        assert_eq!(lines(&query(by)), models);
        let by = By { day: true, ..NOTHING };
        assert_eq!(lines(&query(by)), expected(&[("2025-01-31", 3), ("2025-02-01", 28)]));
    }

    #[test]
    fn filters_hold_both_days_included() {
        let january = Query { to: day("2025-01-31"), ..query(NOTHING) };
        assert_eq!(lines(&january), expected(&[("", 3)]));
        let february = Query { from: day("2025-02-01"), ..query(NOTHING) };
        assert_eq!(lines(&february), expected(&[("", 28)]));
        let bob = Query { user: Some("bob".to_owned()), ..query(NOTHING) };
        assert_eq!(lines(&bob), expected(&[("", 16)]));
        let claude = Query { model: Some("anthropic/claude".to_owned()), ..query(NOTHING) };
        assert_eq!(lines(&claude), expected(&[("", 8)]));
        let nobody = Query { user: Some("b".to_owned()), ..query(NOTHING) };
        assert_eq!(lines(&nobody), []);
    }

    #[test]
    fn numbers_stay_at_the_largest_instead_of_starting_over() {
        let state = State::in_memory().unwrap();
        let most = Record {
            model: "a/b".to_owned(),
            tokens: Tokens { input: u64::MAX, output: 1 << 62, ..Tokens::default() },
            money: Money(u64::MAX),
            estimated: true,
        };
        for user in ["alice", "alice", "alice", "bob", "carol"] {
            state.with(|db| table::add(db, user, day("2025-01-31"), &most)).unwrap();
        }
        let lines = report(&state, &query(By { user: true, ..NOTHING })).unwrap();
        let largest = i64::MAX.unsigned_abs();
        assert_eq!(lines[0].totals.calls, 3);
        assert_eq!(lines[0].totals.tokens.input, largest);
        assert_eq!(lines[0].totals.tokens.output, largest);
        assert_eq!(lines[1].totals.tokens.output, 1 << 62);
        assert_eq!(report(&state, &query(NOTHING)).unwrap()[0].totals.cost, Money(u64::MAX));
    }
}
