//! One prompt and its reply: the HTTP service behind the in-memory upstream.
//!
//! It speaks `OpenAI` towards Pingora and opencode's API towards the runner, and is the only module
//! that knows both. Reading the request, it waits for nothing; then it waits only where its body
//! is polled, so that to drop the body is to leave.

pub mod ask;
mod body;
mod course;
mod failure;
mod plain;
#[cfg(test)]
mod recorded;
pub mod reply;
mod seat;
mod switches;
pub mod voice;

pub(crate) use self::failure::too_long;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use self::{body::LiveBody, course::Course};
use crate::{
    chats::Chats,
    config::Config,
    error::Refusal,
    gateway::{
        identity::{Caller, Identity},
        origin::Origin,
    },
    keys::Keys,
    launcher::Spec,
    openai::request::ChatRequest,
    pool::{Lease, Pool},
    secret::Secret,
    usage::{BudgetError, Usage},
    workspace::{Workspace, WorkspaceError, Workspaces},
};

/// What every turn works with.
#[derive(Debug)]
pub struct Means {
    /// Where users' directories are.
    pub workspaces: Arc<Workspaces>,
    /// The runners.
    pub pool: Arc<Pool>,
    /// Which chat has which session.
    pub chats: Arc<Chats>,
    /// Users' own provider keys.
    pub keys: Arc<Keys>,
    /// What users have used of the providers.
    pub usage: Arc<Usage>,
}

/// One chat completion to be carried out.
#[derive(Debug)]
pub struct Turn {
    /// What it works with.
    pub means: Arc<Means>,
    /// The configuration its request started with.
    pub config: Arc<Config>,
    /// Who asks.
    pub caller: Caller,
    /// What a trusted front end said of the chat.
    pub origin: Origin,
    /// The request's id, for the log.
    pub id: String,
}

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

impl Turn {
    /// Reads `request` and answers it: a JSON document, an event stream, or a refusal.
    pub(crate) async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let id = self.id.clone();
        let begun = match read(request).await {
            Ok(bytes) => self.begin(bytes).await,
            Err(refusal) => Err(refusal),
        };
        begun.unwrap_or_else(|refusal| refused(&id, &refusal))
    }

    async fn begin(self, bytes: Bytes) -> Result<Response<Body>, Refusal> {
        let request = parse(bytes, self.config.limits.json_depth).await?;
        let streams = request.stream;
        let keep_alive = self.config.turns.keep_alive;
        let (course, prompt) = Course::of(self, request)?;
        let mut body = LiveBody::of(course, prompt, keep_alive);
        if streams {
            // The status is decided by what comes first: an answer, a refusal, or a long silence.
            body.first().await?;
            return Ok(response(StatusCode::OK, "text/event-stream", body.boxed_unsync()));
        }
        let whole = body.whole().await?;
        Ok(response(StatusCode::OK, "application/json", full(whole)))
    }
}

impl Means {
    /// The workspace of `identity` and its runner, launched if there is none. The user's own `keys`
    /// are kept for the calls that it makes.
    pub(crate) async fn runner(
        &self,
        identity: &Identity,
        keys: Vec<(String, Secret)>,
        config: &Arc<Config>,
    ) -> Result<(Workspace, Lease), Refusal> {
        let workspace = self.bind(identity, keys, config).await?;
        let lease = self
            .pool
            .lease(Spec::of(config, &workspace))
            .await
            .map_err(|error| failure::no_runner(&error))?;
        if let Some(grant) = &lease.grant {
            grant.work_for(identity);
        }
        if config.log.workspace_routing {
            log::info!(
                "routing user={:?} source={:?} workspace={} epoch={}",
                identity.user,
                identity.source,
                workspace.id,
                lease.epoch
            );
        }
        Ok((workspace, lease))
    }

    async fn bind(
        &self,
        identity: &Identity,
        keys: Vec<(String, Secret)>,
        config: &Arc<Config>,
    ) -> Result<Workspace, Refusal> {
        let (workspaces, vault, usage) =
            (Arc::clone(&self.workspaces), Arc::clone(&self.keys), Arc::clone(&self.usage));
        let (identity, config) = (identity.clone(), Arc::clone(config));
        let bound = spawn_blocking(move || {
            // Who has nothing left needs no runner to be told so.
            let policy = config.policies.of(&identity.user, identity.role.as_deref());
            usage
                .check(&identity.user, &policy.budget, OffsetDateTime::now_utc())
                .map_err(|error| over_budget(&error))?;
            let bound = workspaces.bind(&identity, &config);
            let workspace = bound.map_err(|error| not_bound(&error))?;
            for (provider, key) in keys {
                if let Err(error) = vault.remember(&workspace.id, &provider, key) {
                    log::error!("key not kept provider={provider} cause={error}");
                }
            }
            Ok(workspace)
        });
        bound.await.map_err(|error| Refusal::internal().because(error))?
    }
}

fn over_budget(error: &BudgetError) -> Refusal {
    match error {
        BudgetError::Over(over) => failure::over_budget(over.to_string(), Some(over.retry_after)),
        BudgetError::Unknown(error) => Refusal::internal().because(error),
    }
}

fn not_bound(error: &WorkspaceError) -> Refusal {
    log::error!("workspace not bound cause={error:?}");
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "workspace_unavailable",
        "Your workspace cannot be used. Your admin finds the reason in the gateway's log.",
    )
    .because(error)
}

async fn read(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let body = request.into_body().collect().await;
    let body = body.map_err(|error| {
        Refusal::bad_request("body_incomplete", "The body broke off.").because(error)
    })?;
    Ok(body.to_bytes())
}

/// Reads the request, a large one off the threads that other streams are on: 20 MB of small messages
/// take 0.2 s.
async fn parse(bytes: Bytes, max_depth: usize) -> Result<ChatRequest, Refusal> {
    if bytes.len() <= AT_ONCE {
        return ChatRequest::parse(&bytes, max_depth);
    }
    let parsed = spawn_blocking(move || ChatRequest::parse(&bytes, max_depth)).await;
    parsed.map_err(|error| Refusal::internal().because(error))?
}

fn refused(id: &str, refusal: &Refusal) -> Response<Body> {
    if !refusal.cause.is_empty() {
        log::info!("turn refused id={id} code={} cause={:?}", refusal.code, refusal.cause);
    }
    let mut response = response(refusal.status, "application/json", full(refusal.body()));
    if let Some(wait) = refusal.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
    }
    response
}

fn response(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let media_type = http::HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// Bytes of a request that are read in well under a millisecond.
const AT_ONCE: usize = 256 << 10;
