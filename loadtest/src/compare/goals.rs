//! What the summary of a comparison has a line for.

use super::peers::Peer;
use super::report::Row;
use super::scenario::Figure;

/// A line of the summary.
pub(crate) struct Goal {
    pub(crate) title: &'static str,
    pub(crate) scenario: &'static str,
    pub(crate) value: fn(&Row) -> Option<f64>,
    pub(crate) of: Of,
}

/// What tokenglass's value may be.
pub(crate) enum Of {
    /// Anything: to be read beside the other lines.
    Nothing,
    /// At most this.
    Value(f64),
    /// At most so many times a peer's.
    Peer(f64, Peer),
    /// At most so many times a peer's, and the line shows how many times it is. None without that peer.
    Share(f64, Peer),
}

const CPU_PER_FRAME: fn(&Row) -> Option<f64> = |row| row.figure(Figure::CpuPerFrame);
const DELAY_P99: fn(&Row) -> Option<f64> = |row| row.added_delay_us[1];
const MEASURING: Of = Of::Share(1.15, Peer::TokenglassBlind);

pub(crate) const GOALS: [Goal; 17] = [
    Goal {
        title: "CPU a frame, 200 streams, a frame each 20 ms, µs",
        scenario: "paced",
        value: CPU_PER_FRAME,
        of: Of::Peer(1.0, Peer::Haproxy),
    },
    Goal {
        title: "the same, × observer off",
        scenario: "paced",
        value: CPU_PER_FRAME,
        of: MEASURING,
    },
    Goal {
        title: "added frame delay p99 there, µs",
        scenario: "paced",
        value: DELAY_P99,
        of: Of::Value(2000.0),
    },
    Goal {
        title: "CPU a frame, streams at full speed, µs",
        scenario: "full",
        value: CPU_PER_FRAME,
        of: Of::Peer(1.0, Peer::Nginx),
    },
    Goal {
        title: "CPU a frame, streams at full speed, a write a frame, µs",
        scenario: "eager",
        value: CPU_PER_FRAME,
        of: Of::Peer(1.0, Peer::Nginx),
    },
    Goal {
        title: "CPU a small JSON request, µs",
        scenario: "json",
        value: |row| row.figure(Figure::CpuPerRequest),
        of: Of::Peer(1.0, Peer::Nginx),
    },
    Goal {
        title: "added TTFT p50, one client, µs",
        scenario: "single",
        value: |row| row.figure(Figure::AddedTtft),
        of: Of::Peer(0.7, Peer::Nginx),
    },
    Goal {
        title: "memory an open stream, 2 000 of them, KiB",
        scenario: "open-2000",
        value: |row| row.figure(Figure::MemoryPerStream),
        of: Of::Peer(1.0, Peer::Nginx),
    },
    Goal {
        title: "resident memory at start, MiB",
        scenario: "full",
        value: |row| row.rss_mib[0],
        of: Of::Value(14.0),
    },
    by_number(
        "CPU a frame, 10 open streams, µs",
        "streams-10",
        CPU_PER_FRAME,
    ),
    by_number(
        "CPU a frame, 100 open streams, µs",
        "streams-100",
        CPU_PER_FRAME,
    ),
    by_number(
        "CPU a frame, 1 000 open streams, µs",
        "streams-1000",
        CPU_PER_FRAME,
    ),
    by_number(
        "CPU a frame, 9 000 open streams, µs",
        "streams-9000",
        CPU_PER_FRAME,
    ),
    by_number(
        "added frame delay p99, 10 open streams, µs",
        "streams-10",
        DELAY_P99,
    ),
    by_number(
        "added frame delay p99, 100 open streams, µs",
        "streams-100",
        DELAY_P99,
    ),
    by_number(
        "added frame delay p99, 1 000 open streams, µs",
        "streams-1000",
        DELAY_P99,
    ),
    by_number(
        "added frame delay p99, 9 000 open streams, µs",
        "streams-9000",
        DELAY_P99,
    ),
];

const fn by_number(
    title: &'static str,
    scenario: &'static str,
    value: fn(&Row) -> Option<f64>,
) -> Goal {
    Goal {
        title,
        scenario,
        value,
        of: Of::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Scenario;
    use super::*;

    #[test]
    fn goals_are_of_scenarios_that_there_are() {
        let all = Scenario::all(false);
        for goal in &GOALS {
            let found = all.iter().any(|scenario| scenario.name == goal.scenario);
            assert!(found, "{}", goal.scenario);
        }
    }
}
