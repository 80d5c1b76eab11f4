//! Who serves what, at one moment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::Value;

use super::endpoint::Endpoint;

/// What one upstream lists.
#[derive(Clone, Debug, Default)]
pub(super) enum Listing {
    /// Nobody has asked yet, or it did not say.
    #[default]
    Unknown,
    /// It does not say without a key.
    Withheld,
    /// These, as it lists them.
    Models(Arc<Models>),
}

/// A list of models.
#[derive(Debug)]
pub(super) struct Models {
    /// What it was read from.
    pub(super) body: Bytes,
    pub(super) names: Vec<Box<str>>,
    pub(super) objects: Vec<Value>,
}

/// The upstreams in the order of their URLs, and which of them serve a model. Not changed any more.
#[derive(Debug, Default)]
pub struct Table {
    /// All of them.
    pub endpoints: Vec<Arc<Endpoint>>,
    pools: HashMap<Box<str>, Vec<usize>>,
    /// Those that do not say what they serve, or all if each does.
    rest: Vec<usize>,
    all: Vec<usize>,
    union: Option<Bytes>,
}

impl Models {
    pub(super) fn read(names: impl Iterator<Item = Box<str>>, body: &Bytes) -> Self {
        let value: Option<Value> = serde_json::from_slice(body).ok();
        let objects = match value {
            Some(Value::Object(mut fields)) => match fields.remove("data") {
                Some(Value::Array(objects)) => objects,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        Self {
            body: body.clone(),
            names: names.collect(),
            objects,
        }
    }
}

impl Table {
    pub(super) fn new(mut members: Vec<(Arc<Endpoint>, Listing)>) -> Self {
        members.sort_by_cached_key(|(endpoint, _)| endpoint.url().to_string());
        let mut pools: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut rest = Vec::new();
        for (index, (_, listing)) in members.iter().enumerate() {
            match listing {
                Listing::Unknown | Listing::Withheld => rest.push(index),
                Listing::Models(models) => {
                    for name in &models.names {
                        pools.entry(name.clone()).or_default().push(index);
                    }
                }
            }
        }
        let all: Vec<_> = (0..members.len()).collect();
        if rest.is_empty() {
            rest.clone_from(&all);
        }
        Self {
            union: union(&members),
            endpoints: members.into_iter().map(|(endpoint, _)| endpoint).collect(),
            pools,
            rest,
            all,
        }
    }

    /// Those that a request may go to, as places in `endpoints`. A model that nobody lists may be one that somebody has
    /// loaded since, so it is for the upstreams to refuse: first of all those that do not say what they serve.
    #[must_use]
    pub fn pool(&self, model: Option<&str>) -> &[usize] {
        match model {
            None => &self.all,
            Some(model) => self.pools.get(model).unwrap_or(&self.rest),
        }
    }

    /// The same, by their numbers.
    pub(super) fn ids(&self, model: Option<&str>) -> Vec<usize> {
        let pool = self.pool(model).iter();
        pool.filter_map(|index| self.endpoints.get(*index))
            .map(|endpoint| endpoint.id())
            .collect()
    }

    /// The answer to `GET /v1/models`: what the healthy ones list, each model once. `None` if one of them has to be asked
    /// with the client's own key, or nobody has said anything.
    #[must_use]
    pub fn union(&self) -> Option<&Bytes> {
        self.union.as_ref()
    }
}

fn union(members: &[(Arc<Endpoint>, Listing)]) -> Option<Bytes> {
    let mut seen = HashSet::new();
    let mut data = Vec::new();
    let mut known = false;
    for (endpoint, listing) in members {
        match listing {
            _ if !endpoint.is_healthy() => {}
            Listing::Unknown => {}
            Listing::Withheld => return None,
            Listing::Models(models) => {
                known = true;
                for object in &models.objects {
                    let id = object.get("id").and_then(Value::as_str);
                    if id.is_none_or(|id| seen.insert(id)) {
                        data.push(object);
                    }
                }
            }
        }
    }
    let body = serde_json::json!({"object": "list", "data": data});
    known.then(|| Bytes::from(body.to_string()))
}
