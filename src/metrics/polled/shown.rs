//! What an upstream serves, as gauges that come and go with it.

use prometheus::core::{MetricVec, MetricVecBuilder};

use super::super::labels::{LONGEST, OTHER};
use super::kinds::Listing;
use super::{Endpoint, Polled, ProbeFailure, Upstream, Values};
use crate::poll::Model;
use crate::tokens::Direction;

impl Polled {
    /// It answers. `healthy`: with 2xx.
    pub(crate) fn up(&self, upstream: &Upstream, healthy: bool, listing: Listing<'_>) {
        let values = self.values(upstream, &[]);
        let families = &self.families;
        families.up.with_label_values(&values).set(1);
        let (loaded, available) = match listing {
            Listing::Models(models) => (healthy && !models.is_empty(), Some(models.len())),
            Listing::Withheld => (healthy, None),
            Listing::Failed => (false, Some(0)),
        };
        families
            .loaded
            .with_label_values(&values)
            .set(i64::from(loaded));
        for family in [&families.available, &families.available_total] {
            match available {
                Some(count) => {
                    let count = i64::try_from(count).unwrap_or(i64::MAX);
                    family.with_label_values(&values).set(count);
                }
                None => drop_child(family, &values),
            }
        }
        self.show_models(
            upstream,
            match listing {
                Listing::Models(models) => models,
                Listing::Withheld | Listing::Failed => &[],
            },
        );
    }

    /// It does not.
    pub(crate) fn down(&self, upstream: &Upstream) {
        let values = self.values(upstream, &[]);
        let families = &self.families;
        for family in [
            &families.up,
            &families.loaded,
            &families.available,
            &families.available_total,
        ] {
            family.with_label_values(&values).set(0);
        }
        self.show_models(upstream, &[]);
        self.version(upstream, None);
        self.load(upstream, None);
    }

    /// It is no upstream any more: nothing is shown of it. Nobody may say anything of it after this.
    pub(crate) fn remove(&self, upstream: &Upstream) {
        self.down(upstream);
        let plain = self.values(upstream, &[]);
        let families = &self.families;
        for family in [
            &families.up,
            &families.loaded,
            &families.available,
            &families.available_total,
            &families.stalled,
        ] {
            drop_child(family, &plain);
        }
        drop_child(&families.latency, &plain);
        drop_child(&families.probe_success, &plain);
        drop_child(&families.reopened, &plain);
        for kind in ProbeFailure::ALL {
            let values = self.values(upstream, &[kind.as_label()]);
            drop_child(&families.probe_error, &values);
        }
        for endpoint in Endpoint::ALL {
            let values = self.values(upstream, &[endpoint.as_label()]);
            drop_child(&families.scrape_duration, &values);
            drop_child(&families.scrape_errors, &values);
        }
        for direction in [Direction::Input, Direction::Output] {
            let values = self.values(upstream, &[direction.as_label()]);
            drop_child(&families.unaccounted, &values);
        }
    }

    /// What `/version` says.
    pub(crate) fn version(&self, upstream: &Upstream, version: Option<&str>) {
        let mut state = upstream.lock();
        let version = version.filter(|version| version.len() <= LONGEST);
        if state.version.as_deref() == version {
            return;
        }
        let family = &self.families.version;
        if let Some(old) = &state.version {
            family.remove_label_values(&self.values(upstream, &[old]));
        }
        if let Some(new) = version {
            let values = self.values(upstream, &[new]);
            family.with_label_values(&values).set(1);
        }
        state.version = version.map(str::to_owned);
    }

    /// What `/load` says.
    pub(crate) fn load(&self, upstream: &Upstream, load: Option<f64>) {
        let values = self.values(upstream, &[]);
        let family = &self.families.load;
        match load {
            Some(load) => family.with_label_values(&values).set(load),
            None => drop_child(family, &values),
        }
    }

    fn show_models(&self, upstream: &Upstream, models: &[Model]) {
        let mut state = upstream.lock();
        let short = models.iter().filter(|model| model.id.len() <= LONGEST);
        let shown: Vec<Model> = short.take(self.max_models).cloned().collect();
        if state.models == shown {
            return;
        }
        let left_out = models.len().saturating_sub(shown.len()) as u64;
        self.overflow.with_label_values(&["model"]).inc_by(left_out);
        let families = &self.families;
        for gone in state.models.iter().filter(|old| !shown.contains(old)) {
            families
                .info
                .remove_label_values(&self.info(upstream, gone));
            let length = self.values(upstream, &[&gone.id]);
            families.length.remove_label_values(&length);
        }
        for model in &shown {
            let info = self.info(upstream, model);
            families.info.with_label_values(&info).set(1);
            if let Some(length) = model.max_model_len {
                let values = self.values(upstream, &[&model.id]);
                let length = i64::try_from(length).unwrap_or(i64::MAX);
                families.length.with_label_values(&values).set(length);
            }
        }
        state.models = shown;
    }

    fn info<'a>(&self, upstream: &'a Upstream, model: &'a Model) -> Values<'a> {
        let bounded = |value: &'a str| {
            if value.len() <= LONGEST { value } else { OTHER }
        };
        let (owned_by, root) = (bounded(&model.owned_by), bounded(&model.root));
        self.values(upstream, &[&model.id, owned_by, root])
    }
}

fn drop_child<T: MetricVecBuilder>(family: &MetricVec<T>, values: &[&str]) {
    let _absent = family.remove_label_values(values);
}
