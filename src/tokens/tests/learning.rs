//! From usage that passes by to estimates that are nearer.

use std::sync::mpsc::Sender;

use super::*;

struct Watch(Sender<Result<Record, (String, Direction, f64)>>);

impl Sink for Watch {
    fn record(&self, done: Estimated) {
        self.0.send(Ok(done.record)).unwrap();
    }

    fn error(&self, model: &str, direction: Direction, share: f64) {
        self.0
            .send(Err((model.to_owned(), direction, share)))
            .unwrap();
    }
}

/// 4 tokens of tiktoken's to 8 of the model's.
const TEXT: &str = "one two three four";

fn with_usage() -> Record {
    Record {
        input_tokens: Some((44, TokenSource::Usage)),
        output_tokens: Some((8, TokenSource::Usage)),
        ..record(TEXT)
    }
}

fn cell() -> Arc<PromptCell> {
    let cell = PromptCell::default();
    let text = Features::tokens(22);
    cell.0
        .set(PromptCount::Estimate { text, media: false })
        .unwrap();
    Arc::new(cell)
}

#[test]
fn later_estimates_use_what_was_learned() {
    let (sender, results) = channel();
    let estimator = Estimator::start(&config(1024), Watch(sender)).unwrap();
    let mut last = Vec::new();
    for _ in 0..300 {
        let mut record = with_usage();
        let lesson = Lesson::of(&mut record, Some(cell())).unwrap();
        assert_eq!(record.text, None);
        estimator.learn(lesson);
        last = vec![results.recv().unwrap(), results.recv().unwrap()];
    }
    for (error, direction) in last.into_iter().zip([Direction::Input, Direction::Output]) {
        let (model, of, share) = error.unwrap_err();
        assert_eq!((model.as_str(), of), ("tiny", direction));
        assert!(share < 0.1, "{share}");
    }
    let job = Job {
        record: record(TEXT),
        prompt: Some(cell()),
        ticket: None,
    };
    estimator.finish(job).unwrap();
    let done = results.recv().unwrap().unwrap();
    assert_eq!(done.output_tokens, Some((8, TokenSource::Estimate)));
    assert_eq!(done.input_tokens, Some((44, TokenSource::Estimate)));
}

#[test]
fn what_teaches_nothing_is_no_lesson() {
    let of = |change: &dyn Fn(&mut Record), prompt| {
        let mut record = with_usage();
        change(&mut record);
        Lesson::of(&mut record, prompt)
    };
    assert!(of(&|_| (), None).is_some());
    assert!(of(&|record| record.text = None, Some(cell())).is_some());
    assert!(of(&|record| record.text = None, None).is_none());
    let partial = |record: &mut Record| {
        record.input_tokens = Some((1, TokenSource::Partial));
        record.output_tokens = Some((1, TokenSource::Partial));
    };
    assert!(of(&partial, Some(cell())).is_none());
    let nameless = |record: &mut Record| record.served_model = None;
    assert!(of(&nameless, Some(cell())).is_none());
    let failed = |record: &mut Record| {
        record.outcome = Outcome::Cancelled(crate::outcome::Phase::Streaming);
    };
    assert!(of(&failed, Some(cell())).is_none());
}

#[test]
fn pictures_and_cut_texts_teach_nothing() {
    let (sender, results) = channel();
    let mut counter = Counter::new(&[], Box::new(Watch(sender)));
    let mut record = with_usage();
    record.text.as_mut().unwrap().truncated = true;
    let cell = PromptCell::default();
    let text = Features::tokens(22);
    cell.0
        .set(PromptCount::Estimate { text, media: true })
        .unwrap();
    counter.learn(Lesson::of(&mut record, Some(Arc::new(cell))).unwrap());
    // Never counted: the queue was full.
    let mut record = with_usage();
    record.text = None;
    counter.learn(Lesson::of(&mut record, Some(Arc::default())).unwrap());
    drop(counter);
    assert!(results.recv().is_err());
}

#[test]
fn there_is_no_learning_while_others_wait() {
    let (held, hold) = channel::<()>();
    let (took, taken) = channel();
    let sink = move |_: Estimated| {
        took.send(()).unwrap();
        let _ = hold.recv();
    };
    let estimator = Estimator::start(&config(4), sink).unwrap();
    let job = || Job {
        record: record("x"),
        prompt: None,
        ticket: None,
    };
    assert!(estimator.wants_sample("tiny"));
    estimator.finish(job()).unwrap();
    taken.recv().unwrap();
    estimator.finish(job()).unwrap();
    assert!(estimator.wants_sample("tiny"));
    estimator.finish(job()).unwrap();
    assert!(!estimator.wants_sample("tiny"));
    estimator.learn(Lesson::of(&mut with_usage(), None).unwrap());
    assert_eq!(estimator.dropped(), 0);
    drop(held);
}
