//! JSON in which only our own references are references.
//!
//! opencode replaces `{env:NAME}` and `{file:path}` in the text of a configuration before it
//! parses it. A prompt that a user wrote must not name a variable or a file that way, so every
//! `{` inside a string is written `\u007b`; a [`Reference`] alone is written as it is.

use std::io;

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter, value::RawValue};

/// `"{env:NAME}"`, which opencode replaces by a variable of its environment.
pub(super) type Reference = Box<RawValue>;

/// A reference to the variable `name`, which is of A-Z and `_`.
pub(super) fn reference(name: &str) -> Reference {
    let reference = format!("\"{{env:{name}}}\"");
    RawValue::from_string(reference).expect("a name of A-Z and _ in quotes is JSON")
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

        assert_eq!(write(&reference("TOKEN")), r#""{env:TOKEN}""#);
    }
}
