//! A strict reader of both text formats: what a scraper would refuse, or count twice, is an error.

use std::collections::{HashMap, HashSet};

type Labels = Vec<(String, String)>;

/// One family as it was shown.
#[derive(Debug)]
pub struct Family {
    pub name: String,
    pub kind: String,
    pub help: Option<String>,
    pub samples: Vec<Sample>,
}

#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> Option<&str> {
        let mut all = self.labels.iter();
        all.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// What tells it from others, without `without`.
    fn identity(&self, without: Option<&str>) -> Labels {
        let mut labels: Vec<_> = self
            .labels
            .iter()
            .filter(|(name, value)| Some(name.as_str()) != without && !value.is_empty())
            .map(|(name, value)| match value.parse::<f64>() {
                Ok(edge) if matches!(name.as_str(), "le" | "quantile") => {
                    (name.clone(), edge.to_string())
                }
                _ => (name.clone(), value.clone()),
            })
            .collect();
        labels.sort();
        labels
    }
}

/// Reads an exposition of one of the two formats.
pub fn parse(text: &str, open_metrics: bool) -> Result<Vec<Family>, String> {
    let body = if open_metrics {
        text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?
    } else {
        text
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let mut families: Vec<Family> = Vec::new();
    let mut open: Option<(Family, bool)> = None;
    for line in body.split_terminator('\n') {
        let wrong = |what: &str| format!("{what}: {line:?}");
        if line.contains('\0') {
            return Err(wrong("a NUL"));
        }
        if let Some(rest) = line.strip_prefix("# ") {
            let (keyword, rest) = rest.split_once(' ').ok_or_else(|| wrong("no keyword"))?;
            let (name, text) = match rest.split_once(' ') {
                Some(parts) => parts,
                None if keyword == "HELP" => (rest, ""),
                None => return Err(wrong("no type")),
            };
            if !is_name(name, true) {
                return Err(wrong("no name"));
            }
            if open.as_ref().is_none_or(|(family, _)| family.name != name) {
                families.extend(open.take().map(|(family, _)| family));
                let family = Family {
                    name: name.to_owned(),
                    kind: String::new(),
                    help: None,
                    samples: Vec::new(),
                };
                open = Some((family, false));
            }
            let Some((family, begun)) = &mut open else {
                unreachable!()
            };
            if *begun {
                return Err(wrong("behind samples"));
            }
            match keyword {
                "HELP" if family.help.is_none() => {
                    check_escapes(text, open_metrics).map_err(|e| wrong(&e))?;
                    family.help = Some(text.to_owned());
                }
                "TYPE" if family.kind.is_empty() => {
                    let known: &[&str] = if open_metrics {
                        &["counter", "gauge", "histogram", "summary", "unknown"]
                    } else {
                        &["counter", "gauge", "histogram", "summary", "untyped"]
                    };
                    if !known.contains(&text) {
                        return Err(wrong("no type"));
                    }
                    text.clone_into(&mut family.kind);
                }
                _ => return Err(wrong("twice, or not known")),
            }
            continue;
        }
        let sample = sample(line, open_metrics).map_err(|e| wrong(&e))?;
        let Some((family, begun)) = &mut open else {
            return Err(wrong("no family"));
        };
        if family.kind.is_empty() || !belongs(&sample, family, open_metrics) {
            return Err(wrong(&format!(
                "not of family {} ({})",
                family.name, family.kind
            )));
        }
        *begun = true;
        family.samples.push(sample);
    }
    families.extend(open.map(|(family, _)| family));
    check(&families, open_metrics)?;
    Ok(families)
}

fn belongs(sample: &Sample, family: &Family, open_metrics: bool) -> bool {
    let Some(suffix) = sample.name.strip_prefix(&family.name) else {
        return false;
    };
    let edge = |name| sample.label(name).is_some_and(|v| v.parse::<f64>().is_ok());
    match (family.kind.as_str(), suffix) {
        ("counter", "_total") => open_metrics,
        ("counter", "") => !open_metrics,
        ("gauge" | "untyped" | "unknown", "") => true,
        ("histogram", "_bucket") => edge("le"),
        ("summary", "") => edge("quantile"),
        ("histogram" | "summary", "_sum" | "_count") => true,
        _ => false,
    }
}

fn check(families: &[Family], open_metrics: bool) -> Result<(), String> {
    let mut names: HashMap<String, &str> = HashMap::new();
    let mut series = HashSet::new();
    for family in families {
        if family.kind.is_empty() {
            return Err(format!("{} has no type", family.name));
        }
        let suffixes: &[&str] = match (family.kind.as_str(), open_metrics) {
            ("counter", true) => &["", "_total", "_created"],
            ("histogram", false) => &["", "_bucket", "_sum", "_count"],
            ("histogram", true) => &["", "_bucket", "_sum", "_count", "_created"],
            ("summary", false) => &["", "_sum", "_count"],
            ("summary", true) => &["", "_sum", "_count", "_created"],
            _ => &[""],
        };
        for suffix in suffixes {
            let name = format!("{}{suffix}", family.name);
            if let Some(other) = names.insert(name.clone(), &family.name) {
                return Err(format!("{name} is of {} and of {other}", family.name));
            }
        }
        for sample in &family.samples {
            if !series.insert((&sample.name, sample.identity(None))) {
                return Err(format!("twice: {sample:?}"));
            }
        }
        if open_metrics {
            strict(family)?;
        }
    }
    Ok(())
}

/// What only OpenMetrics demands.
fn strict(family: &Family) -> Result<(), String> {
    let mut done = HashSet::new();
    let mut groups: Vec<(Labels, Vec<&Sample>)> = Vec::new();
    let edge = match family.kind.as_str() {
        "histogram" => Some("le"),
        "summary" => Some("quantile"),
        "counter" => {
            let bad = family
                .samples
                .iter()
                .find(|s| s.value.is_nan() || s.value < 0.0);
            return bad.map_or(Ok(()), |s| Err(format!("no count: {s:?}")));
        }
        _ => return Ok(()),
    };
    for sample in &family.samples {
        let identity = sample.identity(edge);
        match groups.last_mut() {
            Some((last, samples)) if *last == identity => samples.push(sample),
            _ => {
                if !done.insert(identity.clone()) {
                    return Err(format!("in pieces: {sample:?}"));
                }
                groups.push((identity, vec![sample]));
            }
        }
    }
    for (_, samples) in groups {
        let find = |suffix: &str| {
            let name = format!("{}{suffix}", family.name);
            samples.iter().find(|s| s.name == name).map(|s| s.value)
        };
        if family.kind == "summary" {
            continue;
        }
        let buckets: Vec<(f64, f64)> = samples
            .iter()
            .filter(|s| s.name.ends_with("_bucket"))
            .map(|s| (s.label("le").unwrap().parse().unwrap(), s.value))
            .collect();
        let rising = buckets
            .windows(2)
            .all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
        let last = buckets
            .last()
            .ok_or_else(|| format!("{} has no buckets", family.name))?;
        if !rising || last.0 != f64::INFINITY {
            return Err(format!("buckets of {}: {buckets:?}", family.name));
        }
        if find("_count").is_some_and(|count| count != last.1) {
            return Err(format!("count of {}", family.name));
        }
        if find("_count").is_some() != find("_sum").is_some() {
            return Err(format!("sum of {}", family.name));
        }
    }
    Ok(())
}

fn sample(line: &str, open_metrics: bool) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err("no name".to_owned());
    }
    let mut labels: Labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (name, behind) = rest.split_once("=\"").ok_or("no label")?;
            if !is_name(name, false) || labels.iter().any(|(other, _)| other == name) {
                return Err(format!("label {name:?}"));
            }
            let mut escaped = false;
            let end = behind
                .bytes()
                .position(|byte| {
                    let quote = byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                    quote
                })
                .ok_or("no second quote")?;
            check_escapes(&behind[..end], true)?;
            labels.push((name.to_owned(), behind[..end].to_owned()));
            rest = &behind[end + 1..];
            match rest.as_bytes().first() {
                Some(b',') => rest = &rest[1..],
                Some(b'}') => break,
                _ => return Err("labels do not end".to_owned()),
            }
        }
        rest = &rest[1..];
    }
    let rest = rest.strip_prefix(' ').ok_or("no blank")?;
    let mut words = rest.split(' ');
    let value = words.next().ok_or("no value")?;
    let time = words.next();
    if words.next().is_some() {
        return Err("more than a value and a time".to_owned());
    }
    // Seconds in one, whole milliseconds in the other, where Prometheus 3 refuses a sign.
    let digits = |time: &str| time.bytes().all(|byte| byte.is_ascii_digit());
    let valid = |time: &str| open_metrics || digits(time) && time.parse::<i64>().is_ok();
    if !time.is_none_or(valid) || time.is_some_and(|time| time.parse::<f64>().is_err()) {
        return Err("no time".to_owned());
    }
    if !go_reads(value) {
        return Err(format!("Go does not read {value}"));
    }
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().map_err(|_| "no number")?,
    })
}

/// Whether Prometheus takes it for a number: what Go's `ParseFloat` takes but for underscores and hexadecimals.
pub fn go_reads(number: &str) -> bool {
    let lower = number.to_ascii_lowercase();
    let plain = lower.strip_prefix(['+', '-']).unwrap_or(&lower);
    if lower == "nan" || plain == "inf" || plain == "infinity" {
        return true;
    }
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (front, exponent) = plain.split_once('e').unwrap_or((plain, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, fraction) = front.split_once('.').unwrap_or((front, ""));
    digits(whole)
        && digits(fraction)
        && digits(exponent)
        && !exponent.is_empty()
        && !(whole.is_empty() && fraction.is_empty())
        // Too large is an error there, not infinity.
        && number.parse().is_ok_and(f64::is_finite)
}

fn is_name(name: &str, colons: bool) -> bool {
    let mut bytes = name.bytes();
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_' || (colons && b == b':');
    bytes.next().is_some_and(first) && bytes.all(|b| first(b) || b.is_ascii_digit())
}

fn check_escapes(text: &str, quotes: bool) -> Result<(), String> {
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\\' {
            match rest.next() {
                Some('\\' | 'n') => {}
                Some('"') if quotes => {}
                other => return Err(format!("escape {other:?}")),
            }
        }
    }
    Ok(())
}
