//! Several places may find the same upstream: it comes with the first of them and goes with the last.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tower::discover::Change;

use super::{Scheme, UpstreamUrl};

/// What one place has found. Sets, because neither DNS nor Kubernetes says in which order.
pub(super) type Found = BTreeSet<SocketAddr>;

/// What each place has found last.
#[derive(Debug)]
pub(super) struct Union {
    places: Vec<(Scheme, Found)>,
}

impl Union {
    pub(super) fn new(places: impl IntoIterator<Item = Scheme>) -> Self {
        Self {
            places: places
                .into_iter()
                .map(|scheme| (scheme, Found::new()))
                .collect(),
        }
    }

    /// A place has found something else than before: what that changes, the new ones first, so that what takes the
    /// place of the old is there before they go.
    pub(super) fn replace(
        &mut self,
        place: usize,
        found: &Found,
    ) -> Vec<Change<UpstreamUrl, UpstreamUrl>> {
        let Some((scheme, known)) = self.places.get_mut(place) else {
            return Vec::new();
        };
        let scheme = *scheme;
        let known = std::mem::replace(known, found.clone());
        let elsewhere = |address: &&SocketAddr| {
            let mut others = self.places.iter().enumerate();
            others.any(|(other, (speaks, found))| {
                other != place && *speaks == scheme && found.contains(*address)
            })
        };
        let url = |address: &SocketAddr| scheme.url(address.ip().to_string(), address.port());
        let come = found
            .difference(&known)
            .filter(|address| !elsewhere(address))
            .map(|address| Change::Insert(url(address), url(address)));
        let gone = known
            .difference(found)
            .filter(|address| !elsewhere(address))
            .map(|address| Change::Remove(url(address)));
        come.chain(gone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str]) -> Found {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn shown(changes: Vec<Change<UpstreamUrl, UpstreamUrl>>) -> Vec<String> {
        let show = |change| match change {
            Change::Insert(key, url) => {
                assert_eq!(key, url);
                format!("+{url}")
            }
            Change::Remove(url) => format!("-{url}"),
        };
        changes.into_iter().map(show).collect()
    }

    #[test]
    fn only_what_changed_and_the_new_ones_first() {
        let mut union = Union::new([Scheme::Http]);
        let first = found(&["10.0.0.2:8000", "10.0.0.1:8000"]);
        assert_eq!(
            shown(union.replace(0, &first)),
            ["+http://10.0.0.1:8000", "+http://10.0.0.2:8000"]
        );
        assert!(union.replace(0, &first).is_empty());
        assert_eq!(
            shown(union.replace(0, &found(&["10.0.0.2:8000", "[fd00::9]:8000"]))),
            ["+http://[fd00::9]:8000", "-http://10.0.0.1:8000"]
        );
        assert_eq!(union.replace(0, &Found::new()).len(), 2);
    }

    #[test]
    fn found_twice_comes_once_and_goes_with_the_last() {
        let mut union = Union::new([Scheme::Http, Scheme::Http, Scheme::Https]);
        let same = found(&["10.0.0.1:8000"]);
        assert_eq!(shown(union.replace(0, &same)), ["+http://10.0.0.1:8000"]);
        assert!(union.replace(1, &same).is_empty());
        // Another scheme is another upstream.
        assert_eq!(shown(union.replace(2, &same)), ["+https://10.0.0.1:8000"]);
        assert!(union.replace(0, &Found::new()).is_empty());
        assert_eq!(
            shown(union.replace(1, &Found::new())),
            ["-http://10.0.0.1:8000"]
        );
        assert!(union.replace(9, &found(&["10.0.0.1:8000"])).is_empty());
    }
}
