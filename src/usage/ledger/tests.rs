use std::{sync::Barrier, thread};

use proptest::prelude::*;
use time::Duration;

use super::*;
use crate::usage::{Allowance, Kind, Limit, Money, Period, Tokens, budget::Sums};

/// 2025-01-30, at noon.
fn noon() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_738_238_400).unwrap()
}

fn usage() -> Arc<Usage> {
    Arc::new(Usage::new(State::in_memory().unwrap()))
}

fn tokens(tokens: u64) -> Spend {
    Spend { tokens, money: Money(0) }
}

fn record(Spend { tokens, money }: Spend) -> Record {
    let tokens = Tokens { output: tokens, ..Tokens::default() };
    Record { model: "openai/gpt-5".to_owned(), tokens, money, estimated: false }
}

fn a_day(tokens: u64) -> Budget {
    Budget { day: Allowance { tokens: Some(tokens), money: None }, ..Budget::default() }
}

fn a_month(tokens: u64) -> Budget {
    Budget { month: Allowance { tokens: Some(tokens), money: None }, ..Budget::default() }
}

fn refused(result: Result<impl std::fmt::Debug, BudgetError>) -> OverBudget {
    match result {
        Err(BudgetError::Over(over)) => over,
        other => panic!("{other:?}"),
    }
}

/// Makes a whole call.
fn call(usage: &Arc<Usage>, budget: &Budget, spend: Spend, now: OffsetDateTime) {
    usage.begin("alice", budget, spend, now).unwrap().settle(&record(spend)).unwrap();
}

/// Alice's spent, reserved and calls in flight in the day and month of `now`, as in memory.
fn account(usage: &Usage, now: OffsetDateTime) -> [(Sums, Sums, usize); 2] {
    usage.accounts.lock().of("alice", Day::of(now)).unwrap()
}

/// What Alice spent in the day and month of `now`, as the database has it.
fn written(usage: &Usage, now: OffsetDateTime) -> [Sums; 2] {
    usage.state.with(|db| table::spent(db, "alice", Day::of(now))).unwrap()
}

#[test]
fn calls_one_after_the_other_are_let_in_until_nothing_is_left() {
    let (usage, budget) = (usage(), a_day(10));
    call(&usage, &budget, tokens(9), noon());
    // It may cost far more than is left, but something is left.
    call(&usage, &budget, tokens(100), noon());
    let over = refused(usage.begin("alice", &budget, tokens(1), noon()));
    assert_eq!((over.period, over.limit, over.kind), (Period::Day, Limit::Tokens(10), Kind::Spent));
    assert_eq!(over.retry_after.as_secs(), 12 * 3600);
    assert_eq!(refused(usage.check("alice", &budget, noon())), over);
    drop(usage.begin("bob", &budget, tokens(1), noon()).unwrap());
}

#[test]
fn what_calls_in_flight_may_need_is_reserved_until_they_end() {
    let (usage, budget) = (usage(), a_day(10));
    let first = usage.begin("alice", &budget, tokens(10), noon()).unwrap();
    let over = refused(usage.begin("alice", &budget, tokens(1), noon()));
    assert_eq!((over.kind, over.retry_after.as_secs()), (Kind::Reserved, 5));
    usage.check("alice", &budget, noon()).unwrap();
    drop(first);
    let second = usage.begin("alice", &budget, tokens(10), noon()).unwrap();
    second.settle(&record(tokens(3))).unwrap();
    let third = usage.begin("alice", &budget, tokens(10), noon()).unwrap();
    third.settle(&record(tokens(6))).unwrap();
    drop(usage.begin("alice", &budget, tokens(10), noon()).unwrap());
}

#[test]
fn money_is_limited_like_tokens() {
    let allowance = Allowance { tokens: None, money: Some(Money(5)) };
    let (usage, budget) = (usage(), Budget { month: allowance, ..Budget::default() });
    call(&usage, &budget, Spend { tokens: 1_000, money: Money(5) }, noon());
    let over = refused(usage.check("alice", &budget, noon()));
    assert_eq!((over.period, over.limit), (Period::Month, Limit::Money(Money(5))));
    assert_eq!(over.retry_after.as_secs(), 36 * 3600);
}

#[test]
fn a_restart_forgets_nothing() {
    let (usage, budget) = (usage(), a_month(10));
    call(&usage, &budget, tokens(10), noon() - Duration::days(3));
    let again = Arc::new(Usage::new(usage.state.clone()));
    assert_eq!(refused(again.begin("alice", &budget, tokens(1), noon())).kind, Kind::Spent);
    again.check("alice", &a_day(10), noon()).unwrap();
}

#[test]
fn a_call_counts_on_the_day_it_began() {
    let (usage, budget) = (usage(), a_day(10));
    let tomorrow = noon() + Duration::days(1);
    let late = usage.begin("alice", &budget, tokens(10), noon()).unwrap();
    let early = usage.begin("alice", &budget, tokens(10), tomorrow).unwrap();
    late.settle(&record(tokens(10))).unwrap();
    early.settle(&record(tokens(9))).unwrap();
    usage.check("alice", &budget, tomorrow).unwrap();
    assert_eq!(refused(usage.check("alice", &budget, noon())).kind, Kind::Spent);
    assert_eq!(refused(usage.check("alice", &a_month(19), tomorrow)).period, Period::Month);
    usage.check("alice", &a_month(19), tomorrow + Duration::days(1)).unwrap();
}

#[test]
fn days_gone_by_are_kept_in_mind_only_while_a_call_is_in_flight() {
    let (usage, budget) = (usage(), a_day(10));
    let late = usage.begin("alice", &budget, tokens(1), noon()).unwrap();
    let kept = |days| {
        usage.check("alice", &budget, noon() + Duration::days(days)).unwrap();
        usage.accounts.lock().kept()
    };
    // A day and its month each, today's and that of the call.
    assert_eq!([kept(0), kept(1), kept(2), kept(3)], [2, 3, 4, 4]);
    drop(late);
    assert_eq!(kept(4), 2);
}

#[test]
fn without_a_budget_the_database_is_not_read() {
    let usage = usage();
    usage.state.with(|db| db.execute_batch("DROP TABLE usage")).unwrap();
    let unlimited = Budget::default();
    usage.check("alice", &unlimited, noon()).unwrap();
    drop(usage.begin("alice", &unlimited, tokens(1), noon()).unwrap());
    assert_eq!(usage.accounts.lock().kept(), 0);
    let unknown = usage.begin("alice", &a_day(10), tokens(1), noon());
    assert!(matches!(unknown, Err(BudgetError::Unknown(_))));
}

#[test]
fn what_cannot_be_written_down_counts_all_the_same() {
    let (usage, budget) = (usage(), a_day(10));
    let reservation = usage.begin("alice", &budget, tokens(10), noon()).unwrap();
    usage.state.with(|db| db.execute_batch("ALTER TABLE usage RENAME TO gone")).unwrap();
    assert!(reservation.settle(&record(tokens(10))).is_err());
    assert_eq!(refused(usage.begin("alice", &budget, tokens(1), noon())).kind, Kind::Spent);
    assert_eq!(account(&usage, noon())[0].1, Sums::default());
}

#[test]
fn a_hundred_calls_at_once_overspend_by_one_at_most() {
    let (usage, budget) = (usage(), a_day(1_000));
    // Written by an earlier gateway: all hundred race to read it.
    call(&usage, &Budget::default(), tokens(400), noon());
    let together = Barrier::new(100);
    let one = |worst| {
        together.wait();
        let Ok(reservation) = usage.begin("alice", &budget, tokens(worst), noon()) else { return };
        // Of every three, one costs what it reserved, one half of it, one is dropped.
        match worst % 3 {
            0 => reservation.settle(&record(tokens(worst))).unwrap(),
            1 => reservation.settle(&record(tokens(worst / 2))).unwrap(),
            _ => drop(reservation),
        }
    };
    thread::scope(|scope| {
        for worst in 1..=100 {
            scope.spawn(move || one(worst));
        }
    });
    let [(spent, reserved, calls), _] = account(&usage, noon());
    assert!(spent.tokens < 1_000 + 100, "{spent:?}");
    assert_eq!((reserved, calls), (Sums::default(), 0));
    assert_eq!(written(&usage, noon())[0], spent);
    // Nobody is in the way any more: what is left can be used.
    if spent.tokens < 1_000 {
        drop(usage.begin("alice", &budget, tokens(1), noon()).unwrap());
    }
}

#[test]
fn calls_settled_while_their_user_gets_a_budget_are_counted_once() {
    for _ in 0..100 {
        let usage = usage();
        let together = Barrier::new(4);
        let settle = || {
            together.wait();
            (0..20).for_each(|_| call(&usage, &Budget::default(), tokens(1), noon()));
        };
        let ask = || {
            together.wait();
            usage.check("alice", &a_day(1_000), noon()).unwrap();
        };
        thread::scope(|scope| {
            scope.spawn(settle);
            scope.spawn(settle);
            scope.spawn(ask);
            scope.spawn(ask);
        });
        let [(day, ..), (month, ..)] = account(&usage, noon());
        assert_eq!((day.tokens, month.tokens), (40, 40));
    }
}

/// What may happen to one user's calls.
#[derive(Debug, Clone)]
enum Event {
    Begin(Spend),
    /// A call in flight, and what it cost in percent of what it reserved.
    Settle(prop::sample::Index, u64),
    Drop(prop::sample::Index),
    /// Hours pass.
    Pass(i64),
    /// The gateway starts again. What was in flight is lost.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let spend = (0..60u64, 0..60u64)
        .prop_map(|(tokens, money)| Spend { tokens, money: Money(money) })
        .prop_map(Event::Begin);
    prop_oneof![
        8 => spend,
        5 => (any::<prop::sample::Index>(), 0..=100u64).prop_map(|(i, c)| Event::Settle(i, c)),
        2 => any::<prop::sample::Index>().prop_map(Event::Drop),
        1 => (1..60i64).prop_map(Event::Pass),
        1 => Just(Event::Restart),
    ]
}

fn budget() -> impl Strategy<Value = Budget> {
    let limit = || prop::option::of(0..200u64);
    let allowance = || {
        (limit(), limit()).prop_map(|(tokens, money)| Allowance { tokens, money: money.map(Money) })
    };
    (allowance(), allowance()).prop_map(|(day, month)| Budget { day, month })
}

/// Adds up those of `calls` that are in the day, and those that are in the month, of `today`.
fn sums(calls: &[(Day, Spend)], today: Day) -> [Sums; 2] {
    let of = |within: &dyn Fn(Day) -> bool| {
        let mut sums = Sums::default();
        calls.iter().filter(|(day, _)| within(*day)).for_each(|(_, spend)| sums.add(*spend));
        sums
    };
    [of(&|day| day == today), of(&|day| day.month() == today.month())]
}

fn below(budget: &Budget, sums: [Sums; 2]) -> bool {
    [budget.day, budget.month].into_iter().zip(sums).all(|(allowance, sums)| {
        allowance.tokens.is_none_or(|limit| sums.tokens < limit.into())
            && allowance.money.is_none_or(|limit| sums.money < limit.0.into())
    })
}

proptest! {
    #[test]
    fn no_order_of_events_overspends_by_more_than_a_call_or_refuses_what_is_left(
        budget in budget(), events in prop::collection::vec(event(), 1..80)
    ) {
        let (mut usage, mut now) = (usage(), noon());
        let (mut flying, mut settled) = (Vec::<(Reservation, Spend)>::new(), Vec::new());
        let mut largest = Spend::default();
        for event in events {
            let today = Day::of(now);
            match event {
                Event::Begin(worst) => {
                    let day = |(call, worst): &(Reservation, Spend)| (call.day, *worst);
                    let reserved: Vec<_> = flying.iter().map(day).collect();
                    let (spent, reserved) = (sums(&settled, today), sums(&reserved, today));
                    let both = [spent[0] + reserved[0], spent[1] + reserved[1]];
                    let begun = usage.begin("alice", &budget, worst, now);
                    prop_assert_eq!(begun.is_ok(), below(&budget, both));
                    let checked = usage.check("alice", &budget, now);
                    prop_assert_eq!(checked.is_ok(), below(&budget, spent));
                    if let Ok(reservation) = begun {
                        largest.tokens = largest.tokens.max(worst.tokens);
                        largest.money = largest.money.max(worst.money);
                        flying.push((reservation, worst));
                    } else if flying.is_empty() {
                        prop_assert!(!below(&budget, spent));
                    }
                }
                Event::Settle(which, percent) if !flying.is_empty() => {
                    let (reservation, worst) = flying.swap_remove(which.index(flying.len()));
                    let money = Money(worst.money.0 * percent / 100);
                    let real = Spend { tokens: worst.tokens * percent / 100, money };
                    settled.push((reservation.day, real));
                    reservation.settle(&record(real)).unwrap();
                }
                Event::Drop(which) if !flying.is_empty() => {
                    drop(flying.swap_remove(which.index(flying.len())));
                }
                Event::Pass(hours) => now += Duration::hours(hours),
                Event::Restart => {
                    flying.clear();
                    usage = Arc::new(Usage::new(usage.state.clone()));
                }
                Event::Settle(..) | Event::Drop(_) => {}
            }
            let spent = sums(&settled, Day::of(now));
            prop_assert_eq!(written(&usage, now), spent);
            // A little less than the limit, and the largest call.
            let most = |allowance: Allowance| Allowance {
                tokens: allowance.tokens.map(|limit| limit + largest.tokens.max(1)),
                money: allowance.money.map(|limit| Money(limit.0 + largest.money.0.max(1))),
            };
            let most = Budget { day: most(budget.day), month: most(budget.month) };
            prop_assert!(below(&most, spent), "{:?} {:?}", most, spent);
        }
        flying.clear();
        if !budget.is_unlimited() {
            drop(usage.check("alice", &budget, now));
            for ((spent, reserved, calls), sum) in
                account(&usage, now).into_iter().zip(sums(&settled, Day::of(now)))
            {
                prop_assert_eq!((spent, reserved, calls), (sum, Sums::default(), 0));
            }
        }
    }
}
