//! Where in a PromQL expression a duration stands: in brackets, behind `offset`, as `predict_linear`'s second argument,
//! and as a number that something with `time()` is compared with.

use super::scale::Kind;

/// What is known at a place of the text.
#[derive(Default)]
struct State {
    /// Open parentheses, each with whether it is `predict_linear`'s.
    open: Vec<bool>,
    /// Within `[…]`.
    range: bool,
    /// `predict_linear` has just been read.
    forecast: bool,
    /// `offset` has just been read.
    offset: bool,
    /// `time()` stands on this side of the comparison.
    clock: bool,
    /// The number behind the comparison is an age.
    age: bool,
    /// The number behind the comma is a horizon.
    horizon: bool,
}

/// `text`, an expression or lines of one, with each duration replaced.
pub(crate) fn rewrite(text: &str, replace: &mut dyn FnMut(Kind, &str) -> String) -> String {
    let (mut out, mut state) = (String::with_capacity(text.len()), State::default());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        // Within a range a colon stands between its length and its step, and begins no name.
        let len = if state.range && first == ':' {
            1
        } else {
            token(rest, first)
        };
        let (word, tail) = rest.split_at(len);
        let kind = if first.is_ascii_digit() {
            state.number()
        } else {
            state.sees(word);
            None
        };
        match kind {
            Some(kind) => out.push_str(&replace(kind, word)),
            None => out.push_str(word),
        }
        rest = tail;
    }
    out
}

/// The length of the token at the start of `rest`.
fn token(rest: &str, first: char) -> usize {
    let while_in = |allowed: fn(char) -> bool| rest.find(|c| !allowed(c)).unwrap_or(rest.len());
    match first {
        '"' => string(rest, "\""),
        '\\' if rest.starts_with("\\\"") => string(rest, "\\\""),
        'a'..='z' | 'A'..='Z' | '_' | ':' => {
            while_in(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
        }
        '0'..='9' => while_in(|c| c.is_ascii_alphanumeric() || c == '.'),
        ' ' | '\n' => while_in(|c| matches!(c, ' ' | '\n')),
        _ => first.len_utf8(),
    }
}

/// The length of a string in these quotes; a `\` takes what follows along unless it begins the closing quote.
fn string(rest: &str, quote: &str) -> usize {
    let mut at = quote.len();
    while at < rest.len() {
        if rest[at..].starts_with(quote) {
            return at + quote.len();
        }
        let mut chars = rest[at..].chars();
        let first = chars.next().map_or(0, char::len_utf8);
        let escaped = rest[at..].starts_with('\\');
        at += first;
        if escaped {
            at += chars.next().map_or(0, char::len_utf8);
        }
    }
    rest.len()
}

// === impl State ===

impl State {
    /// What the number or duration at this place is, if it is a time.
    fn number(&mut self) -> Option<Kind> {
        let horizon = std::mem::take(&mut self.horizon);
        let age = std::mem::take(&mut self.age);
        let offset = std::mem::take(&mut self.offset);
        if self.range || offset || horizon {
            return Some(Kind::Window);
        }
        age.then_some(Kind::Age)
    }

    fn sees(&mut self, word: &str) {
        if word.starts_with([' ', '\n', '=', '-']) {
            return;
        }
        let forecast = std::mem::take(&mut self.forecast);
        match word {
            "[" => self.range = true,
            "]" => self.range = false,
            "(" => self.open.push(forecast),
            ")" => {
                self.open.pop();
                self.horizon = false;
            }
            "," => self.horizon = self.open.last() == Some(&true),
            "<" | ">" => self.age = std::mem::take(&mut self.clock),
            "offset" => self.offset = true,
            "predict_linear" => self.forecast = true,
            "time" => self.clock = true,
            // Another comparison begins.
            "and" | "or" | "unless" => (self.clock, self.age) = (false, false),
            "bool" => {}
            _ => self.age = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let marked = rewrite(text, &mut |kind, token| format!("<{kind:?} {token}>"));
        assert_eq!(marked, expected);
    }

    #[test]
    fn windows() {
        check("rate(a:b_5m[5m])", "rate(a:b_5m[<Window 5m>])");
        check(
            "max_over_time(a[30m:1m])",
            "max_over_time(a[<Window 30m>:<Window 1m>])",
        );
        check("a offset 5m == 1", "a offset <Window 5m> == 1");
        check("a offset -5m", "a offset -<Window 5m>");
    }

    #[test]
    fn forecasts() {
        check(
            "predict_linear(vllm:kv[10m], 300) > 1",
            "predict_linear(vllm:kv[<Window 10m>], <Window 300>) > 1",
        );
        check(
            "histogram_quantile(0.95, sum by (le) (x))",
            "histogram_quantile(0.95, sum by (le) (x))",
        );
        check("round(x, 10)", "round(x, 10)");
    }

    #[test]
    fn ages_and_thresholds() {
        check(
            "(min by (i) (up) == 0 or max by (i) (time() - t) > 60) unless x == 0",
            "(min by (i) (up) == 0 or max by (i) (time() - t) > <Age 60>) unless x == 0",
        );
        check(
            "time() - t{a=~\"46|48\"} <= 600",
            "time() - t{a=~\"46|48\"} <= <Age 600>",
        );
        check("p95_5m > 30 and rate > 0.1", "p95_5m > 30 and rate > 0.1");
        check(
            "time() - t > 60 and x > 30",
            "time() - t > <Age 60> and x > 30",
        );
    }

    #[test]
    fn strings_are_left_alone() {
        check(
            r#"a{b="[5m] offset 5m"}[5m]"#,
            r#"a{b="[5m] offset 5m"}[<Window 5m>]"#,
        );
        check(
            r#"a{le=~"2\\.5",x="\"[1m]"}[5m]"#,
            r#"a{le=~"2\\.5",x="\"[1m]"}[<Window 5m>]"#,
        );
        check(r#"a{b=\"[5m]\"}[5m]"#, r#"a{b=\"[5m]\"}[<Window 5m>]"#);
    }
}
