//! The command `usage`: what was used, as a table for people or as CSV for spreadsheets.

mod sheet;

use std::{error::Error, path::PathBuf};

use clap::ValueEnum;
use time::OffsetDateTime;

use self::sheet::Sheet;
use super::{DEFAULT_CONFIG, print, user, warn};
use crate::{
    config::{self, ModelRef},
    state::State,
    usage::{self, By, Day, Query},
};

/// What is asked for on the command line.
#[derive(Debug, clap::Args)]
pub(super) struct Question {
    /// The configuration file, which names the state directory.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The state directory. No configuration is needed then.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    state: Option<PathBuf>,
    /// The first day. By default the first of the month that the last day is in.
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    from: Option<Day>,
    /// The last day. By default today.
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    to: Option<Day>,
    /// This user only, by the id that the front end gives.
    #[arg(long, value_name = "ID", value_parser = user)]
    user: Option<String>,
    /// This model only.
    #[arg(long, value_name = "PROVIDER/MODEL", value_parser = model)]
    model: Option<String>,
    /// What gets lines of its own. The rest is summed up.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "user,model,day",
        hide_possible_values = true,
        value_name = "user,model,day"
    )]
    by: Vec<Key>,
    /// Print CSV instead of a table, without a line for the total.
    #[arg(long)]
    csv: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Key {
    User,
    Model,
    Day,
}

/// Prints what `question` asks for.
pub(super) fn answer(question: Question) -> Result<(), Box<dyn Error>> {
    let query = question.query(OffsetDateTime::now_utc())?;
    let csv = question.csv;
    let directory = match question.state {
        Some(directory) => directory,
        None => config::load(&question.config, &config::environment)?.state,
    };
    let lines = usage::report(&State::read(&directory)?, &query)?;
    let sheet = Sheet::of(query.by, &lines);
    print(&if csv { sheet.to_csv() } else { sheet.to_table() })?;
    if lines.is_empty() {
        warn(&format!("nothing was used from {} to {}\n", query.from, query.to));
    }
    Ok(())
}

impl Question {
    fn query(&self, now: OffsetDateTime) -> Result<Query, String> {
        let to = self.to.unwrap_or(Day::of(now));
        let from = self.from.unwrap_or(to.month());
        if from > to {
            return Err(format!("the first day, {from}, is after the last, {to}"));
        }
        let by = |key| self.by.contains(&key);
        let by = By { user: by(Key::User), model: by(Key::Model), day: by(Key::Day) };
        Ok(Query { from, to, user: self.user.clone(), model: self.model.clone(), by })
    }
}

fn day(text: &str) -> Result<Day, String> {
    Day::parse(text).ok_or_else(|| "write a day such as `2025-01-31`".to_owned())
}

fn model(text: &str) -> Result<String, String> {
    ModelRef::parse(text)
        .map(|model| model.to_string())
        .ok_or_else(|| "write a model such as `openai/gpt-5`".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        question: Question,
    }

    /// What is asked with `flags` on 2025-02-03.
    fn query(flags: &str) -> Result<Query, String> {
        let line = Line::try_parse_from(format!("usage {flags}").split_whitespace()).unwrap();
        line.question.query(OffsetDateTime::from_unix_timestamp(1_738_540_801).unwrap())
    }

    fn days(flags: &str) -> (String, String) {
        let query = query(flags).unwrap();
        (query.from.to_string(), query.to.to_string())
    }

    #[test]
    fn the_current_month_is_what_is_asked_for_by_default() {
        let days = |flags| days(flags);
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(days(""), pair("2025-02-01", "2025-02-03"));
        assert_eq!(days("--from 2024-12-24"), pair("2024-12-24", "2025-02-03"));
        assert_eq!(days("--to 2024-12-24"), pair("2024-12-01", "2024-12-24"));
        assert_eq!(days("--from 2025-01-31 --to 2025-01-31"), pair("2025-01-31", "2025-01-31"));
        assert!(query("--from 2025-02-04").is_err());
    }

    #[test]
    fn lines_are_for_user_model_and_day_unless_less_is_asked_for() {
        let all = By { user: true, model: true, day: true };
        assert_eq!(query("").unwrap().by, all);
        assert_eq!(query("--by user,day").unwrap().by, By { model: false, ..all });
        assert_eq!(query("--by model").unwrap().by, By { user: false, day: false, ..all });
    }

    #[test]
    fn one_user_or_one_model_can_be_asked_for() {
        let asked = query("--user alice --model openrouter/anthropic/claude").unwrap();
        assert_eq!(asked.user.as_deref(), Some("alice"));
        assert_eq!(asked.model.as_deref(), Some("openrouter/anthropic/claude"));
    }

    #[test]
    fn a_state_directory_needs_no_configuration() {
        let place = tempfile::tempdir().unwrap();
        drop(State::open(place.path()).unwrap());
        let directory = place.path().to_str().unwrap();
        let line = |flags: [&str; 2]| Line::try_parse_from(["usage"].into_iter().chain(flags));
        answer(line(["--state", directory]).unwrap().question).unwrap();
        let missing = place.path().join("none");
        let flags = ["--state", missing.to_str().unwrap()];
        let error = answer(line(flags).unwrap().question).unwrap_err().to_string();
        assert!(error.starts_with("there is no state in"), "{error}");
        assert!(!missing.exists());
    }
}
