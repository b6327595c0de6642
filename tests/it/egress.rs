//! The egress in worlds of its own: the real Pingora between runners' exact bytes and a provider
//! that counts for itself.

mod bodies;
mod budgets;
mod client;
mod counted;
mod dialect;
mod estimated;
mod headers;
mod hostile;
mod integrations;
mod provider;
mod smuggling;
mod staying;
mod streaming;
mod tokens;
mod world;
