//! What load is put on, and which figure it is about.

use std::rc::Rc;
use std::time::Duration;

use super::script::{MODEL, Script};

/// A kind of load.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) figure: Figure,
    pub(crate) connections: usize,
    /// From a request to the origin's first frame.
    pub(crate) first: Duration,
    /// Between the origin's frames.
    pub(crate) gap: Duration,
    /// Every frame is a write of its own, however fast they follow.
    pub(crate) eager: bool,
    /// Streams that stay open over the whole measurement: memory is what they are for.
    pub(crate) held: bool,
    /// Runs only when it is asked for by name.
    pub(crate) asked: bool,
    /// Frames that the window has at least, however few streams there are.
    least: u32,
    /// Requests, sent in turn.
    exchanges: Vec<Exchange>,
}

/// The column that the ratios are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    CpuPerFrame,
    CpuPerRequest,
    AddedTtft,
    MemoryPerStream,
}

/// A request and what must come back.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) request: Rc<[u8]>,
    pub(crate) script: Rc<Script>,
}

/// OpenAI's clients always send a key, and LiteLLM does not start without one. It opens nothing but the origin.
pub(crate) const KEY: &str = "sk-loadtest-1c5f0e7a9b3d48626f8ad70b";

/// How much shorter a quick comparison is.
const QUICK: usize = 8;

// === impl Scenario ===

impl Scenario {
    /// All of them.
    pub(crate) fn all(quick: bool) -> Vec<Self> {
        let ms = Duration::from_millis;
        let few = |many: usize| if quick { (many / QUICK).max(10) } else { many };
        let stream = |frames, prompt| Exchange::new(true, frames, prompt);
        let json = |tokens, prompt| Exchange::new(false, tokens, prompt);
        let plain = |name, about, figure, connections, exchanges| Self {
            name,
            about,
            figure,
            connections,
            first: Duration::ZERO,
            gap: Duration::ZERO,
            eager: false,
            held: false,
            asked: false,
            least: 0,
            exchanges,
        };
        let paced = |scenario: Self, first, gap| Self {
            first,
            gap,
            ..scenario
        };
        let held = |name, about, streams| Self {
            held: true,
            gap: ms(1000),
            ..plain(
                name,
                about,
                Figure::MemoryPerStream,
                streams,
                vec![stream(600, 40)],
            )
        };
        // What a stream costs by how many there are, with nothing else different.
        let streams = |name, about, streams| Self {
            gap: ms(250),
            figure: Figure::CpuPerFrame,
            asked: true,
            least: if quick { 50 } else { 400 },
            ..held(name, about, streams)
        };
        vec![
            plain(
                "full",
                "16 streams of 500 frames at full speed",
                Figure::CpuPerFrame,
                16,
                vec![stream(500, 40)],
            ),
            // What an engine at its limit does: the proxy gets the frames one by one or, if it lags, some at a time.
            Self {
                eager: true,
                ..plain(
                    "eager",
                    "16 streams of 500 frames at full speed, a write a frame",
                    Figure::CpuPerFrame,
                    16,
                    vec![stream(500, 40)],
                )
            },
            paced(
                plain(
                    "paced",
                    "200 streams, a frame each 20 ms",
                    Figure::CpuPerFrame,
                    200,
                    vec![stream(if quick { 20 } else { 100 }, 40)],
                ),
                ms(20),
                ms(20),
            ),
            plain(
                "single",
                "1 client, streams of 16 frames",
                Figure::AddedTtft,
                1,
                vec![stream(16, 40)],
            ),
            plain(
                "json",
                "16 clients, small JSON",
                Figure::CpuPerRequest,
                16,
                vec![json(16, 40)],
            ),
            held(
                "open-2000",
                "2 000 open streams, a frame a second each",
                few(2000),
            ),
            held(
                "open-9000",
                "9 000 open streams, a frame a second each",
                few(9000),
            ),
            plain(
                "prompt-100k",
                "4 clients, prompts of 100 KiB, streams of 16 frames",
                Figure::CpuPerRequest,
                4,
                vec![stream(16, 100 << 10)],
            ),
            plain(
                "prompt-2m",
                "2 clients, prompts of 2 MiB, streams of 16 frames",
                Figure::CpuPerRequest,
                2,
                vec![stream(16, 2 << 20)],
            ),
            paced(
                plain(
                    "mix",
                    "64 clients; 8 of 10 stream, 16 to 96 frames at 10 ms, prompts of 0.2 to 16 KiB",
                    Figure::CpuPerRequest,
                    64,
                    vec![
                        stream(64, 1 << 10),
                        stream(96, 4 << 10),
                        json(64, 200),
                        stream(32, 200),
                        stream(48, 16 << 10),
                        stream(16, 2 << 10),
                        stream(96, 8 << 10),
                        json(128, 2 << 10),
                        stream(64, 400),
                        stream(24, 1 << 10),
                    ],
                ),
                ms(50),
                ms(10),
            ),
            streams(
                "streams-10",
                "10 open streams, a frame each 250 ms",
                few(10),
            ),
            streams(
                "streams-100",
                "100 open streams, a frame each 250 ms",
                few(100),
            ),
            streams(
                "streams-1000",
                "1 000 open streams, a frame each 250 ms",
                few(1000),
            ),
            streams(
                "streams-9000",
                "9 000 open streams, a frame each 250 ms",
                few(9000),
            ),
        ]
    }

    /// The `turn`th request of a connection.
    pub(crate) fn exchange(&self, connection: usize, turn: usize) -> &Exchange {
        // Coprime to the lengths of the lists, so that connections are at different places.
        &self.exchanges[(connection * 3 + turn) % self.exchanges.len()]
    }

    /// How long to measure: so long, or until there are frames enough for a p99.
    pub(crate) fn window(&self, usual: Duration) -> Duration {
        usual.max(self.gap * self.least / u32::try_from(self.connections).unwrap_or(u32::MAX))
    }

    /// Over how long the connections are opened: thousands at once would be a load of their own.
    pub(crate) fn ramp(&self) -> Duration {
        if self.held {
            Duration::from_millis(self.connections as u64 / 2)
        } else {
            self.gap
        }
    }
}

// === impl Figure ===

impl Figure {
    /// Its name in a table.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::CpuPerFrame => "CPU a frame",
            Self::CpuPerRequest => "CPU a request",
            Self::AddedTtft => "added TTFT p50",
            Self::MemoryPerStream => "memory a stream",
        }
    }
}

// === impl Exchange ===

impl Exchange {
    fn new(stream: bool, tokens: u32, prompt: usize) -> Self {
        let text = "lorem ipsum ".repeat(prompt / 12 + 1);
        let text = &text[..prompt];
        let body = format!(
            r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"{text}"}}],"max_tokens":{tokens},"stream":{stream}}}"#
        );
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: vllm\r\nuser-agent: loadtest\r\naccept: */*\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self {
            request: request.into_bytes().into(),
            script: Rc::new(Script::of(MODEL, stream, tokens)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_requests_well_formed() {
        let all = Scenario::all(false);
        let mut names: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
        names.dedup();
        assert_eq!(names.len(), all.len());
        for scenario in &all {
            let request = &scenario.exchange(3, 1).request;
            let body = memchr::memmem::find(request, b"\r\n\r\n").unwrap() + 4;
            serde_json::from_slice::<serde_json::Value>(&request[body..]).unwrap();
        }
    }

    #[test]
    fn few_streams_are_measured_for_longer() {
        let all = Scenario::all(false);
        let window = |name: &str| {
            let scenario = all.iter().find(|scenario| scenario.name == name).unwrap();
            scenario.window(Duration::from_secs(4)).as_secs_f64()
        };
        // 400 frames at 40 a second.
        assert_eq!(window("streams-10"), 10.0);
        for name in ["streams-100", "streams-9000", "paced", "full"] {
            assert_eq!(window(name), 4.0, "{name}");
        }
    }
}
