//! `${NAME}` and `${NAME:-default}` in values.
//!
//! It happens inside scalars, after the YAML was parsed: whatever a variable holds, it stays within
//! the one value and cannot add a key, end a quote or start a list.

/// Replaces every `${NAME}` in `written` by the variable's value, and `$$` by `$`.
///
/// `${NAME:-default}` gives the default when the variable is unset or empty; the default may hold
/// further references. What a variable holds is not looked into again. The error is a message and a
/// hint; neither holds a value.
pub(super) fn substitute(
    written: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, (String, String)> {
    let mut value = String::new();
    expand(written, environment, &mut value, 0)?;
    Ok(value)
}

fn expand(
    mut rest: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    value: &mut String,
    depth: usize,
) -> Result<(), (String, String)> {
    while let Some(dollar) = rest.find('$') {
        value.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            let end = closing(after).ok_or_else(|| wrong("a `${` without its `}`"))?;
            reference(&after[..end], environment, value, depth)?;
            rest = &after[end + 1..];
        } else {
            value.push('$');
            rest = rest.strip_prefix('$').unwrap_or(rest);
        }
        if value.len() > MAX_LENGTH {
            return Err(wrong("a value longer than 64 KiB"));
        }
    }
    value.push_str(rest);
    Ok(())
}

fn reference(
    inner: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    value: &mut String,
    depth: usize,
) -> Result<(), (String, String)> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if !is_name(name) {
        return Err(wrong("a `${…}` that is neither `${NAME}` nor `${NAME:-default}`"));
    }
    match (environment(name), default) {
        (Some(set), None) => value.push_str(&set),
        (Some(set), Some(_)) if !set.is_empty() => value.push_str(&set),
        (_, Some(_)) if depth == MAX_DEPTH => return Err(wrong("defaults nested too deeply")),
        (_, Some(default)) => expand(default, environment, value, depth + 1)?,
        (None, None) => {
            return Err((
                format!("the environment variable `{name}` is not set"),
                format!("set it, or write a default: `${{{name}:-…}}`"),
            ));
        }
    }
    Ok(())
}

/// Where the `}` is that ends a reference, with references inside it skipped.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Whether `name` can be an environment variable's.
pub(super) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn wrong(message: &str) -> (String, String) {
    (message.to_owned(), "write `$$` for a `$` that is meant as one".to_owned())
}

const MAX_DEPTH: usize = 8;
const MAX_LENGTH: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(written: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            "LIKE_A_REFERENCE" => Some("${SET}$$".to_owned()),
            "BIG" => Some("x".repeat(40 << 10)),
            _ => None,
        };
        substitute(written, &environment).map_err(|(message, _)| message)
    }

    #[test]
    fn references_defaults_and_escapes_are_replaced() {
        for (written, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("${SET}", "value"),
            ("a-${SET}-b", "a-value-b"),
            ("${SET:-other}", "value"),
            ("${UNSET:-other}", "other"),
            ("${UNSET:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-other}", "other"),
            ("${UNSET:-${EMPTY:-${SET}}}", "value"),
            ("${UNSET:-a:-b}", "a:-b"),
            ("http://${UNSET:-127.0.0.1}:${UNSET:-80}/", "http://127.0.0.1:80/"),
            ("$${SET}", "${SET}"),
            ("$$$${SET}", "$${SET}"),
            ("a$b$", "a$b$"),
            ("ü${SET}ü", "üvalueü"),
        ] {
            assert_eq!(of(written).as_deref(), Ok(expected), "{written}");
        }
    }

    #[test]
    fn what_a_variable_holds_is_taken_as_it_is() {
        assert_eq!(of("${LIKE_A_REFERENCE}").as_deref(), Ok("${SET}$$"));
    }

    #[test]
    fn a_reference_that_is_none_is_refused() {
        for written in
            ["${", "${}", "${SET", "${1A}", "${A B}", "${SET-x}", "${SET:?x}", "${SET:-${SET}"]
        {
            assert!(of(written).is_err(), "{written}");
        }
        assert_eq!(of("${UNSET}").unwrap_err(), "the environment variable `UNSET` is not set");
    }

    #[test]
    fn neither_nesting_nor_length_is_without_bound() {
        let nested = format!("{}x{}", "${UNSET:-".repeat(5000), "}".repeat(5000));
        assert_eq!(of(&nested).unwrap_err(), "defaults nested too deeply");
        assert_eq!(of("${BIG}${BIG}${BIG}").unwrap_err(), "a value longer than 64 KiB");
    }
}
