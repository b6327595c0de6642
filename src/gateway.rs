//! `impl ProxyHttp for Gateway`: each phase, one or two calls.

pub mod connection;
pub(crate) mod drain;
mod exchange;
pub mod header;
pub mod identity;
pub(crate) mod limit;
pub mod origin;
mod reply;
pub mod route;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::{Error, Result, upstreams::peer::HttpPeer};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

pub(crate) use self::exchange::new_id;
pub use self::{drain::Drain, exchange::Exchange};
use self::{
    identity::{Caller, Identity},
    origin::Origin,
    route::Route,
};
use crate::{
    config::{Address, Dialect, Live},
    error::Refusal,
    openai::{models, splice::Scan},
    runner::Runner,
    turn::{Means, Turn},
    upstream,
};

/// The gateway: authenticates, picks the workspace's runner and streams its answer.
///
/// Mount it in any Pingora server as a `ProxyHttp`; [`connection::Guarded`] adds what must be
/// watched before there is a request. Clones share everything.
#[derive(Debug, Clone)]
pub struct Gateway {
    config: Live,
    means: Arc<Means>,
    drain: Arc<Drain>,
}

impl Gateway {
    /// A gateway that follows `config` and works with `means`.
    pub fn new(config: Live, means: Arc<Means>) -> Self {
        Self { config, means, drain: Arc::default() }
    }

    /// What its turns work with.
    pub fn means(&self) -> &Arc<Means> {
        &self.means
    }

    /// The count of requests in flight, and the switch that refuses further ones.
    pub fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    /// What must be known before any upstream is thought of.
    async fn admit(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<Admitted, Refusal> {
        let head = session.req_header();
        let limits = &exchange.config.limits;
        limit::check_head(head, limits)?;
        let route = route::of(&head.method, head.uri.path())?;
        match route {
            Route::Health => return Ok(Admitted::Answer(reply::health())),
            Route::Ready => {
                let ready = reply::ready(&self.drain, &self.means.pool).await;
                return ready.map(Admitted::Answer);
            }
            Route::ChatCompletions | Route::Models | Route::Model(_) => {}
        }
        exchange.admission = Some(self.drain.admit()?);
        let peer = session.client_addr().and_then(|address| address.as_inet());
        let peer = peer.map(std::net::SocketAddr::ip);
        let rules = &exchange.config.identity;
        let caller = identity::decide(rules, &head.headers, peer, SystemTime::now())?;
        let personas = &exchange.config.personas;
        match route {
            Route::Models => Ok(Admitted::Answer(models::list(&personas.ids(), MADE))),
            Route::Model(id) => models::one(&personas.ids(), &id, MADE).map(Admitted::Answer),
            _ => {
                limit::check_body(head, limits)?;
                limit::check_page(&caller, &head.headers)?;
                let waits = head.headers.contains_key(http::header::EXPECT);
                exchange.origin = Origin::of(caller.front_end(), &head.headers)?;
                exchange.caller = Some(caller);
                if waits {
                    limit::let_body_come(session).await?;
                }
                if exchange.config.runners.dialect == Dialect::OpenAi {
                    self.decide_from_body(session, exchange).await?;
                }
                Ok(Admitted::Proxy)
            }
        }
    }

    /// `openai` dialect: the workspace must be known before there is a runner to send the body
    /// to, so the body's `user` can only be looked up while Pingora still holds the whole body.
    async fn decide_from_body(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<(), Refusal> {
        if !matches!(exchange.caller, Some(Caller::Undecided)) {
            return Ok(());
        }
        let rules = &exchange.config.identity;
        let user = if rules.body_user {
            let body = limit::peek_body(session, &exchange.config.limits).await?;
            let scan = Scan::of(&body, exchange.config.limits.json_depth)?;
            scan.user().map(str::to_owned)
        } else {
            None
        };
        exchange.identity = Some(identity::from_body(rules, user.as_deref())?);
        Ok(())
    }

    /// The peer of this exchange: its turn, or its workspace's runner.
    async fn peer(&self, exchange: &mut Exchange) -> Result<HttpPeer, Refusal> {
        let caller = exchange.caller.take().ok_or_else(Refusal::internal)?;
        match exchange.config.runners.dialect {
            Dialect::Opencode => {
                let turn = Turn {
                    means: Arc::clone(&self.means),
                    config: Arc::clone(&exchange.config),
                    caller,
                    origin: std::mem::take(&mut exchange.origin),
                    id: exchange.id.clone(),
                };
                upstream::of_turn(turn).map_err(|error| Refusal::internal().because(error))
            }
            Dialect::OpenAi => {
                let ((Caller::Known { identity, .. }, _) | (_, Some(identity))) =
                    (caller, exchange.identity.take())
                else {
                    return Err(Refusal::internal());
                };
                let keys = std::mem::take(&mut exchange.origin.keys);
                let (workspace, lease) =
                    self.means.runner(&identity, keys, &exchange.config).await?;
                let peer = upstream::of_runner(&lease, &exchange.config.limits).await;
                exchange.models = Some(workspace.models);
                exchange.identity = Some(identity);
                exchange.lease = Some(lease);
                peer.map_err(|error| Refusal::unavailable().because(error))
            }
        }
    }
}

/// Makes `request` the runner's: its path, its host, its credential and our headers.
fn address(request: &mut RequestHeader, runner: &Runner, identity: &Identity) -> Result<()> {
    header::add(request, identity, &runner.workspace)?;
    request.set_uri(http::Uri::from_static("/v1/chat/completions"));
    let host = match &runner.address {
        Address::Tcp(host) => host.as_str(),
        Address::Unix(_) => "localhost",
    };
    request.insert_header(http::header::HOST, host)?;
    if let Some(credential) = &runner.credential {
        let bearer = format!("Bearer {}", credential.expose());
        request.insert_header(http::header::AUTHORIZATION, bearer)?;
    }
    // The runner answers as it is, and gets a body of a length that only its end tells.
    request.remove_header(&http::header::ACCEPT_ENCODING);
    request.remove_header(&http::header::CONTENT_LENGTH);
    request.insert_header(http::header::TRANSFER_ENCODING, "chunked")
}

/// What a request is let in for.
enum Admitted {
    /// It is answered at once, with this JSON.
    Answer(Bytes),
    /// It goes on to an upstream.
    Proxy,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.config.now())
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        limit::set_deadlines(session, &exchange.config.limits);
        match self.admit(session, exchange).await {
            Ok(Admitted::Proxy) => Ok(false),
            Ok(Admitted::Answer(body)) => reply::json(session, exchange, body).await.map(|()| true),
            Err(refusal) => reply::refuse(session, exchange, refusal).await.map(|()| true),
        }
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<Box<HttpPeer>> {
        self.peer(exchange).await.map(Box::new).map_err(|refusal| exchange.fail(refusal))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        header::strip(request);
        // Answered already.
        request.remove_header(&http::header::EXPECT);
        match (&exchange.lease, &exchange.identity) {
            (Some(lease), Some(identity)) => address(request, lease, identity),
            _ => Ok(()),
        }
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.hold(body, end_of_stream).map_err(|refusal| exchange.fail(refusal))
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        reply::check_runner(response, exchange).map_err(|refusal| exchange.fail(refusal))
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        _: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        // A turn watches its own deadline; a runner that streams by itself is watched here.
        exchange.check_turn().map(|()| None).map_err(|refusal| exchange.fail(refusal))
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.streaming = reply::is_event_stream(response);
        reply::stamp(response, exchange)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Exchange,
    ) -> FailToProxy {
        reply::fail(session, error, exchange).await
    }

    /// [`Self::logging`] writes the one line of each request; Pingora's may quote its headers.
    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange) {
        exchange.log(session, error);
    }
}

/// When our models were made, in Unix seconds: `OpenAI`'s clients want some number.
const MADE: u64 = 1_763_683_200;
