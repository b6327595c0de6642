//! A tool call in one line of Markdown.

use serde_json::{Map, Value};

use crate::turn::{
    plain,
    reply::{Stage, Tool},
};

/// A quoted line such as ``> 🔧 **bash** `ls -la` ``.
pub(super) fn tool_line(tool: &Tool<'_>) -> String {
    let name = plain::line(&tool.name);
    match subject(tool) {
        Some(subject) => format!("> 🔧 **{name}** {}", plain::code(&subject)),
        None => format!("> 🔧 **{name}**"),
    }
}

/// A quoted line about how the call failed; `None` if it did not.
pub(super) fn failure_line(tool: &Tool<'_>) -> Option<String> {
    let name = plain::line(&tool.name);
    match (tool.stage, tool.exit) {
        (Stage::Failed, _) => {
            let why = plain::line(tool.output.as_deref().unwrap_or_default());
            let colon = if why.is_empty() { "" } else { ": " };
            Some(format!("> ⚠️ **{name}** failed{colon}{why}"))
        }
        (_, Some(exit)) => Some(format!("> ⚠️ **{name}** ended with status {exit}")),
        (_, None) => None,
    }
}

/// What a call is about: the argument that says most, the title, or whatever text there is.
fn subject(tool: &Tool<'_>) -> Option<String> {
    let input: Map<String, Value> =
        tool.input.and_then(|input| serde_json::from_str(input.get()).ok()).unwrap_or_default();
    let subject = TELLING.iter().find_map(|member| input.get(*member)?.as_str());
    let subject = subject.or(tool.title.as_deref()).or_else(|| any_text(&input));
    subject.filter(|text| !text.trim().is_empty()).map(str::to_owned)
}

/// The text that says most, however deep it is.
fn any_text(members: &Map<String, Value>) -> Option<&str> {
    fn text(value: &Value) -> Option<&str> {
        match value {
            Value::String(text) => Some(text),
            Value::Array(values) => values.iter().find_map(text),
            Value::Object(members) => any_text(members),
            _ => None,
        }
    }
    let telling = TELLING.iter().find_map(|member| members.get(*member).and_then(text));
    telling.or_else(|| members.values().find_map(text))
}

/// Arguments of opencode's tools, the most telling first.
const TELLING: &[&str] =
    &["command", "filePath", "path", "pattern", "url", "query", "question", "description", "name"];

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::value::RawValue;

    use super::*;

    fn with<T>(stage: Stage, input: &str, output: &str, see: impl FnOnce(&Tool<'_>) -> T) -> T {
        let input = RawValue::from_string(input.to_owned()).unwrap();
        see(&Tool {
            part: Cow::Borrowed("prt_1"),
            call: Cow::Borrowed("call_1"),
            name: Cow::Borrowed("bash"),
            stage,
            input: Some(&input),
            output: Some(Cow::Borrowed(output)),
            title: None,
            exit: None,
        })
    }

    #[test]
    fn a_call_is_one_quoted_line() {
        let line = |input| with(Stage::Running, input, "", tool_line);
        let input = r#"{"description":"Say the date","command":"echo `date`\nrm x"}"#;
        assert_eq!(line(input), "> 🔧 **bash** `echo 'date'`");
        assert_eq!(line("{}"), "> 🔧 **bash**");
        assert_eq!(line(r#"{"todos":[{"n":1,"content":"one"}]}"#), "> 🔧 **bash** `one`");
        let input = r#"{"questions":[{"header":"Colour","question":"Which?"}]}"#;
        assert_eq!(line(input), "> 🔧 **bash** `Which?`");
        assert_eq!(line("[]"), "> 🔧 **bash**");
    }

    #[test]
    fn a_failure_says_why_in_one_line() {
        let line = |stage, output| with(stage, "{}", output, failure_line);
        let why = line(Stage::Failed, "denied\n  at x.js");
        assert_eq!(why.as_deref(), Some("> ⚠️ **bash** failed: denied"));
        assert_eq!(line(Stage::Failed, "").as_deref(), Some("> ⚠️ **bash** failed"));
        assert_eq!(line(Stage::Done, "fine"), None);
    }

    #[test]
    fn a_long_argument_is_cut() {
        let input = format!(r#"{{"command":"{}"}}"#, "x".repeat(500));
        assert!(with(Stage::Running, &input, "", tool_line).chars().count() < 150);
    }
}
