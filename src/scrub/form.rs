//! The ways in which a value can stand in a text.

use std::collections::BTreeSet;

use base64::{
    Engine, alphabet,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Whether `value` can be taken out of texts. What is shorter or of one character only is also
/// part of what is no secret, and would black out half of what is written.
pub(super) fn is_distinct(value: &str) -> bool {
    let mut chars = value.chars();
    let first = chars.next();
    value.len() >= SHORTEST && chars.any(|char| Some(char) != first)
}

/// Every form of `value`: as it is, within JSON and Rust's quotes, percent-encoded and in base64,
/// and each of these without the scheme in `Bearer …`. None is shorter than [`SHORTEST`].
pub(super) fn forms(value: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    let credential = value.split_once(' ').filter(|(scheme, _)| is_scheme(scheme));
    let credential = credential.map(|(_, credential)| credential.trim());
    for text in [Some(value), credential].into_iter().flatten().filter(|text| is_distinct(text)) {
        forms.insert(text.to_owned());
        forms.insert(inside(&serde_json::Value::from(text).to_string()).to_owned());
        forms.insert(inside(&format!("{text:?}")).to_owned());
        forms.insert(utf8_percent_encode(text, &NOT_UNRESERVED).to_string());
        for before in 0..3 {
            forms.insert(base64(&BASE64, text, before));
            forms.insert(base64(&BASE64_URL, text, before));
        }
    }
    forms
}

/// The characters that base64 has for `text` alone, when `before` bytes more than a multiple of
/// three come before it, as `opencode:` does with none in `Authorization: Basic`.
fn base64(engine: &GeneralPurpose, text: &str, before: usize) -> String {
    let bytes = [&[0; 2][..before], text.as_bytes()].concat();
    // Six bits to a character. Those at the ends also hold bits of what is around.
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    engine.encode(bytes)[first..end].to_owned()
}

fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "token"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// A quoted text without its quotes.
fn inside(quoted: &str) -> &str {
    &quoted[1..quoted.len() - 1]
}

const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, NO_PAD);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD);
const NOT_UNRESERVED: AsciiSet =
    NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// In bytes.
pub(super) const SHORTEST: usize = 8;

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

    use super::*;

    fn is_found(value: &str, text: &str) -> bool {
        forms(value).iter().any(|form| text.contains(form))
    }

    #[test]
    fn a_value_is_found_in_whatever_it_is_written() {
        let value = "pass\"wörd\\1>?~\u{7f}";
        for written in [
            serde_json::json!({"key": value}).to_string(),
            format!("{value:?}"),
            "pass%22w%C3%B6rd%5C1%3E%3F~%7F".to_owned(),
        ] {
            assert!(is_found(value, &written), "{written}");
        }
        for around in ["opencode:", ":", "x:", "me:"] {
            let text = format!("{around}{value}{around}");
            assert!(is_found(value, &BASE64_STANDARD.encode(&text)), "{around}");
            assert!(is_found(value, &BASE64_URL_SAFE.encode(&text)), "{around}");
        }
    }

    #[test]
    fn a_token_is_found_without_its_scheme() {
        assert!(is_found("Bearer t0ken-t0ken", "invalid token t0ken-t0ken"));
        assert!(!is_found("correct horse battery", "horse battery"));
    }

    #[test]
    fn what_could_be_anything_is_not_looked_for() {
        for value in ["", "short-1", "--------", "********"] {
            assert!(!is_distinct(value), "{value}");
        }
        assert!(is_distinct("short-12"));
        assert_eq!(forms("12345678").first().unwrap(), "12345678");
        assert!(forms("12345678").iter().all(|form| form.len() >= SHORTEST));
    }
}
