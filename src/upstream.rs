//! Where a request goes: to a turn behind an in-memory pipe, or to a runner's own socket.
//!
//! Both are ordinary Pingora peers, so timeouts, limits, back-pressure, disconnects and logging
//! exist once, in Pingora's data plane.

mod in_memory;

use std::{sync::Arc, time::Duration};

use pingora_core::{
    Error, ErrorType, OrErr,
    protocols::l4::socket::SocketAddr,
    upstreams::peer::{H1UpgradePolicy, HttpPeer, PeerOptions, Scheme},
};
use tokio::{net::lookup_host, time::timeout};

use crate::{
    config::{Address, Limits},
    runner::Runner,
    turn::Turn,
    upstream::in_memory::TurnConnector,
};

/// The peer that carries out `turn`. Connecting to it starts the turn, once.
pub fn of_turn(turn: Turn) -> pingora_core::Result<HttpPeer> {
    // An address no socket has: the connector is not part of Pingora's pool key.
    let mut peer = HttpPeer::new_uds("/turn", false, String::new())?;
    peer.group_key = TURN_GROUP;
    peer.options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Deny;
    peer.options.custom_l4 = Some(Arc::new(TurnConnector::new(turn)));
    Ok(peer)
}

/// The peer of a runner that speaks `OpenAI` itself.
pub async fn of_runner(runner: &Runner, limits: &Limits) -> pingora_core::Result<HttpPeer> {
    let mut peer = match &runner.address {
        Address::Unix(path) => HttpPeer::new_uds(&path.to_string_lossy(), false, String::new())?,
        Address::Tcp(host) => of_host(host).await?,
    };
    // A runner's port may be another runner's tomorrow: connections never outlive the epoch.
    peer.group_key = runner.epoch;
    // A tunnel to a runner would pass every filter by; Pingora allows WebSocket by default.
    peer.options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Deny;
    peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
    peer.options.total_connection_timeout = Some(CONNECT_TIMEOUT);
    peer.options.read_timeout = Some(limits.first_byte.max(limits.idle));
    peer.options.write_timeout = Some(limits.body_deadline);
    peer.options.idle_timeout = Some(POOL_IDLE);
    Ok(peer)
}

/// `HttpPeer::new`, without its panic on a name that does not resolve.
async fn of_host(host: &str) -> pingora_core::Result<HttpPeer> {
    let address = timeout(CONNECT_TIMEOUT, lookup_host(host))
        .await
        .or_err(ErrorType::ConnectTimedout, "the runner's host does not resolve in time")?
        .or_err(ErrorType::ConnectNoRoute, "the runner's host does not resolve")?
        .next()
        .ok_or_else(|| {
            Error::explain(ErrorType::ConnectNoRoute, "the runner's host has no address")
        })?;
    Ok(HttpPeer {
        _address: SocketAddr::Inet(address),
        scheme: Scheme::HTTP,
        sni: String::new(),
        proxy: None,
        client_cert_key: None,
        group_key: 0,
        options: PeerOptions::new(),
    })
}

/// Epochs count up from one and never get here.
const TURN_GROUP: u64 = u64::MAX;
/// Loopback or one hop away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Below what HTTP servers allow: Node and uvicorn close after 5 s. A request is not tried twice.
const POOL_IDLE: Duration = Duration::from_secs(4);
