//! What users with a budget have spent and reserved in the periods of now. In memory only.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::{
    Budget, Day, OverBudget, Spend,
    budget::{Balance, Sums},
};

/// Every user's account.
#[derive(Debug, Default)]
pub(super) struct Accounts(HashMap<String, Account>);

/// One user's periods: those of now, and earlier ones in which calls in flight began.
#[derive(Debug, Default)]
struct Account {
    days: Vec<Page>,
    months: Vec<Page>,
}

/// What stands against the limits of the period that begins with `first`.
#[derive(Debug)]
pub(super) struct Page {
    first: Day,
    balance: Balance,
    /// Calls that have reserved something. While there are any, the page is kept.
    calls: usize,
}

/// A day and its month.
pub(super) type Pages<'a> = [&'a mut Page; 2];

impl Accounts {
    /// The account of `user`, if `day` and its month are open in it.
    pub(super) fn pages(&mut self, user: &str, day: Day) -> Option<Pages<'_>> {
        let [day, month] = self.find(user, day);
        Some([day?, month?])
    }

    /// Puts what the database says of `day` and its month into the account of `user`, unless it
    /// is there already, and forgets what neither `day` nor a call in flight needs.
    pub(super) fn open(&mut self, user: &str, day: Day, spent: [Sums; 2]) -> Pages<'_> {
        let account = self.0.entry(user.to_owned()).or_default();
        [open(&mut account.days, day, spent[0]), open(&mut account.months, day.month(), spent[1])]
    }

    /// Adds what a call cost that began on `day`, wherever that is open.
    pub(super) fn spend(&mut self, user: &str, day: Day, real: Spend) {
        for page in self.find(user, day).into_iter().flatten() {
            page.balance.spent.add(real);
        }
    }

    /// Gives back what a call that was admitted on `day` has reserved.
    pub(super) fn release(&mut self, user: &str, day: Day, worst: Spend) {
        for page in self.find(user, day).into_iter().flatten() {
            page.balance.reserved.take(worst);
            page.calls = page.calls.saturating_sub(1);
        }
    }

    fn find(&mut self, user: &str, day: Day) -> [Option<&mut Page>; 2] {
        let Some(account) = self.0.get_mut(user) else { return [None, None] };
        [find(&mut account.days, day), find(&mut account.months, day.month())]
    }
}

/// Whether `budget` allows a call at `now`; if so, it has reserved `worst`.
pub(super) fn admit(
    pages: Pages<'_>,
    budget: &Budget,
    worst: Spend,
    now: OffsetDateTime,
) -> Result<(), OverBudget> {
    budget.judge(&pages[0].balance, &pages[1].balance, now)?;
    for page in pages {
        page.balance.reserved.add(worst);
        page.calls += 1;
    }
    Ok(())
}

/// Whether anything of `budget` is left at `now`, calls in flight aside.
pub(super) fn check(
    pages: &Pages<'_>,
    budget: &Budget,
    now: OffsetDateTime,
) -> Result<(), OverBudget> {
    let [day, month] =
        pages.each_ref().map(|page| Balance { reserved: Sums::default(), ..page.balance });
    budget.judge(&day, &month, now)
}

fn open(pages: &mut Vec<Page>, first: Day, spent: Sums) -> &mut Page {
    pages.retain(|page| page.calls > 0 || page.first == first);
    let at = pages.iter().position(|page| page.first == first).unwrap_or_else(|| {
        let balance = Balance { spent, reserved: Sums::default() };
        pages.push(Page { first, balance, calls: 0 });
        pages.len() - 1
    });
    &mut pages[at]
}

fn find(pages: &mut [Page], first: Day) -> Option<&mut Page> {
    pages.iter_mut().find(|page| page.first == first)
}

#[cfg(test)]
impl Accounts {
    /// What is spent and reserved on `day` and in its month, and by how many calls.
    pub(super) fn of(&mut self, user: &str, day: Day) -> Option<[(Sums, Sums, usize); 2]> {
        let of = |page: &mut Page| (page.balance.spent, page.balance.reserved, page.calls);
        Some(self.pages(user, day)?.map(of))
    }

    /// How many periods are kept in mind.
    pub(super) fn kept(&self) -> usize {
        self.0.values().map(|account| account.days.len() + account.months.len()).sum()
    }
}
