//! A provider as a Pingora peer: its address looked up, its certificate checked as configured.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use pingora_core::{
    Error, ErrorType, OrErr, Result,
    protocols::{ALPN, l4, tls::CaType},
    upstreams::peer::{H1UpgradePolicy, HttpPeer, PeerOptions, Scheme},
    utils::tls::{WrappedX509, parse_x509},
};
use tokio::{
    net::lookup_host,
    time::{Instant, timeout},
};

use crate::config::{BaseUrl, Tls};

/// How a host is to be reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach<'a> {
    pub(super) base: &'a BaseUrl,
    pub(super) tls: &'a Tls,
    /// Whose connections these are: others do not use them.
    pub(super) group: &'a str,
    pub(super) connect_timeout: Duration,
    /// How long the host may say nothing; `None` for ever.
    pub(super) idle_timeout: Option<Duration>,
}

/// What is known of hosts, so that a call does not wait for it.
#[derive(Debug, Default)]
pub(super) struct Peers {
    addresses: Mutex<HashMap<(String, u16), (Instant, SocketAddr)>>,
    authorities: Mutex<HashMap<PathBuf, Authorities>>,
}

/// Certificates as they are configured, and as Pingora wants them.
#[derive(Debug)]
struct Authorities {
    configured: Arc<[Vec<u8>]>,
    parsed: Arc<CaType>,
}

impl Peers {
    /// The peer that `reach` leads to.
    pub(super) async fn of(&self, reach: Reach<'_>) -> Result<HttpPeer> {
        let BaseUrl { tls, host, port, .. } = reach.base;
        let address = self.address(host, *port, reach.connect_timeout).await?;
        let mut options = PeerOptions::new();
        options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Deny;
        options.connection_timeout = Some(reach.connect_timeout);
        options.total_connection_timeout = Some(reach.connect_timeout);
        options.read_timeout = reach.idle_timeout;
        options.write_timeout = reach.idle_timeout;
        options.idle_timeout = Some(POOL_IDLE);
        let mut group = DefaultHasher::new();
        reach.group.hash(&mut group);
        if *tls {
            options.alpn = ALPN::H2H1;
            options.max_h2_streams = H2_STREAMS;
            options.verify_cert = reach.tls.verify;
            options.verify_hostname = reach.tls.verify;
            options.ca = reach.tls.ca.as_ref().map(|(path, ca)| self.authorities(path, ca));
            // Not part of Pingora's pool key: who changes whom to trust wants new connections.
            reach.tls.ca.as_ref().map(|(_, certificates)| certificates).hash(&mut group);
        }
        Ok(HttpPeer {
            _address: l4::socket::SocketAddr::Inet(address),
            scheme: if *tls { Scheme::HTTPS } else { Scheme::HTTP },
            sni: if *tls { host.clone() } else { String::new() },
            proxy: None,
            client_cert_key: None,
            group_key: group.finish(),
            options,
        })
    }

    /// Forgets the address of a host that could not be reached.
    pub(super) fn forget(&self, base: &BaseUrl) {
        self.addresses.lock().remove(&(base.host.clone(), base.port));
    }

    async fn address(&self, host: &str, port: u16, patience: Duration) -> Result<SocketAddr> {
        if let Ok(ip) = host.parse() {
            return Ok(SocketAddr::new(ip, port));
        }
        let key = (host.to_owned(), port);
        let known = self.addresses.lock().get(&key).copied();
        if let Some((_, address)) = known.filter(|(since, _)| since.elapsed() < FRESH) {
            return Ok(address);
        }
        let address = timeout(patience, lookup_host((host, port)))
            .await
            .or_err(ErrorType::ConnectTimedout, "the provider's host does not resolve in time")?
            .or_err(ErrorType::ConnectNoRoute, "the provider's host does not resolve")?
            .next()
            .ok_or_else(|| {
                Error::explain(ErrorType::ConnectNoRoute, "the provider's host has no address")
            })?;
        self.addresses.lock().insert(key, (Instant::now(), address));
        Ok(address)
    }

    fn authorities(&self, path: &PathBuf, configured: &Arc<[Vec<u8>]>) -> Arc<CaType> {
        let mut known = self.authorities.lock();
        if let Some(known) = known.get(path).filter(|it| Arc::ptr_eq(&it.configured, configured)) {
            return Arc::clone(&known.parsed);
        }
        let parse = |der: &Vec<u8>| WrappedX509::new(der.clone(), parse_x509);
        let parsed: Arc<CaType> = configured.iter().map(parse).collect();
        let authorities =
            Authorities { configured: Arc::clone(configured), parsed: Arc::clone(&parsed) };
        known.insert(path.clone(), authorities);
        parsed
    }
}

/// How long an address is believed. Providers move theirs within minutes.
const FRESH: Duration = Duration::from_secs(30);
/// What large providers close idle connections after is a minute or more; proxies before them often
/// take half of that.
const POOL_IDLE: Duration = Duration::from_secs(25);
/// Calls on one HTTP/2 connection at the same time. Servers allow a hundred and more.
const H2_STREAMS: usize = 64;
