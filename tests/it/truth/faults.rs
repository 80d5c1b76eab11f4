//! What goes wrong in the traffic that the counts are checked with.

/// Quick, but not a burst.
pub const PACE: &str = r#""ttft_ms":10,"itl_ms":5"#;

/// Every fault, and every shape of error, with its share in percent. `after` is never 2: the two choices of `n` = 2
/// may or may not come in one read. (`bad_chunk` strikes at once only: see
/// `frames_in_front_of_a_bad_chunk_arrive`.)
const FAULTS: &[(u32, &str)] = &[
    (
        1,
        r#""fault":{"kind":"http","status":400,"message":"no such parameter"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":400,"shape":"flat","message":"This model's maximum context length is 8 tokens."}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":401,"shape":"string","message":"Unauthorized"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":403,"shape":"detail","message":"Forbidden"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":404,"type":"NotFoundError","message":"The model `big` does not exist."}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":404,"shape":"detail","message":"Not Found"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":413,"message":"too large"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":418,"shape":"flat","message":"a teapot"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":422,"shape":"detail","message":"no"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":429,"shape":"anthropic","message":"slower"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":500,"message":"boom"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":500,"message":"EngineCore encountered an issue. See stack trace (above) for the root cause."}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":501,"message":"not here"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":502,"shape":"detail","message":"bad gateway"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"http","status":503,"shape":"string","message":"the model is scaling"}"#,
    ),
    (
        2,
        r#""fault":{"kind":"error_frame","after":3,"message":"boom"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"error_frame","after":0,"code":503,"message":"too busy"}"#,
    ),
    (
        1,
        r#""fault":{"kind":"error_frame","after":1,"message":"EngineCore encountered an issue. See stack trace"}"#,
    ),
    (2, r#""fault":{"kind":"cut_mid_frame","after":3}"#),
    (1, r#""fault":{"kind":"cut_mid_frame","after":0}"#),
    (2, r#""fault":{"kind":"cut_no_done","after":3}"#),
    (2, r#""fault":{"kind":"cut_no_done","after":99}"#),
    (2, r#""fault":{"kind":"truncate","after":3}"#),
    (1, r#""fault":{"kind":"truncate","after":0}"#),
    (2, r#""fault":{"kind":"stall","after":3}"#),
    (1, r#""fault":{"kind":"stall","after":0}"#),
    (2, r#""fault":{"kind":"stall","after":3,"ms":400}"#),
    (1, r#""fault":{"kind":"reset"}"#),
    (1, r#""fault":{"kind":"reset","after":0}"#),
    (2, r#""fault":{"kind":"reset","after":3}"#),
    (2, r#""fault":{"kind":"slow_head","ms":150}"#),
    (2, r#""fault":{"kind":"close_before_head"}"#),
    (3, r#""fault":{"kind":"idle_close_race"}"#),
    (3, r#""fault":{"kind":"bad_chunk","after":0}"#),
    (2, r#""fault":{"kind":"short_body"}"#),
    (3, r#""keepalive_comment_ms":7"#),
    (3, r#""split":"bytes""#),
    (3, r#""split":"random""#),
    (3, r#""split":"coalesce""#),
    (3, r#""split":{"every":7},"crlf":true"#),
    (3, r#""reasoning_tokens":4"#),
    (
        2,
        r#""reasoning_tokens":99,"reasoning_field":"reasoning_content""#,
    ),
    (2, r#""rust_frontend":true"#),
    (2, r#""close":true"#),
    (1, r#""output_tokens":0"#),
];

/// The `x-sim` header of each fault with its share; what is left goes without a fault.
pub fn directives(pace: &str) -> Vec<(f64, String)> {
    FAULTS
        .iter()
        .map(|(percent, json)| (f64::from(*percent) / 100.0, format!("{{{pace},{json}}}")))
        .chain([(1.0, format!("{{{pace}}}"))])
        .collect()
}
