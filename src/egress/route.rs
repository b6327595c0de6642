//! Path → what is asked, and of whom: a closed table, so that nothing a runner writes becomes a
//! path at a provider.

use http::{Method, StatusCode};

use super::{observed::Endpoint, refusal};
use crate::{config::Config, error::Refusal};

/// Where a call goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/<provider>/v1/<path>`: a model provider.
    Provider {
        /// Its id, which is in the configuration.
        id: String,
        /// Relative to its base URL, one of its `paths`.
        path: String,
        /// What it answers with.
        endpoint: Endpoint,
    },
    /// `/mcp/<name>`: the MCP server of this name, which is in the configuration.
    Integration(String),
}

/// The route of `method` and `path`. Nothing is decoded: what is listed needs no encoding.
pub(super) fn of(config: &Config, method: &Method, path: &str) -> Result<Route, Refusal> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if let Some(name) = path.strip_prefix("mcp/").filter(|name| !name.contains('/')) {
        if !config.integrations.contains_key(name) {
            return Err(refusal::unlisted_path());
        }
        let known = matches!(*method, Method::GET | Method::POST | Method::DELETE);
        return if known { Ok(Route::Integration(name.to_owned())) } else { Err(wrong_method()) };
    }
    let (id, rest) = path.split_once('/').ok_or_else(refusal::unlisted_path)?;
    let provider = config.providers.get(id).ok_or_else(refusal::unknown_provider)?;
    let asked = rest.strip_prefix("v1/").ok_or_else(refusal::unlisted_path)?;
    if !provider.paths.iter().any(|listed| listed == asked) {
        return Err(refusal::unlisted_path());
    }
    let fits = if asked == LIST {
        matches!(*method, Method::GET | Method::HEAD)
    } else {
        *method == Method::POST
    };
    if !fits {
        return Err(wrong_method());
    }
    Ok(Route::Provider { id: id.to_owned(), path: asked.to_owned(), endpoint: endpoint(asked) })
}

impl Route {
    /// Whether errors are to have Anthropic's shape.
    pub(super) fn is_anthropic(&self) -> bool {
        matches!(self, Self::Provider { endpoint: Endpoint::Messages, .. })
    }
}

/// What a path answers with. Gateways in front of a provider may put something before it.
fn endpoint(path: &str) -> Endpoint {
    let is = |end: &str| {
        path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    [
        ("chat/completions", Endpoint::ChatCompletions),
        ("responses", Endpoint::Responses),
        ("messages", Endpoint::Messages),
        ("embeddings", Endpoint::Embeddings),
    ]
    .into_iter()
    .find(|(end, _)| is(end))
    .map_or(Endpoint::Other, |(_, endpoint)| endpoint)
}

fn wrong_method() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This path does not take this method.",
    )
}

/// The list of a provider's models, which alone is no model's work.
pub(super) const LIST: &str = "models";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> Config {
        let text = "
identity: {anonymous: true}
providers:
  openai: {npm: '@ai-sdk/openai'}
  mcp: {npm: '@ai-sdk/openai', paths: [models]}
integrations: {v1: {url: 'https://x/'}}
";
        crate::config::parse("x.yaml".as_ref(), text, &|_| None).unwrap()
    }

    fn route(method: &Method, path: &str) -> Result<Route, &'static str> {
        of(&config(), method, path).map_err(|refusal| refusal.code)
    }

    #[test]
    fn what_is_listed_is_found() {
        let Ok(Route::Provider { id, path, endpoint }) =
            route(&Method::POST, "/openai/v1/responses")
        else {
            panic!("no route");
        };
        assert_eq!((id.as_str(), path.as_str()), ("openai", "responses"));
        assert_eq!(endpoint, Endpoint::Responses);
        assert!(route(&Method::GET, "/mcp/v1/models").is_ok());
        assert_eq!(route(&Method::POST, "/mcp/v1"), Ok(Route::Integration("v1".to_owned())));
    }

    #[test]
    fn what_is_not_listed_is_refused() {
        for (method, path, code) in [
            (Method::POST, "/openai/v1/files", "path_not_allowed"),
            (Method::POST, "/openai/v1/responses/", "path_not_allowed"),
            (Method::POST, "/openai/v1//responses", "path_not_allowed"),
            (Method::POST, "/openai/v1/../v1/responses", "path_not_allowed"),
            (Method::POST, "/openai/v1/%72esponses", "path_not_allowed"),
            (Method::POST, "/openai/v1/responses;x", "path_not_allowed"),
            (Method::POST, "/openai/v2/responses", "path_not_allowed"),
            (Method::POST, "/acme/v1/responses", "provider_unknown"),
            (Method::POST, "/", "path_not_allowed"),
            (Method::POST, "/mcp/crm", "path_not_allowed"),
            (Method::GET, "/openai/v1/responses", "method_not_allowed"),
            (Method::POST, "/openai/v1/models", "method_not_allowed"),
            (Method::CONNECT, "/mcp/v1", "method_not_allowed"),
        ] {
            assert_eq!(route(&method, path), Err(code), "{method} {path}");
        }
    }

    proptest! {
        #[test]
        fn only_listed_paths_come_out(path in "(/|openai|mcp|v1|models|responses|\\.\\.|%2e|;|\\?|[a-z]){0,12}") {
            if let Ok(Route::Provider { id, path: asked, .. }) = route(&Method::GET, &path) {
                prop_assert_eq!(asked.as_str(), "models");
                let listed = format!("{id}/v1/models");
                prop_assert_eq!(listed.as_str(), path.strip_prefix('/').unwrap_or(&path));
            }
        }
    }
}
