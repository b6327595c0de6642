//! The gateway in worlds of its own, in one binary: every further one links Pingora again.

mod chat;
mod opencode;
mod world;
