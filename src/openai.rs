//! The dialect clients speak. Types and text, no I/O.

pub mod splice;
