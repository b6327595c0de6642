//! JSON in which only our own references are references.
//!
//! opencode replaces `{env:NAME}` and `{file:path}` in the text of a configuration before it
//! parses it. A prompt that a user wrote must not name a variable or a file that way, so every
//! `{` inside a string is written `\u007b`; a [`Reference`] alone is written as it is.

use std::io;

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter, value::RawValue};

use crate::secret::Secret;

/// `"{env:NAME}"`, which opencode replaces by a variable of its environment.
pub(super) type Reference = Box<RawValue>;

/// The variables referred to so far.
#[derive(Default)]
pub(super) struct References(Vec<(String, Secret)>);

impl References {
    /// A reference to `value` under a variable named after `wanted`: in capitals, with `_` for
    /// whatever a variable's name cannot hold, and with further `_` when that one is taken.
    pub(super) fn to(&mut self, wanted: &str, value: &Secret) -> Reference {
        let fit = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let mut name: String = wanted.chars().map(fit).collect();
        while self.0.iter().any(|(taken, _)| *taken == name) {
            name.push('_');
        }
        // The variable's value lands between the quotes of the text, so it is escaped like it.
        let quoted = write(value.expose());
        let inside = &quoted[1..quoted.len() - 1];
        let reference = format!("\"{{env:{name}}}\"");
        self.0.push((name, value.written(inside)));
        RawValue::from_string(reference).expect("a name of A-Z, 0-9 and _ in quotes is JSON")
    }

    /// The variables and their values.
    pub(super) fn into_secrets(self) -> Vec<(String, Secret)> {
        self.0
    }
}

/// `value` as JSON, its strings free of references.
pub(super) fn write(value: &(impl Serialize + ?Sized)) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, NoBraces);
    value.serialize(&mut serializer).expect("keys are strings and a Vec takes every byte");
    String::from_utf8(bytes).expect("serde_json writes UTF-8")
}

/// Writes JSON as usual, but `{` in strings as `\u007b`.
struct NoBraces;

impl Formatter for NoBraces {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        for (n, piece) in fragment.split('{').enumerate() {
            if n > 0 {
                writer.write_all(br"\u007b")?;
            }
            writer.write_all(piece.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_references_of_ours_stay_references() {
        let prompt = "{env:HOME} {file:/etc/passwd} {\"a\":1}";
        let json = write(&BTreeMap::from([("{env:KEY}", prompt)]));
        assert!(!json[1..].contains('{'), "{json}");
        let back: BTreeMap<String, String> = serde_json::from_str(&json).unwrap();
        assert_eq!(back["{env:KEY}"], prompt);

        let mut references = References::default();
        let reference = references.to("OPEN_PERSONA_KEY_my.ai", &Secret::new("k"));
        assert_eq!(write(&reference), r#""{env:OPEN_PERSONA_KEY_MY_AI}""#);
    }

    #[test]
    fn names_that_fold_into_one_stay_two() {
        let mut references = References::default();
        references.to("KEY_a-b", &Secret::new("1"));
        references.to("KEY_a_b", &Secret::new("2"));
        let secrets = references.into_secrets();
        assert_eq!(secrets[0], ("KEY_A_B".to_owned(), Secret::new("1")));
        assert_eq!(secrets[1], ("KEY_A_B_".to_owned(), Secret::new("2")));
    }

    #[test]
    fn a_value_cannot_leave_its_string() {
        let mut references = References::default();
        references.to("KEY", &Secret::new("a\"b\\c{file:/etc/passwd}"));
        assert_eq!(references.into_secrets()[0].1.expose(), r#"a\"b\\c\u007bfile:/etc/passwd}"#);
    }
}
