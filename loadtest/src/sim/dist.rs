//! A number, or the distribution it is drawn from.

use rand::RngExt;
use serde::Deserialize;

/// In JSON either a bare number or `{"dist":"exp"|"normal"|"lognormal"|"const","mean":..,"std":..}`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(from = "Spec")]
pub enum Dist {
    /// Always the same.
    Const(f64),
    /// Exponential with this mean: arrivals without memory.
    Exp(f64),
    /// Normal, cut at zero.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Log-normal, given by the mean and deviation of the value itself (not of its logarithm).
    LogNormal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Spec {
    Number(f64),
    Named(Named),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    dist: Kind,
    mean: f64,
    #[serde(default)]
    std: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Const,
    Exp,
    Normal,
    Lognormal,
}

// === impl Dist ===

impl Dist {
    /// A draw, never negative.
    pub fn sample(self, rng: &mut impl RngExt) -> f64 {
        match self {
            Self::Const(value) => value,
            Self::Exp(mean) => -mean * (1.0 - rng.random::<f64>()).ln(),
            Self::Normal { mean, std } => mean + std * gauss(rng),
            Self::LogNormal { mean, std } => {
                let variance = (1.0 + (std / mean).powi(2)).ln();
                (mean.ln() - variance / 2.0 + variance.sqrt() * gauss(rng)).exp()
            }
        }
        .max(0.0)
    }

    /// A draw as a count.
    pub fn count(self, rng: &mut impl RngExt) -> u32 {
        // `as` saturates, which is what a count wants.
        self.sample(rng).round() as u32
    }
}

impl From<Spec> for Dist {
    fn from(spec: Spec) -> Self {
        match spec {
            Spec::Number(value) => Self::Const(value),
            Spec::Named(Named { dist, mean, std }) => match dist {
                Kind::Const => Self::Const(mean),
                Kind::Exp => Self::Exp(mean),
                Kind::Normal => Self::Normal { mean, std },
                Kind::Lognormal => Self::LogNormal { mean, std },
            },
        }
    }
}

impl From<f64> for Dist {
    fn from(value: f64) -> Self {
        Self::Const(value)
    }
}

/// Box-Muller.
fn gauss(rng: &mut impl RngExt) -> f64 {
    let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn both_spellings_parse() {
        let parse = |s: &str| serde_json::from_str::<Dist>(s);
        assert_eq!(parse("3").unwrap(), Dist::Const(3.0));
        let normal = Dist::Normal {
            mean: 4.0,
            std: 1.0,
        };
        assert_eq!(
            parse(r#"{"dist":"normal","mean":4,"std":1}"#).unwrap(),
            normal
        );
        assert!(parse(r#"{"dist":"zipf","mean":4}"#).is_err());
    }

    #[test]
    fn draws_have_the_mean_that_was_asked() {
        let mut rng = StdRng::seed_from_u64(1);
        for dist in [
            Dist::Exp(10.0),
            Dist::Normal {
                mean: 10.0,
                std: 2.0,
            },
            Dist::LogNormal {
                mean: 10.0,
                std: 5.0,
            },
        ] {
            let mean = (0..20_000).map(|_| dist.sample(&mut rng)).sum::<f64>() / 20_000.0;
            assert!((mean - 10.0).abs() < 0.3, "{dist:?}: {mean}");
        }
    }
}
