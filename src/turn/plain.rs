//! Texts of others in a line of ours: short, and without a way to be anything but text.

/// The first line of `text`, without control characters and tags, cut to length.
pub(super) fn line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let mut short = String::with_capacity(line.len().min(LONGEST));
    let mut chars = line.chars().filter(|c| !c.is_control()).peekable();
    for _ in 0..LONGEST {
        let Some(c) = chars.next() else { return short };
        // `<think>` or `<details>` would hide the rest of the answer in Open WebUI.
        let is_tag =
            c == '<' && chars.peek().is_some_and(|c| c.is_alphabetic() || "/!?".contains(*c));
        short.push(if is_tag { '‹' } else { c });
    }
    if chars.peek().is_some() {
        short.push('…');
    }
    short
}

/// The first line of `text` as Markdown code.
pub(super) fn code(text: &str) -> String {
    format!("`{}`", line(text).replace('`', "'"))
}

/// Characters of a line.
const LONGEST: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_short_and_single() {
        assert_eq!(line("  ls -la\nrm x"), "ls -la");
        assert_eq!(line("a\u{1b}[31mb\u{0}"), "a[31mb");
        assert_eq!(line(&"x".repeat(120)).chars().count(), 120);
        assert_eq!(line(&"x".repeat(121)).chars().count(), 121);
        assert!(line(&"x".repeat(121)).ends_with('…'));
    }

    #[test]
    fn nothing_in_a_line_is_a_tag_or_ends_its_quotes() {
        assert_eq!(line("a <think> b </think> <!-- c"), "a ‹think> b ‹/think> ‹!-- c");
        assert_eq!(line("cat < file <<EOF 1<2"), "cat < file <‹EOF 1<2");
        assert_eq!(code("echo `date`"), "`echo 'date'`");
    }
}
