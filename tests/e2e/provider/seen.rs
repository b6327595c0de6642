//! A request as it was received.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, Version, header};
use serde_json::Value;

/// Where a key may be, as a header's name and what stands before the key.
const PLACES: [(&str, &str); 3] =
    [("authorization", "Bearer "), ("x-api-key", ""), ("api-key", "")];

/// One request, with everything that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Which of the connections it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) version: Version,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(super) fn of<B>(connection: usize, request: &Request<B>, body: Bytes) -> Self {
        Self {
            connection,
            version: request.version(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body,
        }
    }

    /// A header's value; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whom it was meant for, by the `Host` header or HTTP/2's `:authority`.
    pub(crate) fn host(&self) -> &str {
        let authority = self.uri.authority().map(http::uri::Authority::as_str);
        authority.unwrap_or_else(|| self.header(header::HOST.as_str()))
    }

    /// Every key that was presented: in which header, and the key.
    pub(crate) fn keys(&self) -> Vec<(&'static str, &str)> {
        let values = |name| self.headers.get_all(name).into_iter();
        PLACES
            .into_iter()
            .flat_map(|(name, before)| values(name).map(move |value| (name, before, value)))
            .filter_map(|(name, before, value)| {
                let value = value.to_str().ok()?;
                Some((name, value.strip_prefix(before).unwrap_or(value)))
            })
            .collect()
    }

    /// The first of them.
    pub(crate) fn key(&self) -> Option<&str> {
        self.keys().first().map(|(_, key)| *key)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether `needle` is anywhere in it.
    pub(crate) fn mentions(&self, needle: &str) -> bool {
        let bytes = needle.as_bytes();
        let within = |text: &[u8]| text.windows(bytes.len()).any(|part| part == bytes);
        within(self.uri.to_string().as_bytes())
            || within(&self.body)
            || self.headers.iter().any(|(_, value)| within(value.as_bytes()))
    }
}
