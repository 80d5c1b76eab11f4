//! What is counted.

use crate::proxied::Between;
use crate::{observed, proxied, scraped};

/// Something that can be done any number of times.
pub(crate) struct Scenario {
    /// Its name in the budget.
    pub(crate) name: &'static str,
    /// What it is counted per.
    pub(crate) unit: &'static str,
    /// It is done so many times, and then so many: what a start costs falls out of the difference.
    pub(crate) sizes: (usize, usize),
    /// Does it.
    pub(crate) run: fn(usize),
}

const CHAT: &str = "/v1/chat/completions";
const FRAMES: (usize, usize) = (200, 1200);
const REQUESTS: (usize, usize) = (20, 120);
const SCRAPES: (usize, usize) = (2, 6);

/// All of them, the whole path first.
pub(crate) fn all() -> Vec<Scenario> {
    use Between::{Blind, Nothing, Observing, Sharing};
    let scenario = |unit, sizes| {
        move |name, run| Scenario {
            name,
            unit,
            sizes,
            run,
        }
    };
    let frame = scenario("frame", FRAMES);
    let request = scenario("request", REQUESTS);
    let scrape = scenario("scrape", SCRAPES);
    vec![
        frame("proxy-frame", |n| proxied::stream(Observing, n)),
        frame("proxy-frame-blind", |n| proxied::stream(Blind, n)),
        frame("peers-frame", |n| proxied::stream(Nothing, n)),
        request("proxy-json", |n| {
            proxied::requests(Observing, "chat-nonstream", n);
        }),
        request("proxy-json-blind", |n| {
            proxied::requests(Blind, "chat-nonstream", n);
        }),
        request("gateway-json", |n| {
            proxied::requests(Sharing, "chat-nonstream", n);
        }),
        request("peers-json", |n| {
            proxied::requests(Nothing, "chat-nonstream", n);
        }),
        request("proxy-stream", |n| {
            proxied::requests(Observing, "chat-stream-usage", n);
        }),
        frame("observe-chat", |n| {
            observed::stream(CHAT, "chat-stream-usage", observed::TEXT, n);
        }),
        frame("observe-chat-usage", |n| {
            observed::stream(CHAT, "chat-stream-usage-continuous", observed::TEXT, n);
        }),
        frame("observe-chat-logprobs", |n| {
            observed::stream(CHAT, "chat-stream-logprobs", observed::TEXT, n);
        }),
        frame("observe-chat-tools", |n| {
            observed::stream(CHAT, "tools2-named-stream", "\"arguments\":", n);
        }),
        frame("observe-chat-text", observed::kept_text),
        frame("observe-completions", |n| {
            observed::stream("/v1/completions", "completions-stream", "\"text\":", n);
        }),
        frame("observe-responses", |n| {
            observed::stream("/v1/responses", "responses-stream", "text.delta", n);
        }),
        frame("observe-messages", |n| {
            observed::stream("/v1/messages", "messages-stream", "\"text_delta\"", n);
        }),
        frame("observe-joined", |n| observed::reads(8192, n)),
        frame("observe-cut", |n| observed::reads(100, n)),
        request("record-json", |n| {
            observed::requests(CHAT, "chat-nonstream", n);
        }),
        request("record-stream", |n| {
            observed::requests(CHAT, "chat-stream-usage", n);
        }),
        request("record-error", |n| {
            observed::requests(CHAT, "err-model404", n);
        }),
        request("prompt-100k", observed::prompts),
        scrape("render", |n| scraped::rendered(false, n)),
        scrape("render-gzip", |n| scraped::rendered(true, n)),
        scrape("engine-read", scraped::read),
    ]
}
