//! The runners' only way out: to the model providers.

pub mod asked;
pub mod observed;
