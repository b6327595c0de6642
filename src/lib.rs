//! One private opencode agent per person, behind one OpenAI-compatible URL.

pub mod chats;
pub mod cli;
pub mod config;
pub mod demo;
pub mod error;
pub mod gateway;
pub mod launcher;
pub mod openai;
pub mod opencode;
pub mod persona;
pub mod pool;
pub mod reload;
pub mod runner;
pub mod scrub;
pub mod secret;
pub mod serve;
pub mod state;
pub mod turn;
pub mod upstream;
pub mod workspace;
