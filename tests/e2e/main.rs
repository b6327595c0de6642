//! The whole thing, end to end: the real gateway binary, the real opencode, a model provider that
//! needs no key. Each test has a [`stand`] of its own: ports, directories, processes.

mod bodies;
mod chat;
mod client;
mod egress;
mod house;
mod isolation;
mod lifecycle;
mod processes;
mod provider;
mod reload;
mod scripted;
mod sdk;
mod settings;
mod stand;
