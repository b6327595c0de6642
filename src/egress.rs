//! The runners' only way out: `impl ProxyHttp for Egress`, from a runner to a model provider.
//!
//! A runner presents its token; the provider gets the user's key. Bodies stream through untouched,
//! and what they say of models and usage is read as they go by.

pub mod asked;
mod call;
pub mod grant;
mod header;
mod masked;
pub mod observed;
mod peer;
pub mod refusal;
mod reply;
mod route;
pub mod tab;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::{Error, Result, upstreams::peer::HttpPeer};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

pub use self::call::Call;
use self::{
    call::Admitted,
    grant::{Denied, Grants},
    masked::Masked,
    observed::{Form, Observed},
    peer::{Peers, Reach},
    route::Route,
};
use crate::{
    config::{AuthStyle, Config, Live, Tls},
    error::Refusal,
    gateway::{self, Drain, connection, limit},
    keys::Keys,
    secret::Secret,
    usage::Usage,
    workspace::WorkspaceId,
};

/// The egress. Mount it behind [`connection::Guarded`], which lets it finish the answers that a
/// runner has left. Clones share everything.
#[derive(Debug, Clone)]
pub struct Egress {
    config: Live,
    grants: Arc<Grants>,
    keys: Arc<Keys>,
    usage: Arc<Usage>,
    peers: Arc<Peers>,
    drain: Arc<Drain>,
}

impl Egress {
    /// An egress for the runners with `grants`.
    pub fn new(config: Live, grants: Arc<Grants>, keys: Arc<Keys>, usage: Arc<Usage>) -> Self {
        Self { config, grants, keys, usage, peers: Arc::default(), drain: Arc::default() }
    }

    /// The count of calls in flight.
    pub fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    /// What must be known before a provider is thought of.
    async fn admit(&self, session: &mut Session, call: &mut Call) -> Result<Admitted, Refusal> {
        let head = session.req_header();
        limit::check_head(head, &call.config.limits)?;
        check_host(head, &call.config.egress.url)?;
        let from = Call::source(session).ok_or_else(refusal::foreign_token)?;
        let token = header::token(&head.headers)?;
        let grant = self.grants.of(token, from).map_err(|denied| {
            log::warn!("security: call refused id={} from={from} cause={denied}", call.id);
            let refusal = match denied {
                Denied::Unknown => refusal::unknown_token(),
                Denied::ForeignAddress { .. } => refusal::foreign_token(),
            };
            refusal.because(denied)
        })?;
        if let Some((session, parent)) = header::sessions(&head.headers) {
            call.count_for(&grant, session, parent);
        }
        let account = grant.account().ok_or_else(refusal::unknown_token)?;
        let route = route::of(&call.config, &head.method, head.uri.path())?;
        let policy = call.config.policies.of(&account.user, account.role.as_deref());
        let key = self.key(&call.config, &route, &grant.workspace)?;
        if matches!(route, Route::Provider { .. }) {
            limit::check_coding(&head.headers)?;
        }
        call.admission = Some(self.drain.admit()?);
        if head.headers.contains_key(http::header::EXPECT) {
            limit::let_body_come(session).await?;
        }
        Ok(Admitted { route, grant, account, policy, key })
    }

    /// The user's own key, else the admin's.
    fn key(
        &self,
        config: &Config,
        route: &Route,
        workspace: &WorkspaceId,
    ) -> Result<Option<Secret>, Refusal> {
        let Route::Provider { id, .. } = route else { return Ok(None) };
        let provider = config.providers.get(id).ok_or_else(refusal::unknown_provider)?;
        if provider.auth == AuthStyle::None {
            return Ok(None);
        }
        let key = self.keys.get(workspace, id).or_else(|| provider.key.clone());
        key.map(Some).ok_or_else(|| refusal::no_key(&provider.name, &config.egress.key_help))
    }
}

/// Refuses a request that is meant for another host.
fn check_host(head: &RequestHeader, url: &str) -> Result<(), Refusal> {
    let ours = url.strip_prefix("http://").unwrap_or(url);
    let named = head.headers.get_all(http::header::HOST).iter().map(http::HeaderValue::as_bytes);
    let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    if named.chain(target).all(|name| name.eq_ignore_ascii_case(ours.as_bytes())) {
        Ok(())
    } else {
        Err(refusal::foreign_host())
    }
}

/// How the server behind `route` is reached.
fn reach<'a>(config: &'a Config, route: &'a Route) -> Option<Reach<'a>> {
    match route {
        Route::Provider { id, .. } => {
            let provider = config.providers.get(id)?;
            Some(Reach {
                base: provider.base_url.as_ref()?,
                tls: &provider.tls,
                group: id,
                connect_timeout: provider.connect_timeout,
                idle_timeout: Some(provider.idle_timeout),
            })
        }
        Route::Integration(name) => {
            let integration = config.integrations.get(name)?;
            Some(Reach {
                base: &integration.url,
                tls: &SYSTEM,
                group: name,
                connect_timeout: integration.timeout,
                // A server may keep a stream open for what it has to say one day.
                idle_timeout: None,
            })
        }
    }
}

#[async_trait]
impl ProxyHttp for Egress {
    type CTX = Call;

    fn new_ctx(&self) -> Call {
        Call::new(self.config.now(), gateway::new_id(), connection::current_stay())
    }

    async fn request_filter(&self, session: &mut Session, call: &mut Call) -> Result<bool> {
        limit::set_deadlines(session, &call.config.limits);
        match self.admit(session, call).await {
            Ok(admitted) => {
                call.admitted = Some(admitted);
                Ok(false)
            }
            Err(refusal) => {
                let is_anthropic = session.req_header().uri.path().ends_with("/messages");
                reply::refuse(session, call, is_anthropic, refusal).await.map(|()| true)
            }
        }
    }

    async fn upstream_peer(&self, _: &mut Session, call: &mut Call) -> Result<Box<HttpPeer>> {
        let route = call.admitted.as_ref().map(|admitted| &admitted.route);
        let reach = route.and_then(|route| reach(&call.config, route));
        let Some(reach) = reach else { return Err(call.fail(Refusal::internal())) };
        let peer = self.peers.of(reach).await.map(Box::new);
        peer.map_err(|error| call.fail(refusal::provider_failed().because(error)))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        call: &mut Call,
    ) -> Result<()> {
        let Some(admitted) = &call.admitted else { return Err(call.fail(Refusal::internal())) };
        let Some(Reach { base, .. }) = reach(&call.config, &admitted.route) else {
            return Err(call.fail(Refusal::internal()));
        };
        match &admitted.route {
            Route::Provider { id, path, .. } => {
                let auth = call.config.providers.get(id).map_or(AuthStyle::None, |it| it.auth);
                header::address(request, base, path, auth, admitted.key.as_ref())
            }
            Route::Integration(name) => match call.config.integrations.get(name) {
                Some(integration) => header::address_integration(request, base, integration),
                None => Ok(()),
            },
        }
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        call: &mut Call,
    ) -> Result<()> {
        let asked = call.ask(body.as_ref(), end_of_stream, &self.usage);
        asked.map_err(|refusal| call.fail(refusal))
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        call: &mut Call,
    ) -> Result<()> {
        call.status = response.status.as_u16();
        reply::check_provider(response).map_err(|refusal| call.fail(refusal))?;
        let Some(admitted) = &call.admitted else { return Ok(()) };
        header::strip_answer(response, admitted.key.as_ref());
        let is_error = response.status.is_client_error() || response.status.is_server_error();
        if is_error {
            call.masked = admitted.key.clone().map(|key| Masked::new(Some(key)));
        } else if let Route::Provider { endpoint, .. } = &admitted.route
            && response.status.is_success()
            && call.is_of_model()
        {
            call.observed = Some(Observed::new(*endpoint, form(response)));
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        call: &mut Call,
    ) -> Result<Option<Duration>> {
        if let Some(piece) = body {
            call.observe(piece);
        }
        if let Some(masked) = &mut call.masked {
            masked.pass(body, end_of_stream);
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        call: &mut Call,
        error: Box<Error>,
    ) -> Box<Error> {
        let route = call.admitted.as_ref().map(|admitted| &admitted.route);
        if let Some(reach) = route.and_then(|route| reach(&call.config, route)) {
            self.peers.forget(reach.base);
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        call: &mut Call,
    ) -> FailToProxy {
        reply::fail(session, error, call).await
    }

    /// [`Self::logging`] writes the one line of each call; Pingora's may quote its headers.
    fn suppress_error_log(&self, _: &Session, _: &Call, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, call: &mut Call) {
        call.settle(session, error).await;
    }
}

/// What kind of text an answer is.
fn form(response: &ResponseHeader) -> Form {
    let is_coded = response.headers.contains_key(http::header::CONTENT_ENCODING);
    let media_type = response.headers.get(http::header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok()).filter(|_| !is_coded);
    Form::of(media_type.unwrap_or_default())
}

/// MCP servers are believed as the system believes them.
static SYSTEM: Tls = Tls { verify: true, ca: None };
