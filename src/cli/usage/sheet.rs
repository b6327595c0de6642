//! Lines of usage as rows and columns of text. Nothing in it can act on a terminal.

use std::fmt::Write;

use crate::usage::{By, Line, Money, Totals};

/// What is printed, before it has a form.
pub(super) struct Sheet {
    /// How many columns at the left hold names; the others hold numbers.
    names: usize,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    total: Vec<String>,
}

impl Sheet {
    /// The sheet of `lines`, which are grouped `by`.
    pub(super) fn of(by: By, lines: &[Line]) -> Self {
        let names: Vec<&str> = [(by.user, "user"), (by.model, "model"), (by.day, "day")]
            .into_iter()
            .filter_map(|(is_asked, name)| is_asked.then_some(name))
            .collect();
        let mut total = Totals::default();
        let mut rows = Vec::with_capacity(lines.len());
        for line in lines {
            total += line.totals;
            let names = [&line.user, &line.model, &line.day].into_iter().flatten();
            rows.push(names.map(|name| printable(name)).chain(numbers(&line.totals)).collect());
        }
        let blank = (1..names.len()).map(|_| String::new());
        Self {
            names: names.len(),
            head: names.iter().chain(NUMBERS).map(|name| (*name).to_owned()).collect(),
            rows,
            total: ["total".to_owned()].into_iter().chain(blank).chain(numbers(&total)).collect(),
        }
    }

    /// Aligned columns; numbers to the right. Without any rows, only the head.
    pub(super) fn to_table(&self) -> String {
        let total = (!self.rows.is_empty()).then_some(&self.total);
        let rows = || [&self.head].into_iter().chain(&self.rows).chain(total);
        let width = |column: usize| rows().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..self.head.len()).filter_map(width).collect();
        let mut text = String::new();
        for row in rows() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                let padding = " ".repeat(width - cell.chars().count());
                let (left, right) =
                    if column < self.names { ("", &*padding) } else { (&*padding, "") };
                line.extend([gap, left, cell, right]);
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// RFC 4180 but for the line ends, which are those of Unix. Without the total.
    pub(super) fn to_csv(&self) -> String {
        let mut text = String::new();
        for row in [&self.head].into_iter().chain(&self.rows) {
            let cells: Vec<String> = row.iter().map(|cell| csv(cell)).collect();
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        text
    }
}

fn numbers(totals: &Totals) -> impl Iterator<Item = String> + use<> {
    let Totals { calls, tokens, cost, estimated } = *totals;
    [calls, tokens.input, tokens.cached, tokens.cache_write, tokens.output, tokens.reasoning]
        .map(|number| number.to_string())
        .into_iter()
        .chain([dollars(cost), estimated.to_string()])
}

/// A plain number, for spreadsheets: the unit is in the head.
fn dollars(money: Money) -> String {
    money.to_string().trim_start_matches('$').to_owned()
}

/// `text` with every character that is not to be seen written out, as `\u{1b}`: controls, and
/// those that turn the direction of a line.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            // Escapes what cannot be seen, and nothing else but the three above.
            _ => write!(shown, "{}", c.escape_debug()).unwrap_or_default(),
        }
    }
    shown
}

/// `cell` as a CSV field that no spreadsheet takes for a formula.
fn csv(cell: &str) -> String {
    let is_formula = cell.starts_with(FORMULA);
    let cell = if is_formula { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains(['"', ',', '\n', '\r']) {
        return format!("\"{}\"", cell.replace('"', "\"\""));
    }
    cell
}

/// What a formula begins with, in full width too, as some languages' spreadsheets have it.
const FORMULA: [char; 9] = ['=', '+', '-', '@', '\t', '＝', '＋', '－', '＠'];

const NUMBERS: &[&str] =
    &["calls", "input", "cached", "cache_write", "output", "reasoning", "cost_usd", "estimated"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::usage::Tokens;

    const ALL: By = By { user: true, model: true, day: true };

    fn line(user: &str, factor: u64) -> Line {
        let tokens = Tokens {
            input: 1_000 * factor,
            cached: 20 * factor,
            cache_write: 3 * factor,
            output: 400 * factor,
            reasoning: 50 * factor,
        };
        Line {
            user: Some(user.to_owned()),
            model: Some("openai/gpt-5".to_owned()),
            day: Some("2025-01-31".to_owned()),
            totals: Totals { calls: factor, tokens, cost: Money(1_250_000 * factor), estimated: 1 },
        }
    }

    #[test]
    fn a_table_is_aligned_and_ends_with_the_total() {
        let table = Sheet::of(ALL, &[line("alice", 2), line("bob@example.org", 1_000)]).to_table();
        let expected = "
user             model         day         calls    input  cached  cache_write  output  reasoning  cost_usd  estimated
alice            openai/gpt-5  2025-01-31      2     2000      40            6     800        100  0.002500          1
bob@example.org  openai/gpt-5  2025-01-31   1000  1000000   20000         3000  400000      50000  1.250000          1
total                                       1002  1002000   20040         3006  400800      50100  1.252500          2
";
        assert_eq!(table, expected.trim_start());
    }

    #[test]
    fn what_is_not_grouped_by_has_no_column() {
        let by = By { user: false, model: false, day: true };
        let day = Line { user: None, model: None, ..line("", 1) };
        let sheet = Sheet::of(by, &[day]);
        assert!(sheet.to_table().starts_with("day         calls  "), "{}", sheet.to_table());
        assert_eq!(
            sheet.to_csv(),
            "day,calls,input,cached,cache_write,output,reasoning,cost_usd,estimated\n\
             2025-01-31,1,1000,20,3,400,50,0.001250,1\n"
        );
    }

    #[test]
    fn without_usage_there_is_only_a_head() {
        let sheet = Sheet::of(ALL, &[]);
        let head = "user  model  day  calls  input  cached  cache_write  output  reasoning  \
                    cost_usd  estimated\n";
        assert_eq!(sheet.to_table(), head);
        assert_eq!(sheet.to_csv(), head.replace("  ", ","));
    }

    #[test]
    fn a_user_id_is_no_formula_and_keeps_to_its_field() {
        let first = |user| {
            let csv = Sheet::of(ALL, &[line(user, 1)]).to_csv();
            let row = csv.lines().nth(1).unwrap();
            row.strip_suffix(",openai/gpt-5,2025-01-31,1,1000,20,3,400,50,0.001250,1")
                .unwrap()
                .to_owned()
        };
        assert_eq!(first("alice"), "alice");
        assert_eq!(first("Smith, \"Al\""), "\"Smith, \"\"Al\"\"\"");
        assert_eq!(first("=HYPERLINK(1,2)"), "\"'=HYPERLINK(1,2)\"");
        assert_eq!(first("+1"), "'+1");
        assert_eq!(first("-1"), "'-1");
        assert_eq!(first("@SUM"), "'@SUM");
        assert_eq!(first("＝1"), "'＝1");
        assert_eq!(first("\t=1"), r"\t=1");
        assert_eq!(first("a\r\n=1"), r"a\r\n=1");
        assert_eq!(csv("\t=1"), "'\t=1");
    }

    #[test]
    fn a_user_id_cannot_act_on_the_terminal() {
        assert_eq!(printable("\u{1b}[2J\u{7}\0\u{9b}"), r"\u{1b}[2J\u{7}\0\u{9b}");
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{200b}"), r"a\u{202e}b\u{2066}c\u{200b}");
        assert_eq!(printable(r#"O'Neil "Jürgen" 山田 \ 🙂"#), r#"O'Neil "Jürgen" 山田 \ 🙂"#);
    }

    proptest! {
        #[test]
        fn no_user_id_breaks_a_table_or_a_csv(user in any::<String>()) {
            let sheet = Sheet::of(ALL, &[line(&user, 1)]);
            for text in [sheet.to_table(), sheet.to_csv()] {
                prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
            }
            prop_assert_eq!(sheet.to_table().lines().count(), 3);
            prop_assert_eq!(sheet.to_csv().lines().count(), 2);
        }
    }
}
