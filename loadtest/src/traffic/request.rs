//! Requests, drawn from a mix.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::record::Cancel;
use super::{Mix, Plan};

/// A request to send.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) endpoint: &'static str,
    pub(crate) stream: bool,
    pub(crate) usage: bool,
    pub(crate) tools: bool,
    pub(crate) n: u32,
    pub(crate) directive: Option<String>,
    pub(crate) cancel: Option<Cancel>,
    /// Token frames to see before leaving in the middle.
    pub(crate) cancel_after: u32,
    pub(crate) bytes: Vec<u8>,
}

const TOOLS: &str = r#","tools":[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}}]"#;

// === impl Request ===

impl Request {
    /// The `number`th request of `plan`: the same for the same seed, whatever the others do.
    pub(crate) fn draw(plan: &Plan, number: u64) -> Self {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ plan.seed;
        let rng = &mut StdRng::seed_from_u64(mixed);
        let mix = &plan.mix;
        let stream = chance(rng, mix.stream);
        let chat = !chance(rng, mix.completions);
        let endpoint = if chat {
            "/v1/chat/completions"
        } else {
            "/v1/completions"
        };
        let mut request = Self {
            id: format!("{}-{number}", plan.id_prefix),
            endpoint,
            stream,
            usage: stream && chance(rng, mix.usage),
            tools: chat && chance(rng, mix.tools),
            n: if chance(rng, mix.n2) { 2 } else { 1 },
            directive: draw_weighted(rng, &plan.directives),
            cancel: draw_cancel(rng, mix, stream),
            cancel_after: rng.random_range(1..=4),
            bytes: Vec::new(),
        };
        let continuous = request.usage && chance(rng, mix.continuous);
        let body = request.body(mix, continuous, rng);
        request.bytes = request.encode(plan, &body);
        request
    }

    fn body(&self, mix: &Mix, continuous: bool, rng: &mut StdRng) -> String {
        let model = match mix.models.len() {
            0 => "tiny",
            len => &mix.models[rng.random_range(0..len)],
        };
        let max = mix.max_tokens.count(rng).max(1);
        let mut words = "lorem ipsum ".repeat(rng.random_range(1..40));
        if let Some(bytes) = &mix.prompt_bytes {
            let bytes = bytes.count(rng) as usize;
            words = "lorem ipsum ".repeat(bytes / 12 + 1);
            words.truncate(bytes);
        }
        let input = if self.endpoint == "/v1/chat/completions" {
            format!(r#""messages":[{{"role":"user","content":"{words}"}}]"#)
        } else {
            format!(r#""prompt":"{words}""#)
        };
        let n = if self.n > 1 { r#","n":2"# } else { "" };
        let tools = if self.tools { TOOLS } else { "" };
        let stream = match (self.stream, self.usage, continuous) {
            (false, ..) => "",
            (true, false, _) => r#","stream":true"#,
            (true, true, false) => r#","stream":true,"stream_options":{"include_usage":true}"#,
            (true, true, true) => {
                r#","stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}"#
            }
        };
        format!(r#"{{"model":"{model}",{input},"max_tokens":{max}{n}{tools}{stream}}}"#)
    }

    fn encode(&self, plan: &Plan, body: &str) -> Vec<u8> {
        let (endpoint, id, len) = (self.endpoint, &self.id, body.len());
        let mut head = format!(
            "POST {endpoint} HTTP/1.1\r\nhost: loadtest\r\ncontent-type: application/json\r\ncontent-length: {len}\r\nx-request-id: {id}\r\n"
        );
        for (name, value) in &plan.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(directive) = &self.directive {
            head.push_str(&format!("x-sim: {directive}\r\n"));
        }
        if !plan.keep_alive {
            head.push_str("connection: close\r\n");
        }
        format!("{head}\r\n{body}").into_bytes()
    }
}

fn chance(rng: &mut StdRng, share: f64) -> bool {
    rng.random::<f64>() < share
}

/// The weights of directives are shares of all requests; what is left goes without.
fn draw_weighted(rng: &mut StdRng, weighted: &[(f64, String)]) -> Option<String> {
    let mut dice: f64 = rng.random();
    let hit = weighted.iter().find(|(share, _)| {
        dice -= share;
        dice < 0.0
    });
    hit.map(|(_, directive)| directive.clone())
}

fn draw_cancel(rng: &mut StdRng, mix: &Mix, stream: bool) -> Option<Cancel> {
    let mut dice: f64 = rng.random();
    let shares = [
        (mix.cancel_before_head, Cancel::BeforeHead),
        (mix.cancel_before_token, Cancel::BeforeFirstToken),
        (mix.cancel_mid_stream, Cancel::MidStream),
        (mix.cancel_after_done, Cancel::AfterDone),
    ];
    let hit = shares.into_iter().find(|(share, _)| {
        dice -= share;
        dice < 0.0
    });
    // A body that is no stream can be left only before its head.
    hit.map(|(_, cancel)| if stream { cancel } else { Cancel::BeforeHead })
}
