//! The second line against secrets in texts of others: what looks like a key is taken out.

/// The first line of `text`, at most 300 characters, with whatever looks like a credential
/// replaced by `***` and control characters left out.
pub fn scrub(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut scrubbed = String::with_capacity(line.len());
    let mut after_bearer = false;
    for (index, word) in line.split(' ').enumerate() {
        if index > 0 {
            scrubbed.push(' ');
        }
        let hide = after_bearer || looks_secret(word);
        scrubbed.push_str(if hide { "***" } else { word });
        after_bearer = matches!(word.to_ascii_lowercase().as_str(), "bearer" | "basic");
    }
    scrubbed.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

/// Whether `word` holds something like a key: a known prefix, or a long run of the characters
/// that keys are made of, with digits among them.
fn looks_secret(word: &str) -> bool {
    let of_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/' | '=');
    word.split(|c| !of_key(c)).any(|run| {
        let known =
            PREFIXES.iter().any(|prefix| run.starts_with(prefix) && run.len() > prefix.len() + 3);
        let dense = run.len() >= 32
            && !run.contains('/')
            && run.bytes().any(|b| b.is_ascii_digit())
            && run.bytes().any(|b| b.is_ascii_alphabetic());
        known || dense
    })
}

const PREFIXES: &[&str] = &["sk-", "pk-", "gsk_", "xai-", "AIza", "ghp_", "eyJ"];
const LONGEST: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_key_is_taken_out() {
        assert_eq!(scrub("key sk-proj-abc123 is wrong"), "key *** is wrong");
        assert_eq!(scrub("Authorization: Bearer abc"), "Authorization: Bearer ***");
        assert_eq!(scrub("token=0123456789abcdef0123456789abcdef"), "***");
    }

    #[test]
    fn plain_words_stay() {
        let text = "You exceeded your current quota, please check your plan (limit 30000).";
        assert_eq!(scrub(text), text);
    }

    #[test]
    fn only_the_first_line_comes_through() {
        assert_eq!(scrub("no such model\n    at run (/x/y.js:1:2)"), "no such model");
        assert_eq!(scrub(&"x ".repeat(400)).chars().count(), 300);
    }
}
