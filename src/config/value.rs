//! From written text to checked values: substitution first, then the value's own form.

use std::{cell::RefCell, path::PathBuf, time::Duration};

use bytesize::ByteSize;

use super::{
    error::{Problem, short},
    file::Text,
    substitute::substitute,
};

/// Reads values. It alone knows the environment.
pub(super) struct Reader<'a> {
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    /// The secret files that were read, so that a change of one can be noticed.
    pub(super) secret_files: RefCell<Vec<PathBuf>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { environment, secret_files: RefCell::default() }
    }

    /// The text with everything substituted. An empty one is as if the key were not there.
    pub(super) fn text(&self, text: Option<&Text>) -> Result<Option<String>, Problem> {
        let Some(text) = text else { return Ok(None) };
        let value = substitute(&text.written, self.environment)
            .map_err(|(message, hint)| Problem::at(text, message, hint))?;
        let value = value.trim_ascii();
        if value.chars().any(char::is_control) {
            return Err(Problem::at(
                text,
                "the value holds a line break or another control character",
                "keep it on one line",
            ));
        }
        Ok((!value.is_empty()).then(|| value.to_owned()))
    }

    /// The text, which must be there and not empty.
    pub(super) fn required(&self, text: &Text) -> Result<String, Problem> {
        self.text(Some(text))?
            .ok_or_else(|| Problem::at(text, "the value is empty", "write one, it has no default"))
    }

    /// What `parse` makes of the text, or `default` without one. `form` says what is expected.
    pub(super) fn parsed<T>(
        &self,
        text: Option<&Text>,
        default: T,
        form: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Problem> {
        Ok(self.optional(text, form, parse)?.unwrap_or(default))
    }

    /// What `parse` makes of the text, if there is one.
    pub(super) fn optional<T>(
        &self,
        text: Option<&Text>,
        form: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let (Some(value), Some(text)) = (self.text(text)?, text) else { return Ok(None) };
        parse(&value).map(Some).ok_or_else(|| not_of(text, form))
    }

    /// A duration above zero and below a month.
    pub(super) fn duration(
        &self,
        text: Option<&Text>,
        default: Duration,
    ) -> Result<Duration, Problem> {
        let form = "a duration above zero and below 30 days, such as `500ms`, `30s` or `15m`";
        self.parsed(text, default, form, |value| {
            parse_duration(value).filter(|duration| !duration.is_zero())
        })
    }

    /// As [`duration`](Self::duration), or zero.
    pub(super) fn duration_or_zero(
        &self,
        text: Option<&Text>,
        default: Duration,
    ) -> Result<Duration, Problem> {
        let form = "a duration below 30 days, such as `0s` or `30s`";
        self.parsed(text, default, form, parse_duration)
    }

    /// A size in bytes, above zero and at most `most`.
    pub(super) fn size(
        &self,
        text: Option<&Text>,
        default: usize,
        most: usize,
    ) -> Result<usize, Problem> {
        let form =
            format!("a size such as `64KiB` or `32MiB`, above zero and up to {}", shown(most));
        self.parsed(text, default, &form, |value| {
            let bytes: ByteSize = value.parse().ok()?;
            usize::try_from(bytes.as_u64()).ok().filter(|bytes| (1..=most).contains(bytes))
        })
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(
        &self,
        text: Option<&Text>,
        default: usize,
        most: usize,
    ) -> Result<usize, Problem> {
        self.parsed(text, default, &format!("a whole number from 1 to {most}"), |value| {
            value.parse().ok().filter(|count| (1..=most).contains(count))
        })
    }

    /// Yes or no.
    pub(super) fn flag(&self, text: Option<&Text>, default: bool) -> Result<bool, Problem> {
        self.parsed(text, default, "`true` or `false`", |value| {
            match value.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(true),
                "false" | "no" | "off" | "0" => Some(false),
                _ => None,
            }
        })
    }
}

/// A value that does not have the form it should have. What was written is shown, what a variable
/// in it holds is not.
pub(super) fn not_of(text: &Text, form: &str) -> Problem {
    Problem::at(
        text,
        format!("`{}` is not what belongs here", short(&text.written)),
        format!("write {form}"),
    )
}

/// Whether `name` may name a provider or an integration: `[a-z0-9_-]+`, at most 64.
pub(crate) fn is_plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// The host and port of a URL with scheme `http` or, `or_https`, `https`; with `Err(true)` when it
/// also holds a user or a password.
pub(super) fn authority(url: &http::Uri, or_https: bool) -> Result<&http::uri::Authority, bool> {
    let scheme = url.scheme_str().unwrap_or_default();
    let authority = url.authority().filter(|_| scheme == "http" || or_https && scheme == "https");
    let authority = authority.ok_or(false)?;
    let (host, text) = (authority.host(), authority.as_str());
    let has_port = text.len() > host.len();
    match authority.port_u16() {
        _ if text.contains('@') => Err(true),
        _ if host.is_empty() => Err(false),
        Some(0) => Err(false),
        None if has_port => Err(false),
        _ => Ok(authority),
    }
}

/// `bytes` as they are written: in the largest unit that loses nothing.
pub(super) fn shown(bytes: usize) -> String {
    [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| format!("{bytes}B"), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

fn parse_duration(value: &str) -> Option<Duration> {
    humantime::parse_duration(value).ok().filter(|duration| *duration < LONGEST)
}

const LONGEST: Duration = Duration::from_hours(30 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> Reader<'static> {
        Reader::new(&|name| (name == "SET").then(|| "15m".to_owned()))
    }

    #[test]
    fn durations_are_human_and_bounded() {
        let read = |written| reader().duration(Some(&Text::new(written)), Duration::from_secs(7));
        assert_eq!(read("${SET}").unwrap(), Duration::from_mins(15));
        assert_eq!(read("1m 30s").unwrap(), Duration::from_secs(90));
        assert_eq!(read("").unwrap(), Duration::from_secs(7));
        for bad in ["0s", "15", "15 minuts", "-1s", "30days", "1000000years", "NaN"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_human_and_bounded() {
        let read = |written: &str| reader().size(Some(&Text::new(written)), 7, 1 << 30);
        assert_eq!(read("32MiB").unwrap(), 32 << 20);
        assert_eq!(read("1 kB").unwrap(), 1000);
        assert_eq!(read("4096").unwrap(), 4096);
        for bad in ["0", "0KiB", "2GiB", "1e3", "-1", "99999999999999999999EiB", "inf", "1.2.3MiB"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
        for bytes in [1, 1000, 1 << 10, 3 << 20, 1 << 30] {
            assert_eq!(read(&shown(bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn a_value_on_two_lines_is_refused() {
        assert!(reader().text(Some(&Text::new("a\nb"))).is_err());
        assert_eq!(reader().text(Some(&Text::new(" a\n"))).unwrap().as_deref(), Some("a"));
    }
}
