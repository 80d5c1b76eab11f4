use proptest::prelude::*;

use super::*;

type Events = Vec<(String, String)>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn split(reads: &[&[u8]], limit: usize) -> (Events, Splitter) {
    let mut splitter = Splitter::new(limit);
    let mut events = Vec::new();
    for read in reads {
        splitter.feed(read, |event| {
            events.push((text(event.name), text(event.data)))
        });
    }
    (events, splitter)
}

fn whole(stream: &[u8]) -> Events {
    split(&[stream], 1 << 20).0
}

fn bytewise(stream: &[u8]) -> Events {
    split(&stream.chunks(1).collect::<Vec<_>>(), 1 << 20).0
}

/// The specification's own algorithm, with the whole stream at hand.
fn by_the_book(stream: &[u8]) -> Events {
    let stream = stream.strip_prefix(&BOM).unwrap_or(stream);
    let stream = text(stream).replace("\r\n", "\n").replace('\r', "\n");
    let Some((complete, _)) = stream.rsplit_once('\n') else {
        return Vec::new();
    };
    let (mut events, mut name, mut data) = (Vec::new(), String::new(), String::new());
    for line in complete.split('\n') {
        if line.is_empty() {
            if let Some(data) = data.strip_suffix('\n') {
                events.push((name.clone(), data.to_owned()));
            }
            name.clear();
            data.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => data += &format!("{value}\n"),
            _ => {}
        }
    }
    events
}

#[test]
fn every_rule_of_the_format() {
    for (stream, want) in [
        ("data: a\n\n", vec![("", "a")]),
        ("data:a\r\n\r\n", vec![("", "a")]),
        ("data:  a\r\r", vec![("", " a")]),
        ("data: a\r\n\rdata: b\n\r\n", vec![("", "a"), ("", "b")]),
        ("data\n\n", vec![("", "")]),
        ("data\ndata\n\n", vec![("", "\n")]),
        ("data: a\n: comment\ndata: b\n\n", vec![("", "a\nb")]),
        (": keep-alive\n\n", vec![]),
        (
            "event: x\ndata: a\n\ndata: b\n\n",
            vec![("x", "a"), ("", "b")],
        ),
        ("event: x\n\ndata: b\n\n", vec![("", "b")]),
        (
            "id: 1\nretry: 5\ndatas: no\nDATA: no\ndata: a\n\n",
            vec![("", "a")],
        ),
        ("data: a\n\ndata: not dispatched", vec![("", "a")]),
        ("data: a\n\ndata: not dispatched\n", vec![("", "a")]),
        ("\u{feff}data: a\n\n", vec![("", "a")]),
        ("\u{feff}\u{feff}data: a\n\n", vec![]),
        (
            "\n\n\r\n\r\rdata: {\"a\":\":\"}\n\n",
            vec![("", "{\"a\":\":\"}")],
        ),
        ("abcd: x\nevent:\ndata: a\n\n", vec![("", "a")]),
    ] {
        let want: Events = want
            .iter()
            .map(|(name, data)| (name.to_string(), data.to_string()))
            .collect();
        assert_eq!(whole(stream.as_bytes()), want, "{stream:?}");
        assert_eq!(bytewise(stream.as_bytes()), want, "{stream:?} in bytes");
        assert_eq!(
            by_the_book(stream.as_bytes()),
            want,
            "{stream:?} by the book"
        );
    }
}

#[test]
fn what_only_begins_like_a_mark_is_text() {
    assert_eq!(
        bytewise(b"\xEF\xBBdata: a\n\ndata: b\n\n"),
        [(String::new(), "b".to_owned())]
    );
}

#[test]
fn a_whole_event_is_lent_and_nothing_is_held() {
    let read = b"data: {\"a\":1}\n\nevent: x\ndata: b\n\n";
    let range = read.as_ptr_range();
    let mut splitter = Splitter::new(0);
    let mut events = 0;
    splitter.feed(read, |event| {
        assert!(range.contains(&event.data.as_ptr()));
        events += 1;
    });
    assert_eq!((events, splitter.overflows()), (2, 0));
    assert_eq!(
        splitter.line.capacity() + splitter.data.capacity() + splitter.name.capacity(),
        0
    );
}

#[test]
fn a_large_carry_is_given_back() {
    let long = format!("data: {}\n\n", "x".repeat(100_000));
    let (head, tail) = long.as_bytes().split_at(70_000);
    let (events, splitter) = split(&[head, tail, b": idle\n\n"], 1 << 20);
    assert_eq!(events.len(), 1);
    assert!(splitter.line.capacity() + splitter.data.capacity() <= 2 * KEEP);
}

#[test]
fn an_event_over_the_limit_is_passed_over_to_its_end() {
    let stream = b"event: big\ndata: 0123456789abcdef\ndata: more\n\ndata: small\n\n";
    let (events, splitter) = split(&stream.chunks(1).collect::<Vec<_>>(), 24);
    assert_eq!(events, [(String::new(), "small".to_owned())]);
    assert_eq!(splitter.overflows(), 1);
    // Several data lines have to be joined, so they count though they came in one read.
    let (events, splitter) = split(&[stream], 16);
    assert_eq!(events, [(String::new(), "small".to_owned())]);
    assert_eq!(splitter.overflows(), 1);
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just("data: {\"content\":\"é\"}"),
        1 => Just("data"),
        1 => Just("data:"),
        1 => Just("data:  x"),
        1 => Just("data: [DONE]"),
        1 => Just("event: response.completed"),
        1 => Just("event"),
        1 => Just(": keep-alive"),
        1 => Just(":"),
        1 => Just("id: 7"),
        6 => Just(""),
    ];
    let end = prop_oneof![3 => Just("\n"), 1 => Just("\r\n"), 1 => Just("\r")];
    let start = prop_oneof![4 => Just(""), 1 => Just("\u{feff}")];
    (start, proptest::collection::vec((line, end), 0..40)).prop_map(|(start, lines)| {
        let lines = lines.iter().map(|(line, end)| format!("{line}{end}"));
        (start.to_owned() + &lines.collect::<String>()).into_bytes()
    })
}

fn cuts(stream: &[u8], at: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = at
        .iter()
        .map(|index| index.index(stream.len() + 1))
        .collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    at.windows(2)
        .map(|pair| stream[pair[0]..pair[1]].to_vec())
        .collect()
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_events(
        stream in lines(),
        at in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let want = by_the_book(&stream);
        prop_assert_eq!(whole(&stream), &want[..]);
        prop_assert_eq!(bytewise(&stream), &want[..]);
        let reads = cuts(&stream, &at);
        let reads: Vec<&[u8]> = reads.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(split(&reads, 1 << 20).0, want);
    }

    #[test]
    fn random_bytes_never_panic_and_stay_within_the_limit(
        stream in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), any::<u8>()], 0..300),
        limit in 0_usize..40,
        size in 1_usize..20,
    ) {
        let mut splitter = Splitter::new(limit);
        for read in stream.chunks(size) {
            splitter.feed(read, |_| {});
            let held = splitter.line.len() + splitter.data.len() + splitter.name.len();
            prop_assert!(held <= limit.max(BOM.len()), "{held} over {limit}");
        }
    }

    #[test]
    fn after_an_overflow_the_rest_is_read(before in lines(), limit in 0_usize..60) {
        let mut stream = before;
        stream.extend_from_slice(b"\n\ndata: x\n\n");
        let (events, _) = split(&stream.chunks(1).collect::<Vec<_>>(), limit + 16);
        prop_assert_eq!(events.last(), Some(&(String::new(), "x".to_owned())));
    }
}
