//! Counts against the truth, from files that the scripts in `tests/tokens` write. Ignored unless they run them.

use std::fs;

use serde_json::Value;

use super::super::calibration::{Calibration, relative_error};
use super::super::counter::exactly;
use super::super::exact::Exact;
use super::super::template::Template;
use super::*;

fn lines() -> Vec<Value> {
    let path = std::env::var("TOKENS_LINES").expect("TOKENS_LINES names a file of JSON lines");
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Counts beside their truth.
#[derive(Default)]
struct Tally {
    pairs: Vec<(u64, u64)>,
    uncounted: usize,
}

impl Tally {
    fn add(&mut self, count: Option<u64>, truth: u64) {
        match count {
            Some(count) => self.pairs.push((count, truth)),
            None => self.uncounted += 1,
        }
    }

    fn median(&self) -> f64 {
        let mut errors: Vec<_> = self.errors().collect();
        errors.sort_by(f64::total_cmp);
        errors.get(errors.len() / 2).copied().unwrap_or_default()
    }

    fn errors(&self) -> impl Iterator<Item = f64> {
        self.pairs
            .iter()
            .map(|(count, truth)| relative_error(*count, *truth))
    }

    fn of_sum(&self) -> f64 {
        let sum = |side: fn(&(u64, u64)) -> u64| self.pairs.iter().map(side).sum::<u64>() as f64;
        sum(|pair| pair.0) / sum(|pair| pair.1) - 1.0
    }

    /// Prints, and answers the share of equal counts and the largest error.
    fn report(&self, what: &str) -> (f64, f64) {
        let equal = self.pairs.iter().filter(|(count, truth)| count == truth);
        let share = equal.count() as f64 / (self.pairs.len() + self.uncounted).max(1) as f64;
        let worst = self.errors().fold(0.0, f64::max);
        println!(
            "{what}: {} counted, {} not; equal {:.2} %, largest error {:.2} %, of the sum {:+.3} %",
            self.pairs.len(),
            self.uncounted,
            100.0 * share,
            100.0 * worst,
            100.0 * self.of_sum()
        );
        (share, worst)
    }
}

/// `exact.py`: requests, answers and usage of a real vLLM.
#[test]
#[ignore = "needs the answers of a vLLM"]
fn exact() {
    let tokenizer = std::env::var("TOKENS_TOKENIZER").expect("TOKENS_TOKENIZER names a folder");
    let model = config::TokenModel {
        names: vec!["tiny".to_owned()],
        tokenizer: tokenizer.into(),
        template: None,
    };
    let exact = Exact::load(&model).unwrap();
    let (mut input, mut whole, mut streams) =
        (Tally::default(), Tally::default(), Tally::default());
    for line in lines() {
        let endpoint = match line["path"].as_str().unwrap() {
            "/v1/completions" => Endpoint::Completions,
            _ => Endpoint::ChatCompletions,
        };
        let truth = |key: &str| line["usage"][key].as_u64().unwrap();
        let body = line["body"].to_string();
        let count = exact.prompt(endpoint, body.as_bytes());
        if count != Some(truth("prompt_tokens")) {
            println!(
                "input {count:?}, not {}: {:.300}",
                truth("prompt_tokens"),
                body
            );
        }
        input.add(count, truth("prompt_tokens"));
        let mut text = EstimateText::default();
        for (index, pieces) in (0..).zip(line["choices"].as_array().unwrap()) {
            let pieces = pieces.as_array().unwrap().iter();
            pieces.for_each(|piece| text.push(index, piece.as_str().unwrap()));
        }
        let count: u64 = text
            .choices()
            .map(|kept| exactly(&exact, kept).unwrap())
            .sum();
        let finish = line["finish"].as_array().unwrap().iter();
        let ends = finish.filter(|reason| *reason == "stop").count() as u64;
        // What is not a stream brings its usage, and is not counted at all; here it shows what a text alone tells.
        let tally = if line["body"]["stream"] == true {
            &mut streams
        } else {
            &mut whole
        };
        tally.add(Some(count + ends), truth("completion_tokens"));
    }
    let (equal, worst) = input.report("input");
    whole.report("output in one piece");
    let (equal_streams, worst_stream) = streams.report("output of streams");
    assert!(equal >= 0.99 && worst <= 0.01);
    assert!(equal_streams >= 0.99 && worst_stream <= 0.01);
}

/// `estimate.py`: texts with the counts of a model's tokenizer.
#[test]
#[ignore = "needs texts and their counts"]
fn estimates() {
    let (mut before, mut after) = (Tally::default(), Tally::default());
    let mut calibration = Calibration::default();
    let model = std::env::var("TOKENS_MODEL").unwrap_or_default();
    let encoding = Encoding::of_model(&model);
    for line in lines() {
        let truth = line["tokens"].as_u64().unwrap();
        let estimate = encoding.measure(line["text"].as_str().unwrap()).unwrap();
        if line["learn"].as_bool().unwrap() {
            calibration.learn(&model, Direction::Output, estimate, truth);
        } else {
            let corrected = calibration.apply(&model, Direction::Output, estimate);
            before.add(Some(estimate.count()), truth);
            after.add(Some(corrected), truth);
        }
    }
    for (what, tally) in [("before", &before), ("after", &after)] {
        let (of_sum, median) = (100.0 * tally.of_sum(), 100.0 * tally.median());
        let count = tally.pairs.len();
        println!(
            "{model} {what}: {count} texts, median error {median:.2} %, of the sum {of_sum:+.2} %"
        );
    }
    assert!(after.of_sum().abs() <= 0.03);
}

/// `templates.py`: what transformers renders.
#[test]
#[ignore = "needs prompts that transformers has rendered"]
fn templates() {
    let (mut equal, mut refused, mut lenient, mut wrong) = (0, 0, 0, 0);
    for line in lines() {
        let context = line["context"].as_object().unwrap();
        let tools = context["tools"].is_array();
        let template = Template::new(&line["template"]).unwrap();
        if template.wants_parts(tools) != line["parts"].as_bool().unwrap() {
            wrong += 1;
            println!("{}: parts, or not", line["label"]);
        }
        let rendered = template.render(tools, context);
        match (rendered, line["prompt"].as_str()) {
            (Ok(prompt), Some(want)) if prompt == want => equal += 1,
            (Err(_), None) => refused += 1,
            // vLLM refuses such a request; what it would have cost is never asked.
            (Ok(_), None) => lenient += 1,
            (got, want) => {
                wrong += 1;
                println!("{}:\n  {got:.600?}\n  {want:.600?}", line["label"]);
            }
        }
    }
    println!(
        "templates: {equal} equal, {refused} refused by both, {lenient} by transformers only, {wrong} different"
    );
    assert_eq!(wrong, 0);
}
