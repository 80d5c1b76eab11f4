//! Who may see and change what is not for everybody.

use std::net::SocketAddr;

use http::HeaderMap;
use http::header::{HeaderName, ORIGIN, REFERER};

/// What a browser says of where a request comes from, if it says nothing else.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who is trusted besides the machine itself.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    /// Others may read the configuration and drain.
    pub allow_remote: bool,
    /// Others may drain.
    pub remote_drain: bool,
}

impl Trust {
    /// Whether whoever asks may see and change everything.
    pub(super) fn everything(self, headers: &HeaderMap, peer: SocketAddr) -> bool {
        (self.allow_remote || peer.ip().to_canonical().is_loopback()) && !is_of_a_page(headers)
    }

    /// Whether it may begin the drain. The kubelet's hooks come from the node, by an address that depends on the network's
    /// plug-in: it cannot be told from others.
    pub(super) fn drain(self, headers: &HeaderMap, peer: SocketAddr) -> bool {
        self.everything(headers, peer) || (self.remote_drain && !is_of_a_page(headers))
    }
}

/// A browser on this machine is at loopback whoever wrote the page that it shows. Of a picture in it, say, it tells no
/// origin, but where it is to be shown.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    let page = [ORIGIN, REFERER, SEC_FETCH_SITE];
    page.iter().any(|name| headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_may_do_all_others_what_is_switched_on_and_pages_nothing() {
        let page = HeaderMap::from_iter([(REFERER, "http://example.org/".parse().unwrap())]);
        let plain = HeaderMap::new();
        for (allow_remote, remote_drain) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let trust = Trust {
                allow_remote,
                remote_drain,
            };
            for peer in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.9]:1"] {
                let peer = peer.parse().unwrap();
                assert!(trust.everything(&plain, peer) && trust.drain(&plain, peer));
                assert!(!trust.everything(&page, peer) && !trust.drain(&page, peer));
            }
            for peer in ["10.244.1.1:1", "[fd00::1]:1", "[::ffff:10.0.0.9]:1"] {
                let peer = peer.parse().unwrap();
                assert_eq!(trust.everything(&plain, peer), allow_remote);
                assert_eq!(trust.drain(&plain, peer), allow_remote || remote_drain);
                assert!(!trust.everything(&page, peer) && !trust.drain(&page, peer));
            }
        }
    }
}
