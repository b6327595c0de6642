//! The real egress behind the real Pingora on a loopback port of its own, because tokens are bound
//! to addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    sync::Arc,
};

use open_persona::{
    config::{self, Config, Live},
    egress::{
        Egress,
        grant::{Grants, Start},
    },
    gateway::{
        connection::Guarded,
        identity::{Identity, Source},
    },
    keys::Keys,
    secret::Secret,
    serve,
    state::State,
    usage::{By, Day, Query, Totals, Usage, report},
    workspace::WorkspaceId,
};
use pingora_core::{
    apps::ServerApp,
    protocols::{GetSocketDigest, SocketDigest, l4::stream::Stream},
};
use pingora_proxy::http_proxy;
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{
    client::{Answer, Client, GUARD},
    provider::Provider,
};

pub(super) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The keys that the admin has set, by provider.
pub(super) fn admin_key(provider: &str) -> String {
    format!("sk-admin-{provider}")
}

/// An egress, the provider behind it, and what it remembers.
pub(super) struct World {
    pub(super) provider: Provider,
    pub(super) egress: Egress,
    pub(super) keys: Arc<Keys>,
    pub(super) state: State,
    /// `host:port` of the egress.
    pub(super) authority: String,
    address: SocketAddr,
    grants: Arc<Grants>,
    _server: AbortOnDropHandle<()>,
}

/// A runner that lives, and works for the user whose workspace it has.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) start: Start,
    pub(super) token: String,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with("", |_| {}).await
    }

    /// A world whose configuration has `yaml` appended and is then changed by `change`.
    pub(super) async fn with(yaml: &str, change: impl FnOnce(&mut Config)) -> Self {
        let provider = Provider::start().await;
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let there = provider.address;
        let text = format!(
            "
identity: {{ anonymous: true }}
listen: {{ address: '127.0.0.1:1' }}
egress: {{ address: '{address}', body: 1MiB, key_help: Set one. }}
models: {{ main: chat/m1 }}
providers:
  chat:
    npm: '@ai-sdk/openai-compatible'
    base_url: 'http://{there}/chat/api'
    auth: bearer
    models: {MODELS}
  responses:
    npm: '@ai-sdk/openai'
    base_url: 'http://{there}/responses/api/'
    models: {MODELS}
  messages:
    npm: '@ai-sdk/anthropic'
    base_url: 'http://{there}'
    models: {MODELS}
  azure:
    npm: '@ai-sdk/openai-compatible'
    base_url: 'http://{there}/azure?api-version=7'
    auth: api-key
    models: {MODELS}
  free:
    npm: '@ai-sdk/openai-compatible'
    base_url: 'http://{there}/free'
integrations:
  crm:
    url: 'http://{there}/crm/endpoint?team=7'
    headers: {{ Authorization: 'env:CRM', X-Team: 'plain: seven' }}
{yaml}"
        );
        let mut config = config::parse("egress.yaml".as_ref(), &text, &environment)
            .unwrap_or_else(|error| panic!("{error}"));
        for (id, provider) in &mut config.providers {
            provider.key = (id != "free").then(|| Secret::new(admin_key(id)));
        }
        change(&mut config);
        let live = Live::new(config);
        let state = State::in_memory().unwrap();
        let grants = Arc::<Grants>::default();
        let keys = Arc::new(Keys::in_memory().unwrap());
        let usage = Arc::new(Usage::new(state.clone()));
        let egress = Egress::new(live.clone(), Arc::clone(&grants), Arc::clone(&keys), usage);
        let conf = Arc::new(serve::server_conf(&live.now()));
        let app = Arc::new(Guarded::new(http_proxy(&conf, egress.clone()), live));
        #[expect(clippy::disallowed_methods, reason = "aborted when the world is dropped")]
        let server = tokio::spawn(accept(listener, app));
        let server = AbortOnDropHandle::new(server);
        let authority = address.to_string();
        Self { provider, egress, keys, state, authority, address, grants, _server: server }
    }

    /// A runner of `user` of which nothing is known yet.
    pub(super) fn idle(&self, user: &str) -> Start {
        self.grants.start(&WorkspaceId::of(user), 1)
    }

    /// Starts a runner for `user`.
    pub(super) fn runner(&self, user: &str) -> Runner {
        let start = self.idle(user);
        start.grant.bind(HERE);
        start.grant.work_for(&Identity {
            user: user.to_owned(),
            source: Source::ApiKey,
            name: None,
            email: None,
            role: None,
        });
        let token = start.token.expose().to_owned();
        Runner { start, token }
    }

    /// Connects to the egress.
    pub(super) async fn connect(&self) -> Client {
        self.connect_from(HERE).await
    }

    /// Connects to the egress from another address of this machine.
    pub(super) async fn connect_from(&self, from: IpAddr) -> Client {
        Client::open(from, self.address).await
    }

    /// Sends exactly `bytes` on a connection of their own and reads the whole answer.
    pub(super) async fn raw(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        client.offer(bytes).await;
        client.answer().await
    }

    /// Sends exactly `bytes` on a connection of their own, and gives everything that comes back
    /// until the egress closes it.
    pub(super) async fn raw_to_end(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.offer(bytes).await;
        client.rest().await
    }

    /// Waits until nothing is in flight any more, and gives what was used by user and model. The
    /// egress takes no call after it.
    pub(super) async fn used(&self) -> BTreeMap<(String, String), Totals> {
        let all_settled = timeout(GUARD, self.egress.drain().close_and_wait()).await;
        assert!(all_settled.is_ok(), "{:?}", self.provider.seen());
        used(&self.state)
    }

    /// As [`World::used`], of the only user and model.
    pub(super) async fn used_once(&self) -> Totals {
        let used = self.used().await;
        assert_eq!(used.len(), 1, "{used:?}");
        used.into_values().next().unwrap_or_default()
    }
}

/// What was used by user and model, as the database of the world with `state` has it.
pub(super) fn used(state: &State) -> BTreeMap<(String, String), Totals> {
    let query = Query {
        from: Day::parse("2000-01-01").unwrap(),
        to: Day::parse("9999-12-31").unwrap(),
        user: None,
        model: None,
        by: By { user: true, model: true, day: false },
    };
    let lines = report(state, &query).unwrap();
    let key = |user: Option<String>, model: Option<String>| (user.unwrap(), model.unwrap());
    lines.into_iter().map(|line| (key(line.user, line.model), line.totals)).collect()
}

/// As Pingora's listener does.
async fn accept(listener: TcpListener, app: Arc<Guarded<Egress>>) {
    let stop = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    loop {
        let (stream, from) = listener.accept().await.unwrap();
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        digest.peer_addr.set(Some(from.into())).unwrap();
        let mut stream = Stream::from(stream);
        stream.set_nodelay().unwrap();
        stream.set_socket_digest(digest);
        let (app, stop) = (Arc::clone(&app), stop.subscribe());
        connections.spawn(async move {
            app.process_new(Box::new(stream), &stop).await;
        });
    }
}

/// The environment that configurations see.
fn environment(name: &str) -> Option<String> {
    (name == "CRM").then(|| "Bearer crm-secret".to_owned())
}

/// In dollars for a million tokens. What the second cost is not whole in billionths of a dollar.
const MODELS: &str = "{
      m1: { output: 1000, prices: { input: 1.25, cached: 0.125, cache_write: 1.5, output: 10 } },
      m2: { prices: { input: 0.000375, cached: 0.0001, cache_write: 0.0007, output: 0.0029 } },
      open-persona/build: }";
