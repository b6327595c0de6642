//! `impl ProxyHttp for Gateway`: each phase, one or two calls.

pub mod header;
pub mod identity;
pub mod origin;
pub mod route;
