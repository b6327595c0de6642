//! The table `usage`: a row for every user, day and model.

use rusqlite::{Connection, Row, params};

use super::{
    Day, Money, Record, Spend, Tokens, Totals,
    budget::Sums,
    report::{Line, Query},
};

/// Adds a call of `user` that began on `day`. A number that gets too large stays at the largest.
pub(super) fn add(db: &Connection, user: &str, day: Day, record: &Record) -> rusqlite::Result<()> {
    let Tokens { input, cached, cache_write, output, reasoning } = record.tokens;
    db.prepare_cached(ADD)?
        .execute(params![
            user,
            day.to_string(),
            record.model,
            stored(input),
            stored(cached),
            stored(cache_write),
            stored(output),
            stored(reasoning),
            stored(record.money.0),
            record.estimated,
        ])
        .map(drop)
}

/// What `user` spent on `day` and in its month.
pub(super) fn spent(db: &Connection, user: &str, day: Day) -> rusqlite::Result<[Sums; 2]> {
    let [mut in_day, mut in_month] = [Sums::default(); 2];
    let mut found = db.prepare_cached(SPENT)?;
    // Every day of a month sorts before its 32nd.
    let (today, first) = (day.to_string(), day.month().to_string());
    let mut rows = found.query(params![user, first, format!("{}32", &first[..8])])?;
    while let Some(row) = rows.next()? {
        let totals = totals(row)?;
        let spend = Spend { tokens: totals.tokens.total(), money: totals.cost };
        in_month.add(spend);
        if row.get_ref("day")?.as_str()? == today {
            in_day.add(spend);
        }
    }
    Ok([in_day, in_month])
}

/// Hands the rows that `query` asks for to `each`, in no certain order.
pub(super) fn read(
    db: &Connection,
    query: &Query,
    mut each: impl FnMut(Line),
) -> rusqlite::Result<()> {
    let mut found = db.prepare(READ)?;
    let (from, to) = (query.from.to_string(), query.to.to_string());
    let mut rows = found.query(params![from, to, query.user, query.model])?;
    while let Some(row) = rows.next()? {
        each(Line {
            user: row.get("user")?,
            model: row.get("model")?,
            day: row.get("day")?,
            totals: totals(row)?,
        });
    }
    Ok(())
}

fn totals(row: &Row<'_>) -> rusqlite::Result<Totals> {
    let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    Ok(Totals {
        calls: number("calls")?,
        tokens: Tokens {
            input: number("input")?,
            cached: number("cached")?,
            cache_write: number("cache_write")?,
            output: number("output")?,
            reasoning: number("reasoning")?,
        },
        cost: Money(number("cost")?),
        estimated: number("estimated")?,
    })
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const ADD: &str = "
    INSERT INTO usage (user, day, model, calls,
        input, cached, cache_write, output, reasoning, cost, estimated)
    VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
    ON CONFLICT DO UPDATE SET
        calls       = calls       + min(excluded.calls,       9223372036854775807 - calls),
        input       = input       + min(excluded.input,       9223372036854775807 - input),
        cached      = cached      + min(excluded.cached,      9223372036854775807 - cached),
        cache_write = cache_write + min(excluded.cache_write, 9223372036854775807 - cache_write),
        output      = output      + min(excluded.output,      9223372036854775807 - output),
        reasoning   = reasoning   + min(excluded.reasoning,   9223372036854775807 - reasoning),
        cost        = cost        + min(excluded.cost,        9223372036854775807 - cost),
        estimated   = estimated   + min(excluded.estimated,   9223372036854775807 - estimated)";

// Summed up here and not by SQLite, whose `sum` fails when it overflows.
const SPENT: &str = "SELECT * FROM usage WHERE user = ?1 AND day >= ?2 AND day < ?3";

const READ: &str = "SELECT * FROM usage WHERE day >= ?1 AND day <= ?2
    AND (?3 IS NULL OR user = ?3) AND (?4 IS NULL OR model = ?4)";
