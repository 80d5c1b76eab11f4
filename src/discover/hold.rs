//! What an answer of DNS makes of the addresses that were known.
//!
//! - An answer with addresses is believed at once, also about those that it does not name any more.
//! - A failure (SERVFAIL, REFUSED, a timeout) says nothing about the addresses: they stay, for as long as it lasts, as
//!   with Envoy's `STRICT_DNS`. HAProxy drops them after 30 s (`hold timeout`, `hold other`), which turns an outage of
//!   the resolver into one of the service; whether an upstream answers is found out by health checks, not here.
//! - A or AAAA alone may fail: the other is believed, and of the failed kind the known addresses stay.
//! - That there is nothing (NXDOMAIN, or neither A nor AAAA) is believed after [`GRACE`], as HAProxy's `hold nx` has it:
//!   a zone that is reloaded or a half-started resolver says so for a moment too. Then it is true: a headless Service
//!   without a ready pod has no addresses, and an answer "no upstream" at once is better than tries to reach those that
//!   are gone. At the start there is nothing to hold.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// For how long an answer that there is nothing is not believed.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// What was said about one kind of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// These. Not empty.
    Addresses(BTreeSet<IpAddr>),
    /// That there are none.
    None,
    /// Nothing.
    Failed,
}

/// What was said about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) v4: Kind,
    pub(super) v6: Kind,
}

/// The addresses of one name.
#[derive(Debug)]
pub(super) struct Hold {
    grace: Duration,
    v4: BTreeSet<IpAddr>,
    v6: BTreeSet<IpAddr>,
    nothing_since: Option<Instant>,
}

impl Hold {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            v4: BTreeSet::new(),
            v6: BTreeSet::new(),
            nothing_since: None,
        }
    }

    /// Takes an answer in.
    pub(super) fn answered(&mut self, answer: Answer, now: Instant) {
        if let (Kind::None, Kind::None) = (&answer.v4, &answer.v6) {
            let since = *self.nothing_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= self.grace {
                self.v4.clear();
                self.v6.clear();
            }
            return;
        }
        let found = |kind: &Kind| matches!(kind, Kind::Addresses(_));
        let any = found(&answer.v4) || found(&answer.v6);
        if any {
            self.nothing_since = None;
        }
        for (known, kind) in [(&mut self.v4, answer.v4), (&mut self.v6, answer.v6)] {
            match kind {
                Kind::Addresses(addresses) => *known = addresses,
                // Beside a failure it may be half of "nothing".
                Kind::None if any => known.clear(),
                Kind::None | Kind::Failed => {}
            }
        }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.iter().chain(&self.v6).copied()
    }

    /// Whether there is something only because an answer is not believed yet.
    pub(super) fn in_doubt(&self) -> bool {
        self.nothing_since.is_some() && self.addresses().next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn some(addresses: &[&str]) -> Kind {
        Kind::Addresses(addresses.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn shown(hold: &Hold) -> Vec<String> {
        hold.addresses()
            .map(|address| address.to_string())
            .collect()
    }

    fn answer(v4: Kind, v6: Kind) -> Answer {
        Answer { v4, v6 }
    }

    #[test]
    fn addresses_are_believed_at_once() {
        let (mut hold, now) = (Hold::new(GRACE), Instant::now());
        hold.answered(
            answer(some(&["10.0.0.1", "10.0.0.2"]), some(&["fd00::1"])),
            now,
        );
        assert_eq!(shown(&hold), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
        hold.answered(answer(some(&["10.0.0.3"]), Kind::None), now);
        assert_eq!(shown(&hold), ["10.0.0.3"]);
        hold.answered(answer(Kind::None, some(&["fd00::2"])), now);
        assert_eq!(shown(&hold), ["fd00::2"]);
    }

    #[test]
    fn a_failure_says_nothing_however_long() {
        let (mut hold, now) = (Hold::new(GRACE), Instant::now());
        hold.answered(answer(Kind::Failed, Kind::Failed), now);
        assert!(shown(&hold).is_empty());
        hold.answered(answer(some(&["10.0.0.1"]), some(&["fd00::1"])), now);
        for (v4, v6) in [
            (Kind::Failed, Kind::Failed),
            (Kind::None, Kind::Failed),
            (Kind::Failed, Kind::None),
        ] {
            for hour in 0..3 {
                hold.answered(answer(v4.clone(), v6.clone()), now + hour * 3600 * SECOND);
                assert_eq!(shown(&hold), ["10.0.0.1", "fd00::1"]);
                assert!(!hold.in_doubt());
            }
        }
    }

    #[test]
    fn one_kind_may_fail() {
        let (mut hold, now) = (Hold::new(GRACE), Instant::now());
        hold.answered(answer(some(&["10.0.0.1"]), Kind::Failed), now);
        assert_eq!(shown(&hold), ["10.0.0.1"]);
        hold.answered(answer(Kind::Failed, some(&["fd00::1"])), now);
        assert_eq!(shown(&hold), ["10.0.0.1", "fd00::1"]);
    }

    #[test]
    fn nothing_is_believed_after_a_while() {
        let (mut hold, now) = (Hold::new(GRACE), Instant::now());
        let nothing = || answer(Kind::None, Kind::None);
        hold.answered(answer(some(&["10.0.0.1"]), Kind::None), now);
        hold.answered(nothing(), now + SECOND);
        hold.answered(nothing(), now + 30 * SECOND);
        assert_eq!(shown(&hold), ["10.0.0.1"]);
        assert!(hold.in_doubt());
        // A failure in between neither ends nor extends the doubt.
        hold.answered(answer(Kind::Failed, Kind::Failed), now + 30 * SECOND);
        hold.answered(nothing(), now + 31 * SECOND);
        assert!(shown(&hold).is_empty());
        assert!(!hold.in_doubt());
    }

    #[test]
    fn doubt_ends_with_an_answer() {
        let (mut hold, now) = (Hold::new(GRACE), Instant::now());
        let one = || answer(some(&["10.0.0.1"]), Kind::None);
        hold.answered(one(), now);
        hold.answered(answer(Kind::None, Kind::None), now + SECOND);
        hold.answered(one(), now + 2 * SECOND);
        hold.answered(answer(Kind::None, Kind::None), now + 40 * SECOND);
        assert_eq!(shown(&hold), ["10.0.0.1"]);
    }
}
