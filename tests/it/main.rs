//! The gateway in worlds of its own, in one binary: every further one links Pingora again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chat;
mod opencode;
mod world;
