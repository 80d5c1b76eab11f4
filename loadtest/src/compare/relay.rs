//! The least that a proxy can do: bytes from one socket to the other.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

const BUFFER: usize = 16 * 1024;

/// Copies between clients of `listen` and connections of their own to `upstream`, for ever.
///
/// # Errors
/// If the address cannot be bound.
pub async fn relay(listen: SocketAddr, upstream: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        // Out of descriptors, say: the next may fare better, and this is a yardstick and no server.
        let Ok((mut client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::spawn(async move {
            let mut server = TcpStream::connect(upstream).await?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await
        });
    }
}
