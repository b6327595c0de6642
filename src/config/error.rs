//! What is wrong with a configuration, where, and what to do about it. Never a secret.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::file::Text;

/// Why a configuration cannot be used.
///
/// It prints as `file:line:column: what is wrong`; [`hint`](Self::hint) says what to do. Values
/// that came from the environment, from a secret file or from where a secret belongs are not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: PathBuf,
    problem: Problem,
}

impl ConfigError {
    pub(super) fn new(file: &Path, problem: Problem) -> Self {
        Self { file: file.to_owned(), problem }
    }

    /// Line and column, both from 1, when the problem is at one place in the file.
    pub fn position(&self) -> Option<(u64, u64)> {
        self.problem.at
    }

    /// What to do about it: a sentence without full stop.
    pub fn hint(&self) -> &str {
        &self.problem.hint
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.problem.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.problem.message)
    }
}

impl std::error::Error for ConfigError {}

/// A [`ConfigError`] that does not know its file yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    at: Option<(u64, u64)>,
    message: String,
    hint: String,
}

impl Problem {
    /// Something wrong with the file as a whole.
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { at: None, message: message.into(), hint: hint.into() }
    }

    /// Something wrong with the value `text`.
    pub(super) fn at(text: &Text, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(message, hint).in_place(text.position())
    }

    /// Something wrong at line and column `at`; line 0 means unknown.
    pub(super) fn in_place(mut self, at: (u64, u64)) -> Self {
        self.at = (at.0 > 0).then_some(at);
        self
    }

    /// What serde-saphyr said, in our words. Its own may repeat the value at fault, which may be a
    /// secret in the wrong place.
    pub(super) fn of_yaml(error: &serde_saphyr::Error) -> Self {
        use serde_saphyr::Error as E;
        let position = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let (message, hint) = match error.without_snippet() {
            E::AliasError { error, .. } => return Self::of_yaml(error).in_place(position),
            E::SerdeUnknownField { field, expected, .. } => {
                (format!("unknown key `{}`", short(field)), suggestion(field, expected))
            }
            E::SerdeMissingField { field, .. } => {
                (format!("`{field}` is missing"), format!("add `{field}: …` here"))
            }
            E::DuplicateMappingKey { key, .. } => (
                match key {
                    Some(key) => format!("`{}` is there twice", short(key)),
                    None => "a key is there twice".to_owned(),
                },
                "keep one of the two".to_owned(),
            ),
            E::SerdeInvalidType { expected, .. } | E::SerdeInvalidValue { expected, .. } => {
                (format!("expected {expected}"), SHAPE.to_owned())
            }
            E::Unexpected { expected, .. } => (format!("expected {expected}"), SHAPE.to_owned()),
            E::NullIntoString { .. } => {
                ("a value is missing".to_owned(), "write one, or quote `null` and `~`".to_owned())
            }
            E::UnsupportedTag { .. } | E::TaggedScalarCannotDeserializeIntoString { .. } => {
                ("YAML tags are not supported".to_owned(), "remove the `!…`".to_owned())
            }
            E::Budget { .. }
            | E::AliasReplayLimitExceeded { .. }
            | E::AliasExpansionLimitExceeded { .. }
            | E::AliasReplayStackDepthExceeded { .. } => (
                "the file is too deep, too long or repeats too much through aliases".to_owned(),
                "write it out plainly, with fewer levels and aliases".to_owned(),
            ),
            E::UnknownAnchor { .. } => {
                ("an alias without its anchor".to_owned(), "quote a value with a `*`".to_owned())
            }
            E::MultipleDocuments { .. } => (
                "more than one YAML document".to_owned(),
                "keep one, and remove the `---` between them".to_owned(),
            ),
            // What the scanner says is about syntax and quotes nothing of the file.
            E::ExternalMessage { msg, .. } => (
                format!("not YAML: {}", short(msg)),
                "check indentation, colons and quotes".to_owned(),
            ),
            _ => ("this is not what belongs here".to_owned(), SHAPE.to_owned()),
        };
        Self::new(message, hint).in_place(position)
    }
}

/// `text` as it may be shown in a message: escaped and cut.
pub(super) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

fn suggestion(field: &str, expected: &[&str]) -> String {
    let near = expected.iter().map(|known| (distance(field, known), known)).min();
    match near {
        Some((far, known)) if far <= 2 || far * 3 <= known.len() => {
            format!("did you mean `{known}`?")
        }
        _ if expected.is_empty() => "remove it".to_owned(),
        _ => format!("known here: {}", expected.join(", ")),
    }
}

/// How many letters must be put in, left out or changed to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

const SHAPE: &str = "compare with conf/gateway.yaml or docs/configuration.md";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_key_is_suggested_and_a_far_one_is_not() {
        let known = ["listen", "identity", "limits"];
        assert_eq!(suggestion("lisen", &known), "did you mean `listen`?");
        assert_eq!(suggestion("Identity", &known), "did you mean `identity`?");
        assert_eq!(suggestion("zzzzzzzz", &known), "known here: listen, identity, limits");
    }

    #[test]
    fn what_is_shown_is_escaped_and_cut() {
        assert_eq!(short("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(short(&"x".repeat(1000)).chars().count(), 61);
    }
}
