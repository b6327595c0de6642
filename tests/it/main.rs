//! The gateway in worlds of its own, in one binary: every further one links Pingora again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod chat;
mod egress;
mod limits;
mod openai_dialect;
mod opencode;
mod secrets;
mod sharing;
mod smuggling;
mod stub;
mod world;
