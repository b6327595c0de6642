//! One private opencode agent per person, behind one OpenAI-compatible URL.

pub mod chats;
pub mod config;
pub mod demo;
pub mod error;
pub mod gateway;
pub mod launcher;
pub mod openai;
pub mod opencode;
pub mod persona;
pub mod pool;
pub mod runner;
pub mod secret;
pub mod state;
pub mod workspace;
pub mod scrub;
pub mod serve;
pub mod turn;
pub mod upstream;
