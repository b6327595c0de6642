//! The dialect clients speak. Types and text, no I/O.

pub mod models;
pub mod request;
pub mod splice;
