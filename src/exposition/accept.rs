//! What a scraper takes: `Accept` and `Accept-Encoding`.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use super::Format;

/// OpenMetrics if it is asked for by name and liked no less than text. Nothing that can be had is no reason to fail: then
/// it is text.
#[must_use]
pub fn format(headers: &HeaderMap) -> Format {
    // Of ranges that fit the most exact one counts, whatever the others say.
    let mut text: Option<(u8, u16)> = None;
    let mut open_metrics = 0;
    for range in ranges(headers, &ACCEPT) {
        let exactness = match (range.name.as_str(), range.version.as_deref()) {
            ("application/openmetrics-text", None | Some("1.0.0")) => {
                open_metrics = open_metrics.max(range.q);
                continue;
            }
            ("text/plain", Some("0.0.4")) => 4,
            ("text/plain", None) => 3,
            ("text/*", None) => 2,
            ("*/*", None) => 1,
            _ => continue,
        };
        if text.is_none_or(|(best, _)| exactness > best) {
            text = Some((exactness, range.q));
        }
    }
    if open_metrics > 0 && open_metrics >= text.map_or(0, |(_, q)| q) {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// Whether gzip is asked for, and liked no less than no encoding.
#[must_use]
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for range in ranges(headers, &ACCEPT_ENCODING) {
        match range.name.as_str() {
            "gzip" | "x-gzip" => gzip = Some(range.q),
            "*" => any = Some(range.q),
            "identity" => identity = Some(range.q),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// One of the alternatives of a header.
struct Range {
    name: String,
    version: Option<String>,
    /// In thousandths.
    q: u16,
}

fn ranges(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = Range> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next()?.to_ascii_lowercase();
            let mut range = Range {
                name,
                version: None,
                q: 1000,
            };
            // Some end in a semicolon.
            for parameter in parts.filter(|part| !part.is_empty()) {
                let (key, value) = parameter.split_once('=')?;
                let value = value.trim().trim_matches('"');
                match key.trim().to_ascii_lowercase().as_str() {
                    "version" => range.version = Some(value.to_owned()),
                    "q" => range.q = thousandths(value)?,
                    _ => {}
                }
            }
            Some(range)
        })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to 1000"
)]
fn thousandths(q: &str) -> Option<u16> {
    let q: f64 = q.parse().ok()?;
    (0.0..=1.0)
        .contains(&q)
        .then(|| (q * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        for (accept, format) in [
            ("*/*", Format::Text),
            ("", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text ; version=1.0.0 ; ; q=0.5 ;, text/plain;q=0.4",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text; version=0.0.1", Format::Text),
            (
                "application/openmetrics-text;q=0.5,text/plain;q=0.6",
                Format::Text,
            ),
            (
                "application/openmetrics-text;q=0.5,text/plain;q=0.3,*/*;q=0.9",
                Format::OpenMetrics,
            ),
            // Prometheus 2.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            // Prometheus 3.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            // With scrape_protocols: PrometheusText0.0.4 alone.
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.4", Format::Text),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::Text,
            ),
        ] {
            assert_eq!(super::format(&headers(ACCEPT, accept)), format, "{accept}");
        }
        assert_eq!(super::format(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        for (accept, takes) in [
            ("gzip", true),
            ("gzip, deflate, br", true),
            ("GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0, *", false),
            ("gzip;q=0.2, identity;q=0.8", false),
            ("deflate", false),
            ("", false),
        ] {
            assert_eq!(
                takes_gzip(&headers(ACCEPT_ENCODING, accept)),
                takes,
                "{accept}"
            );
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
