//! The demo model provider.

use std::{net::SocketAddr, time::Duration};

/// Serves scripted answers.
pub async fn serve(_listen: SocketAddr, _delay: Duration) -> std::io::Result<()> {
    Err(std::io::Error::other("not there yet"))
}
