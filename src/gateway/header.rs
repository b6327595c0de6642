//! Reserved headers out, ours in: what a caller sends about identity never reaches a runner, and
//! what a runner sends about anything but its answer never reaches a caller.

use http::{HeaderMap, HeaderValue, header::HeaderName};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pingora::http::{RequestHeader, ResponseHeader};

use super::identity::Identity;
use crate::workspace::WorkspaceId;

/// Whether `name` could be taken for identity, credentials or a proxy's word by anyone behind us.
///
/// Case does not matter, and any other character may stand for the hyphen: CGI and WSGI fold them.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|prefix| begins_with(name, prefix))
        || EXACT.iter().any(|exact| exact.len() == name.len() && begins_with(name, exact))
}

/// The reserved names among `headers`.
pub fn reserved(headers: &HeaderMap) -> Vec<HeaderName> {
    headers.keys().filter(|name| is_reserved(name.as_str())).cloned().collect()
}

/// Removes every reserved header from `request`, all values and all spellings.
pub fn strip(request: &mut RequestHeader) {
    for name in reserved(&request.headers) {
        request.remove_header(&name);
    }
}

/// Adds our headers, for runners that speak OpenAI's dialect. To be called after [`strip`].
///
/// All values are UTF-8 with control characters, non-ASCII and `%` percent-encoded. Absent:
/// what nobody told us.
///
/// # Errors
/// When `request` can hold no more headers.
pub fn add(
    request: &mut RequestHeader,
    identity: &Identity,
    workspace: &WorkspaceId,
) -> pingora::Result<()> {
    request.insert_header(USER_ID, encoded(&identity.user))?;
    request.insert_header(IDENTITY_SOURCE, encoded(identity.source.as_str()))?;
    request.insert_header(WORKSPACE, encoded(workspace.as_str()))?;
    if let Some(name) = &identity.name {
        request.insert_header(USER_NAME, encoded(name))?;
    }
    if let Some(email) = &identity.email {
        request.insert_header(USER_EMAIL, encoded(email))?;
    }
    if let Some(is_admin) = identity.is_admin() {
        request.insert_header(USER_ROLE, encoded(if is_admin { "admin" } else { "user" }))?;
    }
    Ok(())
}

/// Whether a runner may send the response header `name` to a caller.
pub fn may_answer(name: &str) -> bool {
    let name = name.as_bytes();
    let listed = |list: &[&str], whole: bool| {
        list.iter().any(|each| {
            (!whole || each.len() == name.len())
                && name.get(..each.len()).is_some_and(|n| n.eq_ignore_ascii_case(each.as_bytes()))
        })
    };
    listed(ANSWER, true) || listed(ANSWER_PREFIXES, false)
}

/// Removes every response header a runner may not send. To be called from
/// `upstream_response_filter`: Pingora adds the framing after it (`proxy_h1.rs`, 940–953).
pub fn strip_answer(response: &mut ResponseHeader) {
    let unlisted = response.headers.keys().filter(|name| !may_answer(name.as_str()));
    for name in unlisted.cloned().collect::<Vec<_>>() {
        response.remove_header(&name);
    }
}

fn begins_with(name: &str, prefix: &str) -> bool {
    let fold =
        |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(|(n, p)| fold(&n) == p)
}

fn encoded(text: &str) -> HeaderValue {
    let text = utf8_percent_encode(text, ENCODED).to_string();
    HeaderValue::try_from(text).expect("printable ASCII is a header value")
}

/// What begins like this is reserved.
const RESERVED: &[&str] = &[
    "cookie",
    "forwarded",
    "proxy-",
    "remote-",
    "x-auth",
    "x-forwarded",
    "x-open-persona",
    "x-open-webui",
    "x-openpersona",
    "x-openwebui",
    "x-original-",
    "x-persona",
    "x-real-",
    "x-remote",
    "x-rewrite-",
    "x-user",
    "x-webauth",
];

/// What is spelt like this is reserved.
const EXACT: &[&str] = &["api-key", "authorization", "x-api-key"];

/// What a runner may answer with. No framing: that is between it and Pingora, and between Pingora
/// and the caller.
const ANSWER: &[&str] = &[
    "cache-control",
    "content-language",
    "content-length",
    "content-type",
    "date",
    "retry-after",
    "x-request-id",
];
const ANSWER_PREFIXES: &[&str] = &["openai-", "x-ratelimit-"];

const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

const USER_ID: HeaderName = HeaderName::from_static("x-openpersona-user-id");
const USER_NAME: HeaderName = HeaderName::from_static("x-openpersona-user-name");
const USER_EMAIL: HeaderName = HeaderName::from_static("x-openpersona-user-email");
const USER_ROLE: HeaderName = HeaderName::from_static("x-openpersona-user-role");
const IDENTITY_SOURCE: HeaderName = HeaderName::from_static("x-openpersona-identity-source");
const WORKSPACE: HeaderName = HeaderName::from_static("x-openpersona-workspace");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::identity::Source;

    const NAMES: &[&str] = &[
        "x-openwebui-user-id",
        "x-openwebui-user-jwt",
        "x-open-webui-user-id",
        "x-openpersona-user-id",
        "x-openpersona-meta-b64",
        "x-openpersona-workspace",
        "x-open-persona-user-id",
        "x-persona-user",
        "x-forwarded-user",
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "remote-user",
        "remote-groups",
        "x-remote-user",
        "x-user-id",
        "x-user",
        "x-auth-request-email",
        "x-auth-user",
        "x-webauth-user",
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "api-key",
    ];

    /// Every way to write `name` with `-`, `_` or `.`, in four kinds of case.
    fn spellings(name: &str) -> Vec<String> {
        let mut all = vec![String::new()];
        for part in name.split('-') {
            let joined = |separator: &str| {
                let join = |done: &String| format!("{done}{separator}{part}");
                all.iter().map(join).collect::<Vec<_>>()
            };
            all =
                if all == [""] { vec![part.into()] } else { ["-", "_", "."].map(joined).concat() };
        }
        let title = |text: &String| {
            let mut start = true;
            let case = |c: char| {
                let cased = if start { c.to_ascii_uppercase() } else { c };
                start = !c.is_ascii_alphanumeric();
                cased
            };
            text.chars().map(case).collect::<String>()
        };
        let mixed = |text: &String| {
            let case = |(i, c): (usize, char)| if i % 2 == 0 { c } else { c.to_ascii_uppercase() };
            text.chars().enumerate().map(case).collect::<String>()
        };
        all.iter()
            .flat_map(|text| [text.clone(), text.to_uppercase(), title(text), mixed(text)])
            .collect()
    }

    #[test]
    fn no_spelling_of_a_reserved_header_stays() {
        let mut tried = 0;
        for spelling in NAMES.iter().flat_map(|name| spellings(name)) {
            assert!(is_reserved(&spelling), "{spelling}");
            let mut request = RequestHeader::build("POST", b"/v1/models", None).unwrap();
            request.append_header(spelling.clone(), "mallory").unwrap();
            request.append_header(spelling.clone(), "mallory too").unwrap();
            request.append_header("Content-Type", "application/json").unwrap();
            strip(&mut request);
            let mut wire = Vec::new();
            request.header_to_h1_wire(&mut wire);
            assert_eq!(wire, b"Content-Type: application/json\r\n", "{spelling}");
            tried += 1;
        }
        assert!(tried > 1000, "only {tried}");
    }

    #[test]
    fn ordinary_headers_stay() {
        for name in [
            "host",
            "content-type",
            "content-length",
            "accept",
            "accept-encoding",
            "user-agent",
            "x-request-id",
            "x-stainless-lang",
            "openai-organization",
            "traceparent",
            "idempotency-key",
        ] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn ours_are_the_only_ones_and_can_be_decoded() {
        let mut request = RequestHeader::build("POST", b"/", None).unwrap();
        request.append_header("X-OpenPersona-User-Id", "mallory").unwrap();
        request.append_header("x-openpersona-user-role", "admin").unwrap();
        let identity = Identity {
            user: "älice 100%".into(),
            source: Source::Header,
            name: Some("Alice\r\nX-Evil: 1".into()),
            email: None,
            role: None,
        };
        strip(&mut request);
        add(&mut request, &identity, &WorkspaceId::of("älice 100%")).unwrap();
        let mut wire = Vec::new();
        request.header_to_h1_wire(&mut wire);
        let wire = String::from_utf8(wire).unwrap();
        let mut lines: Vec<_> = wire.trim_end().split("\r\n").collect();
        lines.sort_unstable_by_key(|line| line.to_ascii_lowercase());
        assert_eq!(
            lines.join("\n").to_ascii_lowercase(),
            format!(
                "x-openpersona-identity-source: header\n\
                 x-openpersona-user-id: %c3%a4lice 100%25\n\
                 x-openpersona-user-name: alice%0d%0ax-evil: 1\n\
                 x-openpersona-workspace: {}",
                WorkspaceId::of("älice 100%")
            )
        );
    }

    #[test]
    fn a_runner_answers_with_listed_headers_only() {
        let mut answer = ResponseHeader::build(200, None).unwrap();
        for name in [
            "Content-Type",
            "x-request-id",
            "OpenAI-Processing-Ms",
            "Set-Cookie",
            "Location",
            "Connection",
            "Transfer-Encoding",
            "Upgrade",
            "X-OpenPersona-Workspace",
            "Server",
            "Access-Control-Allow-Origin",
            "Clear-Site-Data",
            "content-typed",
        ] {
            answer.append_header(name, "x").unwrap();
        }
        strip_answer(&mut answer);
        let mut left: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "openai-processing-ms", "x-request-id"]);
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_header_value_and_comes_back(text in any::<String>()) {
            let value = encoded(&text);
            let back = percent_encoding::percent_decode(value.as_bytes()).decode_utf8().unwrap();
            prop_assert_eq!(back, text);
        }

        #[test]
        fn what_follows_a_reserved_prefix_is_reserved(
            prefix in prop::sample::select(RESERVED), rest in "[a-zA-Z0-9_.-]{0,20}"
        ) {
            let name = format!("{prefix}{rest}");
            prop_assert!(is_reserved(&name));
        }
    }
}
