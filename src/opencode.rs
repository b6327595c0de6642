//! The dialect runners speak.

pub mod client;
pub mod event;
pub mod feed;
pub mod settings;

pub use client::{Client, ClientError};
