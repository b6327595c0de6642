//! A tool call in one line of Markdown.

use serde_json::{Map, Value};

use crate::turn::reply::{Stage, Tool};

/// A quoted line such as ``> **bash** `ls -la` ``, or why it failed.
pub(super) fn tool_line(tool: &Tool<'_>) -> String {
    let name = plain(&tool.name);
    if tool.stage == Stage::Failed {
        let why = plain(tool.output.as_deref().unwrap_or("no reason given"));
        return format!("> **{name}** failed: {why}");
    }
    match subject(tool) {
        Some(subject) => format!("> **{name}** `{}`", plain(&subject).replace('`', "'")),
        None => format!("> **{name}**"),
    }
}

/// What a call is about: the argument that says most, else the title.
fn subject(tool: &Tool<'_>) -> Option<String> {
    let input: Map<String, Value> =
        tool.input.and_then(|input| serde_json::from_str(input.get()).ok()).unwrap_or_default();
    let telling = TELLING.iter().find_map(|member| input.get(*member)?.as_str());
    telling.or(tool.title.as_deref()).map(str::to_owned)
}

/// The first line of `text` without control characters, cut to length.
fn plain(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    if short.chars().count() == LONGEST { short + "…" } else { short }
}

/// Arguments of opencode's tools, the most telling first.
const TELLING: &[&str] =
    &["command", "filePath", "path", "pattern", "url", "query", "description", "name"];
const LONGEST: usize = 120;

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::value::RawValue;

    use super::*;

    fn line(stage: Stage, input: &str, output: &str) -> String {
        let input = RawValue::from_string(input.to_owned()).unwrap();
        tool_line(&Tool {
            call: Cow::Borrowed("call_1"),
            name: Cow::Borrowed("bash"),
            stage,
            input: Some(&input),
            output: Some(Cow::Borrowed(output)),
            title: None,
        })
    }

    #[test]
    fn a_call_is_one_quoted_line() {
        let input = r#"{"command":"echo `date`\nrm x","description":"Say the date"}"#;
        assert_eq!(line(Stage::Running, input, ""), "> **bash** `echo 'date'`");
        assert_eq!(line(Stage::Running, "{}", ""), "> **bash**");
        assert_eq!(line(Stage::Failed, input, "denied\n  at x.js"), "> **bash** failed: denied");
    }

    #[test]
    fn a_long_argument_is_cut() {
        let input = format!(r#"{{"command":"{}"}}"#, "x".repeat(500));
        assert!(line(Stage::Running, &input, "").chars().count() < 140);
    }
}
