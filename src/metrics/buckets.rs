//! Bucket edges. vLLM's own (`vllm/v1/metrics/buckets.py`) are all among them, so that a quantile measured here can be
//! laid beside the engine's; below vLLM's floors they go on down to 1 ms.

/// Time to first token: vLLM's edges, which start at 1 ms.
pub const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];

/// Between tokens: vLLM's start at 10 ms, which hides every fast decoder.
pub const ITL: &[f64] = &[
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];

/// Whole requests: vLLM's start at 300 ms.
pub const DURATION: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0,
    10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
];

/// Tokens: 1 to 1 Mi by powers of two.
pub const TOKENS: &[f64] = &[
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
    32.0,
    64.0,
    128.0,
    256.0,
    512.0,
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16384.0,
    32768.0,
    65536.0,
    131_072.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
];

/// The proxy's own time: 10 µs to 1 s.
pub const OVERHEAD: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0,
];

/// Shares: 1 % to 100 %.
pub const RATIO: &[f64] = &[0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0];

/// A probe: 1 ms to 10 s.
pub const PROBE: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

#[cfg(test)]
mod tests {
    #[test]
    fn edges_rise() {
        for edges in [
            super::TTFT,
            super::ITL,
            super::DURATION,
            super::TOKENS,
            super::OVERHEAD,
            super::RATIO,
            super::PROBE,
        ] {
            assert!(edges.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
