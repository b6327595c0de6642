//! Secrets by reference: `env:NAME` and `file:PATH`, so that none stands in the file itself.

use std::io::Read;

use sha2::{Digest, Sha256};

use super::{KeyCheck, error::Problem, file::Text, substitute::is_name, value::Reader};
use crate::secret::Secret;

impl Reader<'_> {
    /// The secret that `text` refers to. `None` for an absent or empty one, and for `env?:` and
    /// `file?:` when there is nothing there.
    pub(super) fn secret(&self, text: Option<&Text>) -> Result<Option<Secret>, Problem> {
        text.map_or(Ok(None), |text| self.referred(text, REFERENCES))
    }

    /// A secret, or after `plain:` a text that needs no secrecy.
    pub(super) fn secret_or_plain(&self, text: &Text) -> Result<Option<Secret>, Problem> {
        let value = self.text(Some(text))?;
        match value.as_deref().and_then(|value| value.strip_prefix("plain:")) {
            Some(plain) => Ok(Some(Secret::plain(plain.trim()))),
            None => self.referred(text, OR_PLAIN),
        }
    }

    /// What is known of a key that callers present: `sha256:<64 hex digits>`, or a reference to
    /// either that or the key itself.
    pub(super) fn key(&self, text: &Text) -> Result<KeyCheck, Problem> {
        let digest = |value: &str| value.strip_prefix("sha256:").map(parse_digest);
        let written = self.required(text)?;
        let check = if let Some(parsed) = digest(&written) {
            parsed
        } else {
            let key = self.referred(text, KEYS)?;
            let key = key.ok_or_else(|| Problem::at(text, "there is no key here", KEYS))?;
            let key = key.expose();
            match digest(key) {
                Some(parsed) => parsed,
                None if key.len() < SHORTEST_KEY => {
                    return Err(Problem::at(
                        text,
                        format!("the key is shorter than {SHORTEST_KEY} bytes"),
                        "make a long random one: openssl rand -hex 32",
                    ));
                }
                None => Some(Sha256::digest(key.as_bytes()).into()),
            }
        };
        check.map(KeyCheck).ok_or_else(|| {
            Problem::at(text, "`sha256:` is not followed by 64 lower-case hex digits", KEYS)
        })
    }

    /// Follows a reference. `forms` says what may be written where this is none.
    fn referred(&self, text: &Text, forms: &str) -> Result<Option<Secret>, Problem> {
        let Some(reference) = self.text(Some(text))? else { return Ok(None) };
        let (kind, rest) = reference.split_once(':').unwrap_or_default();
        match kind {
            "env" | "env?" => self.of_variable(text, rest, kind == "env?"),
            "file" | "file?" => self.of_file(text, rest, kind == "file?"),
            _ => Err(Problem::at(text, "a secret stands here in plain text", forms)),
        }
    }

    fn of_variable(
        &self,
        text: &Text,
        name: &str,
        optional: bool,
    ) -> Result<Option<Secret>, Problem> {
        if !is_name(name) {
            // Not repeated: it may be the secret itself.
            return Err(Problem::at(
                text,
                "`env:` is not followed by a variable's name",
                REFERENCES,
            ));
        }
        match (self.environment)(name).map(|value| value.trim().to_owned()) {
            Some(value) if value.chars().any(char::is_control) => Err(Problem::at(
                text,
                format!("the environment variable `{name}` holds more than one line"),
                "put the secret alone into it",
            )),
            Some(value) if !value.is_empty() => Ok(Some(Secret::new(value))),
            _ if optional => Ok(None),
            _ => Err(Problem::at(
                text,
                format!("the environment variable `{name}` is not set"),
                format!("set it, or write `env?:{name}` if there may be none"),
            )),
        }
    }

    fn of_file(&self, text: &Text, path: &str, optional: bool) -> Result<Option<Secret>, Problem> {
        let refused = |what: &str| {
            Problem::at(
                text,
                format!("the secret file `{path}` {what}"),
                "put the secret into it, alone on one line",
            )
        };
        self.secret_files.borrow_mut().push(path.into());
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
        match read {
            Err(e) if optional && e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(refused(&format!("cannot be read: {e}"))),
            Ok(size) if size as u64 > LARGEST_FILE => return Err(refused("is too large")),
            Ok(_) => {}
        }
        let value = String::from_utf8(bytes).map_err(|_| refused("is not UTF-8 text"))?;
        let value = value.trim_end_matches(['\n', '\r']);
        if value.is_empty() {
            return Err(refused("is empty"));
        }
        if value.chars().any(char::is_control) {
            return Err(refused("holds more than one line"));
        }
        Ok(Some(Secret::new(value)))
    }
}

fn parse_digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(hex, &mut digest).ok()?;
    (!hex.bytes().any(|b| b.is_ascii_uppercase())).then_some(digest)
}

const REFERENCES: &str =
    "write `env:NAME` for an environment variable or `file:PATH` for a file that holds it";
const OR_PLAIN: &str = "write `env:NAME` or `file:PATH`, or `plain:…` for what is no secret";
const KEYS: &str = "write `sha256:` and what `printf %s \"$KEY\" | sha256sum` prints, or \
                    `env:NAME`, or `file:PATH`";
const SHORTEST_KEY: usize = 16;
const LARGEST_FILE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "KEY" => Some("canary-0123456789abcdef".to_owned()),
            "SHORT" => Some("canary".to_owned()),
            "EMPTY" => Some(String::new()),
            "LINES" => Some("canary\ncanary".to_owned()),
            "DIGEST" => Some(format!("sha256:{}", "0f".repeat(32))),
            _ => None,
        }
    }

    fn secret(written: &str) -> Result<Option<String>, Problem> {
        let found = Reader::new(&environment).secret(Some(&Text::new(written)))?;
        Ok(found.map(|secret| secret.expose().to_owned()))
    }

    #[test]
    fn references_are_followed() {
        assert_eq!(secret("env:KEY").unwrap().as_deref(), Some("canary-0123456789abcdef"));
        assert_eq!(secret("env?:UNSET").unwrap(), None);
        assert_eq!(secret("file?:/no/such/file").unwrap(), None);
        assert_eq!(secret("").unwrap(), None);
    }

    #[test]
    fn a_secret_file_is_one_line_and_its_line_end_is_dropped() {
        let long = vec![b'x'; 70_000];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let reference = format!("file:{}", path.display());
        for (content, expected) in [
            (&b"canary\n"[..], Some("canary")),
            (b"canary\r\n", Some("canary")),
            (b" canary ", Some(" canary ")),
            (b"", None),
            (b"\n", None),
            (b"canary\ncanary\n", None),
            (b"can\0ary", None),
            (b"\xff\xfe", None),
            (&long, None),
        ] {
            std::fs::write(&path, content).unwrap();
            match (secret(&reference), expected) {
                (Ok(found), Some(_)) => assert_eq!(found.as_deref(), expected),
                (Err(problem), None) => assert!(!format!("{problem:?}").contains("canary")),
                (other, _) => panic!("{content:?}: {other:?}"),
            }
        }
        let at_directory = format!("file:{}", directory.path().display());
        assert!(secret(&at_directory).is_err());
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_refused_and_not_repeated() {
        for written in [
            "sk-canary",
            "canary:x",
            "env:sk-canary",
            "env:LINES",
            "env:EMPTY",
            "plain:canary",
            "sha256:canary",
            "${KEY}",
            "Env:KEY",
        ] {
            let problem = format!("{:?}", secret(written).unwrap_err());
            assert!(!problem.contains("canary"), "{problem}");
        }
    }

    #[test]
    fn a_key_is_kept_as_its_digest_only() {
        let key = |written: &str| Reader::new(&environment).key(&Text::new(written));
        let digest: [u8; 32] = Sha256::digest(b"canary-0123456789abcdef").into();
        assert!(key("env:KEY").unwrap() == KeyCheck(digest));
        assert!(key(&format!("sha256:{}", hex::encode(digest))).unwrap() == KeyCheck(digest));
        assert!(key("env:DIGEST").unwrap() == KeyCheck([0x0f; 32]));
        let upper = format!("sha256:{}", "0F".repeat(32));
        for bad in ["", "env:SHORT", "env?:UNSET", "sk-canary", "sha256:canary", &upper] {
            let problem = format!("{:?}", key(bad).unwrap_err());
            assert!(!problem.contains("canary"), "{problem}");
        }
    }

    #[test]
    fn plain_text_is_taken_only_where_it_is_allowed() {
        let of = |written: &str| Reader::new(&environment).secret_or_plain(&Text::new(written));
        assert_eq!(of("plain:eu-west").unwrap().unwrap().expose(), "eu-west");
        assert_eq!(of("env:SHORT").unwrap().unwrap().expose(), "canary");
        assert!(of("eu-west").is_err());
    }
}
