//! The runner's token out, the provider's key in.

use http::{HeaderMap, HeaderValue, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::Result;

use super::refusal;
use crate::{
    config::{AuthStyle, BaseUrl, Integration},
    error::Refusal,
    gateway::header::{is_reserved, strip},
    secret::Secret,
};

/// The token a runner presents, in whatever style its SDK has.
pub(super) fn token(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let mut found = None;
    for name in CREDENTIALS {
        for value in headers.get_all(*name) {
            let value = value.as_bytes();
            let value = match value.get(..BEARER.len()) {
                Some(scheme) if scheme.eq_ignore_ascii_case(BEARER) => &value[BEARER.len()..],
                _ => value,
            };
            // An SDK may send it in two styles, but never two different ones.
            if *found.get_or_insert(value.trim_ascii()) != value.trim_ascii() {
                return Err(refusal::no_token());
            }
        }
    }
    found.filter(|token| !token.is_empty()).ok_or_else(refusal::no_token)
}

/// What the runner says a call belongs to: its session, and the one that started that.
pub(super) fn sessions(headers: &HeaderMap) -> Option<(&str, Option<&str>)> {
    let text = |name: &str| {
        headers.get(name)?.to_str().ok().filter(|id| (1..=LONGEST_SESSION).contains(&id.len()))
    };
    Some((text("x-session-affinity")?, text("x-parent-session-id")))
}

/// Makes `request` one to a provider at `base`, for `path`, with `key`.
pub(super) fn address(
    request: &mut RequestHeader,
    base: &BaseUrl,
    path: &str,
    auth: AuthStyle,
    key: Option<&Secret>,
) -> Result<()> {
    let root = base.path.trim_end_matches('/');
    let query = request.uri.query().or(base.query.as_deref());
    let uri =
        query.map_or_else(|| format!("{root}/{path}"), |query| format!("{root}/{path}?{query}"));
    readdress(request, &base.authority, uri)?;
    let Some(key) = key else { return Ok(()) };
    match auth {
        AuthStyle::Bearer => {
            let value = hidden(&format!("Bearer {}", key.expose()))?;
            request.insert_header(header::AUTHORIZATION, value)
        }
        AuthStyle::XApiKey => request.insert_header("x-api-key", hidden(key.expose())?),
        AuthStyle::ApiKey => request.insert_header("api-key", hidden(key.expose())?),
        AuthStyle::None => Ok(()),
    }
}

/// Makes `request` one to an MCP server at `base`, with the headers it wants.
pub(super) fn address_integration(
    request: &mut RequestHeader,
    base: &BaseUrl,
    integration: &Integration,
) -> Result<()> {
    let path = &base.path;
    let uri = base.query.as_ref().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    readdress(request, &base.authority, uri)?;
    for (name, value) in &integration.headers {
        request.insert_header(name.clone(), hidden(value.expose())?)?;
    }
    Ok(())
}

fn readdress(request: &mut RequestHeader, authority: &str, uri: String) -> Result<()> {
    strip(request);
    // A coded answer could not be counted, and an expectation was answered already.
    for name in [header::ACCEPT_ENCODING, header::EXPECT] {
        request.remove_header(&name);
    }
    request.set_uri(uri.try_into().map_err(|_| {
        pingora_core::Error::explain(pingora_core::ErrorType::InvalidHTTPHeader, "not a path")
    })?);
    request.insert_header(header::HOST, authority)
}

/// Takes out of a provider's answer what is not for a runner.
pub(super) fn strip_answer(response: &mut ResponseHeader, key: Option<&Secret>) {
    let holds_key = |value: &HeaderValue| {
        key.is_some_and(|key| {
            memchr::memmem::find(value.as_bytes(), key.expose().as_bytes()).is_some()
        })
    };
    let unwanted: Vec<_> = response
        .headers
        .iter()
        .filter(|(name, value)| {
            **name == header::SET_COOKIE || is_reserved(name.as_str()) || holds_key(value)
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in unwanted {
        response.remove_header(&name);
    }
}

/// A header value that no `Debug` shows.
fn hidden(value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        pingora_core::Error::explain(
            pingora_core::ErrorType::InvalidHTTPHeader,
            "a key of several lines",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

const CREDENTIALS: &[&str] = &["authorization", "x-api-key", "api-key"];
const BEARER: &[u8] = b"bearer ";
const LONGEST_SESSION: usize = 256;
