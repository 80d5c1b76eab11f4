//! Which upstream a session goes to.
//!
//! A new one follows a rendezvous hash of its name and the upstreams' URLs: every replica comes to the same, and when an
//! upstream comes or goes only that one's share moves. But a session that moves loses its prefix cache, so those of late
//! are remembered, and stay where they are though an upstream more would now be theirs. The memory is bounded, shared by the
//! workers, and each replica's own: a session that is forgotten, or comes to another replica, follows the hash.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Mutex, PoisonError};

/// A lock each.
const SHARDS: usize = 16;
/// Sessions of one generation in one of them: 64 Ki sessions or more are remembered in all.
const MOST: usize = 4096;

/// The sessions of late, by the hash of their names.
#[derive(Debug)]
pub(super) struct Sessions {
    shards: [Mutex<Shard>; SHARDS],
}

/// Two generations: when the young one is full, the old one is forgotten.
#[derive(Debug, Default)]
struct Shard {
    young: Map,
    old: Map,
}

/// The keys are hashes already.
type Map = HashMap<u64, usize, BuildHasherDefault<AsItIs>>;

#[derive(Default)]
struct AsItIs(u64);

impl std::hash::Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Sessions {
    /// Where it went last.
    #[must_use]
    pub(super) fn get(&self, session: u64) -> Option<usize> {
        let mut shard = self.shard(session)?;
        if let Some(endpoint) = shard.young.get(&session) {
            return Some(*endpoint);
        }
        let endpoint = shard.old.remove(&session)?;
        shard.put(session, endpoint);
        Some(endpoint)
    }

    /// It goes there.
    pub(super) fn put(&self, session: u64, endpoint: usize) {
        if let Some(mut shard) = self.shard(session) {
            shard.put(session, endpoint);
        }
    }

    fn shard(&self, session: u64) -> Option<std::sync::MutexGuard<'_, Shard>> {
        // Other bits than those that the map looks at first.
        let index = usize::try_from((session >> 32) % SHARDS as u64).ok()?;
        let shard = self.shards.get(index)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shard {
    fn put(&mut self, session: u64, endpoint: usize) {
        if self.young.len() >= MOST && !self.young.contains_key(&session) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(session, endpoint);
    }
}

/// The same in every process: FNV-1a, and what it lacks in mixing.
#[must_use]
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

/// How much a session wants an upstream, by their hashes.
#[must_use]
pub(super) fn weight(session: u64, endpoint: u64) -> u64 {
    mix(session ^ endpoint.rotate_left(17))
}

/// The finalizer of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(session: u64, endpoints: &[u64]) -> u64 {
        *endpoints
            .iter()
            .max_by_key(|endpoint| weight(session, **endpoint))
            .unwrap()
    }

    #[test]
    fn the_hash_spreads_and_moves_only_a_share() {
        let endpoints: Vec<u64> = (0..7)
            .map(|n| hash(format!("http://vllm-{n}:8000").as_bytes()))
            .collect();
        let sessions: Vec<u64> = (0..21_000)
            .map(|n| hash(format!("session-{n}").as_bytes()))
            .collect();
        let mut counts = HashMap::new();
        let mut moved = 0;
        for session in &sessions {
            let (six, seven) = (best(*session, &endpoints[..6]), best(*session, &endpoints));
            *counts.entry(seven).or_insert(0) += 1;
            if six != seven {
                assert_eq!(seven, endpoints[6], "only to the new one");
                moved += 1;
            }
        }
        assert!(
            counts.values().all(|count| (2800..3200).contains(count)),
            "{counts:?}"
        );
        assert!((2800..3200).contains(&moved), "{moved}");
    }

    #[test]
    fn those_of_late_are_remembered_and_the_memory_is_bounded() {
        let sessions = Sessions::default();
        let names: Vec<u64> = (0_u64..1_000_000).map(|n| hash(&n.to_le_bytes())).collect();
        for (at, name) in names.iter().enumerate() {
            sessions.put(*name, at);
            // One that is used stays.
            assert_eq!(sessions.get(names[0]), Some(0));
        }
        let known = |names: &[u64]| {
            names
                .iter()
                .filter(|name| sessions.get(**name).is_some())
                .count()
        };
        assert_eq!(
            known(&names[1_000_000 - SHARDS * MOST / 2..]),
            SHARDS * MOST / 2
        );
        assert_eq!(known(&names[1..100_000]), 0);
        for shard in &sessions.shards {
            let shard = shard.lock().unwrap();
            assert!(shard.young.len() <= MOST && shard.old.len() <= MOST);
        }
    }
}
