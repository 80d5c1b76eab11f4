//! Shorter durations, and not one other byte: the rules and the routing of a drill are the shipped ones in a hurry.
//!
//! The text is rewritten where it stands instead of being parsed and written anew, so that what was not meant to change
//! cannot.

use super::promql;

/// How much shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale(pub(crate) f64);

/// What a duration is for: each has a length below which it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A range, an offset, the horizon of a forecast: several scrapes, or there is no rate.
    Window,
    /// An age in seconds that an expression compares: more than scrape and evaluation take.
    Age,
    /// `for`, `interval`, `group_wait` and the like: one evaluation.
    Wait,
}

/// Up to here durations are divided. Beyond it they grow with the power below: in proportion a window of 3 days would take
/// an hour to resolve when 5 minutes take 6 seconds, and the order of the windows is all that matters here.
const KNEE: f64 = 300.0;
const POWER: f64 = 0.4;
/// Keys of rule files and of Alertmanager's configuration whose value is a duration.
const WAITS: [&str; 7] = [
    "for",
    "keep_firing_for",
    "interval",
    "group_wait",
    "group_interval",
    "repeat_interval",
    "resolve_timeout",
];

// === impl Scale ===

impl Scale {
    /// A rule file with its durations shortened.
    pub(crate) fn rules(self, text: &str) -> String {
        rewrite(text, &mut |kind, token| self.shorten(kind, token))
    }

    /// Alertmanager's configuration with its durations shortened and each receiver's address at `sink`, one path each.
    pub(crate) fn routing(self, text: &str, sink: &str) -> String {
        let text = rewrite(text, &mut |kind, token| self.shorten(kind, token));
        let mut receiver = String::new();
        let lines = text.lines().map(|line| {
            let value = line.trim_start().trim_start_matches("- ");
            if let Some(name) = value.strip_prefix("name: ") {
                receiver = name.trim_matches('"').to_owned();
            }
            match value.strip_prefix("url: ") {
                Some(url) if !line.starts_with('#') => {
                    line.replace(url, &format!("\"{sink}/{receiver}\""))
                }
                _ => line.to_owned(),
            }
        });
        lines.map(|line| line + "\n").collect()
    }

    fn shorten(self, kind: Kind, token: &str) -> String {
        // A copy of the same speed is the same text.
        if self.0 <= 1.0 {
            return token.to_owned();
        }
        let Some(seconds) = seconds(token) else {
            return token.to_owned();
        };
        let short = self.seconds(kind, seconds);
        if token.ends_with(|c: char| c.is_ascii_digit()) {
            return format!("{short}");
        }
        format!("{}ms", (short * 1e3).round())
    }

    fn seconds(self, kind: Kind, seconds: f64) -> f64 {
        let least = match kind {
            Kind::Window => 5.0,
            Kind::Age => 8.0,
            Kind::Wait => 1.0,
        };
        let linear = seconds.min(KNEE) / self.0;
        let short = linear * (seconds.max(KNEE) / KNEE).powf(POWER);
        // In milliseconds, so that a number and a duration of the same length stay the same.
        let short = (short * 1e3).round() / 1e3;
        short.max(least).min(seconds)
    }
}

/// `text` with each duration replaced by what `replace` makes of it.
pub(crate) fn rewrite(text: &str, replace: &mut dyn FnMut(Kind, &str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    // The indent of the `expr` whose block is being read, and the block, which is read as a whole.
    let mut block: Option<(usize, String)> = None;
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches([' ', '-']).len();
        if let Some((outer, lines)) = &mut block {
            if indent > *outer || line.trim().is_empty() {
                lines.push_str(line);
                continue;
            }
            out.push_str(&promql::rewrite(lines, replace));
            block = None;
        }
        let rest = &line[indent..];
        let Some((key, value)) = rest.split_once(": ").filter(|_| !line.starts_with('#')) else {
            out.push_str(line);
            continue;
        };
        out.push_str(&line[..indent + key.len() + 2]);
        if key == "expr" && value.starts_with('|') {
            block = Some((indent, String::new()));
            out.push_str(value);
        } else if key == "expr" {
            out.push_str(&quoted(value, replace));
        } else if WAITS.contains(&key) {
            let token = value.trim_end();
            out.push_str(&replace(Kind::Wait, token));
            out.push_str(&value[token.len()..]);
        } else {
            out.push_str(value);
        }
    }
    if let Some((_, lines)) = block {
        out.push_str(&promql::rewrite(&lines, replace));
    }
    out
}

/// An expression on the key's line. Double quotes around all of it are YAML's, and those within are escaped.
fn quoted(value: &str, replace: &mut dyn FnMut(Kind, &str) -> String) -> String {
    let Some(inner) = value
        .trim_end()
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return promql::rewrite(value, replace);
    };
    let end = &value[inner.len() + 2..];
    format!("\"{}\"{end}", promql::rewrite(inner, replace))
}

/// Seconds of `1h30m`, `500ms` or a plain number.
pub(crate) fn seconds(token: &str) -> Option<f64> {
    let mut rest = token;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, tail) = rest.split_at(end.unwrap_or(rest.len()));
        let unit = tail.find(|c: char| c.is_ascii_digit());
        let (unit, tail) = tail.split_at(unit.unwrap_or(tail.len()));
        let one = match unit {
            "ms" => 1e-3,
            "s" | "" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "y" => 31_536_000.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * one;
        rest = tail;
    }
    (!token.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The shipped files, each with its name.
    fn shipped() -> Vec<(String, String)> {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules");
        let files = std::fs::read_dir(rules).unwrap();
        let texts = files.map(|file| {
            let path = file.unwrap().path();
            (
                path.display().to_string(),
                std::fs::read_to_string(path).unwrap(),
            )
        });
        texts.collect()
    }

    /// Without what may be a duration or a number, by other means than those under test.
    fn bare(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let word = rest[..at]
                .ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.'));
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_')));
            let (token, tail) = rest.split_at(end.unwrap_or(rest.len()));
            out.push_str(if word || seconds(token).is_none() {
                token
            } else {
                "#"
            });
            rest = tail;
        }
        out + rest
    }

    #[test]
    fn at_full_length_the_copy_is_the_original() {
        let files = shipped();
        assert!(files.len() >= 5);
        for (name, text) in files {
            assert!(Scale(1.0).rules(&text) == text, "{name}");
        }
    }

    #[test]
    fn nothing_but_durations_changes() {
        for (name, text) in shipped() {
            let copy = Scale(50.0).rules(&text);
            assert_ne!(copy, text, "{name}");
            assert_eq!(bare(&copy), bare(&text), "{name}");
            let without = |text: &str| rewrite(text, &mut |_, _| "_".to_owned());
            assert_eq!(without(&copy), without(&text), "{name}");
            for (old, new) in text.lines().zip(copy.lines()) {
                let about = ["record:", "window:", "description:", "summary:", "alert:"];
                if about.iter().any(|key| old.contains(key)) {
                    assert_eq!(old, new);
                }
            }
        }
    }

    #[test]
    fn expressions_blocks_and_keys() {
        let text = concat!(
            "groups:\n  - name: a\n    interval: 1m\n    rules:\n",
            "      - record: \"m:x:rate5m\"\n        expr: |-\n          sum(rate(a{b=\"[5m]\"}[5m]))\n",
            "          or m:x:rate5m offset 10m\n        labels:\n          window: 5m\n",
            "      - alert: A\n        expr: \"min by (xid) (time() - x{i=\\\"300\\\"} < 600)\"\n        for: 5m\n",
        );
        let copy = Scale(50.0).rules(text);
        let expected = concat!(
            "groups:\n  - name: a\n    interval: 1200ms\n    rules:\n",
            "      - record: \"m:x:rate5m\"\n        expr: |-\n          sum(rate(a{b=\"[5m]\"}[6000ms]))\n",
            "          or m:x:rate5m offset 7917ms\n        labels:\n          window: 5m\n",
            "      - alert: A\n        expr: \"min by (xid) (time() - x{i=\\\"300\\\"} < 8)\"\n        for: 6000ms\n",
        );
        assert_eq!(copy, expected);
    }

    #[test]
    fn longer_stays_longer() {
        let all = ["30s", "1m", "2m", "5m", "10m", "30m", "1h", "6h", "3d"];
        let short = all.map(|token| Scale(50.0).seconds(Kind::Wait, seconds(token).unwrap()));
        assert!(short.windows(2).all(|pair| pair[0] < pair[1]), "{short:?}");
        assert!(short[8] < 90.0, "{short:?}");
        assert_eq!(Scale(50.0).seconds(Kind::Window, 60.0), 5.0);
        assert_eq!(Scale(50.0).seconds(Kind::Window, 2.0), 2.0);
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("500ms"), Some(0.5));
        assert_eq!(seconds("2.5"), Some(2.5));
        assert_eq!(seconds("5x"), None);
        assert_eq!(seconds(""), None);
    }

    #[test]
    fn receivers_are_turned_to_the_sink() {
        let text = concat!(
            "global:\n  resolve_timeout: 5m\nroute:\n  group_wait: 30s\nreceivers:\n  - name: default\n",
            "    webhook_configs:\n      - url: \"http://a/b\"\n        send_resolved: true\n",
            "#      - url: \"http://c\"\n  - name: critical\n    webhook_configs:\n      - url: \"http://a/b\"\n",
        );
        let copy = Scale(50.0).routing(text, "http://sink");
        let expected = text
            .replacen("\"http://a/b\"", "\"http://sink/default\"", 1)
            .replacen("\"http://a/b\"", "\"http://sink/critical\"", 1)
            .replace("5m", "6000ms")
            .replace("30s", "1000ms");
        assert_eq!(copy, expected);
    }
}
