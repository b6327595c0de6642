//! The key a caller presents, and who holds it.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderValue, StatusCode, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::repeated;
use crate::{
    config::{ApiKey, FrontEnd, IdentityRules, KeyCheck},
    error::Refusal,
};

/// Who holds a key.
pub(super) enum Holder<'a> {
    FrontEnd(&'a Arc<FrontEnd>),
    User(&'a ApiKey),
}

/// Finds who holds `key`. Every entry is compared, so that the time tells nothing about them.
pub(super) fn holder<'a>(
    rules: &'a IdentityRules,
    key: &[u8],
    peer: Option<IpAddr>,
) -> Result<Holder<'a>, Refusal> {
    let digest = Sha256::digest(key).into();
    let (mut inside, mut outside, mut user) = (None, None, None);
    for front_end in &rules.front_ends {
        if is_key(&front_end.key, &digest) {
            let slot = if may_call(front_end, peer) { &mut inside } else { &mut outside };
            *slot = slot.or(Some(front_end));
        }
    }
    for entry in &rules.api_keys {
        if is_key(&entry.key, &digest) {
            user = user.or(Some(entry));
        }
    }
    match (inside, outside, user) {
        (Some(front_end), ..) => Ok(Holder::FrontEnd(front_end)),
        (None, Some(front_end), _) => {
            let from = peer.map_or_else(|| "a socket without address".into(), |ip| ip.to_string());
            Err(unknown_key(format!(
                "security: the key of front end {:?} was used from {from}, outside its networks",
                front_end.name
            )))
        }
        (None, None, Some(entry)) => Ok(Holder::User(entry)),
        (None, None, None) => Err(unknown_key("unknown key".into())),
    }
}

fn is_key(check: &KeyCheck, digest: &[u8; 32]) -> bool {
    check.0.ct_eq(digest).into()
}

/// Whether `front_end` may call from `peer`. An IPv4 address may come mapped into IPv6.
fn may_call(front_end: &FrontEnd, peer: Option<IpAddr>) -> bool {
    front_end.networks.is_empty()
        || peer.is_some_and(|ip| {
            let ip = ip.to_canonical();
            front_end.networks.iter().any(|network| network.contains(&ip))
        })
}

/// The key in `Authorization: Bearer <key>`. A comma is how proxies join repeated headers.
pub(super) fn bearer(authorization: &HeaderValue) -> Result<&[u8], Refusal> {
    let value = authorization.as_bytes();
    if value.contains(&b',') {
        return Err(repeated(&AUTHORIZATION));
    }
    let space = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, key) = value.split_at(space);
    let key = key.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"bearer") || key.is_empty() {
        return Err(unknown_key("not a bearer key".into()));
    }
    Ok(key)
}

fn unknown_key(cause: String) -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "invalid_api_key",
        "This API key is not accepted here. Check that `Authorization: Bearer <key>` holds a key \
         of this gateway, and that it may be used from your address.",
    )
    .because(cause)
}
