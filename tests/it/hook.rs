//! The drain as a preStop hook of Kubernetes asks for it: from the node, not from loopback.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::nodes::ask;
use crate::origin::get;
use crate::support::Proxy;

/// An address of this machine that is not loopback, by the route to an address for documentation (RFC 5737); nothing is sent.
/// None where there is no network.
fn own() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

fn with(remote_drain: bool) -> (Proxy, u16) {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let proxy = Proxy::with(nowhere, |config| {
        config.admin.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        config.admin.remote_drain = remote_drain;
    });
    let port = proxy.admin().port();
    (proxy, port)
}

#[test]
fn who_comes_from_elsewhere_drains_only_where_that_is_switched_on() {
    let Some(own) = own() else {
        eprintln!("this machine has no network: not shown");
        return;
    };
    let (_closed, port) = with(false);
    let from_elsewhere = SocketAddr::new(own, port);
    let post = b"POST /drain HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let refused = ask(from_elsewhere, &get("/drain?wait=1", ""));
    assert_eq!(refused.status, 403);
    assert!(String::from_utf8_lossy(&refused.body).contains("admin.remote_drain"));
    assert_eq!(ask(from_elsewhere, post).status, 403);
    assert_eq!(ask(from_elsewhere, &get("/readyz", "")).status, 200);

    let (_open, port) = with(true);
    let from_elsewhere = SocketAddr::new(own, port);
    assert_eq!(ask(from_elsewhere, &get("/config", "")).status, 403);
    let page = get("/drain?wait=1", "sec-fetch-site: cross-site\r\n");
    assert_eq!(ask(from_elsewhere, &page).status, 403);
    assert_eq!(ask(from_elsewhere, &get("/readyz", "")).status, 200);
    assert_eq!(ask(from_elsewhere, post).status, 202);
    assert_eq!(ask(from_elsewhere, &get("/readyz", "")).status, 503);
}
