//! The dialect clients speak. Types and text, no I/O.

pub mod chunk;
pub mod item;
pub mod models;
pub mod request;
pub mod splice;
pub mod sse;
