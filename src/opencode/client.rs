//! opencode's HTTP API, as far as a turn needs it.

mod prompt;

use std::{collections::BTreeMap, path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use once_cell::sync::OnceCell;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::prompt::{Model, Part, Prompt};
use super::feed::{Feed, Listener};
use crate::{config::Address, secret::Secret};

/// Talks to one `opencode serve` about one directory.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    feed: OnceCell<Feed>,
}

/// The connection to a server: what is sent and what comes back.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    http: Http<HttpConnector, Full<Bytes>>,
    /// `http://host:port`, or why there is none.
    base: Result<String, ClientError>,
    /// `Basic …`, when the server asks for a password.
    authorization: Option<HeaderValue>,
    /// `directory=…`, percent-encoded: selects opencode's instance.
    directory: String,
}

/// Why opencode did not do what was asked. Never holds what it answered: that may echo its
/// configuration, keys included.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The connection failed.
    #[error("opencode could not be reached: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("opencode did not answer within {0:?}")]
    Slow(Duration),
    /// It answered with an error status.
    #[error("opencode answered {status} {name}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The error's name, `[A-Za-z]` only, or empty.
        name: String,
    },
    /// Its answer could not be read.
    #[error("opencode's answer could not be read: {0}")]
    Unreadable(String),
}

impl ClientError {
    /// Whether what was asked about is not there, such as a request that was answered already.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }

    /// Whether opencode does not know the session: exactly 404 `NotFoundError`.
    pub fn is_session_lost(&self) -> bool {
        matches!(self, Self::Status { status: 404, name } if name == "NotFoundError")
    }
}

impl Client {
    /// A client of the server at `address`, for its instance of `directory`. Connects on demand.
    pub fn new(address: Address, password: Option<Secret>, directory: &Path) -> Self {
        let base = match address {
            Address::Tcp(host) => Ok(format!("http://{host}")),
            Address::Unix(path) => Err(ClientError::Unreachable(format!(
                "opencode listens on TCP, not on the socket {}",
                path.display()
            ))),
        };
        let authorization = password.map(|password| {
            let basic = BASE64.encode(format!("opencode:{}", password.expose()));
            let mut value =
                HeaderValue::try_from(format!("Basic {basic}")).expect("base64 is a header value");
            value.set_sensitive(true);
            value
        });
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let wire = Wire {
            http: Http::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(POOL_IDLE)
                .build(connector),
            base,
            authorization,
            directory: format!("directory={}", encode(&directory.to_string_lossy())),
        };
        Self { wire, feed: OnceCell::new() }
    }

    /// Listens to `session` and the sessions it spawns, on the one event stream that all share.
    /// Returns once the stream is up; `silence` is how long it may lack even a heartbeat.
    pub async fn listen(&self, session: &str, silence: Duration) -> Result<Listener, ClientError> {
        self.feed.get_or_init(|| Feed::new(self.wire.clone(), silence)).listen(session).await
    }

    /// Asks `GET /global/health`: `Ok` with opencode's version once it serves.
    pub async fn health(&self) -> Result<String, ClientError> {
        #[derive(Deserialize)]
        struct Health {
            version: String,
        }
        let health: Health = self.wire.ask(Method::GET, "/global/health", None).await?;
        Ok(health.version)
    }

    /// Whether any session of the directory is at work.
    pub async fn is_busy(&self) -> Result<bool, ClientError> {
        Ok(!self.at_work().await?.is_empty())
    }

    /// Whether `session` is at work.
    pub async fn is_session_busy(&self, session: &str) -> Result<bool, ClientError> {
        Ok(self.at_work().await?.contains_key(session))
    }

    /// The sessions that are at work; idle ones are absent (observed).
    async fn at_work(&self) -> Result<BTreeMap<String, serde_json::Value>, ClientError> {
        self.wire.ask(Method::GET, "/session/status", None).await
    }

    /// Makes a session and returns its id. The title spares opencode a model call to invent one.
    pub async fn create_session(&self, title: &str) -> Result<String, ClientError> {
        let body = serde_json::json!({ "title": title });
        let session: Session =
            self.wire.ask(Method::POST, "/session", Some(to_bytes(&body))).await?;
        checked_id(session.id)
    }

    /// Makes a session with everything of `session` before `message`, under new ids.
    pub async fn fork(&self, session: &str, message: Option<&str>) -> Result<String, ClientError> {
        let body = serde_json::json!({ "messageID": message });
        let path = format!("/session/{}/fork", encode(session));
        let session: Session = self.wire.ask(Method::POST, &path, Some(to_bytes(&body))).await?;
        checked_id(session.id)
    }

    /// Hides `message` and all later ones; the next prompt deletes them.
    pub async fn revert(&self, session: &str, message: &str) -> Result<(), ClientError> {
        let body = serde_json::json!({ "messageID": message });
        self.wire
            .tell(Method::POST, &format!("/session/{}/revert", encode(session)), Some(&body))
            .await
    }

    /// Hands over a prompt. `Ok` only means that it was taken: whatever fails later is said on
    /// the event stream.
    pub async fn prompt(&self, session: &str, prompt: &Prompt<'_>) -> Result<(), ClientError> {
        self.wire
            .tell(Method::POST, &format!("/session/{}/prompt_async", encode(session)), Some(prompt))
            .await
    }

    /// Stops whatever `session` does; `Ok` once it has stopped, and for idle or unknown sessions.
    pub async fn abort(&self, session: &str) -> Result<(), ClientError> {
        self.wire
            .tell::<()>(Method::POST, &format!("/session/{}/abort", encode(session)), None)
            .await
    }

    /// Removes an idle session.
    pub async fn delete_session(&self, session: &str) -> Result<(), ClientError> {
        self.wire.tell::<()>(Method::DELETE, &format!("/session/{}", encode(session)), None).await
    }

    /// Answers a permission request: once, or no with `message` for the model to read.
    pub async fn answer_permission(
        &self,
        request: &str,
        refusal: Option<&str>,
    ) -> Result<(), ClientError> {
        let body = match refusal {
            None => serde_json::json!({ "reply": "once" }),
            Some(message) => serde_json::json!({ "reply": "reject", "message": message }),
        };
        self.wire
            .tell(Method::POST, &format!("/permission/{}/reply", encode(request)), Some(&body))
            .await
    }

    /// Declines to answer a question.
    pub async fn reject_question(&self, request: &str) -> Result<(), ClientError> {
        self.wire
            .tell::<()>(Method::POST, &format!("/question/{}/reject", encode(request)), None)
            .await
    }
}

impl Wire {
    /// Opens the directory's event stream: an SSE body that lasts until the instance is disposed
    /// of or the server ends. Nothing published before its `server.connected` is on it.
    pub(super) async fn events(&self) -> Result<Incoming, ClientError> {
        let answer = within(PATIENCE, self.send(Method::GET, "/event", None)).await?;
        Ok(self.accepted(answer).await?.into_body())
    }

    async fn tell<T: Serialize + ?Sized>(
        &self,
        method: Method,
        path: &str,
        body: Option<&T>,
    ) -> Result<(), ClientError> {
        let body = body.map(to_bytes);
        within(PATIENCE, async {
            let answer = self.send(method, path, body).await?;
            read(self.accepted(answer).await?).await.map(drop)
        })
        .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<T, ClientError> {
        let bytes = within(PATIENCE, async {
            let answer = self.send(method, path, body).await?;
            read(self.accepted(answer).await?).await
        })
        .await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Unreadable(shape_of(&error)))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, ClientError> {
        let base = self.base.as_ref().map_err(Clone::clone)?;
        let mut request =
            Request::builder().method(method).uri(format!("{base}{path}?{}", self.directory));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| ClientError::Unreachable(error.to_string()))?;
        self.http.request(request).await.map_err(|error| {
            // The source says what the system said; the error itself only "client error".
            let source = std::error::Error::source(&error).map(ToString::to_string);
            ClientError::Unreachable(source.unwrap_or_else(|| error.to_string()))
        })
    }

    async fn accepted(
        &self,
        answer: Response<Incoming>,
    ) -> Result<Response<Incoming>, ClientError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = read(answer).await.unwrap_or_default();
        Err(ClientError::Status { status: status.as_u16(), name: error_name(&body) })
    }
}

#[derive(Deserialize)]
struct Session {
    id: String,
}

/// Session ids go into paths and into our state: only what opencode's ids look like is taken.
fn checked_id(id: String) -> Result<String, ClientError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if id.starts_with("ses") && id.len() <= 128 && id.bytes().all(plain) {
        Ok(id)
    } else {
        Err(ClientError::Unreadable("its session id is not one".to_owned()))
    }
}

/// The error's name from the shapes opencode uses (`name`, `_tag`). Letters only: the rest of the
/// body may echo a configuration file with its keys.
fn error_name(body: &[u8]) -> String {
    #[derive(Deserialize, Default)]
    struct Named {
        name: Option<String>,
        #[serde(rename = "_tag")]
        tag: Option<String>,
    }
    let named: Named = serde_json::from_slice(body).unwrap_or_default();
    let name = named.name.or(named.tag).unwrap_or_default();
    name.chars().filter(char::is_ascii_alphabetic).take(64).collect()
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(answer.into_body(), LARGEST_ANSWER);
    let body = body.collect().await.map_err(|error| ClientError::Unreadable(error.to_string()))?;
    Ok(body.to_bytes())
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(patience, work).await.unwrap_or(Err(ClientError::Slow(patience)))
}

fn to_bytes<T: Serialize + ?Sized>(body: &T) -> Bytes {
    serde_json::to_vec(body).expect("our own types serialise").into()
}

/// Where a JSON error is, without the text it quotes.
fn shape_of(error: &serde_json::Error) -> String {
    format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column())
}

fn encode(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, PLAIN)
}

/// Everything but RFC 3986's unreserved characters.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Loopback or one hop away: longer than this is not a slow network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a single call; a cold instance boots within the first one (observed: up to 0.5 s idle).
const PATIENCE: Duration = Duration::from_secs(30);
/// Below opencode's own keep-alive, which outlived 70 s (observed).
const POOL_IDLE: Duration = Duration::from_secs(50);
/// For answers that are a session or a list of states.
const LARGEST_ANSWER: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_body_gives_its_name_and_nothing_else() {
        assert_eq!(
            error_name(br#"{"name":"NotFoundError","data":{"message":"x"}}"#),
            "NotFoundError"
        );
        assert_eq!(error_name(br#"{"_tag":"BadRequest"}"#), "BadRequest");
        assert_eq!(error_name(br#"{"name":"sk-1 <b>\n"}"#), "skb");
        assert_eq!(error_name(b"not json"), "");
    }

    #[test]
    fn a_session_id_that_is_not_one_is_refused() {
        assert!(checked_id("ses_2f4A".to_owned()).is_ok());
        for bad in ["", "msg_1", "ses_/../x", "ses_a b"] {
            assert!(checked_id(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
