//! Whether a budget is used up, and how that is said to the user.

use std::{fmt, ops::Add, time::Duration};

use time::OffsetDateTime;

use super::{Budget, Money, Period, Spend};

/// A call is not let in: a budget is used up, or what is left of it is reserved. Its text is a
/// sentence for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverBudget {
    /// The period whose limit is reached.
    pub period: Period,
    /// The limit that is reached.
    pub limit: Limit,
    /// Why.
    pub kind: Kind,
    /// How long to wait before it is worth trying again. In whole seconds.
    pub retry_after: Duration,
}

/// A limit of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Tokens of all kinds.
    Tokens(u64),
    /// What they cost.
    Money(Money),
}

/// Why a call is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What was allowed is spent.
    Spent,
    /// What is left may be needed by calls in flight.
    Reserved,
}

impl Budget {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// What of the budget is reached by what this day and this month sum up to.
    fn reached(&self, day: Sums, month: Sums) -> Option<(Period, Limit)> {
        // The month first: with both reached, tomorrow would be too early.
        [(Period::Month, self.month, month), (Period::Day, self.day, day)].into_iter().find_map(
            |(period, allowance, sums)| {
                let tokens = allowance.tokens.filter(|limit| sums.tokens >= u128::from(*limit));
                let money = allowance.money.filter(|limit| sums.money >= u128::from(limit.0));
                let limit = tokens.map(Limit::Tokens).or(money.map(Limit::Money))?;
                Some((period, limit))
            },
        )
    }

    /// Whether a call may be made at `now`, when so much of this day and this month is spent and,
    /// by calls in flight, reserved.
    pub(super) fn judge(
        &self,
        day: &Balance,
        month: &Balance,
        now: OffsetDateTime,
    ) -> Result<(), OverBudget> {
        let over = |(period, limit), kind, retry_after| {
            Err(OverBudget { period, limit, kind, retry_after })
        };
        if let Some(reached) = self.reached(day.spent, month.spent) {
            return over(reached, Kind::Spent, reached.0.left(now));
        }
        if let Some(reached) = self.reached(day.spent + day.reserved, month.spent + month.reserved)
        {
            return over(reached, Kind::Reserved, SOON);
        }
        Ok(())
    }
}

/// What stands against the limits of one period.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Balance {
    pub(super) spent: Sums,
    pub(super) reserved: Sums,
}

/// What any number of calls spend, in numbers so large that adding and taking away stays exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) tokens: u128,
    pub(super) money: u128,
}

impl Sums {
    pub(super) fn add(&mut self, spend: Spend) {
        *self = *self + Self::from(spend);
    }

    /// Takes away what was added before.
    pub(super) fn take(&mut self, spend: Spend) {
        self.tokens = self.tokens.saturating_sub(spend.tokens.into());
        self.money = self.money.saturating_sub(spend.money.0.into());
    }
}

impl From<Spend> for Sums {
    fn from(spend: Spend) -> Self {
        Self { tokens: spend.tokens.into(), money: spend.money.0.into() }
    }
}

impl Add for Sums {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(more.tokens),
            money: self.money.saturating_add(more.money),
        }
    }
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (period, again) = match self.period {
            Period::Day => ("today", "at 00:00 UTC"),
            Period::Month => ("this month", "on the 1st at 00:00 UTC"),
        };
        let limit = self.limit;
        let wait = Wait(self.retry_after);
        match self.kind {
            Kind::Spent => write!(
                f,
                "Your budget of {limit} for {period} is used up. It starts again {again}, in \
                 {wait}."
            ),
            Kind::Reserved => write!(
                f,
                "What is left of your budget of {limit} for {period} is reserved for calls that \
                 are still running. Try again in {wait}."
            ),
        }
    }
}

impl std::error::Error for OverBudget {}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(tokens) => write!(f, "{tokens} tokens"),
            Self::Money(money) => f.write_str(&money.exact()),
        }
    }
}

/// A time to wait as people say it: its two largest units, never too short.
struct Wait(Duration);

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let minutes = seconds.div_ceil(60);
        let hours = minutes.div_ceil(60);
        match (minutes, hours) {
            (0 | 1, _) if seconds < 60 => write!(f, "{seconds} s"),
            (0..60, _) => write!(f, "{minutes} min"),
            (..1440, _) => two(f, minutes, 60, "h", "min"),
            (_, ..48) => two(f, hours, 24, "day", "h"),
            _ => two(f, hours, 24, "days", "h"),
        }
    }
}

fn two(
    f: &mut fmt::Formatter<'_>,
    amount: u64,
    base: u64,
    large: &str,
    small: &str,
) -> fmt::Result {
    write!(f, "{} {large}", amount / base)?;
    match amount % base {
        0 => Ok(()),
        rest => write!(f, " {rest} {small}"),
    }
}

/// When a call in flight may have ended.
const SOON: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Allowance;

    fn over(period: Period, limit: Limit, kind: Kind, retry_after: Duration) -> String {
        OverBudget { period, limit, kind, retry_after }.to_string()
    }

    #[test]
    fn the_user_hears_what_is_used_up_and_when_it_starts_again() {
        assert_eq!(
            over(Period::Day, Limit::Tokens(2_000_000), Kind::Spent, Duration::from_mins(192)),
            "Your budget of 2000000 tokens for today is used up. It starts again at 00:00 UTC, in \
             3 h 12 min."
        );
        let money = Limit::Money(Money(5_000_000_000));
        assert_eq!(
            over(Period::Month, money, Kind::Spent, Duration::from_hours(12 * 24 + 3)),
            "Your budget of $5.00 for this month is used up. It starts again on the 1st at 00:00 \
             UTC, in 12 days 3 h."
        );
        assert_eq!(
            over(Period::Month, money, Kind::Reserved, SOON),
            "What is left of your budget of $5.00 for this month is reserved for calls that are \
             still running. Try again in 5 s."
        );
    }

    #[test]
    fn a_wait_is_never_said_too_short() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "2 min"),
            (3_540, "59 min"),
            (3_541, "1 h"),
            (3_600, "1 h"),
            (3_601, "1 h 1 min"),
            (86_340, "23 h 59 min"),
            (86_341, "1 day"),
            (86_401, "1 day 1 h"),
            (172_800, "2 days"),
        ] {
            assert_eq!(Wait(Duration::from_secs(seconds)).to_string(), text, "{seconds}");
        }
    }

    #[test]
    fn with_several_limits_reached_the_one_that_lasts_longest_is_named() {
        let allowance = |tokens| Allowance { tokens: Some(tokens), money: None };
        let budget = Budget { day: allowance(10), month: allowance(20) };
        let now = OffsetDateTime::UNIX_EPOCH;
        let balance = |spent, reserved| Balance {
            spent: Sums { tokens: spent, money: 0 },
            reserved: Sums { tokens: reserved, money: 0 },
        };
        let judge = |day: (u128, u128), month: (u128, u128)| {
            budget
                .judge(&balance(day.0, day.1), &balance(month.0, month.1), now)
                .err()
                .map(|over| (over.period, over.kind))
        };
        assert_eq!(judge((9, 0), (19, 0)), None);
        assert_eq!(judge((10, 0), (20, 0)), Some((Period::Month, Kind::Spent)));
        assert_eq!(judge((10, 0), (10, 10)), Some((Period::Day, Kind::Spent)));
        assert_eq!(judge((9, 1), (9, 1)), Some((Period::Day, Kind::Reserved)));
        assert_eq!(judge((9, 0), (19, 1)), Some((Period::Month, Kind::Reserved)));
    }
}
