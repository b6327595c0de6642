//! Path → [`Route`]: a closed table. Nothing of a caller's path is ever passed on.

use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use crate::error::Refusal;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `GET /v1/models`
    Models,
    /// `GET /v1/models/{id}`; the id is decoded and may hold `/`.
    Model(String),
    /// `GET /healthz`
    Health,
    /// `GET /readyz`
    Ready,
}

impl Route {
    /// The methods it answers to, as `Allow` lists them.
    pub fn allow(&self) -> &'static str {
        match self {
            Self::ChatCompletions => "POST",
            _ => "GET, HEAD",
        }
    }

    fn takes(&self, method: &Method) -> bool {
        match self {
            Self::ChatCompletions => method == Method::POST,
            _ => method == Method::GET || method == Method::HEAD,
        }
    }
}

/// The route of `method` and `path`, which is the request's path as sent, without its query.
///
/// The path is decoded once. Anything that another server could read as a different path (empty
/// and dot segments, encoded slashes, `;`, `\`, control characters, a second encoding) is no path
/// of ours; only a model id may hold a slash, plain or encoded.
///
/// # Errors
/// 404 naming the paths there are; 405 naming the method, for a path that exists ([`allow`] has
/// the header) and for `CONNECT`.
pub fn of(method: &Method, path: &str) -> Result<Route, Refusal> {
    if method == Method::CONNECT {
        return Err(method_not_allowed("This server is not a proxy. Send `POST` or `GET`.".into()));
    }
    let route = find(path).ok_or_else(not_found)?;
    if !route.takes(method) {
        let allow = route.allow();
        return Err(method_not_allowed(format!("This path answers to {allow} only.")));
    }
    Ok(route)
}

/// The value of `Allow` for `path`, when it is one of ours.
pub fn allow(path: &str) -> Option<&'static str> {
    find(path).map(|route| route.allow())
}

fn find(path: &str) -> Option<Route> {
    let parts = path.strip_prefix('/')?.split('/').map(decode).collect::<Option<Vec<_>>>()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["v1", "chat", "completions"] => Some(Route::ChatCompletions),
        ["v1", "models"] => Some(Route::Models),
        ["v1", "models", id @ ..] => model(&id.join("/")),
        ["healthz"] => Some(Route::Health),
        ["readyz"] => Some(Route::Ready),
        _ => None,
    }
}

/// Decodes one segment, once. A `%` that is left was malformed or encoded twice.
fn decode(part: &str) -> Option<String> {
    let part = percent_decode_str(part).decode_utf8().ok()?;
    let plain = |c: char| !c.is_control() && !matches!(c, '%' | '\\' | ';' | '?' | '#');
    part.chars().all(plain).then(|| part.into_owned())
}

fn model(id: &str) -> Option<Route> {
    let sound = |part: &str| !matches!(part, "" | "." | "..");
    (id.len() <= MODEL_ID_BYTES && id.split('/').all(sound)).then(|| Route::Model(id.to_owned()))
}

fn not_found() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "unknown_path",
        "There is nothing at this path. This gateway has POST /v1/chat/completions, \
         GET /v1/models, GET /v1/models/{id}, GET /healthz and GET /readyz; a client's base URL \
         ends in /v1, without a slash after it.",
    )
}

fn method_not_allowed(message: String) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

const MODEL_ID_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(method: &Method, path: &str) -> u16 {
        of(method, path).map_or_else(|refusal| refusal.status.as_u16(), |_| 200)
    }

    #[test]
    fn the_table_is_found() {
        let model = |id: &str| Route::Model(id.into());
        for (path, route) in [
            ("/v1/models", Route::Models),
            ("/v1/%6dodels", Route::Models),
            ("/v1/models/open-persona/build", model("open-persona/build")),
            ("/v1/models/open-persona%2Fbuild", model("open-persona/build")),
            ("/v1/models/open-persona%2fgrant-draft", model("open-persona/grant-draft")),
            ("/healthz", Route::Health),
            ("/readyz", Route::Ready),
        ] {
            assert_eq!(of(&Method::GET, path).unwrap(), route, "{path}");
            assert_eq!(of(&Method::HEAD, path).unwrap(), route, "{path}");
        }
        assert_eq!(of(&Method::POST, "/v1/chat/completions").unwrap(), Route::ChatCompletions);
    }

    #[test]
    fn a_path_that_others_could_read_differently_is_not_there() {
        for path in [
            "",
            "*",
            "/",
            "//",
            "v1/models",
            "//v1/models",
            "/v1//models",
            "/v1/models/",
            "/v1/models//x",
            "/v1/../v1/models",
            "/v1/./models",
            "/v1/%2e%2e/admin",
            "/v1/%2e/models",
            "/v1%2fmodels",
            "/v1%2Fchat/completions",
            "/v1/models/%2e%2e",
            "/v1/models/a%2f%2e%2e%2fb",
            "/v1/models/a%2f",
            "/v1/models/%2fa",
            "/v1/models/a/../b",
            "/v1/models;x=1",
            "/v1;x/models",
            "/v1/models/a;b",
            "/v1\\models",
            "/v1/models%5cx",
            "/v1/models%00",
            "/v1/models/a%00",
            "/v1/models/%0d%0aX",
            "/v1/models/%",
            "/v1/models/%zz",
            "/v1/models/%252e%252e",
            "/v1/models/a%252fb",
            "/v1/models/%ff",
            "/v1/models?x",
            "/v1/models#x",
            "/V1/models",
            "/v1/Models",
            "/healthz/",
            "/session/x/shell",
            "/file/content",
            "/v1/embeddings",
        ] {
            assert_eq!(status(&Method::GET, path), 404, "{path}");
        }
        let long = format!("/v1/models/{}", "a".repeat(257));
        assert_eq!(status(&Method::GET, &long), 404);
    }

    #[test]
    fn the_wrong_method_names_the_right_one() {
        let refusal = of(&Method::GET, "/v1/chat/completions").unwrap_err();
        assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(refusal.message.contains("POST"));
        assert_eq!(allow("/v1/chat/completions"), Some("POST"));
        for method in [Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE, Method::POST] {
            assert_eq!(status(&method, "/v1/models"), 405, "{method}");
        }
        for target in ["", "/v1/models", "example.test:443"] {
            assert_eq!(status(&Method::CONNECT, target), 405, "{target}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_in_the_table_or_nowhere(
            path in "(/(v1|models|chat|completions|healthz|\\.\\.?|%2[eEfF]|%00|;|\\\\|[a-z%/]){0,3}){0,6}"
        ) {
            match of(&Method::GET, &path) {
                Ok(Route::Model(id)) => {
                    prop_assert!(id.split('/').all(|part| !matches!(part, "" | "." | "..")));
                    prop_assert!(!id.contains(['%', ';', '\\', '\0']));
                }
                Ok(Route::ChatCompletions) => prop_assert!(false, "a GET"),
                Ok(_) => {}
                Err(refusal) => prop_assert!(matches!(refusal.status.as_u16(), 404 | 405)),
            }
        }

        #[test]
        fn no_path_panics(path in any::<String>()) {
            let known = of(&Method::POST, &path).is_ok();
            prop_assert!(!known || path.contains("completions"));
        }
    }
}
