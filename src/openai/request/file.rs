//! A file sent inside a request. Nothing here opens a file or a connection.

use super::Refusal;

/// A file whose bytes came with the request. Only requests make one, so that the URL is always a
/// base64 `data:` URL of an allowed type: it can be handed to a runner, which fetches any other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct File {
    /// The media type: PNG, JPEG, GIF, WebP, PDF or `text/*`, in lower case.
    pub mime: String,
    /// `data:<mime>;base64,<data>`.
    pub url: String,
    /// A name for people, without control characters, of at most 255 characters. Never a path to
    /// write to.
    pub filename: Option<String>,
}

/// How the first bytes of a file begin once they are base64, for data that comes without a type.
const MAGIC: [(&str, &str); 5] = [
    ("JVBERi", "application/pdf"),
    ("iVBORw0KGgo", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
];

/// Name endings of text files, for data that comes without a type.
const TEXT: [&str; 8] = ["csv", "html", "json", "log", "md", "txt", "xml", "yaml"];

impl File {
    /// Reads a URL, which must be a `data:` URL.
    pub(super) fn of_url(
        url: String,
        filename: Option<String>,
        param: &str,
    ) -> Result<Self, Refusal> {
        let Some((head, data)) = split(&url) else {
            let message = format!(
                "`{param}` must be a data: URL such as data:image/png;base64,iVBOR…. \
                 Other URLs are never fetched: send the file itself."
            );
            return Err(Refusal::bad_request("unsupported_url", message).param(param.to_owned()));
        };
        let mut options = head.split(';');
        let mime = mime(options.next().unwrap_or_default(), param)?;
        if !options.any(|option| option.trim().eq_ignore_ascii_case("base64")) || !is_base64(data) {
            let message = format!("The data: URL in `{param}` is not valid base64.");
            return Err(Refusal::bad_request("invalid_base64", message).param(param.to_owned()));
        }
        // Usually it is written our way already, and megabytes need not be copied.
        let ours = format!("data:{mime};base64,");
        let url = if url.starts_with(&ours) { url } else { ours + data };
        Ok(Self { mime, url, filename: filename.map(|name| tame(&name)) })
    }

    /// Reads `data`, which is a `data:` URL or bare base64 whose type shows in its first bytes or
    /// in the end of `filename`.
    pub(super) fn of_data(
        data: String,
        filename: Option<String>,
        param: &str,
    ) -> Result<Self, Refusal> {
        if data.contains(':') {
            return Self::of_url(data, filename, param);
        }
        let end = filename.as_deref().and_then(|name| name.rsplit_once('.')).map(|(_, end)| end);
        let is_text = end.is_some_and(|end| TEXT.iter().any(|text| end.eq_ignore_ascii_case(text)));
        let magic = MAGIC.iter().find(|(magic, _)| data.starts_with(magic));
        let mime = match magic {
            Some((_, mime)) => mime,
            None if is_text => "text/plain",
            None => "",
        };
        Self::of_url(format!("data:{mime};base64,{data}"), filename, param)
    }
}

/// The head of a `data:` URL, without the scheme, and its data.
fn split(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_at_checked(5)?;
    scheme.eq_ignore_ascii_case("data:").then(|| rest.split_once(','))?
}

fn mime(written: &str, param: &str) -> Result<String, Refusal> {
    let mime = match written.trim().to_ascii_lowercase().as_str() {
        "image/jpg" => "image/jpeg".to_owned(),
        other => other.to_owned(),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.+".contains(&b);
    let is_text = mime
        .strip_prefix("text/")
        .is_some_and(|kind| (1..=64).contains(&kind.len()) && kind.bytes().all(plain));
    if is_text || MAGIC.iter().any(|(_, known)| *known == mime) {
        return Ok(mime);
    }
    let message = format!(
        "The file in `{param}` has no type that is supported: \
         PNG, JPEG, GIF, WebP, PDF and text are."
    );
    Err(Refusal::bad_request("unsupported_file_type", message).param(param.to_owned()))
}

/// Whether `data` is non-empty, padded base64 of the standard alphabet.
fn is_base64(data: &str) -> bool {
    let data = data.as_bytes();
    let digits = data.strip_suffix(b"==").or(data.strip_suffix(b"=")).unwrap_or(data);
    // No early end: that lets the compiler look at many bytes at once.
    let strange = digits
        .iter()
        .filter(|b| !(b.is_ascii_alphanumeric() || **b == b'+' || **b == b'/'))
        .count();
    !digits.is_empty() && data.len().is_multiple_of(4) && strange == 0
}

fn tame(name: &str) -> String {
    name.chars().filter(|char| !char.is_control()).take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(url: &str) -> Result<File, &'static str> {
        File::of_url(url.to_owned(), None, "it").map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_data_url_is_written_our_way() {
        for written in [
            "data:image/jpeg;base64,/9j/",
            "DATA:image/JPG;Base64,/9j/",
            "data:image/jpeg;name=a.jpg;base64,/9j/",
        ] {
            let file = url(written).unwrap();
            assert_eq!(file.mime, "image/jpeg");
            assert_eq!(file.url, "data:image/jpeg;base64,/9j/");
        }
    }

    #[test]
    fn every_other_url_is_refused() {
        for bad in [
            "https://example.com/a.png",
            "http://169.254.169.254/latest",
            "file:///etc/passwd",
            "FILE:///etc/passwd",
            " data:image/png;base64,AAAA",
            "data",
            "data:",
            "data:image/png;base64",
            "",
            "dätä:image/png;base64,AAAA",
            "//example.com/a.png",
        ] {
            assert_eq!(url(bad).unwrap_err(), "unsupported_url", "{bad:?}");
        }
    }

    #[test]
    fn only_types_an_agent_reads_are_taken() {
        for good in ["image/png", "image/gif", "image/webp", "application/pdf", "text/x-rust"] {
            assert!(url(&format!("data:{good};base64,AAAA")).is_ok(), "{good}");
        }
        for bad in ["", "image/svg+xml", "application/json", "text/", "text/a b", "video/mp4"] {
            let refused = url(&format!("data:{bad};base64,AAAA")).unwrap_err();
            assert_eq!(refused, "unsupported_file_type", "{bad:?}");
        }
    }

    #[test]
    fn data_must_be_base64() {
        for good in ["AAAA", "AAA=", "AA==", "+/+/"] {
            assert!(url(&format!("data:text/plain;base64,{good}")).is_ok(), "{good}");
        }
        for bad in ["", "====", "A", "AAA", "A===", "=AAA", "AA=A", "AA-_", "AAAA\n", "AAAA,AAA"] {
            let refused = url(&format!("data:text/plain;base64,{bad}")).unwrap_err();
            assert_eq!(refused, "invalid_base64", "{bad:?}");
        }
        assert_eq!(url("data:text/plain,hello%20there").unwrap_err(), "invalid_base64");
    }

    #[test]
    fn bare_data_shows_its_type() {
        let mime = |data: &str, name: Option<&str>| {
            File::of_data(data.to_owned(), name.map(str::to_owned), "it").map(|file| file.mime)
        };
        assert_eq!(mime("JVBERi0x", None).unwrap(), "application/pdf");
        assert_eq!(mime("iVBORw0KGgoA", Some("x.txt")).unwrap(), "image/png");
        assert_eq!(mime("aGVsbG8h", Some("notes.MD")).unwrap(), "text/plain");
        assert_eq!(mime("aGVsbG8h", None).unwrap_err().code, "unsupported_file_type");
        assert_eq!(mime("data:text/csv;base64,YSxi", None).unwrap(), "text/csv");
        assert_eq!(mime("http://a/b", None).unwrap_err().code, "unsupported_url");
    }

    #[test]
    fn a_file_name_is_tamed() {
        let long = format!("a\r\nb\u{1b}[0m{}", "x".repeat(300));
        let file = File::of_url("data:text/plain;base64,AAAA".into(), Some(long), "it").unwrap();
        let name = file.filename.unwrap();
        assert!(name.starts_with("ab[0mxx") && name.chars().count() == 255);
    }
}
