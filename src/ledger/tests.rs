use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;

fn tokens(input: u64, output: u64) -> Tokens {
    Tokens { input, output }
}

/// An engine, and what is asked of it through the proxy and beside it.
#[derive(Default)]
struct World {
    ledger: Arc<Ledger>,
    engine: Tokens,
    started: Option<f64>,
    bypass: Tokens,
    counted: Tokens,
    running: VecDeque<(Ticket, Tokens)>,
}

impl World {
    fn begin(&mut self) {
        self.running
            .push_back((self.ledger.ticket(), Tokens::default()));
    }

    /// The engine works for a request, which is told only at its end.
    fn work(&mut self, which: usize, done: Tokens) {
        if let Some((_, sum)) = self.running.get_mut(which) {
            *sum += done;
            self.engine += done;
        }
    }

    fn end(&mut self, which: usize) {
        if let Some((ticket, sum)) = self.running.remove(which) {
            ticket.add(sum);
        }
    }

    fn lose(&mut self, which: usize) {
        if let Some((ticket, _)) = self.running.remove(which) {
            ticket.lose(SOON);
        }
    }

    fn bypass(&mut self, done: Tokens) {
        self.engine += done;
        self.bypass += done;
    }

    fn restart(&mut self) {
        while !self.running.is_empty() {
            self.end(0);
        }
        self.engine = Tokens::default();
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Begin => self.begin(),
            Event::Work(at, input, output) => self.work(at, tokens(input, output)),
            Event::End(at) => self.end(at),
            Event::Lose(at) => self.lose(at),
            Event::Bypass(input, output) => self.bypass(tokens(input, output)),
            Event::Read => self.read(),
            Event::Ask => self.ledger.asking(),
            Event::Restart => self.restart(),
        }
    }

    fn read(&mut self) {
        self.counted += self.ledger.read(self.engine, self.started);
    }
}

#[derive(Clone, Debug)]
enum Event {
    Begin,
    Work(usize, u64, u64),
    End(usize),
    /// With a count that nobody knows.
    Lose(usize),
    Bypass(u64, u64),
    Read,
    Ask,
    /// With all that it was at.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Begin),
        4 => (0..6_usize, 0..50_u64, 0..50_u64).prop_map(|(at, i, o)| Event::Work(at, i, o)),
        3 => (0..6_usize).prop_map(Event::End),
        1 => (0..9_u64, 0..9_u64).prop_map(|(i, o)| Event::Bypass(i, o)),
        3 => Just(Event::Read),
    ]
}

fn trouble() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => event(),
        4 => Just(Event::Ask),
        1 => (0..6_usize).prop_map(Event::Lose),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    #[test]
    fn never_too_much_and_exact_once_quiet(events in prop::collection::vec(event(), 0..400)) {
        let mut world = World::default();
        world.read();
        for event in events {
            world.happens(&event);
            prop_assert!(world.counted.input <= world.bypass.input);
            prop_assert!(world.counted.output <= world.bypass.output);
        }
        while !world.running.is_empty() {
            world.end(0);
        }
        world.read();
        world.read();
        prop_assert_eq!(world.counted, world.bypass);
    }

    #[test]
    fn never_too_much_whatever_happens(events in prop::collection::vec(trouble(), 0..400)) {
        let mut world = World::default();
        for event in events {
            world.happens(&event);
            prop_assert!(world.counted.input <= world.bypass.input);
            prop_assert!(world.counted.output <= world.bypass.output);
        }
    }
}

#[test]
fn a_request_in_flight_is_not_unaccounted() {
    let mut world = World::default();
    world.read();
    world.begin();
    for _ in 0..200 {
        // More readings than there are epochs.
        world.work(0, tokens(1, 1));
        world.read();
        assert_eq!(world.counted, Tokens::default());
    }
    world.bypass(tokens(5, 7));
    world.end(0);
    world.read();
    world.read();
    assert_eq!(world.counted, tokens(5, 7));
}

#[test]
fn what_was_under_way_at_the_first_reading_is_no_false_alarm() {
    let mut world = World::default();
    world.begin();
    world.begin();
    world.work(0, tokens(10, 10));
    world.work(1, tokens(10, 10));
    world.end(0);
    world.read();
    world.work(0, tokens(0, 30));
    world.end(0);
    world.read();
    world.read();
    assert_eq!(world.counted, Tokens::default());
}

#[test]
fn a_restart_opens_the_books_anew_and_takes_nothing_back() {
    let mut world = World::default();
    world.read();
    world.bypass(tokens(100, 100));
    world.read();
    assert_eq!(world.counted, tokens(100, 100));
    // Lost with the process: the reading never saw these.
    world.begin();
    world.end(0);
    world.engine = tokens(3, 0);
    world.read();
    world.bypass(tokens(4, 9));
    world.read();
    assert_eq!(world.counted, tokens(104, 109));
}

#[test]
fn what_ended_before_the_first_reading_is_left_out() {
    let mut world = World::default();
    world.begin();
    world.work(0, tokens(1000, 1000));
    world.end(0);
    world.ledger.asking();
    world.read();
    world.bypass(tokens(2, 3));
    world.read();
    assert_eq!(world.counted, tokens(2, 3));
}

#[test]
fn a_new_engines_first_request_is_no_false_alarm() {
    let mut world = World::default();
    world.bypass(tokens(50, 50));
    world.read();
    world.restart();
    world.begin();
    world.work(0, tokens(9, 9));
    world.end(0);
    world.read();
    world.read();
    assert_eq!(world.counted, Tokens::default());
}

#[test]
fn engines_that_answer_in_turn_are_not_taken_for_one() {
    let mut world = World::default();
    let engines = [(tokens(10, 10), Some(1.0)), (tokens(5000, 5000), Some(2.0))];
    for _ in 0..20 {
        for (engine, started) in engines {
            (world.engine, world.started) = (engine, started);
            world.read();
        }
    }
    assert_eq!(world.counted, Tokens::default());
}

#[test]
fn a_request_of_unknown_count_is_nobody_elses_and_hides_nothing_later() {
    let mut world = World::default();
    world.read();
    world.begin();
    world.begin();
    world.work(0, tokens(20, 30));
    world.work(1, tokens(5, 5));
    world.ledger.asking();
    world.lose(0);
    // It has ended since the question, and is in the answer.
    world.read();
    for _ in 0..SOON {
        world.ledger.asking();
        world.read();
    }
    assert_eq!(world.ledger.reopened(), u64::from(SOON));
    world.end(0);
    world.ledger.asking();
    world.read();
    world.read();
    assert_eq!(world.counted, Tokens::default());
    // All that stays is what the other had had by then.
    world.bypass(tokens(100, 100));
    world.read();
    assert_eq!(world.counted, tokens(95, 95));
    assert_eq!(world.ledger.reopened(), 0);
}

#[test]
fn what_is_in_no_record_is_unknown() {
    let counts = Some((1, TokenSource::Usage));
    let record = |endpoint, input_tokens, output_tokens, outcome| Record {
        input_tokens,
        output_tokens,
        ..Record::bare(endpoint, outcome)
    };
    let cases = [
        (Endpoint::Audio, None, None, Outcome::Success, false),
        (
            Endpoint::Completions,
            counts,
            counts,
            Outcome::Success,
            true,
        ),
        (Endpoint::Completions, counts, None, Outcome::Success, false),
        (Endpoint::Embeddings, counts, None, Outcome::Success, true),
        (Endpoint::Pooling, None, None, Outcome::Success, false),
        (
            Endpoint::Completions,
            None,
            None,
            Outcome::Error(ErrorType::InternalError),
            false,
        ),
        (
            Endpoint::Completions,
            None,
            None,
            Outcome::Error(ErrorType::UpstreamConnect),
            true,
        ),
    ];
    for (endpoint, input, output, outcome, counted) in cases {
        let record = record(endpoint, input, output, outcome);
        assert_eq!(is_counted(&record), counted, "{record:?}");
        let ledger = Arc::new(Ledger::default());
        ledger.ticket().book(&record);
        assert_eq!(ledger.unknown.load(SeqCst) == 0, counted);
        for (work, left) in [(Work::Refused, 0), (Work::More, SOON), (Work::Later, LATE)] {
            let ledger = Arc::new(Ledger::default());
            let mut ticket = ledger.ticket();
            ticket.work(work);
            ticket.book(&record);
            assert_eq!(ledger.unknown.load(SeqCst), left);
        }
    }
}

#[test]
fn an_estimate_counts_with_a_quarter_on_top() {
    assert_eq!(at_most(Some((10, TokenSource::Estimate))), 13);
    assert_eq!(at_most(Some((10, TokenSource::Usage))), 10);
    assert_eq!(at_most(None), 0);
}

#[test]
fn threads_that_begin_while_it_is_read_are_not_missed() {
    let ledger = Arc::new(Ledger::default());
    let engine = Arc::new(Epoch::default());
    let over = Arc::new(AtomicBool::new(false));
    ledger.read(Tokens::default(), None);
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (ledger, engine) = (Arc::clone(&ledger), Arc::clone(&engine));
            thread::spawn(move || {
                for _ in 0..20_000 {
                    let ticket = ledger.ticket();
                    engine.output.fetch_add(3, SeqCst);
                    ticket.add(tokens(0, 3));
                }
            })
        })
        .collect();
    let reader = {
        let (ledger, engine, over) = (Arc::clone(&ledger), Arc::clone(&engine), Arc::clone(&over));
        thread::spawn(move || {
            let mut sum = 0;
            while !over.load(Ordering::Relaxed) {
                sum += ledger
                    .read(tokens(0, engine.output.load(SeqCst)), None)
                    .output;
            }
            sum
        })
    };
    for worker in workers {
        worker.join().unwrap();
    }
    over.store(true, Ordering::Relaxed);
    assert_eq!(reader.join().unwrap(), 0);
    assert_eq!(ledger.read(tokens(0, 180_000), None), Tokens::default());
}
